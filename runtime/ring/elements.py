"""Elements of Z_2^k: uint32 and uint64 arrays, and, for k = 128, pairs of uint64 arrays.

XLA has no integers of 128 bits. `Word` is two limbs with the operators of an unsigned array, so that
kernels are written once for all rings. Inside of programs its limbs are arrays of their own, as if they
were two components; on the host they lie side by side, as elements of the dtype `WIDE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

WIDE = np.dtype([("low", "<u8"), ("high", "<u8")])
RING_DTYPE: dict[int, np.dtype[Any]] = {32: np.dtype(np.uint32), 64: np.dtype(np.uint64), 128: WIDE}
LIMB_DTYPE = {32: "uint32", 64: "uint64", 128: "uint64"}
Elements = Any  # what kernels compute with: an unsigned jax.Array, or a Word
_HALF = np.uint64(2**32 - 1)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Word:
    """low + 2^64 high modulo 2^128, element-wise. Both limbs are uint64, of one shape (or scalars)."""

    low: Any
    high: Any

    __array_priority__ = 100  # NumPy scalars on the left leave operators to us
    dtype = WIDE

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.broadcast_shapes(np.shape(self.low), np.shape(self.high)))

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.low, self.high), None

    @classmethod
    def tree_unflatten(cls, _: None, limbs: Any) -> Word:
        return cls(*limbs)

    def __add__(self, other: Word) -> Word:
        low = self.low + other.low
        return Word(low, self.high + other.high + (low < other.low).astype(np.uint64))

    def __sub__(self, other: Word) -> Word:
        borrow = (self.low < other.low).astype(np.uint64)
        return Word(self.low - other.low, self.high - other.high - borrow)

    def __neg__(self) -> Word:
        return Word(-self.low, ~self.high + (self.low == 0).astype(np.uint64))

    def __mul__(self, other: Word) -> Word:
        high = _product_high(self.low, other.low) + self.low * other.high + self.high * other.low
        return Word(self.low * other.low, high)

    def __and__(self, other: Word) -> Word:
        return Word(self.low & other.low, self.high & other.high)

    def __or__(self, other: Word) -> Word:
        return Word(self.low | other.low, self.high | other.high)

    def __xor__(self, other: Word) -> Word:
        return Word(self.low ^ other.low, self.high ^ other.high)

    def __invert__(self) -> Word:
        return Word(~self.low, ~self.high)

    def __eq__(self, other: Word) -> Any:  # type: ignore[override]
        return (self.low == other.low) & (self.high == other.high)

    def __ne__(self, other: Word) -> Any:  # type: ignore[override]
        return (self.low != other.low) | (self.high != other.high)

    __hash__ = None  # type: ignore[assignment]


def _product_high(x: Any, y: Any) -> Any:
    """The upper 64 bits of a product of two uint64: four products of halves, and their carries."""
    x0, x1, y0, y1 = x & _HALF, x >> np.uint64(32), y & _HALF, y >> np.uint64(32)
    cross, other = x0 * y1, x1 * y0
    middle = ((x0 * y0) >> np.uint64(32)) + (cross & _HALF) + (other & _HALF)
    return x1 * y1 + (cross >> np.uint64(32)) + (other >> np.uint64(32)) + (middle >> np.uint64(32))


# On the host -----------------------------------------------------------------------------------------


def limb_count(ring_bits: int, dtype: Any) -> int:
    """How many arrays of `dtype` hold a component: the numbers of a ring of 128 bits take two."""
    return 2 if ring_bits == 128 and np.dtype(dtype) == np.uint64 else 1


def limbs(raw: NDArray[Any]) -> list[NDArray[Any]]:
    """The arrays that hold ring elements inside of programs."""
    if raw.dtype != WIDE:
        return [raw]
    return [np.ascontiguousarray(raw[name]).reshape(raw.shape) for name in ("low", "high")]


def joined(arrays: Any) -> NDArray[Any]:
    """The inverse of `limbs`."""
    if len(arrays) == 1:
        return np.asarray(arrays[0])
    out = np.empty(np.shape(arrays[0]), WIDE)
    out["low"], out["high"] = arrays
    return out


def words(integers: Any, ring_bits: int) -> NDArray[Any]:
    """Ring elements of an integer or bool array modulo 2^k; Python's integers of any size in object arrays."""
    x = np.asarray(integers)
    if x.dtype == RING_DTYPE[ring_bits]:
        return x
    if x.dtype.kind == "O":
        x = np.asarray(x % 2**ring_bits, object)
        if ring_bits < 128:
            return np.asarray(x, RING_DTYPE[ring_bits])
        return joined([np.asarray(x % 2**64, np.uint64), np.asarray(x // 2**64, np.uint64)])
    if x.dtype.kind not in "iub":
        raise TypeError(f"ring elements are integers, got {x.dtype}")
    low = x.astype(np.uint64) if x.dtype.kind in "ub" else x.astype(np.int64).view(np.uint64)
    if ring_bits < 128:
        return low.astype(RING_DTYPE[ring_bits])
    sign = np.zeros_like(low) if x.dtype.kind in "ub" else (low.view(np.int64) >> np.int64(63)).view(np.uint64)
    return joined([low, np.asarray(sign)])


def signed(raw: NDArray[Any]) -> NDArray[Any]:
    """Ring elements as signed integers: int32, int64, or Python's in an object array."""
    if raw.dtype != WIDE:
        return np.asarray(raw).view(np.int32 if raw.dtype == np.uint32 else np.int64)
    high, low = raw["high"].view(np.int64) if raw.shape else raw["high"].astype(np.int64), raw["low"]
    return np.asarray(high.astype(object) * 2**64 + low.astype(object), dtype=object)
