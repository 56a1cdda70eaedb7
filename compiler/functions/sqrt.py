"""Roots and powers: sqrt x, 1 / sqrt x, x^y."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spuvm.compiler.functions import by_logarithm
from spuvm.compiler.functions.exp import exp2
from spuvm.compiler.functions.leading_bit import COARSE, FINE, MIDDLE, leading_bit, mantissa, scales
from spuvm.compiler.functions.log import LOG_FRAC, log2_and_valid
from spuvm.compiler.functions.polynomial import FORMATS, polynomial, reread, table
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# sqrt c and 1 / sqrt c with c = 3/4 + u/2, |u| <= 1/2; relative errors 1.3e-6 and 4.5e-7
SQRT = (
    0.8660245122923239,
    0.2886810302734375,
    -0.04805323614054867,
    0.01593017578125,
    -0.007310021492871465,
    0.0036773681640625,
)
RSQRT = (
    1.154700157558432,
    -0.3849029541015625,
    0.1924874152156489,
    -0.106903076171875,
    0.06159686205357904,
    -0.03704833984375,
    0.02780902200429629,
    -0.0172271728515625,
)


ENOUGH = {32: 8, 64: 18, 128: 38}  # fraction bits of the polynomial, for the errors that are stated


def sqrt(b: Builder, x: Value) -> Value:
    """sqrt x = sqrt(c) 2^((E - f) / 2), where x raw = c 2^E, c in [1/2, 1) (functions/leading_bit.py).

    A half power of two is as good a function of E's digits as a whole one: no case for odd E.
    Domain: x >= 0; 0 for x <= 0.
    Error: relative 5e-6 (1.5e-5 above f = 20) plus two units; 2^-38 with 128 bits, 2^-7 with 32.
    Cost: under ABY3 22 rounds, 410 bytes and an error of relative 3e-7 plus one unit, see `by_logarithm`. Elsewhere
    28 rounds; one conversion to boolean, prefix_or, 10 bit injections, 3 integer products, 6 truncated ones.
    """
    if by_logarithm.available(b, 0):
        return reread(b, by_logarithm.magnitude(b, x, signed=False).power(b, 1, b.frac - x.type.frac / 2), b.frac)
    f = x.type.frac  # raw result: sqrt(c) 2^((E - f) / 2 + b.frac)
    return _root(b, x, table(b, "sqrt", SQRT), 2.0 ** (b.frac - f / 2), 1)


def rsqrt(b: Builder, x: Value) -> Value:
    """1 / sqrt x = c^(-1/2) 2^((f - E) / 2), as `sqrt`. Domain: x > 0; 0 for x <= 0.

    Error: relative 4e-6 plus two units. Cost: that of sqrt and one truncated product more.
    """
    if by_logarithm.available(b, 0):
        return reread(b, by_logarithm.magnitude(b, x, signed=False).power(b, -1, b.frac + x.type.frac / 2), b.frac)
    return _root(b, x, table(b, "rsqrt", RSQRT), 2.0 ** (b.frac + x.type.frac / 2), -1)


def _root(b: Builder, x: Value, a: Sequence[float], unit: float, sign: int) -> Value:
    """unit * p(u) * 2^(sign E / 2) as a raw result, u the mantissa of x.

    2^(E / 2) = 2^(8 k) 2^(2 i) 2^(j / 2) with E = 16 k + 4 i + j; for sign = -1 the whole factors count
    down from the largest E, and 2^-30 (for 64 bits) joins the unit in the fine factor.
    """
    up, k = sign > 0, b.ring_bits
    significant = FORMATS[k].factor
    coarsest = k // 2 - 8  # exponent of the largest whole factor 2^(8 k)
    guard = 1 if up else 4  # fraction bits of the factor below the unit of the result
    least = unit if up else unit * 2.0 ** -(coarsest + 6)
    fine_frac = significant - math.ceil(math.log2(least))
    largest = math.log2(unit) + (k // 2 - 1 if up else 0)  # bits of the result
    fits = math.floor(k - 3 - guard - largest)  # fraction bits of the polynomial
    parts = 2 if fits < min(significant - 3, ENOUGH[k]) else 1
    precision = min(significant - 3, parts * fits)
    lead = leading_bit(b, x, signed=False)
    coarse, middle, fine, big, medium, small = lead.tables(
        b,
        *scales(b),
        (COARSE, lambda v: 1 << (8 * v if up else coarsest - 8 * v)),
        (MIDDLE, lambda v: 1 << (2 * v if up else 6 - 2 * v)),
        (FINE, lambda v: round(least * 2.0 ** (sign * v / 2 + fine_frac))),
    )
    u = mantissa(b, x, lead, b.mul_raw(coarse, b.mul_raw(middle, fine)))
    factor = b.mul_raw(b.mul_raw(big, medium), reread(b, small, fine_frac))
    factor = reread(b, b.with_frac(factor, guard), b.frac + guard)
    p = polynomial(b, u, a, precision)
    return b.mul(p, factor) if parts == 1 else _in_parts(b, p, fits, factor)


def _in_parts(b: Builder, p: Value, fits: int, factor: Value) -> Value:
    """p factor where only `fits` fraction bits of p leave the product room: the rest of p in a product beside."""
    high = b.with_frac(p, fits)
    low = b.sub(p, reread(b, b.op("shift_left", high, bits=p.type.frac - fits), p.type.frac))
    return b.add(b.mul(high, factor), b.mul(low, factor))


def pow_(b: Builder, x: Value, y: Value) -> Value:
    """x^y = 2^(y log2 x), for x > 0 and any y; 0 for x <= 0, whatever y. One of them may be public.

    A public whole y is better served by `integer_pow`, which takes negative x.
    Domain: |y log2 x| < 2^(36 - f), and then as exp2: 0 where the result is below half a unit, the
    largest number where it does not fit. Error: relative 4e-6 + 1.5e-6 |y| plus one unit.
    Cost: 47 rounds; those of log and exp, one truncated and one integer product: 1110 bytes.
    """
    frac = LOG_FRAC[b.ring_bits]
    logarithm, valid = log2_and_valid(b, x, frac)
    exponent = b.mul(logarithm, y, frac)
    return b.mul_raw(exp2(b, exponent), valid)
