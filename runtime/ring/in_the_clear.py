"""Ring arithmetic on values that somebody knows, as JAX code on words (bool: uint8 0 or 1).

Public values, private values at their owner, and REF2K compute with these. Integers only: the
same bits on every processor, which public values need (a float could differ in its last bit).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements, Word

_SIGNED = {np.dtype(np.uint32): np.int32, np.dtype(np.uint64): np.int64}


def truncate(x: Elements, *, bits: int) -> Elements:
    """x / 2^bits of a signed ring element, rounded to nearest."""
    return shift_right_arithmetic(x + bt.constant(x, 1 << (bits - 1)), bits=bits)


def signed(x: Elements) -> Elements:
    """The same bits read as two's complement; of 128 bits, the low 64."""
    if isinstance(x, Word):
        x = x.low
    return lax.bitcast_convert_type(x, _SIGNED[x.dtype])


def _unsigned(x: Elements) -> Elements:
    return lax.bitcast_convert_type(x, np.dtype(f"u{x.dtype.name}"))


def shift_right_arithmetic(x: Elements, *, bits: int) -> Elements:
    if not bits:
        return x
    if isinstance(x, Word):
        high = shift_right_arithmetic(x.high, bits=min(bits, 63))
        if bits < 64:
            return Word(bt.shift_right(x.low, bits) | bt.shift_left(x.high, 64 - bits), high)
        return Word(shift_right_arithmetic(x.high, bits=min(bits - 64, 63)), shift_right_arithmetic(x.high, bits=63))
    moved = signed(x)
    return _unsigned(lax.shift_right_arithmetic(moved, moved.dtype.type(bits)))


def _is_less(x: Elements, y: Elements, is_signed: bool) -> Elements:
    if isinstance(x, Word) and isinstance(y, Word):
        same: Elements = (x.high == y.high) & (x.low < y.low)
        return _is_less(x.high, y.high, is_signed) | same
    return signed(x) < signed(y) if is_signed else x < y


def less(x: Elements, y: Elements, *, signed: bool) -> Elements:
    return _is_less(x, y, signed).astype(np.uint8)


def equal(x: Elements, y: Elements) -> Elements:
    return (x == y).astype(np.uint8)


def select(c: Elements, x: Elements, y: Elements) -> Elements:
    out: Elements = jax.tree.map(lambda a, b: jnp.where(c != 0, a, b), x, y)
    return out


def prefix_or(x: Elements) -> Elements:
    distance = 1
    while distance < bt.width(x):
        x = x | bt.shift_right(x, distance)
        distance *= 2
    return x


def wrap(x: Elements, *, bits: int, signed: bool) -> Elements:
    """The canonical form of x mod 2^bits: sign- or zero-extended to the ring."""
    unused = bt.width(x) - bits
    if unused <= 0:
        return x
    x = bt.shift_left(x, unused)
    return shift_right_arithmetic(x, bits=unused) if signed else bt.shift_right(x, unused)


def toward_zero(x: Elements, *, bits: int) -> Elements:
    """x / 2^bits, rounded toward zero."""
    if not bits:
        return x
    sign = shift_right_arithmetic(x, bits=bt.width(x) - 1)  # all ones if negative
    return shift_right_arithmetic(x + (sign & bt.constant(x, (1 << bits) - 1)), bits=bits)


def integer_division(x: Elements, y: Elements, *, signed: bool) -> Elements:
    """floor(x / y); all ones where y is 0, as XLA does."""
    if isinstance(x, Word) and isinstance(y, Word):
        return _long_division(x, y, signed)
    dtype = x.dtype
    if signed:
        x, y = (lax.bitcast_convert_type(v, _SIGNED[dtype]) for v in (x, y))
    safe = jnp.where(y == 0, jnp.ones_like(y), y)
    quotient = jnp.where(y == 0, ~jnp.zeros_like(x), x // safe)
    return lax.bitcast_convert_type(quotient, dtype)


def _long_division(x: Word, y: Word, is_signed: bool) -> Word:
    """Bit by bit on the magnitudes; a negative quotient with a remainder is one less."""
    zero = Word(jnp.zeros_like(x.low), jnp.zeros_like(x.high))

    def magnitude(v: Word) -> tuple[Word, Elements]:
        negative = _is_less(v, zero, True) if is_signed else jnp.zeros_like(v.low, bool)
        return select(negative, -v, v), negative

    (p, p_negative), (q, q_negative) = magnitude(x), magnitude(y)

    def step(_: int, state: tuple[Word, Word, Word]) -> tuple[Any, Any, Any]:
        rest, left, quotient = state
        rest = bt.shift_left(rest, 1) | Word(bt.shift_right(left.high, 63), jnp.zeros_like(left.high))
        fits = ~_is_less(rest, q, False)
        rest = select(fits, rest - q, rest)
        digit = Word(fits.astype(np.uint64), jnp.zeros_like(left.high))
        return rest, bt.shift_left(left, 1), bt.shift_left(quotient, 1) | digit

    rest, _, quotient = lax.fori_loop(0, 128, step, (zero, p, zero))
    negative = select(rest != zero, ~quotient, -quotient)
    out: Word = select(y == zero, ~zero, select(p_negative ^ q_negative, negative, quotient))
    return out
