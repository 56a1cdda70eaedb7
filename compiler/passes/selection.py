"""Selection: a sort of which only some ranks are read need not put the others in order.

Medians, quantiles and extremes are sorts with a few elements taken out. The ranks are followed from the
sort through rearrangements with constant indices; what anything else reads is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.in_the_clear import RULES, Ring
from spuvm.compiler.ir.module import Op, Region, Value, uses

Ranks = NDArray[np.uint64]

RING = Ring(64)  # ranks are not secret: any ring does
LIMIT = 1 << 22  # elements of sorts that are followed
REARRANGING = frozenset({"reshape", "transpose", "broadcast", "slice", "rev", "gather", "dynamic_slice", "bitcast"})
MAX_RANGES = 16  # more are merged, the nearest first


def selection(region: Region) -> None:
    """Give each sort of a region the ranks that are wanted of it."""
    users = uses(region)
    made = {v: op for op in region.ops for v in op.outputs}
    for op in region.ops:
        if op.name == "sort" and not op.attrs["wanted"] and 0 < op.outputs[0].type.size <= LIMIT:
            length = op.outputs[0].shape[1]
            read = np.zeros(length, np.bool_)
            for value in op.outputs:
                ranks = np.broadcast_to(np.arange(length, dtype=np.uint64), value.shape)
                for found in _read(value, ranks, users, made):
                    read[found.astype(np.int64).reshape(-1)] = True
            if not read.all():
                op.attrs = {**op.attrs, "wanted": _ranges(read)}


def _read(value: Value, ranks: Ranks, users: dict[Value, list[Op | None]], made: dict[Value, Op]) -> Iterator[Ranks]:
    """The ranks in `value` that something but a rearrangement reads."""
    for user in users.get(value, []):
        indices = _indices(user, value, made) if user is not None else None
        if user is None or indices is None:
            yield ranks
        else:
            yield from _read(user.output, RULES[user.name](RING, user, [ranks, *indices]), users, made)


def _indices(user: Op, value: Value, made: dict[Value, Op]) -> list[Ranks] | None:
    """The constant operands that a rearrangement of `value` takes besides; None if it is something else."""
    if user.name not in REARRANGING or user.inputs[0] is not value or user.attrs.get("mode") == "fill":
        return None
    constants = [made.get(v) for v in user.inputs[1:]]
    if any(c is None or c.name != "const" for c in constants):
        return None
    return [RING.make(c.attrs["data"]) for c in constants if c is not None]


def _ranges(read: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """The half-open ranges of what is set; one empty range if nothing is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], read, [0]]).astype(np.int8)))
    ranges = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)] or [(0, 0)]
    while len(ranges) > MAX_RANGES:
        gaps = [after[0] - before[1] for before, after in pairwise(ranges)]
        at = int(np.argmin(gaps))
        ranges[at : at + 2] = [(ranges[at][0], ranges[at + 1][1])]
    return tuple(ranges)
