"""Exponentials: e^x, 2^x, e^x - 1."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce

from spuvm.compiler.functions.polynomial import (
    below,
    both,
    coefficient,
    inject,
    line,
    linear_tables,
    plus,
    polynomial,
    raw_constant,
    reread,
    spread,
    stack,
    table,
    times,
    work,
)
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.ring.exponential import FRACTION as EXPONENT

LOG2_E = Fraction("1.44269504088896340735992468100189213742664595")
# 2^(u + 1/2), |u| <= 1/2; relative error 2.9e-6. The odd coefficients and the last are multiples of 2^-16.
EXP2 = (1.4142121782516754, 0.980224609375, 0.3397637195371135, 0.079071044921875, 0.0135345458984375)
_SCALE_FRAC = {32: 14, 64: 30, 128: 60}  # fraction bits of log2 e, as far as the exponent has room for them
_MOST = 30  # fraction bits of an exponent that leave enough for those of log2 e


def _mantissa(b: Builder) -> int:
    """Fraction bits of 2^t, t in [0, 1)."""
    return work(b) + 2


def _largest(b: Builder) -> int:
    return (1 << (b.ring_bits - 2)) - 1


def _exponent_bits(b: Builder) -> int:
    """log2 k: the bits of an exponent's whole part."""
    return b.ring_bits.bit_length() - 1


def exp(b: Builder, x: Value) -> Value:
    """e^x = 2^(x log2 e), see `exp2_raw`.

    Domain: all x. Below -(f + 1) ln 2 (-13.2 for f = 18) the result is 0, from (k - 2 - f) ln 2 (30.5) on it
    is the largest number, 2^(k-2-f), to 30 bits at least.
    Error: relative 4e-6 plus one unit; 2e-7 under ABY3; 2^-39 in a ring of 128 bits, 2^-7 in one of 32.
    Cost: that of `exp2_raw`.
    """
    return exponential(b, x, *_scaled(b, LOG2_E, x))


def exp2(b: Builder, x: Value) -> Value:
    """2^x, for all x: 0 below -(f + 1), the largest number from k - 2 - f on. Error and cost: as exp."""
    return exponential(b, x, 1, 0)


