"""2^y of a secret y in two rounds: the sum in the exponent becomes a product of what single parties know.

Secret bits say where it counts, and with which sign: they select what is dealt, which costs less than products.

Numbers modulo M = 2^128 - 1: there 2^128 = 1, so that multiplying by a power of two rotates the bits. Let y,
with 57 fraction bits modulo 128, be s + t, with s known to one party and t to others. Then with A =
2^31 2^s and B = 2^31 2^t, to 32 significant bits each, A B = 2^62 2^y, whether s + t wraps around or not.
Additive shares of A modulo M, which the one deals, are multiplied by B by those who know it. The result is
small, V < 2^127, so a + b = V + c M = V + c 2^128 - c, and the upper halves of a and b add up to the upper half of
V modulo 2^64, but for two units: the wrap c is gone. (Source: the rotation and the modulus are ours.)
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.harmonics import joined
from spuvm.runtime.protocols.protocol import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.exponential import FRACTION, SHIFT, power, upper_product
from spuvm.runtime.ring.rotations import Long, difference, masked_difference, selected, times_factor, total


def shared(x: Long) -> tuple[Long, Long]:
    """Party 0's number as parts of parties 1 and 2."""
    r = random((0, 1), x[0].shape, x[0].dtype), random((0, 1), x[0].shape, x[0].dtype)
    rest = masked_difference(x, r)
    return r, (send(rest[0], 0, 2), send(rest[1], 0, 2))


def exp2_aby3(y: Sharing, *bits: Sharing, factors: tuple[int, ...], tops: tuple[int, ...]) -> Sharing:
    """[y], fixed point of 57 fraction bits modulo 128, and bools [b_k] -> [2^y sum f_k b_k + 2^32 sum c_k b_k].

    For -1 <= y < 62, an integer; 0 exactly if the sums are. Two rounds after the bits. Error: relative 2e-7 plus one
    unit, times the largest factor. 32 bytes in all, 16 more for each factor that is not 0, 4 for each top.

    1. Party 0 knows s = y_0 + y_1 + 2, parties 1 and 2 know t = y_2. Party 0 shares A = 2^31 2^s modulo M: r is
       known to parties 0 and 1, A - r goes to party 2. It knows beta = b_0 xor b_1, and shares beta A and beta; with
       gamma = b_2, which they know, parties 1 and 2 have b A = beta A or A - beta A, and b = beta or 1 - beta.
    2. Party 1 has a = r B, party 2 has b = (A - r) B, with B = 2^31 2^t, where A is the sum of all f_k b_k A.
    3. They mask the upper halves of a and b by words that party 0 knows, and exchange them.

    Shares of 0 are complements, so that their upper halves add up to -1: the unit that is added makes it 0.
    """
    s, t = y[0] + y[1] + bt.constant(y[0], SHIFT << FRACTION), y[2]
    dealt = power(s)
    whole, first, second = shared(dealt), list[Long](), list[Long]()
    tops_first = tops_second = jnp.zeros_like(t)
    for bit, factor, top in zip(bits, factors, tops):
        beta, gamma = bit[0] ^ bit[1], bit[2]
        if factor:
            for parts, mine, all_of_it in zip((first, second), shared(selected(beta, dealt)), whole):
                flipped = gamma != 0
                other = difference(all_of_it, mine)
                chosen = jnp.where(flipped, other[0], mine[0]), jnp.where(flipped, other[1], mine[1])
                parts.append(times_factor(chosen, factor))
        if top:
            r = random((0, 1), s.shape, np.uint32)
            rest = send(beta.astype(np.uint32) - r, 0, 2)
            one = np.uint32(1)
            tops_first += _top(jnp.where(gamma != 0, one - r, r), top)
            tops_second += _top(jnp.where(gamma != 0, -rest, rest), top)
    a = upper_product(reduce(total, first), t) + tops_first
    b = upper_product(reduce(total, second), t) + bt.constant(t, 1) + tops_second  # of two units, to the middle
    return joined(a, b)


def _top(x: jax.Array, top: int) -> jax.Array:
    shifted: jax.Array = bt.shift_left((x * np.uint32(top)).astype(np.uint64), 32)
    return shifted
