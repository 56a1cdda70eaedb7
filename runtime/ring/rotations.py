"""Numbers modulo M = 2^128 - 1, as pairs of 64-bit words: there 2^128 = 1, so that multiplying by a power of two
rotates the bits, and the complement is the negative.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.ring import bits as bt

Long = tuple[jax.Array, jax.Array]  # a number of 128 bits: its upper and its lower 64


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


@jax.jit
def masked_difference(x: Long, r: Long) -> Long:
    """x - r modulo M, r uniform of 128 bits: independent of x but for 2^-128, as one number is 0 twice.

    A function with a name in the jaxpr: who looks for masks finds it.
    """
    return difference(x, r)


MASKED = "masked_difference"  # what the names of functions begin with that are bijections of their last argument


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


def total(x: Long, y: Long) -> Long:
    """x + y modulo M, where the complement is the negative."""
    return difference(x, (~y[0], ~y[1]))


def selected(bit: jax.Array, x: Long) -> Long:
    """x where the bit is set, else 0."""
    mask = -bit.astype(np.uint64)
    return x[0] & mask, x[1] & mask


def times_factor(x: Long, factor: int) -> Long:
    """x times a public factor, |factor| < 2^32."""
    size = times_short(x, jnp.full_like(x[0], bt.constant(x[0], abs(factor))))
    return size if factor > 0 else (~size[0], ~size[1])
