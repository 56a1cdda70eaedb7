"""Sums of harmonics of an angle: the format of the sum, the precision of each harmonic, and what it is in the clear.

f(x) = sum a_m sin(m x) + b_m cos(m x), with 2^64 to a turn. Integers only: two parties must get the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements
from spuvm.runtime.ring.in_the_clear import shift_right_arithmetic

COEFFICIENT = 40  # fraction bits of a_m and b_m
SUM = 61  # fraction bits of f(x), |f(x)| < 2, before it is lowered
EXPONENT = 57  # fraction bits of an f(x) that is wanted modulo 128, and not lowered
_UNIT = 30  # fraction bits of sines and cosines
_PRECISION = {SUM: 23, EXPONENT: 24}  # bits below which an error in a harmonic does not count

# sin(pi/4 r) / r and cos(pi/4 r) in q = r^2, |r| <= 1, with 30 fraction bits: errors 2^-30
SINE = (843314857, -86699833, 2674039, -39269, 332)
COSINE = (1073741824, -331168970, 17023472, -350031, 3855, -26)

Pair = tuple[Elements, Elements]
Weights = tuple[int, int]  # a_m and b_m


def _half_product(x: Elements, y: Elements) -> Elements:
    """x y of signed numbers of 30 fraction bits."""
    return shift_right_arithmetic(x * y, bits=_UNIT)


def _polynomial(q: Elements, coefficients: tuple[int, ...]) -> Elements:
    out = jnp.full_like(q, bt.constant(q, coefficients[-1]))
    for c in coefficients[-2::-1]:
        out = _half_product(out, q) + bt.constant(q, c)
    return out


def circle(angle: Elements) -> Pair:
    """Cosine and sine with 30 fraction bits. Integers only: two parties must get the same."""
    eighth = angle + bt.constant(angle, 1 << 61)
    quarter, within = bt.shift_right(eighth, 62), eighth & bt.constant(angle, (1 << 62) - 1)
    r = shift_right_arithmetic(within - bt.constant(angle, 1 << 61), bits=61 - _UNIT)
    q = _half_product(r, r)
    c, s = _polynomial(q, COSINE), _half_product(r, _polynomial(q, SINE))
    odd, upper = (quarter & bt.constant(angle, 1)) != 0, (quarter & bt.constant(angle, 2)) != 0
    c, s = jnp.where(odd, -s, c), jnp.where(odd, c, s)
    return jnp.where(upper, -c, c), jnp.where(upper, -s, s)


def harmonics(angle: Elements, count: int, step: int) -> Iterator[Pair]:
    """Cosine and sine of m times the angle, m = 1, 1 + step, 1 + 2 step, ..., by Chebyshev's recurrence."""
    c, s = circle(angle)
    twice = bt.shift_left(c if step == 1 else _half_product(c, c) - _half_product(s, s), 1)
    before = (c, -s) if step == 2 else (jnp.full_like(c, bt.constant(c, 1 << _UNIT)), jnp.zeros_like(s))
    for _ in range(count):
        yield c, s
        (c, s), before = (_half_product(twice, c) - before[0], _half_product(twice, s) - before[1]), (c, s)


def rounded(x: Elements, bits: int) -> Elements:
    """x / 2^bits, to nearest."""
    return (
        shift_right_arithmetic(x + bt.constant(x, 1 << (bits - 1)), bits=bits) if bits > 0 else bt.shift_left(x, -bits)
    )


def scale_of(frac: int) -> int:
    """Fraction bits of the sum of products."""
    return EXPONENT if frac == EXPONENT else SUM


def lengths(weights: Weights, scale: int) -> tuple[int, int, int]:
    """Bits of a harmonic's words, and fraction bits of its two factors, the weights in the second.

    With words of n bits the product has scale - (64 - n) fraction bits; both roundings then count the same.
    """
    small = COEFFICIENT - max(map(abs, weights)).bit_length()  # weights are below 2^-small
    fits = (n for n in (32, 40, 48) if (n - 64 + scale + small) // 2 >= _PRECISION[scale])
    n = next(fits, 64)
    fraction = n - 64 + scale
    first = min(max((fraction - small) // 2, 1), _UNIT)
    return n, first, fraction - first


def first_factor(x: Elements, weights: Weights, scale: int) -> Elements:
    """The factor of the party that deals."""
    return rounded(x, _UNIT - lengths(weights, scale)[1])


def second_factor(x: Elements, y: Elements, weights: Weights, scale: int) -> Elements:
    """The factor a x + b y, with as many zeros below as the words are shorter than the ring."""
    n, _, fraction = lengths(weights, scale)
    short = max(max(map(abs, weights)).bit_length() - 31, 0)  # of the weights, so that the products fit
    a, b = (bt.constant(x, round(w / 2**short)) for w in weights)
    return bt.shift_left(rounded(x * a + y * b, _UNIT + COEFFICIENT - short - fraction), 64 - n)


def sum_of_harmonics(x: Elements, *, weights: tuple[Weights, ...], step: int, frac: int) -> Elements:
    """sum a_m sin(m x) + b_m cos(m x) with `frac` fraction bits, of an angle of 2^64 to a turn."""
    total, scale = jnp.zeros_like(x), scale_of(frac)
    one, zero = jnp.full_like(total, bt.constant(total, 1 << _UNIT)), jnp.zeros_like(total)
    for w, (c, s) in zip(weights, harmonics(x, len(weights), step)):
        total = total + first_factor(s, w, scale) * second_factor(one, zero, w, scale)
        total = total + first_factor(c, w, scale) * second_factor(zero, one, w, scale)
    return rounded(total, scale - frac)
