"""Extensions of a ring, with enough elements for random combinations of its words: by native kernels, or by NumPy.

Words modulo 2^k, k 32 or 64: the Galois ring Z_2^k[X] / (X^48 + X^5 + X^3 + X^2 + 1), an element its 48 coefficients.
Bits, in words of 64: GF(2^64) = GF(2)[X] / (X^64 + X^4 + X^3 + X + 1); a word is an element, and 64 products.
Weights are public elements, given as words whose bits are the coefficients: the difference of two of them is a unit.
Arrays of words are [rows, n]; what is folded of them is [n, ...], where ... is `inner` of the extension.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.ring import native

Array = NDArray[Any]
Weights = NDArray[np.uint64]
Pair = tuple[Array, Array]  # a party's two components

DEGREE = 48  # of the Galois ring
LOW = (0, 2, 3, 5)  # X^48 = -(1 + X^2 + X^3 + X^5)
BITS = 64  # the degree of GF(2^64)
BITS_LOW = 0x1B  # X^64 = X^4 + X^3 + X + 1
MOST_ROWS = 32


class Extension(ABC):
    """`element` is the shape of an element, `inner` that of what is folded of one word; all of `dtype`."""

    dtype: np.dtype[Any]
    element: tuple[int, ...]
    inner: tuple[int, ...]
    degree: int
    add: np.ufunc
    subtract: np.ufunc

    def weights(self, random: Weights) -> Weights:
        return random if self.degree == 64 else random & np.uint64((1 << self.degree) - 1)

    @abstractmethod
    def crossed(self, x: Pair, y: Pair, weights: Weights, a: Pair) -> Array:
        """[rows + 1, rows, ...]: a party's summand of sum_w weights[w] x[l, w] y[m, w], and of sum_w a[w] y[m, w]."""

    @abstractmethod
    def weighed(self, z: Array, weights: Weights) -> Array:
        """[rows, ...]: sum_w weights[w] z[l, w]."""

    @abstractmethod
    def folded(self, v: Array, weights: Weights) -> Array:
        """[n, ...]: sum_l weights[l] v[l, w]; where a word is 64 bits, of each bit."""

    @abstractmethod
    def masked(self, v: Array, weights: Weights, a: Array) -> Array:
        """weights[w] v[w] - a[w]; where a word is 64 bits, the weight of bit b is weights[w] X^b."""

    @abstractmethod
    def product(self, x: Array, y: Array) -> Array:
        """The sum of all x[w] y[w], an element."""

    @abstractmethod
    def combined(self, table: Array, left: Weights, right: Weights) -> Array:
        """sum_lm left[l] right[m] table[l, m], an element; `left` is one shorter: the last row is taken once, less."""


