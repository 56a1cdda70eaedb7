"""Where an array's elements lie among the slots of ciphertexts: int64 [*shape, m], an element is the sum of m slots.

No slot belongs to two elements. A sum over an axis only makes m longer; whoever decrypts adds up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


def natural(shape: Sequence[int], slots: int) -> tuple[Places, int]:
    """In order, rows of a matrix at a power of two (or a multiple of `slots`) from each other; how many cells."""
    if not shape:
        return np.zeros((1,), np.int64), 1
    columns = shape[-1]
    wide = columns
    if len(shape) > 1 and slots > 1:
        wide = -(-columns // slots) * slots if columns > slots else 1 << max(columns - 1, 0).bit_length()
    rows = math.prod(shape[:-1])
    places = np.arange(rows, dtype=np.int64)[:, None] * wide + np.arange(columns, dtype=np.int64)
    return places.reshape(*shape, 1), max(-(-rows * wide // slots), 1)


def with_used_cells(places: Places, slots: int) -> tuple[Places, NDArray[np.int64]]:
    """Places when only the cells that they name are kept, and which these are."""
    used, where = np.unique(places // slots, return_inverse=True)
    if not len(used):
        return places, np.zeros(1, np.int64)
    return where.reshape(places.shape) * slots + places % slots, used


def distinct(places: Places) -> bool:
    return len(np.unique(places)) == places.size


def grouped(places: Places, labels: NDArray[np.int64], count: int) -> Places:
    """Elements of equal label as one: [count, elements of a label * m]. All labels have equally many."""
    order = np.argsort(labels.ravel(), kind="stable").reshape(count, labels.size // max(count, 1))
    flat = places.reshape(labels.size, places.shape[-1])
    return flat[order].reshape(count, order.shape[1] * places.shape[-1])


def folded(groups: Places, slots: int) -> Places | None:
    """The groups' places when all cells are added into one; None if that mixes groups."""
    if not groups.size:
        return None
    positions = groups % slots
    owner = np.full(slots, -1, np.int64)
    numbers = np.broadcast_to(np.arange(len(groups))[:, None], groups.shape)
    owner[positions] = numbers
    if (owner[positions] != numbers).any():
        return None
    counts = np.bincount(owner[owner >= 0], minlength=len(groups))
    if (counts != counts[0]).any():
        return None
    order = np.argsort(owner, kind="stable")
    return order[slots - int(counts.sum()) :].reshape(len(groups), -1)
