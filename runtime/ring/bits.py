"""Bit tricks on words, as JAX code: packing for the wire, permutations, prefix networks.

All of them are linear over exclusive or, so they apply to each component of a boolean sharing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime.ring.elements import Elements, Word

Scalar = Any  # a NumPy scalar: with arrays it works, and types, as an array of its dtype; or a Word of two
WORD: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def word_dtype(bits: int) -> Any:
    """The smallest unsigned dtype of at least `bits` <= 64 bits."""
    return WORD[max(8, 1 << (bits - 1).bit_length())]


def width(x: Elements) -> int:
    """The bits of an element."""
    return int(x.dtype.itemsize) * 8


def constant(x: Elements, value: int) -> Scalar:
    """`value` as a scalar of the dtype of `x`, modulo its width."""
    if isinstance(x, Word):
        return Word(*(np.uint64((value >> shift) & (2**64 - 1)) for shift in (0, 64)))
    word: Scalar = np.dtype(x.dtype).type(value & (2 ** width(x) - 1))
    return word


def zeros_like(x: Elements) -> Elements:
    zeros: Elements = jax.tree.map(jnp.zeros_like, x)
    return zeros


def cast(x: Elements, bits: int) -> Elements:
    """The low bits of `x`, or `x` and zeros, as the smallest word of at least `bits` bits."""
    if isinstance(x, Word):
        return x if bits > 64 else cast(x.low, bits)
    if bits > 64:
        low = x.astype(np.uint64)
        return Word(low, jnp.zeros_like(low))
    return x.astype(word_dtype(bits))


def shift_left(x: Elements, bits: int) -> Elements:
    if isinstance(x, Word) and bits:
        if bits >= 64:
            return Word(jnp.zeros_like(x.low), shift_left(x.low, bits - 64))
        return Word(shift_left(x.low, bits), shift_left(x.high, bits) | shift_right(x.low, 64 - bits))
    return x << constant(x, bits) if bits else x


def shift_right(x: Elements, bits: int) -> Elements:
    if isinstance(x, Word) and bits:
        if bits >= 64:
            return Word(shift_right(x.high, bits - 64), jnp.zeros_like(x.high))
        return Word(shift_right(x.low, bits) | shift_left(x.high, 64 - bits), shift_right(x.high, bits))
    return x >> constant(x, bits) if bits else x


def repeat(x: Elements, count: int) -> Elements:
    """Each bit of `x` in `count` places, from its own upwards; no two bits of `x` nearer than that."""
    return shift_left(x, count) - x


def pack(x: Elements, bits: int) -> Elements:
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
    packed: Elements = out.astype(np.uint8)
    return packed


def unpack(x: Elements, bits: int) -> Elements:
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
    elements: Elements = lax.bitcast_convert_type(out, np.uint8).reshape(-1)
    return elements


def swap_digits(x: Elements, low: int, high: int) -> Elements:
    """Move every bit to the index with the binary digits `low` and `high` of its own exchanged."""
    if low == high:
        return x
    mask = sum(1 << i for i in range(width(x)) if (i >> low) & 1 and not (i >> high) & 1)
    distance = (1 << high) - (1 << low)
    t: Elements = (shift_right(x, distance) ^ x) & constant(x, mask)
    return x ^ t ^ shift_left(t, distance)


def bit_reverse_indices(x: Elements) -> Elements:
    """Move the bit at index i (of log2 of the width binary digits) to the index whose digits are i's, reversed.

    Afterwards the odd bits stand in the upper half, and so on recursively: every level of a
    carry tree is one shift.
    """
    digits = (width(x) - 1).bit_length()
    for low in range(digits // 2):
        x = swap_digits(x, low, digits - 1 - low)
    return x


def parity(x: Elements, mask: int) -> Elements:
    """The exclusive or of the bits under `mask`, as uint8 0 or 1."""
    x = x & constant(x, mask)
    if mask & (mask - 1) == 0:
        return cast(shift_right(x, max(mask.bit_length() - 1, 0)), 8)
    distance = width(x)
    while distance > 1:
        distance //= 2
        x = x ^ shift_right(x, distance)
    return cast(x & constant(x, 1), 8)
