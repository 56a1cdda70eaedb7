"""Comparisons, and between arithmetic and boolean sharings (ABY3)."""

from __future__ import annotations

from functools import reduce

import jax

from spuvm.runtime.engine.primitives import send, uniform_opening
from spuvm.runtime.protocols.aby3.below_public import below
from spuvm.runtime.protocols.aby3.products import and_bb, random_component, random_pair
from spuvm.runtime.protocols.aby3.sign import negative
from spuvm.runtime.protocols.aby3.sum_bits import bits_of_sum
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.protocol import all_bits, carries, each, prefix_or, xor, xor_constant
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


def _summands(x: Sharing) -> tuple[Sharing, Elements]:
    """Party 0 shares s = x_0 + x_1 as a word; parties 1 and 2 know x_2: x = s + x_2. One word sent.

    s is (s xor r, r, 0) where r is known to parties 0 and 1 and party 0 sends s xor r to party 2.
    """
    s = x[0] + x[1]
    r = random_pair(0, 1, s)
    return (send(s ^ r, 0, 2), r, bt.zeros_like(r)), x[2]


def msb_a(x: Sharing) -> Sharing:
    """[x] -> its most significant bit, see `sign`. 1 + log2 k rounds, two for the first level."""
    return negative(and_bb, x)


def below_ap(x: Sharing, *limits: Sharing) -> Sharing:
    """[x], public y_i -> whether x < y_i, as bit i of bytes: see `limits`. log2 k rounds."""
    signs = below(and_bb, x, [y for (y,) in limits])
    placed = (each(lambda a, i=i: bt.shift_left(a, i), sign) for i, sign in enumerate(signs))
    return reduce(xor, placed)


def eqz_a(x: Sharing) -> Sharing:
    """[x] -> whether x is zero, that is s = -x_2: no sum needed. 1 + log2 k rounds."""
    s, t = _summands(x)
    return all_bits(and_bb, xor_constant((s[0], s[1], -t), -1))


def a2b(x: Sharing) -> Sharing:
    """[x] -> its bits as a boolean sharing, see `sums`. 2 + log2 k rounds."""
    return bits_of_sum(and_bb, x)


def b2a(x: Sharing) -> Sharing:
    """A shared word [x] -> arithmetic [x]. 2 + log2 k rounds.

    1. Components 0 and 1 are random words; party 0 knows both and shares sigma = -(y_0 + y_1).
    2. The boolean sum x + sigma is component 2, opened to parties 1 and 2, who hold it: x - y_0 - y_1, of which party 1
       lacks y_0 and party 2 lacks y_1, so that it is uniform to either.
    """
    y0, y1 = random_component(0, x[0]), random_component(1, x[0])
    sigma = -(y0 + y1)
    r = random_pair(0, 1, sigma)
    s = (send(sigma ^ r, 0, 2), r, bt.zeros_like(r))
    g, p = and_bb(x, s, bits=bt.width(x[0])), xor(x, s)
    z = xor(p, each(lambda a: bt.shift_left(a, 1), carries(and_bb, g, p)))
    y2 = jax.tree.map(uniform_opening, send(z[0], 2, 1) ^ send(z[1], 1, 2) ^ z[2])
    return y0, y1, y2


def bit2a(x: Sharing, *, ring: int) -> Sharing:
    """A shared bool [b] -> arithmetic [b] mod 2^ring (bit injection). Two rounds, one word a party.

    1. Party 0 knows beta = b_0 xor b_1; parties 1 and 2 know b_2: b = b_2 + beta (1 - 2 b_2).
    2. beta = r + m: r is known to parties 0 and 1, party 0 sends m to party 2.
    3. Party 1 knows r (1 - 2 b_2), party 2 knows m (1 - 2 b_2) + b_2; they mask and exchange them.
    """
    beta, bit = bt.cast(x[0] ^ x[1], ring), bt.cast(x[2], ring)
    sign = bt.constant(bit, 1) - bt.shift_left(bit, 1)
    r = random_pair(0, 1, beta)
    m = send(beta - r, 0, 2)
    y0, y1 = random_pair(0, 2, beta), random_pair(0, 1, beta)
    y2 = send(r * sign - y1, 1, 2) + send(m * sign + bit - y0, 2, 1)
    return y0, y1, y2


def prefix_or_b(x: Sharing) -> Sharing:
    """Shared words: bit i becomes the or of bits i and above. log2 k rounds."""
    return prefix_or(and_bb, x)
