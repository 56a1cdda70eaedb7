"""Days and times on the machine: parts of a date, the first day of a month, months added. Days are since 1970, times in
microseconds (Hinnant, "chrono-compatible low-level date algorithms")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from spuvm.runtime.errors import InputError
from spuvm.sql.columns import Array, Vec
from spuvm.sql.types import LIMIT, Type, checked, integer

DAY = 86_400_000_000  # microseconds
CLOCK = {"hour": (3_600_000_000, 24), "minute": (60_000_000, 60), "second": (1_000_000, 60)}
PARTS = {  # of what `extract` gives
    "year": (-10000, 14000),
    "quarter": (1, 4),
    "month": (1, 12),
    "day": (1, 31),
    "dayofyear": (1, 366),
    "dayofweek": (0, 6),
    "isodow": (1, 7),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
TRUNCATED = ("day", "week", "month", "quarter", "year")


def civil(days: Array) -> tuple[Array, Array, Array]:
    """Year, month and day."""
    z = days + 719468
    era = z // 146097
    day_of_era = z - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + jnp.where(shifted < 10, 3, -9)
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def first_of(year: Array, month: Array) -> Array:
    """The first day of a month."""
    early = (month <= 2).astype(jnp.int32)
    y = year - early
    era = y // 400
    year_of_era = y - era * 400
    day_of_year = (153 * (month - 3 + 12 * early) + 2) // 5
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def _days(x: Vec) -> Array:
    return (x.value // DAY if x.type.kind == "timestamp" else x.value).astype(jnp.int32)


def _only_dates(what: str, type_: Type) -> None:
    if type_.kind not in ("date", "timestamp"):
        raise InputError(f"`{what}` of {type_}: it takes dates. Cast it first.")


def part_type(types: Sequence[Type], part: Any) -> Type:
    _only_dates(f"extract({part})", types[0])
    return integer(*PARTS[part])


def part(xs: Sequence[Vec], type_: Type, name: Any) -> tuple[Array, ...]:
    """A part of a date or time, by its name in `PARTS`."""
    (x,) = xs
    if name in CLOCK:
        unit, count = CLOCK[name]
        whole = x.value // unit if x.type.kind == "timestamp" else jnp.zeros_like(x.value)
        return (whole - whole // count * count,)
    days = _days(x)
    if name in ("dayofweek", "isodow"):
        first = 3 if name == "isodow" else 4  # 1970 began on a Thursday
        return ((days + first - (days + first) // 7 * 7 + (name == "isodow")).astype(jnp.int64),)
    year, month, day = civil(days)
    found = {"year": year, "month": month, "day": day, "quarter": (month + 2) // 3}
    if name == "dayofyear":
        return ((days - first_of(year, jnp.ones_like(month)) + 1).astype(jnp.int64),)
    return (found[name].astype(jnp.int64),)


def truncated_type(types: Sequence[Type], unit: Any) -> Type:
    _only_dates(f"date_trunc('{unit}')", types[0])
    t = types[0]
    return moved_type(t, -366 * (1 if t.kind == "date" else DAY), 0)


def truncated(xs: Sequence[Vec], type_: Type, unit: Any) -> tuple[Array, ...]:
    """The first day of the week, month, quarter or year, or the day alone."""
    (x,) = xs
    days = _days(x)
    year, month, _ = civil(days) if unit in ("month", "quarter", "year") else (days, days, days)
    if unit == "week":
        days = days - (days + 3 - (days + 3) // 7 * 7)
    elif unit == "month":
        days = first_of(year, month)
    elif unit != "day":
        days = first_of(year, jnp.ones_like(month) if unit == "year" else (month - 1) // 3 * 3 + 1)
    return (days.astype(jnp.int64) * (DAY if x.type.kind == "timestamp" else 1),)


def later_type(types: Sequence[Type], months: Any) -> Type:
    _only_dates("+ INTERVAL", types[0])
    t, unit = types[0], 1 if types[0].kind == "date" else DAY
    _check_distance(31 * months * DAY)
    return moved_type(t, min(0, 31 * months) * unit, max(0, 31 * months) * unit)


def moved_type(t: Type, lo: int, hi: int) -> Type:
    """A date or time with some days or microseconds added. Times end where the machine's integers do, in the year
    148108."""
    if t.kind == "date":
        return checked(t.within(t.lo + lo, t.hi + hi))
    _check_distance(max(-lo, hi))
    return t.within(max(t.lo + lo, -LIMIT), min(t.hi + hi, LIMIT))


def _check_distance(microseconds: int) -> None:
    if abs(microseconds) > LIMIT:
        raise InputError("an INTERVAL of more than 140,000 years: times here end in the year 148108.")


def later(xs: Sequence[Vec], type_: Type, months: Any) -> tuple[Array, ...]:
    """The same day so many months later, or the last of that month if it is shorter."""
    (x,) = xs
    days = _days(x)
    year, month, day = civil(days)
    total = year * 12 + month - 1 + int(months)
    first, following = (first_of(t // 12, t - t // 12 * 12 + 1) for t in (total, total + 1))
    length = following - first
    moved = (first + jnp.where(day > length, length, day) - 1).astype(jnp.int64)
    if x.type.kind == "date":
        return (moved,)
    return (moved * DAY + x.value - days.astype(jnp.int64) * DAY,)
