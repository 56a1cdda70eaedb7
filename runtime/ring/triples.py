"""What proofs of products do on whole arrays: by native kernels, or by NumPy with the same words.

Words are uint32 or uint64, with sums and products modulo 2^32 or 2^64, or with exclusive or and conjunction (`BITS`).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.ring import native

Array = NDArray[Any]
Order = NDArray[np.uint32]

SPARE = 8  # random words more than places of an order


@dataclass(frozen=True)
class Ring:
    """What products of one kind are computed with."""

    add: np.ufunc
    subtract: np.ufunc
    multiply: np.ufunc

    def kind(self, dtype: np.dtype[Any]) -> int | None:
        """The number of the kind of words in the native kernels."""
        if self is BITS:
            return 2 if dtype == np.uint64 else None
        return {4: 0, 8: 1}.get(dtype.itemsize)


SUMS = Ring(np.add, np.subtract, np.multiply)
BITS = Ring(np.bitwise_xor, np.bitwise_xor, np.bitwise_and)


def order_of(words: NDArray[np.uint64]) -> Order:
    """uint32[n]: a uniform order of n places, of uint64[n + 8] random words (Fisher and Yates; Lemire, TOMACS 2019)."""
    count = len(words) - SPARE
    order = np.empty(count, np.uint32)
    lib = _library()
    if lib is None:
        return _order_by_python(order, words)
    lib.spuvm_triples_order(_at(order), _at(words), ctypes.c_uint64(count), ctypes.c_uint64(SPARE))
    return order


def _order_by_python(order: Order, words: NDArray[np.uint64]) -> Order:
    numbers = words.tolist()
    spare = iter(numbers[len(order) :])
    for i, word in enumerate(numbers[: len(order)]):
        bound, biased = i + 1, (1 << 64) % (i + 1)
        wide = word * bound
        while wide % (1 << 64) < biased and (word := next(spare, None)) is not None:
            wide = word * bound
        order[i] = order[wide >> 64]
        order[wide >> 64] = i
    return order


def summand(ring: Ring, x: tuple[Array, Array], y: tuple[Array, Array], mask: tuple[Array, Array]) -> Array:
    """x_0 y_0 + x_0 y_1 + x_1 y_0 + mask_0 - mask_1."""
    out = np.empty_like(x[0])
    if (lib := _native(ring, out, *x, *y, *mask)) is None:
        own = ring.add(ring.multiply(x[0], ring.add(*y)), ring.multiply(x[1], y[0]))
        return np.asarray(ring.subtract(ring.add(own, mask[0]), mask[1]))
    arrays = (_at(a) for a in (out, *x, *y, *mask))
    lib.spuvm_triples_summand(ring.kind(out.dtype), *arrays, ctypes.c_uint64(out.size))
    return out


def masked(ring: Ring, x: Array, a: Array, order: Order, out: Array) -> None:
    """out = x - a[order]."""
    if (lib := _native(ring, out, x, a)) is None:
        ring.subtract(x, a.take(order), out=out)
        return
    lib.spuvm_triples_masked(ring.kind(out.dtype), _at(out), _at(x), _at(a), _at(order), ctypes.c_uint64(out.size))


def left(
    ring: Ring, z: Array, opened: tuple[Array, Array], triple: tuple[Array, Array, Array], order: Order, both: bool
) -> Array:
    """z - d b - e a - c, less d e with `both`: d and e `opened`, of a, b and c what `order` says."""
    d, e = opened
    out = np.empty_like(z)
    if (lib := _native(ring, out, z, d, e, *triple)) is None:
        a, b, c = (v.take(order) for v in triple)
        known = ring.add(ring.multiply(d, ring.add(b, e) if both else b), ring.multiply(e, a))
        return np.asarray(ring.subtract(ring.subtract(z, known), c))
    arrays = (_at(v) for v in (out, z, d, e, *triple, order))
    lib.spuvm_triples_left(ring.kind(out.dtype), *arrays, ctypes.c_uint64(both), ctypes.c_uint64(out.size))
    return out


def _native(ring: Ring, *arrays: Array) -> Any:
    """The library, if it takes these arrays as they are."""
    contiguous = all(a.flags.c_contiguous for a in arrays)
    return _library() if contiguous and ring.kind(arrays[0].dtype) is not None else None


def _library() -> Any:
    lib = native.library()
    return lib if lib is not None and hasattr(lib, "spuvm_triples_left") else None


def _at(a: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)
