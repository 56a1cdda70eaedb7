"""x 2^y of a fixed-point exponent y: the format, and what it is in the clear. Numbers modulo M as in exponential.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.exponential import FRACTION, significand
from spuvm.runtime.ring.rotations import Long, rotated, times_short, total

SIGNIFICANT = 20  # fraction bits of A and of B, each in [1, 2] times a power of two
SHIFT = 64 - 2 * SIGNIFICANT  # 2^64 x 2^y = x A B with 2^(y + SHIFT) = 2^-40 A B
LEAST = 1 - SHIFT  # of y, so that A B is whole


def short_significand(y: jax.Array) -> jax.Array:
    """The significand of 2^y with 20 fraction bits, to nearest."""
    drop = 31 - SIGNIFICANT
    rounded: jax.Array = bt.shift_right(significand(y) + bt.constant(y, 1 << (drop - 1)), drop)
    return rounded


def times_whole_power(x: Long, y: jax.Array) -> Long:
    """x 2^y for the whole part of y."""
    return rotated(x, bt.shift_right(y, FRACTION))


def times_word(x: Long, t: jax.Array) -> Long:
    """x t modulo M."""
    low, high = t & bt.constant(t, (1 << 32) - 1), bt.shift_right(t, 32)
    return total(times_short(x, low), rotated(times_short(x, high), jnp.full_like(t, bt.constant(t, 32))))


def times_power(x: jax.Array, y: jax.Array) -> jax.Array:
    """x 2^y, y with 57 fraction bits modulo 128, |x 2^y| < 2^62, -23 <= y."""
    exponent = y + bt.constant(y, SHIFT << FRACTION)
    m = bt.shift_left(short_significand(exponent), SIGNIFICANT)
    negative = bt.shift_right(x, 63)
    size = jnp.where(negative != 0, -x, x)
    low = times_short((jnp.zeros_like(m), size), bt.shift_right(m, 2 * SIGNIFICANT - 31))
    high = times_whole_power(rotated(low, jnp.full_like(m, bt.constant(m, 2 * SIGNIFICANT - 31))), exponent)[0]
    return jnp.where(negative != 0, -high, high)
