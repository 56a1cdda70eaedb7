"""The type, with its range, that a value of one type has as another."""

from __future__ import annotations

from spuvm.sql.dates import DAY
from spuvm.sql.types import Type, decimal, integer


def cast_type(have: Type, want: Type) -> Type:
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
