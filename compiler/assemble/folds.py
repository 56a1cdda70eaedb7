"""Reductions within loops: an array that is computed only to be folded into one element is never whole in memory."""

from __future__ import annotations

import math
from collections import Counter

from spuvm.compiler.assemble.builder import Builder, CallInMaking, LoopInMaking, touched
from spuvm.runtime.engine.code import Fold
from spuvm.runtime.engine.interpreter import operations

PAYS = 1 << 12  # elements; fewer stay in the cache anyway


def fold_in_loops(builder: Builder) -> None:
    """Reductions to one element become a part of the loop that computes what they reduce."""
    users = Counter(array for segment in builder.segments for array in touched(segment))
    loops = {
        array: (loop, storage)
        for loop in builder.segments
        if isinstance(loop, LoopInMaking)
        for storage, (array, offset) in loop.arrays.items()
        if offset == 0
    }
    left = []
    for segment in builder.segments:
        fold = _fold(builder, segment) if isinstance(segment, CallInMaking) else None
        loop, storage = loops.get(fold.array, (None, 0)) if fold else (None, 0)
        if fold and loop and users[fold.array] == 2 and _one_a_unit(builder, loop, storage, fold):
            loop.folds.append(fold)
        else:
            left.append(segment)
    builder.segments = left


def _fold(builder: Builder, call: CallInMaking) -> Fold | None:
    """A call as the fold of a whole temporary array into one element, if it is that."""
    if call.kind != "reduce":
        return None
    (source, to), (operation, width, kept) = call.views, call.parameters
    array = builder.arrays[source.array]
    count = math.prod(source.sizes)
    whole = source.offset == 0 and count * width == array.bytes and all(s != 0 for s in source.strides)
    if array.source != "temporary" or not whole or count < PAYS or math.prod(source.sizes[:kept]) != 1:
        return None
    return Fold(list(operations())[operation], width, source.array, to.array, to.offset)


def _one_a_unit(builder: Builder, loop: LoopInMaking, storage: int, fold: Fold) -> bool:
    written = loop.units * fold.width == builder.arrays[fold.array].bytes
    return written and loop.widths[storage] == fold.width and not builder.scales
