"""base^n of a public base below 1 and a secret whole number n, with more fraction bits than an exponential has.

1 - b^n of a counter n, by which an average is corrected, is as small as (1 - b) n: what is divided by it wants b^n to
many digits. base^n is the product of base^(2^i) over the bits i of n, up to the one where it is less than half a unit.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from spuvm.compiler.functions.exp import power_of
from spuvm.compiler.functions.polynomial import constant, inject, plus, raw_constant, reread, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value


def power_of_whole(b: Builder, base: float, x: Value) -> Value:
    """base^x for whole x, 0 < base < 1, as fixed point of any fraction bits.

    Error: one unit for each bit of x that counts, for 0 <= x; elsewhere that of `exp.power_of`, with its range.
    Cost: that of `exp.power_of`, two comparisons, one conversion to boolean, m bit injections in one round, m - 1
    truncated products in log2(m) rounds of them, m the bits of x up to where base^x is less than half a unit.
    """
    factors = _squares(base, b.frac)
    if 2 * b.frac + 1 > b.ring_bits - 2:
        return power_of(b, base, x)
    word = b.word(x)
    bits = inject(b, [b.op("bit_parity", word, mask=1 << (x.type.frac + i)) for i in range(len(factors))])
    one = 1 << b.frac
    powers = [
        plus(b, reread(b, times_integer(b, bit, factor - one), b.frac), 1.0)
        for bit, factor in zip(bits.rows(b), factors)
    ]
    low = b.less(x, constant(b, 0, x.type.frac, x.shape))
    high = b.less(x, raw_constant(b, 1 << (len(factors) + x.type.frac), x.type.frac, x.shape))
    inside = b.logical("xor", high, low)
    return b.select(inside, _product(b, powers), power_of(b, base, x))


def _squares(base: float, frac: int) -> list[int]:
    """base^(2^i) as raw numbers, up to the last that is half a unit."""
    found: list[int] = []
    with localcontext(prec=60):
        power = Decimal(base)
        while not found or power * 2**frac >= Decimal("0.5"):
            found.append(round(power * 2**frac))
            power = power * power
    return found


def _product(b: Builder, xs: list[Value]) -> Value:
    """By halves: log2 of so many rounds of products."""
    if len(xs) == 1:
        return xs[0]
    middle = len(xs) // 2
    return b.mul(_product(b, xs[:middle]), _product(b, xs[middle:]))
