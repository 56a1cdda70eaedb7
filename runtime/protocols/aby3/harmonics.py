"""Sums of harmonics of a secret angle: f(x) = sum a_m sin(m x) + b_m cos(m x). Local products, no truncation.

An angle in turns is a fraction of the ring, so that x = s + t holds modulo a turn by itself, with s known to one party
and t to two. As sin(m (s + t)) = sin(m s) cos(m t) + cos(m s) sin(m t), additive shares of the sines and cosines of s,
dealt by the one, are multiplied by those of t, weighted, by those who know t, and added up.
A harmonic of a small coefficient needs few bits of each factor: the smaller it is, the shorter the words sent.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.protocol import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements
from spuvm.runtime.ring.harmonics import (
    EXPONENT,
    Weights,
    first_factor,
    harmonics,
    lengths,
    scale_of,
    second_factor,
)

PIECES: dict[int, list[Any]] = {32: [np.uint32], 40: [np.uint32, np.uint8], 48: [np.uint32, np.uint16], 64: [np.uint64]}


def _random(holders: tuple[int, int], like: Elements, bits: int) -> list[Elements]:
    """A random word as pieces, the lowest first."""
    return [random(holders, like.shape, dtype) for dtype in PIECES[bits]]


def _whole(pieces: list[Elements]) -> Elements:
    first, *others = (p.astype(np.uint64) for p in pieces)
    return first | bt.shift_left(others[0], 32) if others else first


def _rest(x: Elements, mask: list[Elements], src: int, dst: int) -> Elements:
    """The low bits of x less a random word, as many as it has, at `dst`."""
    return _whole([send(piece, src, dst) for piece in masked_difference_of_pieces(x, mask)])


@jax.jit
def masked_difference_of_pieces(x: Elements, mask: list[Elements]) -> list[Elements]:
    """x - r modulo 2^n in the pieces of r, which has n bits. Named so that who looks for masks finds it."""
    rest = x - _whole(mask)
    return [bt.shift_right(rest, s).astype(r.dtype) for s, r in zip((0, 32), mask)]


def harmonics_aby3(x: Sharing, *, weights: tuple[Weights, ...], step: int, frac: int) -> Sharing:
    """[x], an angle of 2^64 to a turn -> [sum a_m sin(m x) + b_m cos(m x)], m = 1, 1 + step, ... Three rounds.

    |sum| < 2, error: 2^-20 and one unit of 2^-frac. Sent: for each harmonic two words of 32 to 64 bits, and
    `lowered`. With 57 fraction bits the sum is not lowered: any sum modulo 128, two rounds, error 2^-22.

    1. Party 0 knows s = x_0 + x_1 and shares its cosines and sines: r is known to parties 0 and 1, the rest goes to
       party 2.
    2. Parties 1 and 2 know t = x_2. They multiply their shares and add up.
    """
    s, t, scale = x[0] + x[1], x[2], scale_of(frac)
    parts = [jnp.zeros_like(t), jnp.zeros_like(t)]
    pairs = (harmonics(v, len(weights), step) for v in (s, t))
    for w, (dealt_cosine, dealt_sine), (c, s) in zip(weights, *pairs):
        n, _, _ = lengths(w, scale)
        for dealt, factor in (
            (dealt_sine, second_factor(c, -s, w, scale)),
            (dealt_cosine, second_factor(s, c, w, scale)),
        ):
            r = _random((0, 1), t, n)
            rest = _rest(first_factor(dealt, w, scale), r, 0, 2)
            parts = [parts[0] + _whole(r) * factor, parts[1] + rest * factor]
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
    mask = _random((0, 1), a, length)
    c, rest = _whole(mask), _rest((p & q).astype(np.uint64), mask, 0, 2)
    d, e = send(g ^ p, 1, 2, 1).astype(np.uint64), send(h ^ q, 2, 1, 1).astype(np.uint64)
    d_sign, e_sign = (bt.constant(v, 1) - bt.shift_left(v, 1) for v in (d, e))
    first = d * e + e * d_sign * p.astype(np.uint64) + d_sign * e_sign * c
    second = d * e_sign * q.astype(np.uint64) + d_sign * e_sign * rest
    mine = bt.shift_right(a, bits) - bt.shift_left(g.astype(np.uint64) - first, 64 - bits)
    theirs = bt.shift_right(b, bits) - bt.shift_left(h.astype(np.uint64) - second, 64 - bits)
    theirs = theirs + bt.constant(b, 1 - (1 << (62 - bits)))  # of the two units that may be lost, to the middle
    return joined(mine, theirs)
