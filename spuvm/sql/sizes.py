"""How long text is, and how large numbers are, that functions of DuckDB give: public bounds from their arguments'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlglot import exp

from spuvm.sql.plan import Expr
from spuvm.sql.types import LIMIT, WORD, Type, text


def length(node: Any, columns: Sequence[Expr], type_: Type) -> int:
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
