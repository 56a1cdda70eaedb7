"""The gamma function's logarithm and its derivative between 2 and 3; errors are for f = 18."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spuvm.compiler.functions.polynomial import polynomial, table, work
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# ln G(5/2 + u) and psi(5/2 + u), |u| <= 1/2; errors 4.8e-7 and 2.8e-7. Odd coefficients are multiples of 2^-16.
LGAMMA = (
    0.28468253912096025,
    0.703155517578125,
    0.24518437283413944,
    -0.03936767578125,
    0.009295470168297668,
    -0.0026092529296875,
    0.0008954282481694869,
    -0.000274658203125,
)
DIGAMMA = (
    0.7031566755486242,
    0.4903564453125,
    -0.11810335926053199,
    0.037322998046875,
    -0.013054114505922471,
    0.0048065185546875,
    -0.0019507296725073437,
    0.0007781982421875,
)


def near(name: str, of_64: Sequence[float]) -> Callable[[Builder, Value], Value]:
    """Of 5/2 + u, |u| <= 1/2, by a polynomial."""
    return lambda b, u: polynomial(b, b.with_frac(u, work(b)), table(b, name, of_64), b.frac)


lgamma_near, digamma_near = near("lgamma", LGAMMA), near("digamma", DIGAMMA)
