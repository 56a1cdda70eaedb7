"""Expressions of the parsed query as typed expressions of columns: a handler for each kind of node in `HANDLERS`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql import functions
from spuvm.sql.clauses import key_of
from spuvm.sql.dates import DAY
from spuvm.sql.plan import Expr
from spuvm.sql.remade import REMADE
from spuvm.sql.scope import Bases, Relation, Scope
from spuvm.sql.types import BOOL, LIMIT, NULL, WORD, Type, decimal, from_duckdb, integer, raw, text

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
SAFE |= {"greatest", "least"}

# What a function could read columns by that it does not name: an owner's rules would not see them.
UNSEEN = (exp.Select, exp.Subquery, exp.Window, exp.AggFunc, exp.Star, exp.Columns, exp.Parameter, exp.Placeholder)
HIDDEN = frozenset({"columns", "query", "query_table", "getvariable", "getenv"})

MOMENTS = frozenset({"now", "today", "get_current_timestamp", "get_current_time", "transaction_timestamp"})
MOMENTS |= {"current_localtimestamp", "current_localtime", "random", "uuidv4", "uuidv7", "nextval", "currval"}
OF_THE_MOMENT = (exp.CurrentTimestamp, exp.CurrentTime, exp.CurrentDatetime, exp.CurrentDate, exp.Rand, exp.Uuid)
VARYING = (exp.Column, exp.Select, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter)


def varies(node: Any) -> bool:
    """Whether a function in it gives something else whenever it is asked."""
    called = {f.name.lower() for f in node.find_all(exp.Anonymous)}
    return node.find(*OF_THE_MOMENT) is not None or bool(called & MOMENTS)


def dialect(node: Any) -> str:
    """As DuckDB writes it, without the names of tables."""
    plain = node.copy()
    for column in plain.find_all(exp.Column):
        column.set("table", None)
        column.this.set("quoted", True)
    return str(plain.sql("duckdb"))


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

    def call(self, op: str, args: Sequence[Expr], node: Any, value: Any = None) -> Expr:
        """A function of expressions; of constants alone, its value."""
        try:
            return self._call(op, args, node, value)
        except InputError as error:
            if "in `" in str(error):
                raise
            raise InputError(f"in `{node.sql('duckdb')}`: {error}") from None

    def _call(self, op: str, args: Sequence[Expr], node: Any, value: Any) -> Expr:
        sources = frozenset().union(*(a.sources for a in args)) if args else frozenset()
        local = all(a.sql is not None for a in args) and len(sources) <= 1
        sql = f"({dialect(node)})" if local else None
        if local and not sources and args:
            return self.constant(node)
        if op in ("=", "<>", "<", ">", "<=", ">=", "case", "coalesce", "greatest", "least") and not (local and sources):
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
        if varies(node):
            raise InputError(
                f"`{node.sql('duckdb')}` is another value at each party: pass the time, or the number, in `parameters`."
            )
        sql = dialect(node)
        value, type_name = self.bases.catalog.constant(sql)
        return literal(value, type_name, sql)

    def opaque(self, node: Any) -> Expr:
        """A function that only DuckDB knows: of one owner's columns."""
        what = f"`{node.sql('duckdb')}`"
        inside = node.find(*UNSEEN) is not None or any(f.name.lower() in HIDDEN for f in node.find_all(exp.Anonymous))
        columns = [] if inside else [self.bind(c) for c in node.find_all(exp.Column)]
        sources = frozenset().union(*(c.sources for c in columns))
        if inside or len(sources) != 1 or any(c.sql is None for c in columns):
            if not inside and (extended := self._null_extended(node, columns, what)) is not None:
                return extended
            remade = REMADE.get(type(node))
            if remade is not None and (made := remade(self, node)) is not None:
                return made
            raise InputError(f"{what}: {_instead(node)}")
        return self._at_owner(node, columns, what)

    def _null_extended(self, node: Any, columns: Sequence[Expr], what: str) -> Expr | None:
        """A function of one table's columns beyond an outer join: its owner computes it of the rows that are there; it
        gives NULL of NULLs, as a row that is not there has. None if that is not so."""
        if self.select is not None and self.select.grouping:
            return None
        known = [self.bases.columns.get(c.value) if c.op == "col" else None for c in columns]
        own = [c for c in known if c is not None]
        if len(own) < len(known) or len({c.sources for c in own}) != 1:
            return None
        made = self._at_owner(node, own, what)
        table = self.bases.known[next(iter(made.sources))].table
        named = {c.name for c in node.find_all(exp.Column)}
        if self.bases.catalog.of_nulls(dialect(node), table.name, named, what) is not None:
            return None
        return replace(self.bases.push(made), nullable=True)

    def _at_owner(self, node: Any, columns: Sequence[Expr], what: str) -> Expr:
        sources = frozenset().union(*(c.sources for c in columns))
        table = self.bases.known[next(iter(sources))].table
        named = {c.name for c in node.find_all(exp.Column)}
        type_ = self.bases.catalog.type_of(dialect(node), table.name, named, what)
        if type_.kind == "text":
            type_ = replace(type_, words=_length(node, columns, type_))
        elif type_.kind == "int" and type(node) in SIZES:
            most = SIZES[type(node)](node, columns)
            type_ = type_.within(max(type_.lo, -most), min(type_.hi, most))
        origin = frozenset().union(*(c.origin for c in columns))
        return Expr("sql", tuple(columns), type_, True, dialect(node), f"({dialect(node)})", sources, origin)


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