def power_of(b: Builder, base: float, x: Value) -> Value:
    """base^x = 2^(x log2 base) for a public base > 0 and all x. Error and cost: as exp."""
    if base == 2.0:
        return exp2(b, x)
    with localcontext(prec=60):
        log = Fraction(Decimal(base).ln() / Decimal(2).ln())
    return exponential(b, x if log > 0 else b.neg(x), *_scaled(b, abs(log), x))


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1: domain, absolute error (4e-6 e^x plus one unit) and cost of exp."""
    return plus(b, exp(b, x), -1.0)


def _direct(b: Builder, frac: int) -> bool:
    """Whether the protocol has 2^y as one kernel, for numbers of so many fraction bits."""
    return "exp2_abb" in b.kernels and b.ring_bits == 64 and frac <= _MOST


def _scaled(b: Builder, log: Fraction, x: Value) -> tuple[int, int]:
    """A logarithm that x is to be multiplied by, with as many fraction bits as the exponent has room for."""
    room = b.ring_bits - 3 - _exponent_bits(b) - x.type.frac
    frac = EXPONENT - x.type.frac if _direct(b, x.type.frac) else min(_SCALE_FRAC[b.ring_bits], room)
    return round(log * 2**frac), frac


def exponential(b: Builder, x: Value, factor: int, frac: int) -> Value:
    """2^y, y = x factor 2^-frac. The limits are compared on x, as y may have overflowed; -(-p // q) rounds up."""
    y = b.mul_raw(x, raw_constant(b, factor, frac, x.shape))
    lowest = -(((b.frac + 1) << y.type.frac) // max(factor, 1))
    highest = -(-((b.ring_bits - 2 - b.frac) << y.type.frac) // max(factor, 1))
    held = [max(-_largest(b), min(limit, _largest(b))) for limit in (lowest, highest)]  # a base close to 1 is slow
    limits = [raw_constant(b, limit, x.type.frac, x.shape) for limit in held]
    return exp2_raw(b, y, *below(b, x, limits))


def exp2_raw(b: Builder, y: Value, too_low: Value, not_too_high: Value) -> Value:
    """2^y with b.frac fraction bits, for any number of fraction bits F of y, F + log2 k < k - 2.

    Two bools say whether y is below the lowest and below the highest exponent: -f - 1 and k - 2 -
    f. n + t = y + f + 1, n in [0, k) whole and t in [0, 1). The bits of n are bits of the word of y + f + 1,
    2^n is a product of functions of one or two of them, 2^t a polynomial (of degree 4 for 64 bits). Of the raw
    result 2^(n - 1) 2^t only the half with n < k / 2 needs a truncation after the last product.
    Error: relative 4e-6 (polynomial 2.9e-6, t and 2^t rounded to 22 and 24 bits) plus one unit.
    Cost: 17 rounds; 2 comparisons, one conversion to boolean, 10 bit injections, 4 truncations, 6 integer
    products: 815 bytes. ABY3 has a kernel of its own, see `_exp2_direct`.
    """
    if _direct(b, 0) and y.type.frac <= EXPONENT:
        return _exp2_direct(b, y, too_low, not_too_high)
    frac, half = y.type.frac, _exponent_bits(b) - 1
    shifted = plus(b, y, b.frac + 1.0)
    word = b.word(shifted)
    bit = [b.op("bit_parity", word, mask=1 << (frac + i)) for i in range(half + 1)]
    inside = b.logical("xor", not_too_high, too_low)
    starts = range(0, half - 1, 2)  # of the pairs of bits below the highest; the last may be alone
    *pairs, large = both(b, [*((bit[i], bit[i + 1]) for i in starts), (inside, bit[half])])
    small = b.logical("xor", inside, large)
    digits = [[bit[i], bit[i + 1], pair] for i, pair in zip(starts, pairs)] + [[x] for x in bit[len(starts) * 2 : half]]
    bools = [x for digit in digits for x in digit] + [small, large, b.not_(not_too_high)]
    *factors, n, small_, large_, top = linear_tables(b, inject(b, bools), _tables(b, list(map(len, digits))))
    scale = reduce(b.mul_raw, [plus(b, x, 1.0) for x in factors])
    scales = stack(b, [small_, large_]).map(b.mul_raw, spread(b, scale, 2))
    fraction = plus(b, b.sub(b.with_frac(shifted, work(b)), b.trunc(n, -work(b))), -0.5)
    power = _exp2_polynomial(b, fraction)
    low = b.mul_raw(reread(b, scales.row(b, 0), b.frac + 1), power)
    high = b.mul_raw(reread(b, scales.row(b, 1), b.frac), reread(b, power, 0))
    low = b.trunc(low, _mantissa(b) + 1)
    return b.add(b.add(low, high), reread(b, top, b.frac))


def _tables(b: Builder, sizes: list[int]) -> list[list[int]]:
    """What is public about the bits: 2^d - 1 for each digit d of the exponent, the exponent, and the ranges.

    With d = b0 + 2 b1 at place p, s = 2^p: (2^s - 1) b0 + (4^s - 1) b1 + (8^s - 4^s - 2^s + 1) b0 b1.
    """
    rows: list[list[int]] = []
    exponent: list[int] = []
    place = 0
    for size in sizes:
        s = 1 << place
        entries = [2**s - 1, 4**s - 1, 8**s - 4**s - 2**s + 1][:size]
        rows.append([0] * len(exponent) + entries)
        exponent += [s, 2 * s, 0][:size]
        place += min(size, 2)
    half = b.ring_bits // 2
    count = len(exponent)
    rows += [
        [*exponent, 0, half, 0],
        [0] * count + [1],
        [0] * count + [0, 1 << (half - _mantissa(b) - 1)],
        [0] * count + [0, 0, _largest(b)],
    ]
    return [row + [0] * (count + 3 - len(row)) for row in rows]


def _exp2_direct(b: Builder, y: Value, too_low: Value, not_too_high: Value) -> Value:
    """2^(y + f) by the protocol's own kernel, 0 if y is too low, the largest number if it is too high.

    The largest number but for 2^-30 of it. Error: relative 2e-7 plus one unit. Cost: 8 rounds; 2 comparisons and the
    kernel: 120 bytes under ABY3.
    """
    bools = b.logical("xor", not_too_high, too_low), b.not_(not_too_high)
    y = plus(b, b.trunc(y, y.type.frac - EXPONENT), float(b.frac))
    return reread(b, b.op("exp2", y, *bools, to="fxp0", factors=(1, 0), tops=(0, _largest(b) >> 32)), b.frac)


def _exp2_polynomial(b: Builder, u: Value) -> Value:
    """For 64 bits (a0 + a1 u) + q (a2 + a3 u + a4 q), q = u^2: 4 rounds, 2 truncated products."""
    if b.ring_bits != 64:
        return polynomial(b, u, table(b, "exp2", ()), _mantissa(b))
    a, w = EXP2, work(b)
    q = b.trunc(b.mul_raw(u, u), w)
    inner = b.add(line(b, u, a[2], a[3]), times(b, q, a[4], coefficient(b)))
    total = b.add(b.mul_raw(q, inner), b.trunc(line(b, u, a[0], a[1]), -w))
    return b.trunc(total, total.type.frac - _mantissa(b))
