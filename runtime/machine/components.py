"""Component arrays at run time: whole, or as the blocks that element-wise stages work on.

On the CPU a JAX array and its NumPy view are the same memory, and an aligned NumPy array goes
into an executable without a copy: blocks of a whole array are views of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.runtime.engine.random import aligned_empty
from spuvm.runtime.machine.program import Message, partition

Array = Any  # numpy.ndarray or jax.Array


@dataclass(eq=False)
class Blocked:
    """`size` elements in the blocks of `partition(size)`; the last is longer than what it holds."""

    blocks: list[Array]
    size: int
    giver: Blocked | None = None  # whose blocks these are: what they are joined to is kept there
    joined: np.ndarray | None = None


Component = Array | Blocked


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An aligned array of unset elements."""
    count = math.prod(shape)
    array: np.ndarray = aligned_empty(count * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    return array


def aligned(array: np.ndarray) -> np.ndarray:
    """The same elements at an address that XLA reads without a copy."""
    array = np.asarray(array)
    if array.flags.c_contiguous and array.ctypes.data % 64 == 0:
        return array
    out = empty(array.shape, array.dtype)
    out[...] = array
    return out


def blocks(value: Component, size: int) -> list[Array]:
    """The value as blocks of its `size` elements."""
    if isinstance(value, Blocked):
        return value.blocks
    flat = np.asarray(value).reshape(-1)
    if size == 0:
        return [np.zeros(partition(0)[0][2], flat.dtype)]
    out: list[Array] = []
    for start, count, length in partition(size):
        block = flat[start : start + count]
        if count < length:
            padded = empty((length,), flat.dtype)
            padded[:count] = block
            padded[count:] = 0
            block = padded
        out.append(block)
    return out


def whole(value: Component, shape: Sequence[int]) -> Array:
    """The value as one array of `shape`."""
    if not isinstance(value, Blocked):
        return value if value.shape == tuple(shape) else np.asarray(value).reshape(shape)
    parts = partition(value.size)
    if len(parts) == 1:
        return np.asarray(value.blocks[0])[: value.size].reshape(shape)
    value = value.giver or value
    if value.joined is None:
        out = empty((value.size,), np.asarray(value.blocks[0]).dtype)
        for block, (start, count, _) in zip(value.blocks, parts):
            out[start : start + count] = np.asarray(block)[:count]
        value.joined, value.blocks = out, blocks(out, value.size)
    return value.joined.reshape(shape)


def own(value: Component) -> Component:
    """The same value, whose blocks can be let go one by one without the giver losing them."""
    return Blocked(list(value.blocks), value.size, value.giver or value) if isinstance(value, Blocked) else value


def taken(array: np.ndarray, which: np.ndarray) -> Blocked:
    """The elements of a flat array at the indices `which`, in blocks."""
    out = []
    for start, count, length in partition(len(which)):
        block = empty((length,), array.dtype)
        np.take(array, which[start : start + count], out=block[:count], mode="clip")
        block[count:] = 0
        out.append(block)
    return Blocked(out, len(which))


def incoming(message: Message) -> tuple[Component, list[np.ndarray]]:
    """An unset value and the byte views to fill it through."""
    if message.size is None:
        array = empty(message.shape, message.dtype)
        return array, [_bytes(array)]
    arrays, views = [], []
    for _, count, length in partition(message.size):
        array = empty((length * message.bits // (8 * np.dtype(message.dtype).itemsize),), message.dtype)
        view = _bytes(array)
        used = -(-count * message.bits // 8)
        view[used:] = 0
        arrays.append(array)
        views.append(view[:used])
    return Blocked(arrays, message.size), views


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)
