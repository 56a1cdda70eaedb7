"""Logarithms: ln x, ln(1 + x), and log2 x with more fraction bits for powers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spuvm.compiler.functions import by_logarithm
from spuvm.compiler.functions.exact_division import div_public
from spuvm.compiler.functions.leading_bit import COARSE, FINE, MIDDLE, Leading, leading_bit, mantissa, scales
from spuvm.compiler.functions.polynomial import coefficient, plus, polynomial_sum, raw_constant, table
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# ln c and log2 c with c = 3/4 + u/2, |u| <= 1/2; absolute errors 4.9e-7 and 4.5e-7
LOG = (
    -0.28768187845271354,
    0.6666717529296875,
    -0.2222390435173578,
    0.0986480712890625,
    -0.049030035964287164,
    0.02691650390625,
    -0.017096616789677107,
    0.008392333984375,
)
LOG2 = (
    -0.4150372877624246,
    0.9617919921875,
    -0.320620040924941,
    0.142608642578125,
    -0.07072401535660802,
    0.036956787109375,
    -0.024770546281858014,
    0.0157470703125,
)
LOG_FRAC = {32: 12, 64: 26, 128: 52}  # fraction bits of log2 x in a power
# Fraction bits of u: with twice as many and those of a coefficient, the sum of |ln x| < k/2, |log2 x| < k just fits.
_U = {32: 8, 64: 20, 128: 41}


def log(b: Builder, x: Value) -> Value:
    """ln x = ln c + (E - f) ln 2, where x raw = c 2^E, c in [1/2, 1) (functions/leading_bit.py).

    The multiples of ln 2 are sums of the indicators of E's digits and join the sum of products before its
    truncation.
    Domain: x > 0. For x <= 0 the result is that of half the smallest number, -(f + 1) ln 2.
    Error: 2e-6 (polynomial 5e-7, u rounded to 20 bits) plus one unit; in a ring of 128 bits one unit and 2^-40,
    of 32 bits 2^-6.
    Cost: under ABY3 24 rounds, 462 bytes and an error of 6e-8 plus one unit, see `by_logarithm`. Elsewhere 26
    rounds; one conversion to boolean, prefix_or, 10 bit injections, 2 integer products, 5 truncated ones.
    """
    if by_logarithm.available(b, x.type.frac):
        return by_logarithm.magnitude(b, x, signed=False).log(b, math.log(2.0), -x.type.frac, b.frac)
    return _logarithm(b, x, leading_bit(b, x, signed=False), table(b, "log", LOG), math.log(2.0), b.frac)


def log_over(b: Builder, x: Value, base: float) -> Value:
    """ln x / ln(base), given ln(base), as `log`: to base 2, and where the protocol has its kernels to larger ones.

    Elsewhere the logarithm is divided.
    """
    unit = math.log(2.0) / base
    unit = 1.0 if abs(unit - 1.0) < 1e-6 else unit  # ln 2 may be a float32
    if 0.0 < unit <= 1.0 and by_logarithm.available(b, x.type.frac):
        return by_logarithm.magnitude(b, x, signed=False).log(b, unit, -x.type.frac, b.frac)
    if unit != 1.0:
        return div_public(b, log(b, x), np.full(x.shape, base))
    return _logarithm(b, x, leading_bit(b, x, signed=False), table(b, "log2", LOG2), unit, b.frac)


def log1p(b: Builder, x: Value) -> Value:
    """ln(1 + x), for x > -1: domain, absolute error and cost of log."""
    return log(b, plus(b, x, 1.0))


def log2_and_valid(b: Builder, x: Value, frac: int) -> tuple[Value, Value]:
    """log2 x with `frac` fraction bits (error 2e-6), and 1 where x > 0, else 0."""
    if by_logarithm.available(b, x.type.frac):
        size = by_logarithm.magnitude(b, x, signed=False)
        return size.log(b, 1.0, -x.type.frac, frac), size.valid(b)
    lead = leading_bit(b, x, signed=False)
    return _logarithm(b, x, lead, table(b, "log2", LOG2), 1.0, frac), lead.valid(b)


def _logarithm(b: Builder, x: Value, lead: Leading, a: Sequence[float], unit: float, frac: int) -> Value:
    sum_frac = 2 * _U[b.ring_bits] + coefficient(b)
    raw_unit = round(unit * 2.0**sum_frac)
    coarse, middle, fine, coarse_log, middle_log, fine_log = lead.tables(
        b,
        *scales(b),
        (COARSE, lambda v: 16 * v * raw_unit),
        (MIDDLE, lambda v: 4 * v * raw_unit),
        (FINE, lambda v: v * raw_unit),
    )
    u = mantissa(b, x, lead, b.mul_raw(coarse, b.mul_raw(middle, fine)), _U[b.ring_bits])
    whole = b.add(b.add(coarse_log, middle_log), fine_log)
    whole = b.add(whole, raw_constant(b, -x.type.frac * raw_unit, 0, x.shape))
    total = b.add(polynomial_sum(b, u, a), b.bitcast(whole, f"fxp{sum_frac}"))
    return b.trunc(total, sum_frac - frac)
