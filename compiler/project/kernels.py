"""Plans of kernels: a kernel is traced once, for one unit of elements, and its plan is kept on disk.

Longer blocks follow from that; the functions of a plan from disk trace the kernel when, and only if, they are called.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from spuvm.compiler.cache import disk
from spuvm.compiler.expand.choreography import KernelSpec
from spuvm.compiler.project.analysis import Analysis
from spuvm.compiler.project.content import content
from spuvm.compiler.project.kernel_plan import Confirmed, KernelPlan, Multiplied, Sent, StagePlan
from spuvm.compiler.project.recorder import recorded
from spuvm.compiler.project.stage_function import Later, StageFunction
from spuvm.runtime.engine.code import UNIT
from spuvm.runtime.machine.program import Random


def kernel_avals(spec: KernelSpec, length: int | None) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The arguments' types at one block length."""
    shapes = [(length,) if s is None else s for s in spec.shapes]
    return tuple(jax.ShapeDtypeStruct(s, np.dtype(d)) for s, d in zip(shapes, spec.dtypes))


@lru_cache(maxsize=4096)
def plan(spec: KernelSpec, length: int | None) -> KernelPlan:
    """The analysis of `spec` at one block length (None: its exact shapes), from disk if it is there.

    An element-wise kernel is analysed for one unit of elements; longer blocks follow from that.
    """
    key = _key(spec, length)
    if length is not None and length > UNIT and length % UNIT == 0:
        return _longer(spec, plan(spec, UNIT), length, key)
    stored = disk.read(key + ".plan")
    if stored is not None:
        return _restored(spec, length, key, json.loads(stored))
    made = analyse(spec, length)
    disk.write(key + ".plan", json.dumps(_stored(made)).encode())
    return made


def _longer(spec: KernelSpec, unit: KernelPlan, length: int, key: str) -> KernelPlan:
    """The plan at several units: whole cache lines of randomness a unit, so that all places are multiples."""
    times = length // UNIT

    def shape(of_unit: tuple[int, ...]) -> tuple[int, ...]:
        return (of_unit[0] * times, *of_unit[1:]) if of_unit else ()

    def stage(party: int | None, index: int, s: StagePlan) -> StagePlan:
        randoms = tuple(Random(r.holders, r.offset * times, shape(r.shape), r.dtype) for r in s.randoms)
        avals = tuple(jax.ShapeDtypeStruct(shape(a.shape), a.dtype) for a in s.avals)
        return StagePlan(s.inputs, randoms, s.outputs, avals, _later(spec, length, party, index))

    return KernelPlan(
        key,
        unit.rounds,
        {holders: n * times for holders, n in unit.draws.items()},
        tuple(replace(s, shape=shape(s.shape)) for s in unit.sent),
        unit.outputs,
        {p: [stage(p, i, s) for i, s in enumerate(stages)] for p, stages in unit.stages.items()},
        unit.confirmed,
        unit.multiplied,
    )


def _later(spec: KernelSpec, length: int | None, party: int | None, index: int) -> Later:
    def made() -> StageFunction:
        function = analyse(spec, length).stages[party][index].function
        assert isinstance(function, StageFunction)
        return function

    return Later(made)


@lru_cache(maxsize=256)  # it holds the traced kernel
def analyse(spec: KernelSpec, length: int | None) -> KernelPlan:
    """Trace the kernel and cut it into stages."""
    avals = kernel_avals(spec, length)
    with jax.enable_x64(True):
        return Analysis(spec, *recorded(spec.function, avals)).plan(_key(spec, length))


def _stored(made: KernelPlan) -> dict[str, Any]:
    """A plan as JSON, without its functions."""

    def stage(s: StagePlan) -> list[Any]:
        avals = [(a.shape, a.dtype.name) for a in s.avals]
        return [s.inputs, [astuple(r) for r in s.randoms], s.outputs, avals]

    return {
        "rounds": made.rounds,
        "draws": list(made.draws.items()),
        "sent": [astuple(s) for s in made.sent],
        "outputs": list(made.outputs.items()),
        "confirmed": [astuple(c) for c in made.confirmed],
        "multiplied": [astuple(m) for m in made.multiplied],
        "stages": [(party, [stage(s) for s in stages]) for party, stages in made.stages.items()],
    }


def _restored(spec: KernelSpec, length: int | None, key: str, stored: dict[str, Any]) -> KernelPlan:
    """A plan from JSON; its functions trace the kernel when (and only if) they are called."""

    def stage(party: int | None, index: int, s: list[Any]) -> StagePlan:
        inputs, randoms, outputs, avals = s
        return StagePlan(
            tuple(inputs),
            tuple(Random(tuple(h), offset, tuple(shape), dtype) for h, offset, shape, dtype in randoms),
            tuple(outputs),
            tuple(jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for shape, dtype in avals),
            _later(spec, length, party, index),
        )

    return KernelPlan(
        key,
        stored["rounds"],
        {tuple(h): n for h, n in stored["draws"]},
        tuple(Sent(v, a, src, dst, at, tuple(shape), dtype) for v, a, src, dst, at, shape, dtype in stored["sent"]),
        {party: tuple(values) for party, values in stored["outputs"]},
        {p: [stage(p, i, s) for i, s in enumerate(stages)] for p, stages in stored["stages"]},
        tuple(Confirmed(mine, theirs, by, to, tuple(shape)) for mine, theirs, by, to, shape in stored["confirmed"]),
        tuple(
            Multiplied(how, tuple(map(tuple, values)), tuple(map(tuple, shapes)), dtype)
            for how, values, shapes, dtype in stored["multiplied"]
        ),
    )


def _key(spec: KernelSpec, length: int | None) -> str:
    """What tells compiled forms apart: types and holders of the components, and what the function does with them."""
    types = (spec.shapes, spec.dtypes, spec.holders, spec.out_holders, spec.limbs, length)
    text = repr((spec.name, types, content(spec.function)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
