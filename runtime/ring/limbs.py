"""Products of matrices over Z_2^k by limbs, for devices whose matrix units know float64 or int8 and no ring.

Each operand is cut into digits so short that a sum of their products is exact in what the unit adds up in; products of
digits i and j count 2^(width (i + j)), and what is beyond the ring is left out. Same bits as `arithmetic.matmul`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array


@dataclass(frozen=True)
class Limbs:
    """How digits of `width` bits are multiplied; `depth`: the most products whose sum is exact."""

    width: int
    depth: int
    digits: Callable[[Array], list[Array]]
    sums: Any  # the type that products are added up in


def _unsigned(x: Array) -> list[Array]:
    """Of 16 bits, as float64: x = sum of d_i 2^(16 i), 0 <= d_i < 2^16."""
    mask = x.dtype.type(0xFFFF)
    count = 8 * x.dtype.itemsize // 16
    return [((x >> x.dtype.type(16 * i)) & mask).astype(jnp.float64) for i in range(count)]


def _balanced(x: Array) -> list[Array]:
    """Of 8 bits with a sign: x = sum of d_i 2^(8 i) modulo 2^k, -128 <= d_i < 128."""
    count = x.dtype.itemsize
    moved = x + x.dtype.type(int.from_bytes(b"\x80" * count, "little"))
    octets = [(moved >> x.dtype.type(8 * i)).astype(jnp.uint8) for i in range(count)]
    return [lax.bitcast_convert_type(d ^ jnp.uint8(0x80), jnp.int8) for d in octets]


BY_LIMBS = {
    "float64": Limbs(16, 1 << 20, _unsigned, jnp.float64),  # 2^20 products below 2^32: below 2^53
    "int8": Limbs(8, 1 << 16, _balanced, jnp.int32),  # 2^16 products of at most 2^14: below 2^31
}


def limbs_for(platform: str) -> str:
    """What the matrix units of a kind of device multiply: graphics processors float64, all others int8."""
    return "float64" if platform in ("gpu", "cuda", "rocm") else "int8"


def matmul_by_limbs(x: Array, y: Array, kind: str) -> Array:
    """[b, m, k] x [b, k, n] -> [b, m, n] modulo 2^bits; both uint32 or both uint64."""
    limbs = BY_LIMBS[kind]
    depth = x.shape[-1]
    total = jnp.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    for start in range(0, depth, limbs.depth):
        stop = min(depth, start + limbs.depth)
        total = total + _exact(x[..., start:stop], y[:, start:stop], limbs)
    return total


def _exact(x: Array, y: Array, limbs: Limbs) -> Array:
    xs, ys = limbs.digits(x), limbs.digits(y)
    total = jnp.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    for place in range(len(xs)):
        for i in range(place + 1):
            product = lax.dot_general(
                xs[i], ys[place - i], (((2,), (1,)), ((0,), (0,))), preferred_element_type=limbs.sums
            )
            total = total + (_word(product, x.dtype) << x.dtype.type(limbs.width * place))
    return total


def _word(z: Array, dtype: Any) -> Array:
    """A whole number, which may be negative, modulo 2^bits."""
    signed = jnp.int64 if np.dtype(dtype).itemsize == 8 or z.dtype == jnp.float64 else jnp.int32
    return z.astype(signed).astype(dtype)
