"""What a value is while bytecode is made: a constant, elements of an array, or what a loop computes.

Values never change. Moving elements (a reshape, a transpose, a slice, a broadcast) makes another value of the same
elements; nothing runs until an operation reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class Unsupported(Exception):
    """The engine lacks an operation: the stage is left to XLA. The text names it."""


@dataclass(frozen=True)
class Constant:
    """One element, known now, for the whole shape."""

    value: np.generic
    shape: Shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype


@dataclass(frozen=True)
class Placed:
    """Elements of an array; `offset` and `strides` in bytes."""

    array: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def contiguous(self) -> bool:
        return all(d == 1 or s == w for d, s, w in zip(self.shape, self.strides, strides_of(self.shape, self.dtype)))

    @property
    def uniform(self) -> bool:
        """Whether one element stands for all."""
        return all(d == 1 or s == 0 for d, s in zip(self.shape, self.strides))


@dataclass(frozen=True)
class Local:
    """What the loop number `loop` computes, as its `storage`; elements in row-major order of `shape`."""

    loop: int
    storage: int
    shape: Shape
    dtype: np.dtype[Any]


Value = Constant | Placed | Local


def size(shape: Shape) -> int:
    return math.prod(shape)


def strides_of(shape: Shape, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Those of consecutive elements."""
    out, step = [], dtype.itemsize
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def word(dtype: np.dtype[Any]) -> str:
    """The engine's name of a width; it has no floating point."""
    if dtype.kind not in "biu":
        raise Unsupported(f"values of type {dtype}")
    return f"u{8 * dtype.itemsize}"


def reshaped(value: Value, shape: Shape) -> Value | None:
    """The same elements in another shape; None if they have to be moved for it."""
    if isinstance(value, (Constant, Local)):
        return replace(value, shape=shape)
    if value.uniform:
        return replace(value, shape=shape, strides=(0,) * len(shape))
    if value.contiguous:
        return replace(value, shape=shape, strides=strides_of(shape, value.dtype))
    if [d for d in value.shape if d != 1] == [d for d in shape if d != 1]:
        kept = iter([s for d, s in zip(value.shape, value.strides) if d != 1])
        return replace(value, shape=shape, strides=tuple(0 if d == 1 else next(kept) for d in shape))
    return None


def transposed(value: Placed, order: Sequence[int]) -> Placed:
    return replace(value, shape=tuple(value.shape[a] for a in order), strides=tuple(value.strides[a] for a in order))


def sliced(value: Placed, starts: Sequence[int], limits: Sequence[int], steps: Sequence[int]) -> Placed:
    shape = tuple(max(0, -(-(b - a) // s)) for a, b, s in zip(starts, limits, steps))
    offset = value.offset + sum(a * s for a, s in zip(starts, value.strides))
    return replace(value, offset=offset, shape=shape, strides=tuple(s * t for s, t in zip(value.strides, steps)))


def reversed_along(value: Placed, axes: Sequence[int]) -> Placed:
    offset = value.offset + sum((value.shape[a] - 1) * value.strides[a] for a in axes if value.shape[a])
    return replace(value, offset=offset, strides=tuple(-s if a in axes else s for a, s in enumerate(value.strides)))


def broadcast(value: Placed, shape: Shape, axes: Sequence[int]) -> Placed:
    """As `lax.broadcast_in_dim`: axis i of the value is axis `axes[i]` of the result."""
    strides = [0] * len(shape)
    for axis, d, s in zip(axes, value.shape, value.strides):
        strides[axis] = s if d > 1 else 0
    return replace(value, shape=shape, strides=tuple(strides))
