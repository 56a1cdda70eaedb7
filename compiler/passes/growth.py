"""How large iterations can make a carried value that is no average: sums have the trips, choices what they choose from.

Only what is bounded so may give bits of its range away: v + c x y, some hundred times, or max(v, x).
"""

from __future__ import annotations

import math

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.states import SAME

LARGE = 400.0  # log2 of what stands for anything


def reach(
    first: Value, before: Value, after: Value, region: Region, trips: int, limits: Limits, fine: set[Value]
) -> float:
    """log2 of what a value stays below that begins as `first`, where each of the trips makes `after` of `before`.

    `fine`: values with more bits than the default, whose quotients by a number have the limit of such.
    """
    found = {before: (limits.of[first].whole, 0.0)}  # of what is made of it: what it is chosen from, what it has grown
    for op in region.ops:
        if op.name in SAME and not fine.isdisjoint(op.inputs):
            fine = fine | set(op.outputs)
        parts = [v for v in _numbers(op) if v in found]
        if not parts:
            continue
        others = [_whole(v, region, limits, fine) for v in _numbers(op) if v not in found]
        most, grown = (max(x) for x in zip(*(found[v] for v in parts)))
        if op.name in ("add", "sub"):
            grown = grown + 2.0 ** min(others[0], LARGE) if others else math.inf
        else:
            most = max([most, *others])
        found[op.output] = most, grown
    most, grown = found.get(after, (math.inf, 0.0))
    return math.log2(2.0 ** min(most, LARGE) + trips * grown)


def _numbers(op: Op) -> list[Value]:
    """The operands that sums, choices and rearrangements of numbers have; of other operations none."""
    if len(op.outputs) != 1 or op.output.type.kind != "fxp":
        return []
    if op.name == "select":
        return op.inputs[1:]
    if op.name == "bitcast" and op.output.type.frac < op.inputs[0].type.frac:  # larger numbers
        return []
    if op.name not in SAME | {"add", "sub"}:
        return []
    at = index_operands(op.name, len(op.inputs)) if op.name in LOCAL else ()
    return [v for i, v in enumerate(op.inputs) if i not in at]


def _whole(value: Value, region: Region, limits: Limits, fine: set[Value]) -> float:
    op = next((op for op in region.ops if op.name == "div" and op.output is value), None)
    return limits.finer(limits.roots).whole if op is not None and op.inputs[0] in fine else limits.of[value].whole
