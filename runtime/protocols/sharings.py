"""Sharings of host arrays: made of ring elements, and put together again, by a protocol's algebra.

Arrays are slots: a component of 128 bits is two, one for each limb (see `ring/elements`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spuvm.runtime.engine.random import Stream, aligned_empty
from spuvm.runtime.protocols.algebra import Algebra, Sharing
from spuvm.runtime.ring.elements import Word, joined, limbs


def split(
    algebra: Algebra, kind: str, raw: np.ndarray, stream: Stream, first_block: int
) -> tuple[list[np.ndarray], int]:
    """The slots of a fresh sharing of `raw`, and the number of 16-byte keystream blocks used."""
    used = 0

    def draw() -> Any:
        nonlocal used
        view = aligned_empty(raw.nbytes)
        stream.fill(view, first_block + used)
        used += -(-view.size // 16)
        part = view.view(raw.dtype).reshape(raw.shape)
        if raw.dtype == np.uint8:
            part &= np.uint8(1)
        return element(limbs(part))

    with np.errstate(over="ignore"):
        components = algebra.split(kind, element(limbs(raw)), draw)
    return slots(components), used


def public(algebra: Algebra, kind: str, raw: np.ndarray) -> list[np.ndarray]:
    """The slots of a sharing of what everybody knows."""
    return slots(algebra.public(kind, element(limbs(raw))))


def reconstruct(algebra: Algebra, kind: str, arrays: Sequence[Any], limb_count: int = 1) -> np.ndarray:
    """The ring elements of a sharing, or of a known value, whose slots are all there; `limb_count` make a component."""
    components = tuple(element(arrays[i : i + limb_count]) for i in range(0, len(arrays), limb_count))
    with np.errstate(over="ignore"):
        whole = components[0] if kind in "pv" else algebra.reconstruct(kind, components)
    return joined(slots((whole,)))


def element(arrays: Sequence[Any]) -> Any:
    """What arithmetic works on: an array, or a Word of two."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else Word(*map(np.asarray, arrays))


def slots(components: Sharing) -> list[np.ndarray]:
    """The inverse, component after component."""
    return [np.asarray(v) for x in components for v in ((x.low, x.high) if isinstance(x, Word) else (x,))]
