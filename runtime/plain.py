"""Ring arithmetic on values that somebody knows, as JAX code on uint64 (bool: uint8 0 or 1).

Public values, private values at their owner, and REF2K compute with these. Integers only: the
same bits on every processor, which public values need (a float could differ in its last bit).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime import bits as bt

SIGN = 1 << 63


def truncate(x: jax.Array, *, bits: int) -> jax.Array:
    """x / 2^bits of a signed ring element, rounded to nearest."""
    return shift_right_arithmetic(x + bt.constant(x, 1 << (bits - 1)), bits=bits)


def shift_right_arithmetic(x: jax.Array, *, bits: int) -> jax.Array:
    if not bits:
        return x
    signed = lax.bitcast_convert_type(x, np.int64)
    return lax.bitcast_convert_type(lax.shift_right_arithmetic(signed, np.int64(bits)), np.uint64)


def less(x: jax.Array, y: jax.Array, *, signed: bool) -> jax.Array:
    if signed:
        x, y = lax.bitcast_convert_type(x, np.int64), lax.bitcast_convert_type(y, np.int64)
    return (x < y).astype(np.uint8)


def equal(x: jax.Array, y: jax.Array) -> jax.Array:
    return (x == y).astype(np.uint8)


def select(c: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(c != 0, x, y)


def prefix_or(x: jax.Array) -> jax.Array:
    for distance in (1, 2, 4, 8, 16, 32):
        x = x | bt.shift_right(x, distance)
    return x


def wrap(x: jax.Array, *, bits: int, signed: bool) -> jax.Array:
    """The canonical form of x mod 2^bits: sign- or zero-extended to the ring."""
    if bits == 64:
        return x
    x = bt.shift_left(x, 64 - bits)
    return shift_right_arithmetic(x, bits=64 - bits) if signed else bt.shift_right(x, 64 - bits)


def toward_zero(x: jax.Array, *, bits: int) -> jax.Array:
    """x / 2^bits, rounded toward zero."""
    if not bits:
        return x
    negative = bt.shift_right(x, 63)
    return shift_right_arithmetic(x + negative * bt.constant(x, (1 << bits) - 1), bits=bits)


def integer_division(x: jax.Array, y: jax.Array, *, signed: bool) -> jax.Array:
    """floor(x / y); all ones where y is 0, as XLA does."""
    if signed:
        x, y = lax.bitcast_convert_type(x, np.int64), lax.bitcast_convert_type(y, np.int64)
    safe = jnp.where(y == 0, jnp.ones_like(y), y)
    quotient = jnp.where(y == 0, jnp.full_like(x, -1 if signed else 2**64 - 1), x // safe)
    return lax.bitcast_convert_type(quotient, np.uint64)
