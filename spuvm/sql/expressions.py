"""Expressions of the parsed query as typed expressions of columns, and which of them an owner computes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlglot
from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql import functions
from spuvm.sql.bringing import brought
from spuvm.sql.clauses import key_of
from spuvm.sql.instead import INSTEAD_OF_AGGREGATES, instead
from spuvm.sql.literals import VARYING, dialect, literal, plain, varies
from spuvm.sql.operators import HANDLERS
from spuvm.sql.plan import Expr
from spuvm.sql.remade import REMADE
from spuvm.sql.scope import Bases, Relation, Scope
from spuvm.sql.sizes import SIZES, length

AGGREGATES: dict[type[Any], str] = {
    exp.Sum: "sum",
    exp.Count: "count",
    exp.Avg: "avg",
    exp.Min: "min",
    exp.Max: "max",
    exp.Stddev: "stddev",
    exp.StddevSamp: "stddev",
    exp.StddevPop: "stddev_pop",
    exp.Variance: "variance",
    exp.VariancePop: "var_pop",
    exp.Median: "median",
    exp.PercentileCont: "quantile_cont",
    exp.LogicalOr: "bool_or",
    exp.LogicalAnd: "bool_and",
    exp.CountIf: "count_if",
}


SAFE = frozenset({"col", "lit", "=", "<>", "<", ">", "<=", ">=", "is null", "and", "or", "not", "case", "coalesce"})
SAFE |= {"greatest", "least", "in"}

# What a function could read columns by that it does not name: an owner's rules would not see them.
UNSEEN = (exp.Select, exp.Subquery, exp.Window, exp.AggFunc, exp.Star, exp.Columns, exp.Parameter, exp.Placeholder)
HIDDEN = frozenset({"columns", "query", "query_table", "getvariable", "getenv"})


class Binder:
    """Binds the expressions of one SELECT: `scope` has its names, `select` what subqueries, aggregates and windows
    need.

    `known`: expressions that are columns already (group keys, aliases), by their text.
    """

    def __init__(self, bases: Bases, scope: Scope, select: Any = None) -> None:
        self.bases = bases
        self.scope = scope
        self.select = select
        self.known: dict[str, Expr] = {}

    def bind(self, node: Any) -> Expr:
        """The expression, typed.

        Raises:
            InputError: for unknown names, types that do not fit, and functions that are not there.
        """
        self.bases.count_part()
        if self.known and (found := self.known.get(self._key(node))) is not None:
            return found
        for kind, name in AGGREGATES.items():
            if isinstance(node, kind):
                if self.select is None:
                    raise InputError(f"`{node.sql('duckdb')}`: an aggregate cannot be used here.")
                call: Expr = self.select.aggregate(node, name)
                return call
        if isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window) and type(node) not in HANDLERS:
            known = f"there are {', '.join(sorted({*AGGREGATES.values(), 'any_value'}))}"
            instead = INSTEAD_OF_AGGREGATES.get(type(node), known)
            raise InputError(f"`{node.sql('duckdb')}`: this aggregate is not supported: {instead}.")
        if not node.find(*VARYING):
            return self.constant(node)
        if (listed := self._listed(node)) is not None:
            return listed
        handler: Any = HANDLERS.get(type(node))
        if handler is None or isinstance(node.this, exp.Interval) or isinstance(node.expression, exp.Interval):
            return self.opaque(node)
        made: Expr = handler(self, node)
        return made

    def _key(self, node: Any) -> str:
        return key_of(node)

    def _listed(self, node: Any) -> Expr | None:
        """What a table of shares holds of this expression, if it was computed when the table was shared."""
        for relation in self.scope.relations:
            found = relation.listed.get(listed_key(node)) if relation.listed else None
            if found is not None and all(self._is_of(c, relation) for c in node.find_all(exp.Column)):
                return found
        return None

    def _is_of(self, node: exp.Column, relation: Relation) -> bool:
        return self.scope.column(node.name, node.table or None).value in relation.names

    # Building ---------------------------------------------------------------------------------------------------

    def call(self, op: str, args: Sequence[Expr], node: Any, value: Any = None, sql: str | None = None) -> Expr:
        """A function of expressions; of constants alone, its value. `sql`: how an owner writes it, if not as `node`."""
        try:
            return self._call(op, args, node, value, sql)
        except InputError as error:
            if "in `" in str(error):
                raise
            raise InputError(f"in `{node.sql('duckdb')}`: {error}") from None

    def _call(self, op: str, args: Sequence[Expr], node: Any, value: Any, sql: str | None) -> Expr:
        sources = frozenset().union(*(a.sources for a in args)) if args else frozenset()
        local = all(a.sql is not None for a in args) and len(sources) <= 1
        sql = (sql or f"({dialect(node)})") if local else None
        if local and not sources and args:
            return self.constant(node)
        if op in ("=", "<>", "<", ">", "<=", ">=", "in", "case", "coalesce", "greatest", "least") and not (
            local and sources
        ):
            args = self._comparable(op, args)
        divides = op in functions.NULL_BY_ZERO and args[1].op == "lit" and args[1].value not in (0, None)
        fails = local and self.bases.guards(sources) and not (op in SAFE and all(_is_safe(a) for a in args))
        return Expr(
            op,
            tuple(args),
            functions.FUNCTIONS[op].typed([a.type for a in args], value),
            functions.nullable(op, [a.nullable for a in args], divides) or fails,
            value,
            sql,
            sources,
            frozenset().union(*(a.origin for a in args)) if args else frozenset(),
        )

    def _comparable(self, op: str, args: Sequence[Expr]) -> list[Expr]:
        """Text by different codes as text, of the same length in all; see `words`. What an owner computes has a code
        from where it becomes a column on."""
        half = len(args) // 2 if op == "case" else 0
        args = [self.bases.push(a) if a.type.kind == "text" else a for a in args]
        texts = [a for a in args[half:] if a.type.kind == "text"]
        if len({a.type.dictionary for a in texts}) > 1 or any(a.op == "lit" for a in texts):
            args[half:] = [words(a) if a.type.kind == "text" else a for a in args[half:]]
        return args

    def constant(self, node: Any) -> Expr:
        return self.constants([node])[0]

    def constants(self, nodes: Sequence[Any]) -> list[Expr]:
        """What no row changes, typed: DuckDB is asked of all at once."""
        if (varying := next(filter(varies, nodes), None)) is not None:
            raise InputError(
                f"`{varying.sql('duckdb')}` is another value at each party: pass the time, or the number, in "
                "`parameters`."
            )
        sqls, known = [dialect(n) for n in nodes], [plain(n) for n in nodes]
        asked = iter(self.bases.catalog.constants([sql for sql, said in zip(sqls, known) if said is None]))
        return [literal(*(said or next(asked)), sql) for sql, said in zip(sqls, known)]

    def opaque(self, node: Any) -> Expr:
        """A function that only DuckDB knows: of one owner's columns."""
        what = f"`{node.sql('duckdb')}`"
        inside = node.find(*UNSEEN) is not None or any(f.name.lower() in HIDDEN for f in node.find_all(exp.Anonymous))
        columns = [] if inside else [self.bind(c) for c in node.find_all(exp.Column)]
        sources = frozenset().union(*(c.sources for c in columns))
        if inside or len(sources) != 1 or any(c.sql is None for c in columns):
            if not inside and (above := self._above(node, columns, what)) is not None:
                return above
            remade = REMADE.get(type(node))
            if remade is not None and (made := remade(self, node)) is not None:
                return made
            raise InputError(f"{what}: {instead(node)}")
        return self._at_owner(node, columns, what)

    def _above(self, node: Any, columns: Sequence[Expr], what: str) -> Expr | None:
        """A function of one table's columns above a subquery or an outer join: its owner computes it below. Beyond an
        outer join it must give NULL of NULLs, as a row that is not there has. None if that is not so."""
        if not columns or (self.select is not None and self.select.grouping):
            return None
        own = [self.bases.columns[c.value] for c in columns if c.op == "col" and c.value in self.bases.columns]
        relations = {id(r): r for c in columns for r in self.scope.relations if r.has(c)}
        if len(own) < len(columns) or len({c.sources for c in own}) != 1 or len(relations) != 1:
            return None
        written = _of_owner(node, own)
        made = self._at_owner(written, own, what)
        base = self.bases.known[next(iter(made.sources))]
        pushed, (relation,) = self.bases.push(made), relations.values()
        found = brought(self.bases, relation.node, base.node, pushed)
        if found is None:
            return None
        name, extended = found
        named = {c.name for c in written.find_all(exp.Column)}
        if extended and self.bases.catalog.of_nulls(dialect(written), base.table.name, named, what) is not None:
            return None
        return replace(pushed, value=name, nullable=True)

    def _at_owner(self, node: Any, columns: Sequence[Expr], what: str) -> Expr:
        sources = frozenset().union(*(c.sources for c in columns))
        table = self.bases.known[next(iter(sources))].table
        named = {c.name for c in node.find_all(exp.Column)}
        type_ = self.bases.catalog.type_of(dialect(node), table.name, named, what)
        if type_.kind == "text":
            type_ = replace(type_, words=length(node, columns, type_))
        elif type_.kind == "int" and type(node) in SIZES:
            most = SIZES[type(node)](node, columns)
            type_ = type_.within(max(type_.lo, -most), min(type_.hi, most))
        origin = frozenset().union(*(c.origin for c in columns))
        return Expr("sql", tuple(columns), type_, True, dialect(node), f"({dialect(node)})", sources, origin)


def _of_owner(node: Any, own: Sequence[Expr]) -> Any:
    """The node with the columns of a subquery as its owner has or computes them."""
    plain = node.copy()
    for column, expr in zip(list(plain.find_all(exp.Column)), own):
        column.replace(exp.paren(sqlglot.parse_one(str(expr.sql), dialect="duckdb"), copy=False))
    return plain


def _is_safe(expr: Expr) -> bool:
    """Whether DuckDB can compute it of any cell."""
    return all(e.op in SAFE for e in expr.walk())


def listed_key(node: Any) -> str:
    """Text by which an expression of one table is found among those that were computed when it was shared."""
    plain = node.copy()
    for column in plain.find_all(exp.Column):
        column.set("table", None)
    return key_of(plain.unnest())


def words(expr: Expr) -> Expr:
    """Text by code as its words: the machine looks them up in the owner's dictionary."""
    if expr.type.kind != "text" or expr.type.dictionary is None:
        return expr
    type_ = replace(expr.type, dictionary=None)
    return Expr("words", (expr,), type_, expr.nullable, expr.type.dictionary, None, frozenset(), expr.origin)
