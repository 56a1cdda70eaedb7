"""Exponentials: e^x, 2^x, e^x - 1."""

from __future__ import annotations

import math

from spuvm.compiler.builder import Builder
from spuvm.compiler.ir import Value
from spuvm.compiler.polynomial import (
    COEFFICIENT,
    WORK,
    Stack,
    both,
    inject,
    line,
    linear_tables,
    plus,
    raw_constant,
    reread,
    spread,
    stack,
    times,
    times_integer,
)
from spuvm.runtime.exponential import FRACTION as EXPONENT

# 2^(u + 1/2), |u| <= 1/2; relative error 2.9e-6. The odd coefficients and the last are multiples of 2^-16.
EXP2 = (1.4142121782516754, 0.980224609375, 0.3397637195371135, 0.079071044921875, 0.0135345458984375)
_SCALE_FRAC = 30  # fraction bits of log2 e
_MANTISSA = 24  # fraction bits of 2^t, t in [0, 1)
_MOST = 30  # fraction bits of an exponent that leave enough for those of log2 e
LARGEST = (1 << 62) - 1


def exp(b: Builder, x: Value) -> Value:
    """e^x = 2^(x log2 e), see `exp2_raw`.

    Domain: all x. Below -(f + 1) ln 2 (-13.2 for f = 18) the result is 0, from (62 - f) ln 2 (30.5) on it
    is the largest number, (2^62 - 1) 2^-f.
    Error: relative 4e-6 plus one unit; 2e-7 under ABY3. Cost: that of `exp2_raw`.
    """
    frac = EXPONENT - x.type.frac if _direct(b, x.type.frac) else _SCALE_FRAC
    return _exponential(b, x, round(math.log2(math.e) * 2**frac), frac)


def exp2(b: Builder, x: Value) -> Value:
    """2^x, for all x: 0 below -(f + 1), the largest number from 62 - f on. Error and cost: as exp."""
    return _exponential(b, x, 1, 0)


def expm1(b: Builder, x: Value) -> Value:
    """e^x - 1: domain, absolute error (4e-6 e^x plus one unit) and cost of exp."""
    return plus(b, exp(b, x), -1.0)


def _direct(b: Builder, frac: int) -> bool:
    """Whether the protocol has 2^y as one kernel, for numbers of so many fraction bits."""
    return "exp2_a" in b.kernels and b.ring_bits == 64 and frac <= _MOST


def _exponential(b: Builder, x: Value, factor: int, frac: int) -> Value:
    """2^y, y = x factor 2^-frac. The limits are compared on x, as y may have overflowed; -(-p // q) rounds up."""
    y = b.mul_raw(x, raw_constant(b, factor, frac, x.shape))
    lowest = -(((b.frac + 1) << y.type.frac) // factor)
    highest = -(-((62 - b.frac) << y.type.frac) // factor)
    limits = stack(b, [raw_constant(b, limit, x.type.frac, x.shape) for limit in (lowest, highest)])
    below = spread(b, x, 2).map(b.less, limits)
    return exp2_raw(b, y, below)


def exp2_raw(b: Builder, y: Value, below: Stack) -> Value:
    """2^y with b.frac fraction bits, for any number of fraction bits F of y, F + 6 < 62.

    `below` (two bools) says whether y is below the lowest and below the highest exponent: -f - 1 and 62 -
    f. n + t = y + f + 1, n in [0, 64) whole and t in [0, 1). The bits of n are bits of the word of y + f +
    1, 2^n is a product of functions of one or two of them, 2^t a polynomial of degree 4. Of the raw result
    2^(n - 1) 2^t only the half with n < 32 needs a truncation after the last product.
    Error: relative 4e-6 (polynomial 2.9e-6, t and 2^t rounded to 22 and 24 bits) plus one unit.
    Cost: 17 rounds; 2 comparisons, one conversion to boolean, 10 bit injections, 4 truncations, 6 integer
    products: 815 bytes. ABY3 has a kernel of its own, see `_exp2_direct`.
    """
    if _direct(b, 0) and y.type.frac <= EXPONENT:
        return _exp2_direct(b, y, below)
    frac = y.type.frac
    shifted = plus(b, y, b.frac + 1.0)
    word = b.bitcast(shifted, "int64")
    bit = [b.op("bit_parity", word, mask=1 << (frac + i)) for i in range(6)]
    too_low, not_too_high = below.rows(b)
    inside = b.logical("xor", not_too_high, too_low)
    b01, b23, large = both(b, [(bit[0], bit[1]), (bit[2], bit[3]), (inside, bit[5])])
    small = b.logical("xor", inside, large)
    bits = [bit[0], bit[1], b01, bit[2], bit[3], b23, bit[4], small, large, b.not_(not_too_high)]
    first, second, third, n, small_, large_, top = linear_tables(
        b,
        inject(b, bits),
        [
            [1, 3, 3] + [0] * 7,  # 2^d - 1, d = b0 + 2 b1: (2 - 1) b0 + (4 - 1) b1 + (8 - 4 - 2 + 1) b0 b1
            [0] * 3 + [15, 255, 4096 - 256 - 16 + 1] + [0] * 4,
            [0] * 6 + [2**16 - 1, 0, 0, 0],
            [1, 2, 0, 4, 8, 0, 16, 0, 32, 0],
            [0] * 7 + [1, 0, 0],
            [0] * 7 + [0, 1 << (32 - _MANTISSA - 1), 0],
            [0] * 9 + [LARGEST],
        ],
    )
    scale = b.mul_raw(b.mul_raw(plus(b, first, 1.0), plus(b, second, 1.0)), plus(b, third, 1.0))
    scales = stack(b, [small_, large_]).map(b.mul_raw, spread(b, scale, 2))
    fraction = plus(b, b.sub(b.with_frac(shifted, WORK), b.trunc(n, -WORK)), -0.5)
    power = _exp2_polynomial(b, fraction)
    low = b.mul_raw(reread(b, scales.row(b, 0), b.frac + 1), power)
    high = b.mul_raw(reread(b, scales.row(b, 1), b.frac), reread(b, power, 0))
    low = b.trunc(low, _MANTISSA + 1)
    return b.add(b.add(low, high), reread(b, top, b.frac))


def _exp2_direct(b: Builder, y: Value, below: Stack) -> Value:
    """2^(y + f) by the protocol's own kernel, 0 if y is too low, the largest number if it is too high.

    Error: relative 2e-7 plus one unit. Cost: 10 rounds; 2 comparisons, 2 bit injections, the kernel and an
    integer product: 206 bytes under ABY3.
    """
    too_low, not_too_high = below.rows(b)
    inside, high = inject(b, [b.logical("xor", not_too_high, too_low), b.not_(not_too_high)]).rows(b)
    raw = b.op("exp2", plus(b, b.trunc(y, y.type.frac - EXPONENT), float(b.frac)), to="fxp0")
    return reread(b, b.add(b.mul_raw(raw, inside), times_integer(b, high, LARGEST)), b.frac)


def _exp2_polynomial(b: Builder, u: Value) -> Value:
    """(a0 + a1 u) + q (a2 + a3 u + a4 q), q = u^2: 4 rounds, 2 truncated products."""
    a = EXP2
    q = b.trunc(b.mul_raw(u, u), WORK)
    inner = b.add(line(b, u, a[2], a[3]), times(b, q, a[4], COEFFICIENT))
    total = b.add(b.mul_raw(q, inner), b.trunc(line(b, u, a[0], a[1]), -WORK))
    return b.trunc(total, total.type.frac - _MANTISSA)
