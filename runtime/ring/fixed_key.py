"""AES-128 under one public key, as a fixed permutation of blocks: on arrays, without tables, in constant time.

A block is two 64-bit words, the low one first; as AES has it, their 16 bytes in little-endian order. What is built on
it takes the permutation to be a random one (Guo, Katz, Wang and Yu, IEEE S&P 2020). Natively: engine/native/keyed.cc.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

KEY = bytes.fromhex("243f6a8885a308d313198a2e03707344")  # the first digits of pi
ROUNDS = 10
SHIFT_ROWS = np.array([0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11])

Array = jax.Array


@cache
def substitution() -> np.ndarray:
    """AES's S-box, uint8[256]: the inverse in GF(2^8), then an affine map (FIPS 197, 5.1.1)."""
    powers = [1]
    for _ in range(254):  # of 3, which generates the field
        powers.append(powers[-1] ^ _doubled(powers[-1]))
    inverse = {0: 0} | {powers[i]: powers[-i % 255] for i in range(255)}
    turned = [[(x << n | x >> (8 - n)) & 0xFF for n in range(5)] for x in (inverse[i] for i in range(256))]
    return np.array([0x63 ^ np.bitwise_xor.reduce(t) for t in turned], np.uint8)


def _doubled(x: int) -> int:
    return (x << 1 ^ (0x11B if x & 0x80 else 0)) & 0xFF


@cache
def round_keys() -> np.ndarray:
    """uint8[11, 16] (FIPS 197, 5.2)."""
    box = substitution()
    words: list[Any] = [np.frombuffer(KEY, np.uint8)[i : i + 4] for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 4 * (ROUNDS + 1)):
        word = words[-1]
        if i % 4 == 0:
            word = box[np.roll(word, -1)] ^ np.array([constant, 0, 0, 0], np.uint8)
            constant = _doubled(constant)
        words.append(words[-4] ^ word)
    return np.concatenate(words).reshape(ROUNDS + 1, 16)


def permuted(blocks: Array) -> Array:
    """uint64[..., 2] -> AES of each block."""
    keys = jnp.asarray(round_keys())
    x = lax.bitcast_convert_type(blocks, jnp.uint8).reshape(*blocks.shape[:-1], 16) ^ keys[0]

    def step(i: Array, x: Array) -> Array:
        return _mixed(_substituted(x)[..., SHIFT_ROWS]) ^ keys[i]

    x = lax.fori_loop(1, ROUNDS, step, x)
    x = _substituted(x)[..., SHIFT_ROWS] ^ keys[ROUNDS]
    return lax.bitcast_convert_type(x.reshape(*blocks.shape, 8), jnp.uint64)


def _mixed(x: Array) -> Array:
    """MixColumns: each byte of a column becomes 2 a + 3 b + c + d of it and those below."""
    column = x.reshape(*x.shape[:-1], 4, 4)
    below = jnp.roll(column, -1, -1)
    every = column ^ below ^ jnp.roll(column, -2, -1) ^ jnp.roll(column, -3, -1)
    mixed: Array = column ^ every ^ _times_two(column ^ below)
    return mixed.reshape(x.shape)


def _times_two(x: Array) -> Array:
    return (x << 1) ^ ((x >> 7) * np.uint8(0x1B))


def _times(x: Array, y: Array) -> Array:
    out = jnp.zeros_like(x)
    for i in range(8):
        out = out ^ (x * ((y >> i) & 1))
        x = _times_two(x)
    return out


def _substituted(x: Array) -> Array:
    """The S-box, by the power 254, which is the inverse."""
    x2 = _times(x, x)
    x3 = _times(x2, x)
    x12 = _squared(x3, 2)
    x240 = _squared(_times(x12, x3), 4)
    inverse = _times(_times(x240, x12), x2)
    out: Array = inverse ^ np.uint8(0x63)
    for n in range(1, 5):
        out = out ^ (inverse << n | inverse >> (8 - n))
    return out


def _squared(x: Array, times: int) -> Array:
    out: Array = lax.fori_loop(0, times, lambda _, x: _times(x, x), x)
    return out
