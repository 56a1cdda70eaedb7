"""Bit tricks on words, as JAX code: packing for the wire, permutations, prefix networks.

All of them are linear over exclusive or, so they apply to each component of a boolean sharing.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax

Word = Any  # a NumPy scalar: with arrays it works, and types, as an array of its dtype
WORD: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def word_dtype(bits: int) -> Any:
    """The smallest unsigned dtype of at least `bits` bits."""
    return WORD[max(8, 1 << (bits - 1).bit_length())]


def constant(x: jax.Array, value: int) -> Word:
    """`value` as a scalar of the dtype of `x`, modulo its width."""
    word: Word = np.dtype(x.dtype).type(value & (2 ** (x.dtype.itemsize * 8) - 1))
    return word


def shift_left(x: jax.Array, bits: int) -> jax.Array:
    return lax.shift_left(x, constant(x, bits)) if bits else x


def shift_right(x: jax.Array, bits: int) -> jax.Array:
    return lax.shift_right_logical(x, constant(x, bits)) if bits else x


def pack(x: jax.Array, bits: int) -> jax.Array:
    """[n] uint8 words of `bits` < 8 significant bits -> [n * bits / 8] uint8; n a multiple of 8."""
    if bits == 8:
        return x
    count = 8 // bits
    wide = lax.bitcast_convert_type(x.reshape(-1, count), WORD[8 * count])
    if bits == 1:  # the multiplication gathers the low bits of the eight bytes in the top byte
        return shift_right(wide * constant(wide, 0x0102040810204080), 56).astype(np.uint8)
    parts = [shift_right(wide, i * (8 - bits)) for i in range(count)]
    out = parts[0] & constant(wide, (1 << bits) - 1)
    for i, part in enumerate(parts[1:], 1):
        out = out | (part & constant(wide, ((1 << bits) - 1) << (i * bits)))
    packed: jax.Array = out.astype(np.uint8)
    return packed


def unpack(x: jax.Array, bits: int) -> jax.Array:
    """The inverse of `pack`."""
    if bits == 8:
        return x
    count = 8 // bits
    wide = x.astype(WORD[8 * count])
    if bits == 1:
        spread = (wide * constant(wide, 0x0101010101010101)) & constant(wide, 0x8040201008040201)
        out = shift_right(spread + constant(wide, 0x7F7F7F7F7F7F7F7F), 7) & constant(wide, 0x0101010101010101)
    else:
        out = wide & constant(wide, (1 << bits) - 1)
        for i in range(1, count):
            out = out | (shift_left(wide, i * (8 - bits)) & constant(wide, ((1 << bits) - 1) << (8 * i)))
    elements: jax.Array = lax.bitcast_convert_type(out, np.uint8).reshape(-1)
    return elements


def swap_digits(x: jax.Array, low: int, high: int) -> jax.Array:
    """Move every bit to the index with the binary digits `low` and `high` of its own exchanged."""
    if low == high:
        return x
    width = x.dtype.itemsize * 8
    mask = sum(1 << i for i in range(width) if (i >> low) & 1 and not (i >> high) & 1)
    distance = (1 << high) - (1 << low)
    t: jax.Array = (shift_right(x, distance) ^ x) & constant(x, mask)
    return x ^ t ^ shift_left(t, distance)


def bit_reverse_indices(x: jax.Array) -> jax.Array:
    """Move the bit at index i (of 6 binary digits) to the index whose digits are i's, reversed.

    Afterwards the odd bits stand in the upper half, and so on recursively: every level of a
    carry tree is one shift.
    """
    digits = (x.dtype.itemsize * 8 - 1).bit_length()
    for low in range(digits // 2):
        x = swap_digits(x, low, digits - 1 - low)
    return x


def parity(x: jax.Array, mask: int) -> jax.Array:
    """The exclusive or of the bits under `mask`, as uint8 0 or 1."""
    x = x & constant(x, mask)
    if mask & (mask - 1) == 0:
        return shift_right(x, mask.bit_length() - 1).astype(np.uint8)
    width = x.dtype.itemsize * 8
    while width > 1:
        width //= 2
        x = x ^ shift_right(x, width)
    bit: jax.Array = (x & constant(x, 1)).astype(np.uint8)
    return bit
