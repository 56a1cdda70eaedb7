"""What one kernel is for its parties: who computes which stage, what is drawn, sent, confirmed and proved."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from spuvm.compiler.project.stage_function import Later, StageFunction
from spuvm.runtime.machine.program import Holders, Random


@dataclass(frozen=True)
class Sent:
    """One message: value `value` leaves `src` after stage `stage`; at `dst` it is value `arrives`."""

    value: int
    arrives: int
    src: int
    dst: int
    stage: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class StagePlan:
    """Value numbers that go in and come out; the kernel's own inputs are numbers 0, 1, ..."""

    inputs: tuple[int, ...]
    randoms: tuple[Random, ...]
    outputs: tuple[int, ...]
    avals: tuple[jax.ShapeDtypeStruct, ...]
    function: StageFunction | Later


@dataclass(frozen=True)
class Confirmed:
    """A value that two parties add to a hash: number `mine` at party `by`, who computed it, `theirs` at party `to`."""

    mine: int
    theirs: int
    by: int
    to: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Multiplied:
    """A product to be proved: by party, the numbers of its two components of x, of y and of z."""

    how: str
    values: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]  # of x, y and z
    dtype: str


@dataclass(eq=False)
class KernelPlan:
    """All parties' stages (key None: everything at once). `outputs[party]` are the value numbers of
    the result components, None where the party does not hold one."""

    key: str
    rounds: int
    draws: dict[Holders, int]
    sent: tuple[Sent, ...]
    outputs: dict[int | None, tuple[int | None, ...]]
    stages: dict[int | None, list[StagePlan]]
    confirmed: tuple[Confirmed, ...] = ()
    multiplied: tuple[Multiplied, ...] = ()
