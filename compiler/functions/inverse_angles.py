"""Angles: atan(y / x) where it is at most 45 degrees. The other inverse functions of angles are made from it."""

from __future__ import annotations

from spuvm.compiler.functions.division import div
from spuvm.compiler.functions.polynomial import plus, polynomial, table, work
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# atan(1/2 + u), |u| <= 1/2; error 1.7e-6. The odd coefficients are multiples of 2^-16.
ATAN = (
    0.4636492596877539,
    0.8000030517578125,
    -0.32011326092900466,
    -0.0428924560546875,
    0.15528504169463672,
    -0.0749664306640625,
    -0.04013832441276948,
    0.0512237548828125,
)


def arc(b: Builder, y: Value, x: Value) -> Value:
    """atan(y / x) for 0 <= y <= x: a quotient with more fraction bits than the result, then a polynomial."""
    frac, b.frac = b.frac, work(b)
    try:
        quotient = div(b, y, x)
    finally:
        b.frac = frac
    return polynomial(b, plus(b, quotient, -0.5), table(b, "atan", ATAN), frac)
