"""Values that come back from call to call or from iteration to iteration, and the fraction bits that they keep.

A training loop in Python gives the next call what the last one returned. What a root is taken of, or what is divided,
keeps more bits than the default, so that small steps are made of it; a moving average, c v + (1 - c) x with a public
c < 1, most: nothing makes it larger than x.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

from spuvm.compiler.ir.module import Module, Region, Value
from spuvm.compiler.passes.choices import choices
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.wishes import NO_WISH, REARRANGED, Wanted

PLACE = re.compile(r"\[\d+\]")
NAME = re.compile(r"^\w*")

LONG = math.log2(15 / 16)  # of what a long average keeps of itself

SAME = REARRANGED | {"bitcast", "convert"}
LINEAR = SAME | {"add", "sub", "select", "concatenate", "pad", "scatter", "dynamic_update_slice", "shift_left", "trunc"}


@dataclass(frozen=True)
class State:
    """The result that an input becomes in the next call, and the extra bits of both."""

    result: Value
    extra: int


def successors(module: Module) -> dict[Value, Value] | None:
    """Where results may keep their scales: the result that has an input's place and name, by the inputs.

    A loop in Python gives the next call what the last one returned: `state[0].nu` comes back as `out[1][0].nu`.
    """
    if not module.keeps_scales:
        return None
    places: dict[tuple[str, str, tuple[int, ...]], Value] = {}
    for name, value in zip(module.outputs, module.body.results):
        rest = name.removeprefix("out")
        for place in (rest, PLACE.sub("", rest, count=1)):
            places.setdefault((place, value.type.kind, value.shape), value)
    found = {}
    for name, param in zip(module.inputs, module.body.params):
        key = NAME.sub("", name, count=1), param.type.kind, param.shape
        if key[0] and key in places:
            found[param] = places[key]
    return found


def states(module: Module, successors: dict[Value, Value], limits: Limits) -> dict[Value, State]:
    """Inputs that come back as results, moved by sums and products, and of which roots are taken or that are divided:
    both are fine, a fresh input too, as the next call takes what this one gives. A moment may begin with a millionth.
    """
    wanted = Wanted(limits)
    if successors:
        wanted.run(module.body)
    found = {}
    for v, result in successors.items():
        if v.type.kind != "fxp" or not (v.type.is_secret and result.type.is_secret):
            continue
        if result not in made_of({v}, module.body):
            continue
        below = wanted.of.get(v, NO_WISH).below
        made = choices(result, v, module.body).values
        average = below_average(v, made, module.body, limits)
        most = max(wanted.of.get(x, NO_WISH).below for x in (result, *made))
        long = is_scaled({v}, module.body, limits, most=0.0, least=LONG)
        extra = average and extra_of(max(below, most), made, module.body, limits, long)
        extra = extra or (limits.roots if below >= limits.roots else 0)
        if extra and v.type.frac in (limits.frac, limits.frac + extra):
            found[v] = State(result, extra)
    return found


def extra_of(below: float, average: Collection[Value], region: Region, limits: Limits, long: bool) -> int:
    """What a moving average, a long one or not, keeps, of which `below` bits are wanted below roots; all it may be."""
    if below >= limits.roots:
        return limits.long_averages if long else limits.averages
    return limits.numerators if is_divided(set(average), region) else 0


def below_average(before: Value, after: Collection[Value], region: Region, limits: Limits) -> bool:
    """Whether all of `after` are c `before` + ..., 1/2 <= c <= 1 public, and as large as a factor at most."""
    small = all(limits.of[x].whole <= limits.most for x in after)
    return small and is_scaled({before}, region, limits, most=0.0)


def is_scaled(values: set[Value], region: Region, limits: Limits, most: float = math.inf, least: float = -1.0) -> bool:
    """Whether one of these values, unchanged, is multiplied by a known number from 2^least to 2^most."""
    same = set(values)
    for op in region.ops:
        if op.name in REARRANGED and same.issuperset(op.inputs):
            same.update(op.outputs)
        if op.name == "mul" and not same.isdisjoint(op.inputs):
            others = [limits.of.get(v) for v in op.inputs if v not in same]
            if all(x is not None and x.known and least <= x.whole <= most and not math.isinf(x.whole) for x in others):
                return True
    return False


def made_of(values: set[Value], region: Region) -> set[Value]:
    """What sums, products and choices make of values."""
    found = set(values)
    for op in region.ops:
        if op.name in LINEAR | {"mul"} and not found.isdisjoint(op.inputs):
            found.update(op.outputs)
    return found


def is_divided(values: set[Value], region: Region) -> bool:
    """Whether what sums, products and public divisors make of these values is divided by something secret."""
    found = set(values)
    for op in region.ops:
        if op.name == "div" and op.inputs[0] in found and op.inputs[1].type.is_secret:
            return True
        if op.name in LINEAR | {"mul", "div", "div_by"} and not found.isdisjoint(op.inputs):
            found.update(op.outputs)
    return False
