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

FRACTION = 57  # of the exponent, whose whole part has the other seven bits
SHIFT = 2  # V / 2^64 = 2^(y - 2)

# 2^t, t in [0, 1), with 31 fraction bits: relative error 7.5e-8
POLYNOMIAL = (2147483487, 1488534890, 515725967, 119886103, 19304461, 4032066)

Long = tuple[jax.Array, jax.Array]  # a number of 128 bits: its upper and its lower 64


def significand(x: jax.Array) -> jax.Array:
    """2^31 2^t of the fraction t of x, below 2^32. Integers only: two parties must get the same."""
    t = bt.shift_right(x & bt.constant(x, (1 << FRACTION) - 1), FRACTION - 32)
    out = jnp.full_like(x, POLYNOMIAL[-1])
    for c in POLYNOMIAL[-2::-1]:
        out = bt.shift_right(out * t, 32) + bt.constant(x, c)
    return out


def rotated(x: Long, bits: jax.Array) -> Long:
    """x 2^bits modulo M, 0 <= bits < 128."""
    swap = bits >= bt.constant(bits, 64)
    high, low = jnp.where(swap, x[1], x[0]), jnp.where(swap, x[0], x[1])
    by = bits & bt.constant(bits, 63)
    back = bt.constant(bits, 63) - by

    def shifted(upper: jax.Array, lower: jax.Array) -> jax.Array:
        return jax.lax.shift_left(upper, by) | jax.lax.shift_right_logical(bt.shift_right(lower, 1), back)

    return shifted(high, low), shifted(low, high)


def difference(x: Long, y: Long) -> Long:
    """x - y modulo M."""
    low = x[1] - y[1]
    borrow = (x[1] < y[1]).astype(np.uint64)
    high = x[0] - y[0] - borrow
    wraps = (x[0] < y[0]) | ((x[0] == y[0]) & (borrow != bt.constant(borrow, 0)))
    around = wraps.astype(np.uint64)  # 2^128 = 1 too much
    return high - (low < around).astype(np.uint64), low - around


def times_short(x: Long, m: jax.Array) -> Long:
    """x m modulo M, m < 2^32."""
    mask = bt.constant(m, (1 << 32) - 1)
    t0 = (x[1] & mask) * m
    t1 = bt.shift_right(x[1], 32) * m + bt.shift_right(t0, 32)
    t2 = (x[0] & mask) * m + bt.shift_right(t1, 32)
    t3 = bt.shift_right(x[0], 32) * m + bt.shift_right(t2, 32)
    low = bt.shift_left(t1, 32) | (t0 & mask)
    high = bt.shift_left(t3, 32) | (t2 & mask)
    low = low + bt.shift_right(t3, 32)  # what is above 2^128 counts below
    carry = (low < bt.shift_right(t3, 32)).astype(np.uint64)
    high = high + carry
    return high, low + (high < carry).astype(np.uint64)


def power(x: jax.Array) -> Long:
    """2^31 2^x modulo M."""
    m = significand(x)
    return rotated((m ^ m, m), bt.shift_right(x, FRACTION))


def upper_product(x: Long, y: jax.Array) -> jax.Array:
    """The upper half of x 2^31 2^y modulo M."""
    return rotated(times_short(x, significand(y)), bt.shift_right(y, FRACTION))[0]


def total(x: Long, y: Long) -> Long:
    """x + y modulo M, where the complement is the negative."""
    return difference(x, (~y[0], ~y[1]))


def selected(bit: jax.Array, x: Long) -> Long:
    """x where the bit is set, else 0."""
    mask = -bit.astype(np.uint64)
    return x[0] & mask, x[1] & mask


def _times_factor(x: Long, factor: int) -> Long:
    size = times_short(x, jnp.full_like(x[0], bt.constant(x[0], abs(factor))))
    return size if factor > 0 else (~size[0], ~size[1])


def shared(x: Long) -> tuple[Long, Long]:
    """Party 0's number as parts of parties 1 and 2."""
    r = random((0, 1), x[0].shape, x[0].dtype), random((0, 1), x[0].shape, x[0].dtype)
    rest = difference(x, r)
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
                parts.append(_times_factor(chosen, factor))
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


def exp2_plain(y: Sharing, *bits: Sharing, factors: tuple[int, ...], tops: tuple[int, ...]) -> Sharing:
    """The same of a value that somebody knows: 2^62 2^(y + 2) / 2^64 is a rotation of one significand."""
    x = y[0] + bt.constant(y[0], SHIFT << FRACTION)
    m = bt.shift_left(significand(x), 31)
    power_of_two = rotated((m ^ m, m), bt.shift_right(x, FRACTION))[0]
    out = jnp.zeros_like(x)
    for (bit,), factor, top in zip(bits, factors, tops):
        term = power_of_two * bt.constant(x, factor % 2**64) + bt.constant(x, top << 32)
        out += term * bit.astype(np.uint64)
    return (out,)
