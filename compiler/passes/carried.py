"""Which values that loops carry keep the fraction bits that a root wants, from one iteration to the next.

A carried value has one type before, within and after its loop. It gets `Limits.roots` bits beyond the default where a
root is taken of it, in the body or after the loop, and its limit allows them: what the body makes of it has room for
them whatever comes in, and so has what goes in first (or it is multiplied by a constant of at least a half, whose
products are promised to fit); or all iterations together leave it so (passes/growth.py). What a body takes so it gives
so: its result is asked for the bits, which may be wanted of another carried value then. This goes on until nothing
changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.passes.choices import Choices, Made, choices, pinned
from spuvm.compiler.passes.growth import reach
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.states import LONG, extra_of, is_scaled
from spuvm.compiler.passes.wishes import NO_WISH, Pins, Wanted


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
    def trips(self) -> int | None:
        """How many iterations there are, if it is known."""
        return int(self.loop.attrs["trips"]) if self.loop.name == "loop" else None

    @property
    def made(self) -> Value:
        return self.loop.regions[-1].results[self.result]

    @property
    def choices(self) -> Choices:
        """What an iteration may make of it, if it does not keep it as it was."""
        return choices(self.made, self.params[0], self.loop.regions[-1], into=True)

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


def pin(module_body: Region, limits: Limits) -> Pins:
    """The operands, parameters, results and outputs that have extra bits, by operation or region and position."""
    loops = [(region, op) for region in _regions(module_body) for op in region.ops if op.name in ("loop", "while")]
    by_param = {c.params[0]: c for _, op in loops for c in carried(op)}
    pins = Pins()
    while loops:
        wanted = {region: _wishes(region, limits, pins) for region in _regions(module_body)}
        new = [
            (c, extra)
            for region, op in loops
            for c in carried(op)
            if (op, c.at) not in pins.operands
            if (extra := _extra(c, wanted[region], wanted, limits, by_param, pins))
        ]
        if not new:
            return pins
        for c, extra in new:
            pins.operands[c.loop, c.at] = pins.results[c.loop.regions[-1], c.result] = extra
            passed = c.choices.passed
            for p in passed:
                pins.results.update(((branch, p.output), extra) for branch in p.op.regions)
                if p.operand is not None:
                    pins.operands[p.op, p.operand] = extra
            for value in (c.last, *c.params, *(v for p in passed for v in pinned(p))):
                pins.values[value] = extra
                limits.pinned[value] = limits.of[value] = limits.finer(extra)
        limits.run(module_body)
    return pins


def _regions(region: Region) -> list[Region]:
    return [region, *(r for op in region.walk() for r in op.regions)]


def _wishes(region: Region, limits: Limits, pins: Pins) -> Wanted:
    wanted = Wanted(limits, pins)
    wanted.run(region)
    return wanted


def _extra(
    c: Carried,
    outside: Wanted,
    inside: Mapping[Region, Wanted],
    limits: Limits,
    loops: Mapping[Value, Carried],
    pins: Pins,
) -> int:
    """What a carried value gets: that of a state (see `states`), if its limit has room for what roots want; what a loop
    within gives with more bits, it carries so.
    """
    body, made = c.loop.regions[-1], c.choices.made
    places = [(body, c.params[0]), (body, c.made), *((m.region, v) for m in made for v in (m.value, m.before) if v)]
    asked = [outside.of.get(c.last), *(inside[region].of.get(v) for region, v in places)]
    below = max((wish or NO_WISH).below for wish in asked)
    if not _has_room(c, made, limits, loops, pins):
        return 0
    if c.made in pins.values:
        return pins.values[c.made]
    average = _is_scaled(c, made, limits, most=0.0)
    long = average and _is_scaled(c, made, limits, most=0.0, least=LONG)
    most = max((extra_of(below, [m.value], m.region, limits, long) for m in made), default=0) if average else 0
    return most or (limits.roots if below >= limits.roots else 0)


def _is_scaled(c: Carried, made: Sequence[Made], limits: Limits, most: float = math.inf, least: float = -1.0) -> bool:
    places = {(c.loop.regions[-1], c.params[0]), *((m.region, m.before) for m in made if m.before)}
    return any(is_scaled({v}, region, limits, most, least) for region, v in places)


def _has_room(c: Carried, made: Sequence[Made], limits: Limits, loops: Mapping[Value, Carried], pins: Pins) -> bool:
    fits = limits.top - limits.frac - limits.roots
    if c.first.type.frac != limits.frac:
        return False
    body = c.loop.regions[-1]
    always = all(m.region is body for m in made)  # what a branch scales may not be scaled at all
    small = limits.of[c.first].whole <= fits or (always and _is_scaled(c, made, limits))
    if small and all(limits.of[m.value].whole <= fits for m in made):
        return True
    first, trips = _beginning(c, loops)
    fine = {region.results[i] for region, i in pins.results}
    return trips is not None and reach(first, c.params[0], c.made, body, trips, limits, fine) <= fits


def _beginning(c: Carried, loops: Mapping[Value, Carried]) -> tuple[Value, int | None]:
    """What a loop within loops begins with, and how many iterations there are in all."""
    trips = c.trips
    around = loops.get(c.first)
    if trips is None or around is None or around.made is not c.last:
        return c.first, trips
    first, outer = _beginning(around, loops)
    return first, outer if outer is None else trips * outer
