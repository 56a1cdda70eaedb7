"""The leading bit of a secret number: |x| = c * 2^E with c in [1/2, 1], digits of E, and powers of two of E.

Reciprocals, logarithms and roots start here. The word of bits of x gives, by `prefix_or`, a thermometer
whose length is E. Which value a base-4 digit of E has is then a parity of thermometer bits, hence local,
and so is any function of one digit once its indicators are integers: sum of indicator * public table entry.

Cost in a ring of 64 bits: 8 rounds (arithmetic to boolean) + 6 (prefix_or) + 2 (10 bit injections in one
call, 11 if signed); about 102 + 72 + 240 bytes (ABY3, where most of it goes by `by_logarithm` instead). Source:
the idea of the power-of-two scale is that of Catrina and de Hoogh (Norm, "Secure multiparty linear programming",
2010); parities in place of additions are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spuvm.compiler.functions.polynomial import (
    Stack,
    constant,
    inject,
    linear_tables,
    raw_constant,
    reread,
    times_integer,
    work,
)
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

Table = Callable[[int], int]  # value of a base-4 digit of E -> ring element
COARSE, MIDDLE, FINE = 4, 2, 0  # the digit's place: E = 16 coarse + 4 middle + fine


def _digits(b: Builder) -> list[tuple[int, int]]:
    """The indicators: place and value."""
    return [(4, v) for v in range(b.ring_bits // 16)] + [(place, v) for place in (2, 0) for v in (1, 2, 3)]


def scales(b: Builder) -> tuple[tuple[int, Table], ...]:
    """Tables whose product is 2^(k - 1 - E)."""
    last = b.ring_bits - 16
    return (
        (COARSE, lambda v: 1 << (last - 16 * v)),
        (MIDDLE, lambda v: 1 << (12 - 4 * v)),
        (FINE, lambda v: 1 << (3 - v)),
    )


@dataclass(frozen=True)
class Leading:
    """Indicators of the digits of E; all 0 if the number is invalid: zero, or negative when unsigned."""

    indicators: Stack  # fxp0: coarse = 0..k/16 - 1, middle = 1..3, fine = 1..3
    sign: Value | None  # fxp0 [*shape]: 1 or -1

    def tables(self, b: Builder, *tables: tuple[int, Table]) -> list[Value]:
        """Functions of one digit each, as (place, table): local. Invalid: 0 if coarse, else table(0)."""
        matrix = [[_entry(place, table, p, v) for p, v in _digits(b)] for place, table in tables]
        values = linear_tables(b, self.indicators, matrix)
        offsets = [0 if place == COARSE else table(0) for place, table in tables]
        return [b.add(x, raw_constant(b, y, 0, x.shape)) if y else x for x, y in zip(values, offsets)]

    def valid(self, b: Builder) -> Value:
        """1 if the number is valid, else 0."""
        return self.tables(b, (COARSE, lambda v: 1))[0]


def _entry(place: int, table: Table, digit: int, value: int) -> int:
    if digit != place:
        return 0
    return table(value) if place == COARSE else table(value) - table(0)


def leading_bit(b: Builder, x: Value, *, signed: bool) -> Leading:
    """E for every x != 0 (signed) or x > 0: |x| raw in [2^(E-1), 2^E], the upper end only if x is negative.

    Signed: the word 2 |x| - [x < 0] of bits, which is local from x; it is zero for x = 0 alone.
    """
    top = b.ring_bits - 1
    word = b.word(x)
    if signed:
        fill = b.op("shift_right_arithmetic", word, bits=top)
        twice = b.op("shift_left", b.logical("xor", word, fill), bits=1)
        bits = b.logical("xor", twice, b.op("shift_right_logical", word, bits=top))
    else:
        bits = word
    thermometer = b.op("prefix_or", bits, bits=0)
    shift = 0 if signed else 1
    bools = [b.op("bit_parity", thermometer, mask=_mask(place, v, shift, b.ring_bits)) for place, v in _digits(b)]
    if signed:
        bools.append(b.op("bit_parity", word, mask=1 << top))
    integers = inject(b, bools)
    n = len(_digits(b))
    if not signed:
        return Leading(integers, None)
    sign = b.sub(constant(b, 1, 0, x.shape), times_integer(b, integers.row(b, n), 2))
    return Leading(integers.take(b, n), sign)


def _mask(place: int, value: int, shift: int, k: int) -> int:
    """Thermometer bits whose parity says: a digit of E = (position of the leading bit) + shift is `value`.

    The leading bit is where the thermometer changes, so each position stands for itself and the one above it.
    Position k - 1 of an unsigned number is its sign: a negative number has no E.
    """
    base = k // 16 if place == COARSE else 4
    positions = [p for p in range(k - shift) if ((p + shift) >> place) % base == value]
    ones = sum(1 << p for p in positions)
    return (ones ^ (ones << 1)) & ((1 << k) - 1)


def mantissa(b: Builder, magnitude: Value, lead: Leading, scale: Value, frac: int | None = None) -> Value:
    """u = 2 c - 3/2 in [-1/2, 1/2] with `frac` fraction bits, from |x| and scale = 2^(k - 1 - E); invalid: -1/2.

    2 rounds, one truncated product. c 2^(k - 1) wraps around in the ring, u 2^(k - 2) does not.
    """
    top = b.ring_bits - 2
    product = b.mul_raw(reread(b, magnitude, top), scale)
    offset = times_integer(b, reread(b, lead.valid(b), top), 1 << top)
    centred = b.sub(b.sub(product, offset), constant(b, 0.5, top, product.shape))
    return b.trunc(centred, top - (work(b) if frac is None else frac))
