"""What to write in place of functions and aggregates that the parties do not have."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from spuvm.sql import functions

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


def instead(node: Any) -> str:
    text_ = INSTEAD.get(type(node))
    if text_ is None:
        known = ", ".join(sorted(k for k in functions.FUNCTIONS if k.isalpha() and k != "later"))
        text_ = (
            "the parties have no such function of values that several of them hold. Use it on one table's own "
            "columns, or "
            f"one of + - * / // % = <> < > <= >= is null, case, {known}"
        )
    return text_ + "."
