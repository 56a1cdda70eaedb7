"""Frames of window functions: which rows around the current one count, by their number (ROWS) or their key (RANGE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.dates import DAY, later_type
from spuvm.sql.plan import Expr, Near
from spuvm.sql.remade import MONTHS, TIMES
from spuvm.sql.types import FLOAT, LIMIT, Type, checked

SUMMED = frozenset({"sum", "count", "avg"})  # over any rows from and to the current one
EXTREMES = frozenset({"min", "max"})  # over so many rows
FRAMELESS = frozenset({"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"})


@dataclass(frozen=True)
class Around:
    """`Ranked.frame`, `Ranked.span` and `Ranked.near`."""

    frame: str
    span: tuple[int | None, int | None] = (None, 0)
    near: Near | None = None


def frame_of(node: exp.Window, order: Sequence[Expr], fn: str) -> Around:
    """The rows over which a function of a window works.

    Raises:
        InputError: for a frame that is not supported, or not of this function.
    """
    spec = node.args.get("spec")
    if spec is None or fn in FRAMELESS:
        return Around("running" if order else "all")
    kind, shown = str(spec.args.get("kind")).upper(), spec.sql("duckdb")
    ends = [_end(spec, side) for side in ("start", "end")]
    if spec.args.get("exclude") or kind not in ("ROWS", "RANGE"):
        raise InputError(f"the frame {shown} is not supported: use ROWS or RANGE, without EXCLUDE.")
    if ends == [None, None]:
        return Around("all")
    if ends == [None, 0]:
        return Around("rows" if kind == "ROWS" else "running")
    if fn not in SUMMED and not (fn in EXTREMES and kind == "ROWS"):
        takes = "any number of ROWS" if fn in EXTREMES else "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        raise InputError(f"the frame {shown} of {fn} is not supported: sum, count and avg take it, {fn} takes {takes}.")
    if kind == "RANGE":
        return Around("near", near=_near(ends, order, shown))
    if any(not isinstance(e, int | None) for e in ends):
        raise InputError(f"the frame {shown}: how many rows must be a constant, a whole number.")
    return Around("span", (ends[0], ends[1]))


def _end(spec: Any, side: str) -> Any:
    """None without an end, 0 at the current row, else how far: a number, or (sign, INTERVAL)."""
    at, way = spec.args.get(side), str(spec.args.get(f"{side}_side") or "").upper()
    if at is None or str(at).upper() == "CURRENT ROW":
        return 0
    if str(at).upper() == "UNBOUNDED":
        if way in ("", "PRECEDING" if side == "start" else "FOLLOWING"):
            return None
        raise InputError(f"the frame {spec.sql('duckdb')} {side}s at the other end: it has no rows.")
    sign = 1 if way == "FOLLOWING" else -1
    if isinstance(at, exp.Interval):
        return sign, at
    if isinstance(at, exp.Literal) and not at.is_string:
        value = Decimal(at.name)
        return sign * int(value) if value == int(value) else sign * value
    raise InputError(f"the frame {spec.sql('duckdb')}: how far must be a constant that is not below 0, or an INTERVAL.")


# By key -----------------------------------------------------------------------------------------------------------


def _near(ends: Sequence[Any], order: Sequence[Expr], shown: str) -> Near:
    """Ends of a RANGE frame in the numbers that stand for its key."""
    if all(e in (None, 0) for e in ends):  # the current row's equals
        return Near((ends[0], ends[1]))
    if len(order) != 1 or order[0].type.kind not in ("int", "decimal", "float", "date", "timestamp"):
        raise InputError(f"the frame {shown}: a distance needs one key, ORDER BY a number, a date or a time.")
    type_ = order[0].type
    months = any(isinstance(e, tuple) and _unit(e[1]) in MONTHS for e in ends)
    found = [None if e is None else _distance(e, type_, months, shown) for e in ends]
    if months:
        for e in found:
            later_type([type_], e or 0)  # or it is too far
        return Near((found[0], found[1]), months=True)
    if type_.kind == "float":
        return Near((_float(found[0]), _float(found[1])))
    scale = max([type_.scale, *(-int(e.as_tuple().exponent) for e in found if e is not None)])
    numbers = [None if e is None else int(e * 10**scale) for e in found]
    more, reach = 10 ** (scale - type_.scale), max(abs(n) for n in numbers if n is not None)
    if reach > LIMIT:
        raise InputError(f"the frame {shown}: a distance of more than 62 bits. Write UNBOUNDED.")
    kind = "decimal" if scale else type_.kind
    checked(Type(kind, type_.lo * more, type_.hi * more, scale), f"the frame {shown} by a key")
    wide = Type(kind, max(type_.lo * more - reach, -LIMIT), min(type_.hi * more + reach, LIMIT), scale)
    return Near((numbers[0], numbers[1]), wide)


def _float(end: Decimal | None) -> float | None:
    """No further than from one end of the machine's doubles to the other."""
    return None if end is None else float(min(max(end, -Decimal(2 * FLOAT)), Decimal(2 * FLOAT)))


def _distance(end: Any, type_: Type, months: bool, shown: str) -> Any:
    """How far, in units of the key: a Decimal of numbers, days of a date, microseconds of a time, or months."""
    number, interval = not isinstance(end, tuple), type_.kind in ("date", "timestamp")
    if number and (end == 0 or not interval):
        return Decimal(end)
    if number and type_.kind == "date" and isinstance(end, int):
        return Decimal(end)
    if number or not interval:
        raise InputError(f"the frame {shown}: times take an INTERVAL, numbers a number.")
    sign, given = end
    count, unit = str(given.this.name), _unit(given)
    if not count.isdigit() or unit not in MONTHS.keys() | TIMES.keys():
        raise InputError(f"the frame {shown}: an INTERVAL is a whole number of seconds to years, not below 0.")
    if (unit in MONTHS) != months:
        raise InputError(f"the frame {shown}: give both ends in months (quarters, years), or both in days.")
    if months:
        return sign * int(count) * MONTHS[unit]
    amount = sign * int(count) * TIMES[unit]
    if type_.kind == "date" and amount % DAY:
        raise InputError(f"the frame {shown}: a distance of dates is a whole number of days.")
    return Decimal(amount // DAY if type_.kind == "date" else amount)


def _unit(interval: exp.Interval) -> str:
    return str(interval.args.get("unit") or "").upper().removesuffix("S")
