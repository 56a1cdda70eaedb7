"""Odd functions as sums of sines, where the protocol has these as one kernel: sigmoid, tanh, erf; and the sine itself.

Within [-L, L] an odd function that levels off is a sum of the odd harmonics of x / 4L turns. Two comparisons say
whether x is there; beyond, it has its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from spuvm.compiler.functions.polynomial import below, inject, plus, raw_constant, reread, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.ring.harmonics import COEFFICIENT

_MOST = 30  # fraction bits of x that leave enough for those of 1 / 4L


@dataclass(frozen=True)
class Sines:
    """f(x) = middle + sum c_m sin(pi/2 m x / edge), m = 1, 3, 5, ..., up to the edge, middle + tail from there on."""

    middle: float
    tail: float
    edge: float
    coefficients: tuple[float, ...]


# Errors: 7e-7, 1.5e-6 and 6.3e-7; of the tails 3.4e-6, 3.0e-6 and 2.7e-6
SIGMOID = Sines(
    middle=0.5,
    tail=0.5,
    edge=12.6015625,
    coefficients=(
        *(0.62063558706, 0.17025043017, 0.0718029999, 0.03228984418, 0.01470629509, 0.00671495273),
        *(0.003068137, 0.00140170412, 0.00064066168, 0.0002925968, 0.00013382554, 6.10387e-05),
        *(2.799063e-05, 1.269954e-05, 5.88628e-06, 2.61175e-06, 1.57331e-06),
    ),
)
TANH = Sines(
    middle=0.0,
    tail=1.0,
    edge=6.69921875,
    coefficients=(
        *(1.24490258764, 0.3489464197, 0.15255892424, 0.07160996811, 0.03412956197, 0.01632182291),
        *(0.00781213225, 0.00373947575, 0.00179034528, 0.00085693132, 0.00041037304, 0.00019633325),
        *(9.41041e-05, 4.494326e-05, 2.161777e-05, 1.024971e-05, 5.00496e-06, 3.02234e-06),
    ),
)
ERF = Sines(
    middle=0.0,
    tail=1.0,
    edge=3.3203125,
    coefficients=(1.20395488095, 0.25650069405, 0.06286977525, 0.01172482322, 0.00152211006, 0.00013284106, 8.3067e-06),
)


def available(b: Builder, frac: int = 0) -> bool:
    """Whether the protocol has the kernel, for numbers of so many fraction bits."""
    return "harmonics_a" in b.kernels and b.ring_bits == 64 and max(frac, b.frac) <= _MOST


def sine_of_turns(b: Builder, turns: Value) -> Value:
    """sin(2 pi x 2^-64) of raw x. Error: one unit. Cost: 3 rounds, 38 bytes under ABY3."""
    return _sum(b, turns, (1.0,), 1)


def odd_function(b: Builder, x: Value, f: Sines) -> Value:
    """f(x), on all of the domain.

    Error: that of the table, 1e-6, and one unit.
    Cost: 9 rounds; 2 comparisons, 2 bit injections, one integer product, and the harmonics: 344 bytes under
    ABY3 (tanh 358, erf 244).
    """
    frac = x.type.frac
    edges = [raw_constant(b, round(edge * 2**frac), frac, x.shape) for edge in (-f.edge, f.edge)]
    too_low, not_too_high = below(b, x, edges)
    inside, high = inject(b, [b.logical("xor", not_too_high, too_low), b.not_(not_too_high)]).rows(b)
    angle = times_integer(b, reread(b, x, 0), round(2.0 ** (62 - frac) / f.edge))
    within = b.mul_raw(plus(b, _sum(b, angle, f.coefficients, 2), f.tail), inside)
    above = times_integer(b, reread(b, high, b.frac), round(2 * f.tail * 2**b.frac))
    return plus(b, b.add(within, above), f.middle - f.tail)


def _sum(b: Builder, angle: Value, coefficients: tuple[float, ...], step: int) -> Value:
    weights = tuple((round(c * 2**COEFFICIENT), 0) for c in coefficients)
    return b.op("harmonics", angle, weights=weights, step=step, to=f"fxp{b.frac}")