def literal(value: Any, type_name: str, sql: str | None = None) -> Expr:
    """A constant as DuckDB gave it."""
    if value is None:
        return Expr("lit", (), NULL, True, None, sql)
    type_ = from_duckdb(type_name, f"`{sql}`")
    if type_.kind == "text":
        type_ = text(max(1, len(str(value).encode())))
    elif type_.kind == "date" and isinstance(value, dt.datetime):
        value = value.date()
    if type_.is_integer:
        number = raw(value, type_)
        type_ = type_.within(number, number)
    return Expr("lit", (), type_, False, value, sql)


def _length(node: Any, columns: Sequence[Expr], type_: Type) -> int:
    """Words of text that a function of DuckDB gives: no more than its arguments together and its constants have."""
    if isinstance(node, exp.Substring) and isinstance(node.args.get("length"), exp.Literal):
        return min(text(4 * int(node.args["length"].name)).words, max(c.type.words for c in columns))
    constants = sum(len(x.name.encode()) for x in node.find_all(exp.Literal) if x.is_string)
    longest = sum(c.type.words for c in columns if c.type.kind == "text") + text(max(1, constants)).words
    return max(longest, type_.words)


def _days(node: exp.DateDiff, columns: Sequence[Expr]) -> int:
    whole = str(node.args.get("unit")).upper() in ("DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
    return 1 << 22 if whole and all(c.type.kind == "date" for c in columns) else LIMIT


def _letters(node: exp.Length, columns: Sequence[Expr]) -> int:
    return WORD * columns[0].type.words if isinstance(node.this, exp.Column) else LIMIT


# The largest magnitude of what DuckDB's functions give as BIGINT.
SIZES: dict[type[Any], Callable[[Any, Sequence[Expr]], int]] = {exp.DateDiff: _days, exp.Length: _letters}

INSTEAD = {
    exp.Like: "patterns are matched by the owner of a column: use it on a column of a table itself",
    exp.ILike: "patterns are matched by the owner of a column: use it on a column of a table itself",
    exp.Substring: "parts of text are taken by the owner of a column: use it on a column of a table itself",
}


FIRST_OF_GROUP = "number the rows of each group, and keep the first, QUALIFY row_number() OVER (PARTITION BY g ORDER BY"
WHOLE_GROUP = (
    "how long it is depends on the rows: select them, ORDER BY the group, and put them together where they arrive"
)
OF_SUMS = (
    "write it out in sums of DECIMAL, count(*) * sum(x * y) - sum(x) * sum(y): doubles here have too few digits for it"
)
INSTEAD_OF_AGGREGATES: dict[type[Any], str] = {
    exp.GroupConcat: WHOLE_GROUP,
    exp.ArrayAgg: WHOLE_GROUP,
    exp.Mode: f"count each value in a subquery, then {FIRST_OF_GROUP} n DESC, value) = 1",
    exp.ArgMax: f"{FIRST_OF_GROUP} y DESC) = 1",
    exp.ArgMin: f"{FIRST_OF_GROUP} y) = 1",
    exp.First: f"{FIRST_OF_GROUP} y) = 1",
    exp.Last: f"{FIRST_OF_GROUP} y DESC) = 1",
    exp.ApproxDistinct: "write count(DISTINCT x), which is exact",
    exp.PercentileDisc: "write quantile_cont(x, 0.5), or median(x)",
    exp.Quantile: "write quantile_cont(x, 0.5), or median(x)",
    **dict.fromkeys((exp.Corr, exp.CovarPop, exp.CovarSamp), OF_SUMS),
}


def _instead(node: Any) -> str:
    text_ = INSTEAD.get(type(node))
    if text_ is None:
        known = ", ".join(sorted(k for k in functions.FUNCTIONS if k.isalpha() and k != "later"))
        text_ = (
            "the parties have no such function of values that several of them hold. Use it on one table's own "
            "columns, or "
            f"one of + - * / // % = <> < > <= >= is null, case, {known}"
        )
    return text_ + "."


# Handlers -------------------------------------------------------------------------------------------------------


def _column(b: Binder, node: exp.Column) -> Expr:
    if isinstance(node.this, exp.Star):
        raise InputError("`*` cannot be used here.")
    return b.scope.column(node.name, node.table or None)


def _binary(op: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: exp.Binary) -> Expr:
        x, y = b.bind(node.this), b.bind(node.expression)
        return b.call(op, _coerced(b, op, x, y), node)

    return handle


def _coerced(b: Binder, op: str, x: Expr, y: Expr) -> list[Expr]:
    """A text constant beside a date or number is one, as DuckDB takes it."""
    out = []
    for one, other in ((x, y), (y, x)):
        if (
            one.op == "lit"
            and one.type.kind == "text"
            and other.type.kind in ("date", "timestamp", "int", "decimal", "float")
        ):
            wanted = {"date": "DATE", "timestamp": "TIMESTAMP", "float": "DOUBLE"}.get(other.type.kind, "BIGINT")
            if other.type.kind == "decimal":
                wanted = f"DECIMAL(18,{other.type.scale})"
            sql = f"CAST({one.sql} AS {wanted})"
            value, name = b.bases.catalog.constant(sql)
            one = literal(value, name, sql)
        out.append(one)
    return out


def _variadic(op: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: exp.Func) -> Expr:
        args = [b.bind(a) for a in (node.this, *node.expressions) if a is not None]
        return b.call(op, args, node)

    return handle


def _unary(op: str) -> Callable[[Binder, Any], Expr]:
    return lambda b, node: b.call(op, [b.bind(node.this)], node)


def _connective(op: str) -> Callable[[Binder, Any], Expr]:
    return lambda b, node: b.call(op, [b.bind(a) for a in node.flatten()], node)


def _between(b: Binder, node: exp.Between) -> Expr:
    low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
    high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
    return b.bind(exp.and_(low, high))


def _in(b: Binder, node: exp.In) -> Expr:
    if node.args.get("query") is not None:
        assert b.select is not None
        marked: Expr = b.select.in_query(node)
        return marked
    if not node.expressions:  # of a list
        return b.opaque(node)
    values = [cell for x in node.expressions for cell in _written(x)]
    tests = [exp.EQ(this=node.this.copy(), expression=x.copy()) for x in values]
    return b.bind(exp.or_(*tests)) if len(tests) > 1 else b.bind(tests[0])


def _written(x: Any) -> list[Any]:
    """The cells of IN (VALUES (...), ...), or the value itself."""
    if not isinstance(x, exp.Values):
        return [x]
    rows = [r.expressions if isinstance(r, exp.Tuple) else [r] for r in x.expressions]
    if any(len(r) != 1 for r in rows):
        raise InputError(f"`{x.sql('duckdb')[:60]}` in IN has rows of several columns: it must give one.")
    return [r[0] for r in rows]


def _is(b: Binder, node: exp.Is) -> Expr:
    x = b.bind(node.this)
    if isinstance(node.expression, exp.Null):
        return b.call("is null", [x], node)
    false = Expr("lit", (), BOOL, False, False, "false")
    true = b.call("coalesce", [x, false], exp.Coalesce(this=node.this.copy(), expressions=[exp.false()]))
    if isinstance(node.expression, exp.Boolean):
        if node.expression.this:
            return true
        opposite = exp.Not(this=node.this.copy())
        return b.call(
            "coalesce",
            [b.call("not", [x], opposite), false],
            exp.Coalesce(this=opposite.copy(), expressions=[exp.false()]),
        )
    raise InputError(f"`{node.sql('duckdb')}`: write `is null`, `is true` or `is false`.")


def _case(b: Binder, node: exp.Case) -> Expr:
    conditions, values = [], []
    for branch in node.args["ifs"]:
        test = branch.this if node.this is None else exp.EQ(this=node.this.copy(), expression=branch.this.copy())
        conditions.append(b.bind(test))
        values.append(b.bind(branch.args["true"]))
    default = node.args.get("default")
    return _chosen(b, node, conditions, values, exp.null() if default is None else default)


def _if(b: Binder, node: exp.If) -> Expr:
    other = node.args.get("false")
    return _chosen(b, node, [b.bind(node.this)], [b.bind(node.args["true"])], exp.null() if other is None else other)


def _chosen(b: Binder, node: Any, conditions: list[Expr], values: list[Expr], default: Any) -> Expr:
    true = Expr("lit", (), BOOL, False, True, "true")
    return b.call("case", [*conditions, true, *values, b.bind(default)], node)


def _nullif(b: Binder, node: exp.Nullif) -> Expr:
    test = exp.EQ(this=node.this.copy(), expression=node.expression.copy())
    return b.bind(exp.Case(ifs=[exp.If(this=test, true=exp.null())], default=node.this.copy()))


def _cast(b: Binder, node: exp.Cast) -> Expr:
    x = b.bind(node.this)
    if x.op == "lit":
        return b.constant(node)
    want = from_duckdb(b.bases.catalog.constant(f"CAST(NULL AS {node.to.sql('duckdb')})")[1], f"`{node.sql('duckdb')}`")
    if want.kind == "text":
        if x.type.kind == "text":
            return x
        return b.opaque(node)
    if x.type.kind == "text" or (x.type.kind in ("date", "timestamp")) != (want.kind in ("date", "timestamp")):
        return b.opaque(node)
    return b.call("cast", [x], node, _cast_type(x.type, want))


def _cast_type(have: Type, want: Type) -> Type:
    if {have.kind, want.kind} <= {"date", "timestamp"}:
        if have.kind == want.kind:
            return have
        lo, hi = (x * DAY if want.kind == "timestamp" else x // DAY for x in (have.lo, have.hi))
        return want.within(max(lo, want.lo), min(hi, want.hi))
    if not want.is_number or not (have.is_number or have.kind == "bool"):
        return want
    if want.kind == "int" or have.kind in ("int", "decimal", "bool"):
        shift = want.scale - have.scale
        lo, hi = (side * 10**shift if shift >= 0 else side // 10**-shift for side in (have.lo, have.hi))
        return (
            decimal(want.scale, lo - (shift < 0), hi + (shift < 0))
            if want.kind == "decimal"
            else integer(lo - 1, hi + 1)
        )
    return want


def _extract(b: Binder, node: exp.Extract) -> Expr:
    part = node.name.lower()
    x = b.bind(node.expression)
    return b.call("extract", [x], node, part) if part in ("year", "month", "day", "quarter") else b.opaque(node)


def _date_part(part: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: Any) -> Expr:
        inner = node.this
        while isinstance(inner, exp.TsOrDsToDate):
            inner = inner.this
        return b.call("extract", [b.bind(inner)], exp.Extract(this=exp.var(part), expression=inner.copy()), part)

    return handle


def _round(b: Binder, node: exp.Round) -> Expr:
    digits = node.args.get("decimals")
    places = 0 if digits is None else b.bind(digits).value
    if not isinstance(places, int):
        raise InputError(f"`{node.sql('duckdb')}`: the number of digits must be a constant.")
    return b.call("round", [b.bind(node.this)], node, places)


def _literal(b: Binder, node: Any) -> Expr:
    return b.constant(node)


def _parameter(b: Binder, node: Any) -> Expr:
    raise InputError(f"`{node.sql('duckdb')}` is a parameter without a value: pass `parameters`.")


def _subquery(b: Binder, node: exp.Subquery) -> Expr:
    assert b.select is not None, "a subquery where there is no select"
    found: Expr = b.select.scalar_query(node)
    return found


def _exists(b: Binder, node: exp.Exists) -> Expr:
    assert b.select is not None
    found: Expr = b.select.exists(node.this)
    return found


def _window(b: Binder, node: exp.Window) -> Expr:
    if b.select is None:
        raise InputError(f"`{node.sql('duckdb')}`: a window function cannot be used here.")
    found: Expr = b.select.window(node)
    return found


HANDLERS: dict[type[Any], Callable[[Binder, Any], Expr]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: _literal,
    exp.Null: _literal,
    exp.Paren: lambda b, node: b.bind(node.this),
    exp.Alias: lambda b, node: b.bind(node.this),
    exp.Add: _binary("+"),
    exp.Sub: _binary("-"),
    exp.Mul: _binary("*"),
    exp.Div: _binary("/"),
    exp.IntDiv: _binary("//"),
    exp.Mod: _binary("%"),
    exp.EQ: _binary("="),
    exp.NEQ: _binary("<>"),
    exp.LT: _binary("<"),
    exp.GT: _binary(">"),
    exp.LTE: _binary("<="),
    exp.GTE: _binary(">="),
    exp.Neg: _unary("negative"),
    exp.Not: _unary("not"),
    exp.Abs: _unary("abs"),
    exp.Sqrt: _unary("sqrt"),
    exp.Ln: _unary("ln"),
    exp.Exp: _unary("exp"),
    exp.And: _connective("and"),
    exp.Or: _connective("or"),
    exp.Coalesce: _variadic("coalesce"),
    exp.Greatest: _variadic("greatest"),
    exp.Least: _variadic("least"),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Case: _case,
    exp.If: _if,
    exp.Nullif: _nullif,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Extract: _extract,
    exp.Year: _date_part("year"),
    exp.Month: _date_part("month"),
    exp.Day: _date_part("day"),
    exp.Quarter: _date_part("quarter"),
    exp.Round: _round,
    exp.Subquery: _subquery,
    exp.Exists: _exists,
    exp.Window: _window,
    exp.Filter: lambda b, node: b.bind(node.this),
    exp.WithinGroup: lambda b, node: b.bind(node.this),
    exp.Placeholder: _parameter,
    exp.Parameter: _parameter,
}
