"""2^y of an exponent with 57 fraction bits modulo 128: the format, and what it is in the clear.

A = 2^31 2^y has 32 significant bits; modulo M = 2^128 - 1 its power of two is a rotation (see rotations.py). Integers
only: two parties must get the same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.rotations import Long, rotated, times_short

FRACTION = 57  # of the exponent, whose whole part has the other seven bits
SHIFT = 2  # the upper half of 2^62 2^(y + SHIFT) modulo M is 2^y

# 2^t, t in [0, 1), with 31 fraction bits: relative error 7.5e-8
POLYNOMIAL = (2147483487, 1488534890, 515725967, 119886103, 19304461, 4032066)


def significand(x: jax.Array) -> jax.Array:
    """2^31 2^t of the fraction t of x, below 2^32. Integers only: two parties must get the same."""
    t = bt.shift_right(x & bt.constant(x, (1 << FRACTION) - 1), FRACTION - 32)
    out = jnp.full_like(x, POLYNOMIAL[-1])
    for c in POLYNOMIAL[-2::-1]:
        out = bt.shift_right(out * t, 32) + bt.constant(x, c)
    return out


def power(x: jax.Array) -> Long:
    """2^31 2^x modulo M."""
    m = significand(x)
    return rotated((m ^ m, m), bt.shift_right(x, FRACTION))


def upper_product(x: Long, y: jax.Array) -> jax.Array:
    """The upper half of x 2^31 2^y modulo M."""
    return rotated(times_short(x, significand(y)), bt.shift_right(y, FRACTION))[0]


def exp2(y: jax.Array, *bits: jax.Array, factors: tuple[int, ...], tops: tuple[int, ...]) -> jax.Array:
    """2^y sum f_k b_k + 2^32 sum c_k b_k: 2^62 2^(y + 2) / 2^64 is a rotation of one significand."""
    x = y + bt.constant(y, SHIFT << FRACTION)
    m = bt.shift_left(significand(x), 31)
    power_of_two = rotated((m ^ m, m), bt.shift_right(x, FRACTION))[0]
    out = jnp.zeros_like(x)
    for bit, factor, top in zip(bits, factors, tops):
        term = power_of_two * bt.constant(x, factor % 2**64) + bt.constant(x, top << 32)
        out += term * bit.astype(np.uint64)
    return out
