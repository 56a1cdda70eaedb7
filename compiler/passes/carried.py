"""Which values that loops carry keep the fraction bits that a root wants, from one iteration to the next.

A carried value has one type before, within and after its loop. It gets `OF_ROOTS` bits beyond the default where a root
is taken of it, in the body or after the loop, and its limit allows them: what the body makes of it has room for them
whatever comes in, and so has what goes in first (or it is multiplied by a constant of at least a half, whose products
are promised to fit). What a body takes so it gives so: its result is asked for the bits, which may be wanted of
another carried value then. This goes on until nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.wishes import NO_WISH, OF_ROOTS, REARRANGED, Pins, Wanted


@dataclass(frozen=True)
class Carried:
    """One value that a loop carries: at position `at` of the operands, `result` of the body's results."""

    loop: Op
    at: int
    result: int

    @property
    def first(self) -> Value:
        return self.loop.inputs[self.at]

    @property
    def last(self) -> Value:
        return self.loop.outputs[self.result]

    @property
    def made(self) -> Value:
        return self.loop.regions[-1].results[self.result]

    @property
    def params(self) -> tuple[Value, ...]:
        """Within the body, and within the condition of a `while`."""
        op = self.loop
        if op.name == "loop":
            return (op.regions[0].params[self.at],)
        condition, body = op.regions
        a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
        return body.params[self.at - a], condition.params[self.at - b]


def carried(op: Op) -> Iterator[Carried]:
    """The secret numbers that a loop carries."""
    if op.name == "loop":
        first, n = op.attrs["constants"], op.attrs["carries"]
    elif op.name == "while":
        first, n = op.attrs["condition_constants"] + op.attrs["body_constants"], len(op.outputs)
    else:
        return
    for i in range(n):
        t = op.outputs[i].type
        if t.kind == "fxp" and t.is_secret:
            yield Carried(op, first + i, i)


def pin(module_body: Region, limits: Limits, extra: int = OF_ROOTS) -> Pins:
    """The operands, parameters, results and outputs that have `extra` bits, by operation or region and position."""
    loops = [(region, op) for region in _regions(module_body) for op in region.ops if op.name in ("loop", "while")]
    pins = Pins()
    while loops:
        wanted = {region: _wishes(region, limits, pins) for region in _regions(module_body)}
        new = [
            c
            for region, op in loops
            for c in carried(op)
            if (op, c.at) not in pins.operands and _wants(c, wanted[region], wanted[op.regions[-1]])
            if _has_room(c, limits, extra)
        ]
        if not new:
            return pins
        for c in new:
            pins.operands.add((c.loop, c.at))
            pins.results.add((c.loop.regions[-1], c.result))
            pins.values.update((c.last, *c.params))
            for value in (c.last, *c.params):
                limits.pinned[value] = limits.of[value] = limits.finer(extra)
        limits.run(module_body)
    return pins


def _regions(region: Region) -> list[Region]:
    return [region, *(r for op in region.walk() for r in op.regions)]


def _wishes(region: Region, limits: Limits, pins: Pins) -> Wanted:
    wanted = Wanted(limits, pins)
    wanted.run(region)
    return wanted


def _wants(c: Carried, outside: Wanted, inside: Wanted) -> bool:
    asked = [outside.of.get(c.last), inside.of.get(c.params[0]), inside.of.get(c.made)]
    return any((wish or NO_WISH).below >= OF_ROOTS for wish in asked)


def _has_room(c: Carried, limits: Limits, extra: int) -> bool:
    fits = limits.top - limits.frac - extra
    if c.first.type.frac != limits.frac or limits.of[c.made].whole > fits:
        return False
    return limits.of[c.first].whole <= fits or _is_factor(c, limits)


def _is_factor(c: Carried, limits: Limits) -> bool:
    """Whether the body multiplies what comes in by a known number of a half or more."""
    same = {c.params[0]}
    for op in c.loop.regions[-1].ops:
        if op.name in REARRANGED and same.issuperset(op.inputs):
            same.update(op.outputs)
        if op.name == "mul" and not same.isdisjoint(op.inputs):
            other = [limits.of.get(v) for v in op.inputs if v not in same]
            if all(x is not None and x.known and x.whole >= -1 and not math.isinf(x.whole) for x in other):
                return True
    return False
