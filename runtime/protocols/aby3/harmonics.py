"""Sums of harmonics of a secret angle: f(x) = sum a_m sin(m x) + b_m cos(m x). Local products, no truncation.

An angle in turns is a fraction of the ring, so that x = s + t holds modulo a turn by itself, with s known to one party
and t to two. As sin(m (s + t)) = sin(m s) cos(m t) + cos(m s) sin(m t), additive shares of the sines and cosines of s,
dealt by the one, are multiplied by those of t, weighted, by those who know t, and added up.
A harmonic of a small coefficient needs few bits of each factor: the smaller it is, the shorter the words sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.protocol import Sharing
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

PIECES: dict[int, list[Any]] = {32: [np.uint32], 40: [np.uint32, np.uint8], 48: [np.uint32, np.uint16], 64: [np.uint64]}
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


def _rounded(x: Elements, bits: int) -> Elements:
    """x / 2^bits, to nearest."""
    return (
        shift_right_arithmetic(x + bt.constant(x, 1 << (bits - 1)), bits=bits) if bits > 0 else bt.shift_left(x, -bits)
    )


def _scale(frac: int) -> int:
    """Fraction bits of the sum of products."""
    return EXPONENT if frac == EXPONENT else SUM


def _lengths(weights: Weights, scale: int) -> tuple[int, int, int]:
    """Bits of a harmonic's words, and fraction bits of its two factors, the weights in the second.

    With words of n bits the product has scale - (64 - n) fraction bits; both roundings then count the same.
    """
    small = COEFFICIENT - max(map(abs, weights)).bit_length()  # weights are below 2^-small
    fits = (n for n in (32, 40, 48) if (n - 64 + scale + small) // 2 >= _PRECISION[scale])
    n = next(fits, 64)
    fraction = n - 64 + scale
    first = min(max((fraction - small) // 2, 1), _UNIT)
    return n, first, fraction - first


def _first(x: Elements, weights: Weights, scale: int) -> Elements:
    """The factor of the party that deals."""
    return _rounded(x, _UNIT - _lengths(weights, scale)[1])


def _second(x: Elements, y: Elements, weights: Weights, scale: int) -> Elements:
    """The factor a x + b y, with as many zeros below as the words are shorter than the ring."""
    n, _, fraction = _lengths(weights, scale)
    short = max(max(map(abs, weights)).bit_length() - 31, 0)  # of the weights, so that the products fit
    a, b = (bt.constant(x, round(w / 2**short)) for w in weights)
    return bt.shift_left(_rounded(x * a + y * b, _UNIT + COEFFICIENT - short - fraction), 64 - n)


def _random(holders: tuple[int, int], like: Elements, bits: int) -> list[Elements]:
    """A random word as pieces, the lowest first."""
    return [random(holders, like.shape, dtype) for dtype in PIECES[bits]]


def _whole(pieces: list[Elements]) -> Elements:
    first, *others = (p.astype(np.uint64) for p in pieces)
    return first | bt.shift_left(others[0], 32) if others else first


def _sent(x: Elements, bits: int, src: int, dst: int) -> Elements:
    """The low bits of x at `dst`."""
    shifts = (0, 32)
    return _whole([send(bt.shift_right(x, s).astype(d), src, dst) for s, d in zip(shifts, PIECES[bits])])


def harmonics_aby3(x: Sharing, *, weights: tuple[Weights, ...], step: int, frac: int) -> Sharing:
    """[x], an angle of 2^64 to a turn -> [sum a_m sin(m x) + b_m cos(m x)], m = 1, 1 + step, ... Three rounds.

    |sum| < 2, error: 2^-20 and one unit of 2^-frac. Sent: for each harmonic two words of 32 to 64 bits, and
    `lowered`. With 57 fraction bits the sum is not lowered: any sum modulo 128, two rounds, error 2^-22.

    1. Party 0 knows s = x_0 + x_1 and shares its cosines and sines: r is known to parties 0 and 1, the rest goes to
       party 2.
    2. Parties 1 and 2 know t = x_2. They multiply their shares and add up.
    """
    s, t, scale = x[0] + x[1], x[2], _scale(frac)
    parts = [jnp.zeros_like(t), jnp.zeros_like(t)]
    pairs = (harmonics(v, len(weights), step) for v in (s, t))
    for w, (dealt_cosine, dealt_sine), (c, s) in zip(weights, *pairs):
        n, _, _ = _lengths(w, scale)
        for dealt, factor in ((dealt_sine, _second(c, -s, w, scale)), (dealt_cosine, _second(s, c, w, scale))):
            r = _whole(_random((0, 1), t, n))
            rest = _sent(_first(dealt, w, scale) - r, n, 0, 2)
            parts = [parts[0] + r * factor, parts[1] + rest * factor]
    return joined(*parts) if scale == EXPONENT else lowered(parts[0], parts[1], scale - frac)


def joined(a: Elements, b: Elements) -> Sharing:
    """a at party 1 and b at party 2 -> [a + b]. They mask them by words that party 0 knows, and exchange them."""
    z0, z1 = random((0, 2), a.shape, a.dtype), random((0, 1), a.shape, a.dtype)
    return z0, z1, send(a - z1, 1, 2) + send(b - z0, 2, 1)


def lowered(a: Elements, b: Elements, bits: int) -> Sharing:
    """a at party 1 and b at party 2 with |a + b| < 2^62 modulo 2^64 -> [(a + b) / 2^bits], one unit off. Two rounds.

    1. As 0 <= a + b + 2^62 < 2^63, that sum wraps around, w = 1, if and only if either word has its top bit, g or h.
    2. w = g + h - g h. Party 0 knows a bit p with party 1, q with party 2, and shares p q between them. They exchange
       g xor p and h xor q; g h is linear in p, q and p q.
    3. What each has, shifted, with w 2^(64 - bits) taken off, is `joined`.
    """
    b = b + bt.constant(b, 1 << 62)
    one = np.uint8(1)
    g, h = (bt.shift_right(v, 63).astype(np.uint8) for v in (a, b))
    p, q = random((0, 1), g.shape, np.uint8) & one, random((0, 2), g.shape, np.uint8) & one
    length = next(n for n in (32, 40, 48, 64) if n >= bits)  # of a number that is multiplied by 2^(64 - bits)
    c = _whole(_random((0, 1), a, length))
    rest = _sent((p & q).astype(np.uint64) - c, length, 0, 2)
    d, e = send(g ^ p, 1, 2, 1).astype(np.uint64), send(h ^ q, 2, 1, 1).astype(np.uint64)
    d_sign, e_sign = (bt.constant(v, 1) - bt.shift_left(v, 1) for v in (d, e))
    first = d * e + e * d_sign * p.astype(np.uint64) + d_sign * e_sign * c
    second = d * e_sign * q.astype(np.uint64) + d_sign * e_sign * rest
    mine = bt.shift_right(a, bits) - bt.shift_left(g.astype(np.uint64) - first, 64 - bits)
    theirs = bt.shift_right(b, bits) - bt.shift_left(h.astype(np.uint64) - second, 64 - bits)
    theirs = theirs + bt.constant(b, 1 - (1 << (62 - bits)))  # of the two units that may be lost, to the middle
    return joined(mine, theirs)


def harmonics_plain(x: Sharing, *, weights: tuple[Weights, ...], step: int, frac: int) -> Sharing:
    """The same of a value that somebody knows."""
    total, scale = jnp.zeros_like(x[0]), _scale(frac)
    one, zero = jnp.full_like(total, bt.constant(total, 1 << _UNIT)), jnp.zeros_like(total)
    for w, (c, s) in zip(weights, harmonics(x[0], len(weights), step)):
        total = total + _first(s, w, scale) * _second(one, zero, w, scale)
        total = total + _first(c, w, scale) * _second(zero, one, w, scale)
    return (_rounded(total, scale - frac),)