class Galois(Extension):
    """Of words modulo 2^32 or 2^64."""

    add, subtract = np.add, np.subtract
    element = inner = (DEGREE,)
    degree = DEGREE

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._kind = {4: 0, 8: 1}[self.dtype.itemsize]

    def crossed(self, x: Pair, y: Pair, weights: Weights, a: Pair) -> Array:
        rows, n = x[0].shape
        out = np.empty((rows + 1, rows, DEGREE), self.dtype)
        if (lib := _library()) is not None:
            arrays = [_at(v) for v in (out, *x, *y, weights, *a)]
            lib.spuvm_proof_crossed(self._kind, *arrays, _u64(rows), _u64(n))
            return out
        mask, both = self._spread(weights), y[0] + y[1]
        for left in range(rows):
            out[left] = (x[0][left] * both + x[1][left] * y[0]) @ mask
        out[rows] = both @ a[0] + y[0] @ a[1]
        return out

    def weighed(self, z: Array, weights: Weights) -> Array:
        rows, n = z.shape
        if (lib := _library()) is None:
            return np.asarray(z @ self._spread(weights))
        out = np.empty((rows, DEGREE), self.dtype)
        lib.spuvm_proof_weighed(self._kind, *map(_at, (out, z, weights)), _u64(rows), _u64(n))
        return out

    def folded(self, v: Array, weights: Weights) -> Array:
        rows, n = v.shape
        if (lib := _library()) is None:
            return np.asarray(v.T @ self._spread(weights))
        out = np.empty((n, DEGREE), self.dtype)
        strides = [_u64(s // v.itemsize) for s in v.strides]
        lib.spuvm_proof_folded(self._kind, *map(_at, (out, v, weights)), _u64(rows), _u64(n), *strides)
        return out

    def masked(self, v: Array, weights: Weights, a: Array) -> Array:
        if (lib := _library()) is None:
            return np.asarray(self._times(self._spread(weights), v) - a)
        out = np.empty_like(v)
        lib.spuvm_proof_masked(self._kind, *map(_at, (out, v, a, weights)), _u64(len(v)))
        return out

    def product(self, x: Array, y: Array) -> Array:
        if (lib := _library()) is None:
            table = x.T @ y
            wide = np.zeros(2 * DEGREE - 1, self.dtype)
            for i, row in enumerate(table):
                wide[i : i + DEGREE] += row
            return self._reduced(wide)
        out = np.empty(DEGREE, self.dtype)
        lib.spuvm_proof_inner(self._kind, *map(_at, (out, x, y)), _u64(len(x)))
        return out

    def combined(self, table: Array, left: Weights, right: Weights) -> Array:
        flat = table.reshape(-1, DEGREE)
        columns = self.masked(flat, np.tile(right, len(table)), np.zeros_like(flat)).reshape(table.shape)
        rows = columns.sum(1, dtype=self.dtype)
        weighed = self.masked(rows[:-1], left, np.zeros_like(rows[:-1]))
        return np.asarray(weighed.sum(0, dtype=self.dtype) - rows[-1])

    def _spread(self, weights: Weights) -> Array:
        """[n, 48], the coefficients."""
        return ((weights[:, None] >> np.arange(DEGREE, dtype=np.uint64)) & np.uint64(1)).astype(self.dtype)

    def _times(self, x: Array, y: Array) -> Array:
        """Element by element, of [..., 48]."""
        wide = np.zeros((*np.broadcast_shapes(x.shape, y.shape)[:-1], 2 * DEGREE - 1), self.dtype)
        for i in range(DEGREE):
            wide[..., i : i + DEGREE] += x[..., i, None] * y
        return self._reduced(wide)

    def _reduced(self, wide: Array) -> Array:
        for end in (2 * DEGREE - 1, DEGREE + LOW[-1] - 1):  # what the first leaves above X^47, once more
            high = wide[..., DEGREE:end].copy()
            wide[..., DEGREE:end] = 0
            for shift in LOW:
                wide[..., shift : shift + high.shape[-1]] -= high
        return np.ascontiguousarray(wide[..., :DEGREE])


class Field(Extension):
    """Of bits: GF(2^64)."""

    dtype = np.dtype(np.uint64)
    add = subtract = np.bitwise_xor
    element, inner = (), (BITS,)
    degree = BITS

    def crossed(self, x: Pair, y: Pair, weights: Weights, a: Pair) -> Array:
        rows, n = x[0].shape
        out = np.empty((rows + 1, rows), np.uint64)
        if (lib := _bits()) is not None:
            arrays = [_at(v) for v in (out, *x, *y, weights, *a)]
            lib.spuvm_proof_of_bits_crossed(*arrays, _u64(rows), _u64(n))
            return out
        both = y[0] ^ y[1]
        for left in range(rows):
            out[left] = self.weighed((x[0][left] & both) ^ (x[1][left] & y[0]), weights)
        for right in range(rows):
            chosen = np.where(_bits_of(both[right]), a[0], 0) ^ np.where(_bits_of(y[0][right]), a[1], 0)
            out[rows, right] = np.bitwise_xor.reduce(chosen, None)
        return out

    def weighed(self, z: Array, weights: Weights) -> Array:
        rows, n = z.shape
        if (lib := _bits()) is None:
            return np.asarray(np.bitwise_xor.reduce(_carryless(weights, z), axis=1))
        out = np.empty(rows, np.uint64)
        lib.spuvm_proof_of_bits_weighed(*map(_at, (out, z, weights)), _u64(rows), _u64(n))
        return out

    def folded(self, v: Array, weights: Weights) -> Array:
        rows, n = v.shape
        out = np.zeros((n, BITS), np.uint64)
        if (lib := _bits()) is None:
            for row, weight in zip(v, weights):
                out ^= np.where(_bits_of(row), weight, 0)
            return out
        lib.spuvm_proof_of_bits_folded(*map(_at, (out, v, weights)), _u64(rows), _u64(n))
        return out

    def masked(self, v: Array, weights: Weights, a: Array) -> Array:
        if (lib := _bits()) is None:
            moved = np.stack([_carryless(weights, np.uint64(1 << b)) for b in range(BITS)], axis=1)
            return _carryless(moved, v) ^ a
        out = np.empty_like(v)
        lib.spuvm_proof_of_bits_masked(*map(_at, (out, v, a, weights)), _u64(len(v)))
        return out

    def product(self, x: Array, y: Array) -> Array:
        if (lib := _bits()) is None:
            return np.asarray(np.bitwise_xor.reduce(_carryless(x, y), None))
        out = np.empty((), np.uint64)
        lib.spuvm_proof_of_bits_inner(*map(_at, (out, x, y)), _u64(len(x)))
        return out

    def combined(self, table: Array, left: Weights, right: Weights) -> Array:
        rows = np.bitwise_xor.reduce(_carryless(table, right), axis=1)
        return np.asarray(np.bitwise_xor.reduce(_carryless(rows[:-1], left), None) ^ rows[-1])


def _carryless(x: Any, y: Any) -> Array:
    """Products in GF(2^64), element by element."""
    out = np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), np.uint64)
    moved = np.broadcast_to(np.asarray(x, np.uint64), out.shape)
    one, top, low = np.uint64(1), np.uint64(63), np.uint64(BITS_LOW)
    for bit in range(BITS):
        out ^= moved * ((np.asarray(y, np.uint64) >> np.uint64(bit)) & one)
        moved = (moved << one) ^ (low * (moved >> top))
    return out


def _bits_of(x: Array) -> NDArray[np.bool_]:
    """[n] -> [n, 64]."""
    return ((x[:, None] >> np.arange(BITS, dtype=np.uint64)) & np.uint64(1)).astype(bool)


def _library() -> Any:
    lib = native.library()
    return lib if lib is not None and hasattr(lib, "spuvm_proof_crossed") else None


def _bits() -> Any:
    lib = native.library()
    return lib if lib is not None and hasattr(lib, "spuvm_proof_of_bits_ready") and _ready(lib) else None


def _ready(lib: Any) -> bool:
    return bool(lib.spuvm_proof_of_bits_ready())


def _at(a: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def _u64(n: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(n)
