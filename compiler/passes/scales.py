"""Every fixed-point value its own fraction bits: more than the default where its limit has room and a use wants them.

Lowering gives all numbers the default fraction bits f. Here a value gets `extra` ones, in three steps: limits of all
values (passes/limits.py), what their uses want (passes/wishes.py), and a rewriting that drops so many fewer at the
truncations that are there. A shift to the left is free, so sums and selections are aligned upwards where limits allow.
Inputs and results of programs and branches keep the default, and what loops carry mostly (passes/carried.py): the same
types in give the same out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from spuvm.compiler.ir.module import Module, Op, Region, Value
from spuvm.compiler.ir.ops import KEEP_MASKED
from spuvm.compiler.passes import scaled_quotients as quotients
from spuvm.compiler.passes import scaled_sums as sums
from spuvm.compiler.passes.carried import pin
from spuvm.compiler.passes.limits import Limits, known
from spuvm.compiler.passes.ranges import DIGITS, MARGIN, Range
from spuvm.compiler.passes.scaler import ALIGNED, Scaler
from spuvm.compiler.passes.states import states, successors
from spuvm.compiler.passes.verdicts import key_of, line_of
from spuvm.compiler.passes.wishes import REARRANGED, Pins

Moved = dict[Region, list[int]]

TAKES: dict[str, Callable[[Scaler, Op], None]] = {
    "const": lambda s, op: s.out.append(op),
    **dict.fromkeys(REARRANGED - ALIGNED - KEEP_MASKED | (KEEP_MASKED - {"mask"}), sums.rearrange),
    **dict.fromkeys(ALIGNED, sums.align),
    "bitcast": sums.reread,
    "sum": sums.total,
    "cumsum": sums.total,
    "mul": sums.multiply,
    "dot": sums.multiply,
    "trunc": sums.truncate,
    "sqrt": quotients.root,
    "rsqrt": lambda s, op: s.keep(op, op.inputs, 0),  # of any scale, and no smaller than a unit
    "div": quotients.quotient,
    "power_of": quotients.power,
    "div_by": quotients.quotient_by,
}


def choose_scales(module: Module, limits: Limits | None = None) -> Moved:
    """In place: every value stays the same object, some types change. `limits` are filled, where they are given."""
    frac, ring_bits = module.config["fxp_fraction_bits"], module.config["ring_bits"]
    limits = Limits(frac, ring_bits) if limits is None else limits
    ranges = _measure(module, limits)
    finer = dict(zip(module.body.params, module.finer))
    for param, extra in finer.items():
        param.type = param.type.with_(frac=param.type.frac + extra)
        limits.of[param] = limits.finer(extra)
    inside = any(op.stated is not None for op in module.body.walk())
    limits.stated = not ranges and (inside or any(bound is not None for bound in module.bounds))
    for param, bound in zip(module.body.params, module.bounds):
        if bound is not None and param.type.kind == "fxp":
            limits.of[param] = known(math.log2(bound))
    limits.run(module.body)
    next_call = successors(module)
    kept = states(module, next_call or {}, limits)
    for param, state in kept.items():
        finer[param], limits.of[param] = state.extra, limits.finer(state.extra)
        param.type = param.type.with_(frac=frac + state.extra)
    limits.run(module.body)
    pins = pin(module.body, limits)
    moved: Moved = {}
    for region in [module.body, *(r for op in module.body.walk() for r in op.regions)]:
        outermost = region is module.body
        given = (finer, next_call) if outermost else (_carried_in(region, pins), None)
        results = {state.result: state.extra for state in kept.values()} if outermost else {}
        moved[region] = Scaler(region, limits, frac, ring_bits, *given, pins, results, TAKES).run()
    if ranges:
        module.refused = _beyond(module, ranges, ring_bits)
    return moved


def _beyond(module: Module, ranges: Mapping[Value, Range], ring_bits: int) -> tuple[str, ...]:
    """Lines at which the sample itself has numbers that the ring does not hold at the scales that were chosen."""
    found: dict[str, None] = {}
    for op in module.body.walk():
        for value in op.outputs:
            _, high = ranges.get(value, (0, 0))
            frac = op.inputs[0].type.frac if op.name == "trunc" else value.type.frac
            if value in ranges and high - 1 + frac >= ring_bits - 2:
                found[line_of(key_of(op))] = None
    return tuple(found)


def _measure(module: Module, limits: Limits) -> Mapping[Value, Range]:
    """What a calibrated program is fitted to. A product is as large before it is truncated as after it."""
    ranges, module.measured = module.measured, {}
    for value, (low, high) in ranges.items():
        limits.measured[value] = float(high + MARGIN)
        limits.digits[value] = float(DIGITS - low - limits.frac)
    for op in module.body.walk():
        if op.name == "trunc" and op.output in ranges:
            limits.measured[op.inputs[0]] = limits.measured[op.output]
    return ranges


def _carried_in(region: Region, pins: Pins) -> dict[Value, int]:
    """The parameters that a loop carries with more bits, which they get here."""
    found = {v: pins.values[v] for v in region.params if v in pins.values}
    for value, extra in found.items():
        value.type = value.type.with_(frac=value.type.frac + extra)
    return found
