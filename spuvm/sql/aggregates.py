"""GROUP BY, HAVING and aggregates of a SELECT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.clauses import key_of, whole_call
from spuvm.sql.expressions import AGGREGATES, UNSEEN, Binder
from spuvm.sql.literals import varies
from spuvm.sql.operators import HANDLERS
from spuvm.sql.plan import Aggregate, Expr, Field, Group
from spuvm.sql.scope import Scope, column
from spuvm.sql.types import BOOL, FLOATING, LIMIT, Type, decimal, integer

AVERAGE_DIGITS = 6  # that an average has at least behind the point
LARGEST_SQUARED = 1 << 13  # whose squares are below 2^26, the limit of products of fixed point
SPREADS = frozenset({"stddev", "stddev_pop", "variance", "var_pop"})
NUMERIC = frozenset({"sum", "avg", "stddev", "stddev_pop", "variance", "var_pop", "median", "quantile_cont"})


def aggregate_type(fn: str, type_: Type | None, rows: int) -> Type:
    """The type of an aggregate of a column (None: of rows) over at most so many rows.

    Raises:
        InputError: if the column has not the type for it, or its sum could leave the ring.
    """
    if fn == "count":
        return integer(0, rows)
    assert type_ is not None
    if fn in ("bool_or", "bool_and", "count_if"):
        if type_.kind not in ("bool", "null"):
            raise InputError(f"{fn} of {type_}: it takes conditions.")
        return integer(0, rows) if fn == "count_if" else BOOL
    if fn in NUMERIC and type_.kind not in ("int", "decimal", "float"):
        hint = " Conditions are counted by count_if(...)." if type_.kind == "bool" else ""
        raise InputError(f"{fn} of {type_}: it takes numbers.{hint}")
    if fn in ("min", "max", "any"):
        return type_
    if fn in SPREADS and type_.kind != "float" and type_.size // 10**type_.scale >= LARGEST_SQUARED:
        raise InputError(
            f"{fn} of numbers of up to {type_.size // 10**type_.scale:,}: their squares leave fixed point. Divide "
            f"them first, "
            f"so that they are below {LARGEST_SQUARED:,}."
        )
    if fn in SPREADS or fn == "quantile_cont" or type_.kind == "float":
        return FLOATING
    if fn == "sum":
        make = decimal if type_.kind == "decimal" else lambda scale, lo, hi: integer(lo, hi)
        return make(type_.scale, min(0, type_.lo) * rows, max(0, type_.hi) * rows)
    if fn == "median":  # half of a sum has a digit more
        return decimal(type_.scale + 1, type_.lo * 10, type_.hi * 10)
    more = max(0, AVERAGE_DIGITS - type_.scale)
    while more and type_.size * 10 ** (more + 1) > LIMIT:
        more -= 1
    return decimal(type_.scale + more, type_.lo * 10**more, type_.hi * 10**more)


class Aggregates:
    """What a SELECT does with groups."""

    extra_keys: Sequence[Expr] = ()

    def clauses(self) -> list[Any]:
        """Where aggregates may stand."""
        me: Any = self
        out = list(me.ast.expressions)
        for name in ("having", "order", "qualify"):
            if me.ast.args.get(name) is not None:
                out.append(me.ast.args[name])
        return out

    def aggregated(self) -> list[Any]:
        """The aggregates of this SELECT, not those of its subqueries or windows."""
        me: Any = self
        found = []
        for clause in self.clauses():
            for node in clause.find_all(*AGGREGATES):
                window = isinstance(node.parent, exp.Window) or (
                    isinstance(node.parent, exp.Filter) and isinstance(node.parent.parent, exp.Window)
                )
                if not window and node.find_ancestor(exp.Select) is me.ast:
                    found.append(node)
        return found

    def group(self, items: Sequence[Any]) -> None:
        """GROUP BY and HAVING."""
        me: Any = self
        clause, calls = me.ast.args.get("group"), self.aggregated()
        if clause is None and not calls:
            if me.ast.args.get("having") is not None:
                raise InputError("HAVING without GROUP BY or an aggregate: write WHERE.")
            return
        several = (exp.Rollup, exp.Cube, exp.GroupingSets)
        if clause is not None and any(isinstance(e, several) for e in clause.find_all(*several)):
            raise InputError("ROLLUP, CUBE and GROUPING SETS stand among the keys: GROUP BY a, ROLLUP (b, c).")
        keys = [self._key(node, items) for node in self._keys(clause, items)]
        keys += [self._key(node, items) for node in self._functions_of_keys()]
        for node in calls:
            self._call(node)
        names = tuple(dict.fromkeys([*(k.value for k in keys), *(k.value for k in self.extra_keys)]))
        bound = me.node.bound if names else 1
        me.node = Group((), bound, (frozenset(names),), me.node, names, tuple(me.calls.values()))
        me.grouping = True
        me.binder.scope = Grouped(me.scope, frozenset(names))
        if (having := me.ast.args.get("having")) is not None:
            condition = me.binder.bind(having.this)
            me.settle()
            me.filter(condition)

    def _keys(self, clause: Any | None, items: Sequence[Any]) -> list[Any]:
        me: Any = self
        if clause is None:
            return []
        if clause.args.get("all"):
            return [n for n in items if not isinstance(n, Expr) and not n.find(*AGGREGATES)]
        out = []
        for node in clause.expressions:
            if isinstance(node, exp.Literal) and not node.is_string:
                if not 1 <= int(node.name) <= len(items):
                    raise InputError(f"GROUP BY {node.name}: there are {len(items)} columns.")
                node = items[int(node.name) - 1]
            elif isinstance(node, exp.Column) and not node.table and me.scope.find(node.name, None) is None:
                aliases = {label.lower(): ast for label, ast in me.items()}
                node = aliases.get(node.name.lower(), node)
            out.append(node)
        return out

    def _key(self, node: Any, items: Sequence[Any]) -> Expr:
        me: Any = self
        if isinstance(node, Expr):
            given: Expr = me.extended(node, "key")
            return given
        expr = self._below(node, "key")
        me.binder.known[key_of(node)] = replace(expr, sql=None, sources=frozenset())  # above the groups
        return expr

    def _functions_of_keys(self) -> list[Any]:
        """What only DuckDB knows and reads keys alone: a key, too, for its owner computes it before."""
        me: Any = self
        known = me.binder.known

        def one(node: Any) -> bool:
            plain = isinstance(node, exp.Func | exp.Binary | exp.Predicate) and type(node) not in HANDLERS
            if not plain or isinstance(node, exp.AggFunc) or node.find(*UNSEEN) is not None or varies(node):
                return False
            columns = list(node.find_all(exp.Column))
            return bool(columns) and all(_inside(c, node, known) for c in columns)

        def last(node: Any) -> bool:
            return key_of(node) in known or isinstance(node, exp.AggFunc | exp.Select | exp.Window) or one(node)

        found = [n for clause in self.clauses() for n in clause.walk(prune=last) if last(n)]
        return [n for n in {key_of(n): n for n in found if one(n)}.values() if key_of(n) not in known]

    def _below(self, node: Any, stem: str) -> Expr:
        """An expression of the rows that are grouped, as a column of theirs."""
        me: Any = self
        bound = Binder(me.bases, me.scope, me).bind(node)
        me.settle()
        found: Expr = me.extended(bound, stem)
        return found

    def aggregate(self, node: Any, name: str) -> Expr:
        """A column of the grouped relation."""
        me: Any = self
        call = me.calls.get(_call_key(node))
        if call is None:
            raise InputError(f"`{node.sql('duckdb')}`: an aggregate cannot be used here: use HAVING, or a subquery.")
        return column(call.field.name, call.field.type, call.field.nullable, call.field.origin)

    def _call(self, node: Any) -> None:
        me: Any = self
        if _call_key(node) in me.calls:
            return
        if node.this is not None and node.this.find(*AGGREGATES):
            raise InputError(f"`{node.sql('duckdb')}`: an aggregate of an aggregate: use a subquery.")
        fn = next(name for kind, name in AGGREGATES.items() if isinstance(node, kind))
        fn, argument, distinct, value = self._argument(node, fn)
        if distinct and fn in SPREADS | {"median", "quantile_cont"}:
            raise InputError(f"`{node.sql('duckdb')}`: DISTINCT is of count, sum and avg: use a subquery.")
        arg = None if argument is None else self._below(argument, fn)
        try:
            type_ = aggregate_type(fn, None if arg is None else arg.type, me.node.bound)
        except InputError as error:
            raise InputError(f"`{node.sql('duckdb')}`: {error}") from None
        nullable = fn != "count" and (not self._has_keys() or bool(arg and arg.nullable))
        nullable = nullable or fn in ("stddev", "variance")
        origin = frozenset() if arg is None else arg.origin
        field = Field(me.bases.names(fn), type_, nullable, origin, fn)
        distinct = distinct and fn in ("count", "sum", "avg")
        me.calls[_call_key(node)] = Aggregate(field, fn, None if arg is None else arg.value, distinct, value)

    def _has_keys(self) -> bool:
        me: Any = self
        return me.ast.args.get("group") is not None or bool(self.extra_keys)

    def _argument(self, node: Any, fn: str) -> tuple[str, Any | None, bool, Any]:
        """(function, argument, distinct, value)."""
        argument, distinct, value = node.this, False, None
        if node.args.get("expressions") or node.args.get("count"):  # min(x, 3): a list
            raise InputError(f"`{node.sql('duckdb')}`: {fn} takes one argument.")
        if isinstance(argument, exp.Distinct):
            if len(argument.expressions) != 1:
                raise InputError(f"`{node.sql('duckdb')}`: DISTINCT of several columns: use a subquery.")
            argument, distinct = argument.expressions[0], True
        if isinstance(argument, exp.Star):
            argument = None
        if fn == "quantile_cont":
            share = node.args.get("expression")
            inner, descending = node.parent, False
            if isinstance(inner, exp.WithinGroup):
                ordered = inner.expression.expressions[0]
                share, argument, descending = node.this, ordered.this, bool(ordered.args.get("desc"))
            if not isinstance(share, exp.Literal):
                raise InputError(f"`{node.sql('duckdb')}`: the share must be a constant.")
            value = 1 - float(share.name) if descending else float(share.name)
        if isinstance(filtered := whole_call(node), exp.Filter):
            test, then = filtered.expression.this.copy(), exp.Literal.number(1) if argument is None else argument.copy()
            argument = exp.Case(ifs=[exp.If(this=test, true=then)])
        return fn, argument, distinct, value

    def settle(self) -> None:
        """Lookups of subqueries that stand in what was bound last."""
        me: Any = self
        pending, me.pending = me.pending, []
        me.apply(pending)


def _inside(node: Any, top: Any, known: Any) -> bool:
    """Whether a column stands in something `known`, below `top`."""
    while node is not top:
        if key_of(node) in known:
            return True
        node = node.parent
    return False


def _call_key(node: Any) -> str:
    """Text of a call, with its FILTER."""
    return key_of(whole_call(node))


class Grouped(Scope):
    """After GROUP BY: the keys alone."""

    def __init__(self, scope: Scope, keys: frozenset[str]) -> None:
        super().__init__(scope.relations, scope.outer, scope.merged, scope.folded)
        self.keys = keys

    def column(self, name: str, table: str | None) -> Expr:
        found = super().column(name, table)
        if found.value not in self.keys:
            shown = f"{table}.{name}" if table else name
            raise InputError(f"column `{shown}` is neither in GROUP BY nor in an aggregate: put it into one of them.")
        return replace(found, sql=None, sources=frozenset())
