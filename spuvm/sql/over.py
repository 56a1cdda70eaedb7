"""What a SELECT computes over windows: ranks, other rows' values, aggregates of a partition or of rows around each."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.aggregates import aggregate_type
from spuvm.sql.clauses import OF_WINDOW, check_clauses
from spuvm.sql.expressions import AGGREGATES
from spuvm.sql.frames import frame_of
from spuvm.sql.plan import Expr, Field, Order, Ranked, Window
from spuvm.sql.scope import column
from spuvm.sql.types import FLOATING, Type, integer

RANKS: dict[type[Any], str] = {
    exp.RowNumber: "row_number",
    exp.Rank: "rank",
    exp.DenseRank: "dense_rank",
    exp.PercentRank: "percent_rank",
    exp.CumeDist: "cume_dist",
    exp.Ntile: "ntile",
}
MOVES: dict[type[Any], str] = {
    exp.Lag: "lag",
    exp.Lead: "lead",
    exp.FirstValue: "first_value",
    exp.LastValue: "last_value",
    exp.NthValue: "nth_value",
}


def _number(call: Any, positive: bool = False) -> int:
    """The constant of ntile(n), lag(x, n) or nth_value(x, n)."""
    given = call.this if isinstance(call, exp.Ntile) else call.args.get("offset")
    sign = -1 if isinstance(given, exp.Neg) else 1
    given = given.this if isinstance(given, exp.Neg) else given
    if given is None:
        return 1
    if not isinstance(given, exp.Literal) or given.is_string or not given.name.isdigit():
        raise InputError(f"`{call.sql('duckdb')}`: how many must be a constant, a whole number.")
    value = sign * int(given.name)
    if value < 1 and (positive or isinstance(call, exp.Ntile)):
        raise InputError(f"`{call.sql('duckdb')}`: it must be 1 or more.")
    return value


class Windows:
    """What a SELECT does with windows."""

    def window(self, node: exp.Window) -> Expr:
        """A column that a window function gives."""
        me: Any = self
        check_clauses(node, OF_WINDOW)
        if me.node is None:
            raise InputError(f"`{node.sql('duckdb')}`: windows are of the rows that WHERE keeps: use QUALIFY.")
        if isinstance(node.this.this, exp.Distinct):
            raise InputError(f"`{node.sql('duckdb')}`: DISTINCT is not supported over a window: group in a subquery.")
        partition = [me.extended(me.binder.bind(e), "partition").value for e in node.args.get("partition_by") or ()]
        clause = node.args.get("order")
        order, keys = [], []
        for o in clause.expressions if clause is not None else ():
            keys.append(me.extended(me.binder.bind(o.this), "order"))
            order.append(Order(keys[-1].value, bool(o.args.get("desc")), bool(o.args.get("nulls_first"))))
        fn, arg, type_, value = self._window_function(node)
        name = me.bases.names(fn)
        nullable = fn in ("min", "max", "sum", "avg", *MOVES.values())
        origin = frozenset() if arg is None else arg.origin
        around = frame_of(node, keys, fn)
        field = Field(name, type_, nullable, origin, fn)
        item = Ranked(field, fn, None if arg is None else arg.value, around.frame, value, around.span, around.near)
        me.node = Window((), me.node.bound, me.node.unique, me.node, tuple(partition), tuple(order), (item,))
        return column(name, type_, nullable, origin)

    def _window_function(self, node: exp.Window) -> tuple[str, Expr | None, Type, int]:
        me: Any = self
        call, rows = node.this, me.node.bound
        for kind, name in RANKS.items():
            if isinstance(call, kind):
                shares = name in ("percent_rank", "cume_dist")
                return name, None, FLOATING if shares else integer(0, rows), _number(call) if name == "ntile" else 1
        for kind, name in MOVES.items():
            if isinstance(call, kind):
                arg = me.extended(me.binder.bind(call.this), name)
                return name, arg, arg.type, _number(call, name == "nth_value")
        for kind, name in AGGREGATES.items():
            if isinstance(call, kind) and name in ("sum", "count", "avg", "min", "max"):
                whole = isinstance(call.this, exp.Star) or call.this is None
                arg = None if whole else me.extended(me.binder.bind(call.this), name)
                return name, arg, aggregate_type(name, None if arg is None else arg.type, rows), 1
        known = ", ".join([*RANKS.values(), *MOVES.values(), "sum, count, avg, min, max"])
        raise InputError(f"`{call.sql('duckdb')}` over a window is not supported: use {known}.")
