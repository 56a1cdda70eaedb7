"""When each call runs: the same rounds at every party, each call as early as its inputs allow.

A block is cut at its control steps into straight pieces. In a piece a call starts in the first
round in which all its inputs are there, so independent calls share their rounds wherever they
stand in the program. Local calls of one round are fused into groups, each compiled as one
executable: runs of element-wise calls on the same number of elements, and the rest as whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from spuvm.compiler.expand.choreography import Block, Call, KernelSpec, Slot, Step
from spuvm.compiler.project.kernel_plan import KernelPlan
from spuvm.compiler.project.kernels import plan
from spuvm.runtime.machine.program import BLOCK_SIZES

SMALL = 4096  # element-wise calls up to this size join whole-array groups: fewer executables
ALONE = -1  # the mode of a call that communicates: never fused
GROUP_LIMIT = 48  # calls in one executable: XLA's compile time grows faster than linearly


@dataclass(eq=False)
class Placed:
    """A call and the round it starts in; `lane` orders the local groups of one round."""

    call: Call
    round: int
    lane: int
    rounds: int


@dataclass(eq=False)
class Piece:
    """A straight piece: placed calls in an order that respects their dependences."""

    calls: list[Placed]
    rounds: int


def reference_plan(call: Call) -> KernelPlan:
    """The plan at the shortest block: rounds and bits per element are the same at every length."""
    return plan(call.spec, BLOCK_SIZES[0] if call.spec.elementwise else None)


def pieces(block: Block) -> list[Piece | Step]:
    """The block as straight pieces and control steps, in order."""
    live = _live(block)
    users = _users(block, live)
    out: list[Piece | Step] = []
    for is_call, steps in groupby(live, lambda step: isinstance(step, Call)):
        if is_call:
            out.append(_piece([s for s in steps if isinstance(s, Call)], users))
        else:
            out.extend(steps)
    return out


def _live(block: Block) -> list[Step]:
    """The steps without the calls that no result depends on."""
    read = set(block.results)
    kept: list[Step] = []
    for step in reversed(block.steps):
        if not isinstance(step, Call) or not read.isdisjoint(step.outputs):
            read.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _users(block: Block, steps: Sequence[Step]) -> dict[Slot, set[int]]:
    """The steps that read each slot, by identity; 0 stands for the block's results."""
    users: dict[Slot, set[int]] = {}
    for step in steps:
        for slot in step.inputs:
            users.setdefault(slot, set()).add(id(step))
    for slot in block.results:
        users.setdefault(slot, set()).add(0)
    return users


def _mode(call: Call) -> int:
    """Element-wise calls on many elements are grouped by that number; everything else is 0."""
    return call.size if call.spec.elementwise and call.size > SMALL else 0


def _piece(calls: Sequence[Call], users: dict[Slot, set[int]]) -> Piece:
    ready: dict[Slot, tuple[int, int, int | None]] = {}  # round, lane, and the mode of a local producer
    placed = []
    for call in calls:
        inputs = [ready[s] for s in call.inputs if s in ready]
        start = max((round_ for round_, _, _ in inputs), default=0)
        rounds = reference_plan(call).rounds if call.spec.communicates else 0
        mode = ALONE if call.spec.communicates else _mode(call)
        # A producer in the same round is fused with its reader, or runs in a lane before it.
        same = [lane + (m != mode or m == ALONE) for round_, lane, m in inputs if round_ == start and m is not None]
        lane = max(same, default=0)
        placed.append(Placed(call, start, lane, rounds))
        for slot in call.outputs:
            ready[slot] = (start + rounds, 0, None) if rounds else (start, lane, mode)
    return Piece(_grouped(placed, users), max((p.round + p.rounds for p in placed), default=0))


def _grouped(placed: list[Placed], users: dict[Slot, set[int]]) -> list[Placed]:
    """Fuse the local calls of one round, lane and mode; calls that communicate stay as they are.

    Within a round the order is: local groups and calls without rounds by lane, then what talks.
    """
    groups: dict[tuple[int, int, int], list[Call]] = {}
    out: list[Placed] = []
    for p in placed:
        if p.call.spec.communicates:
            out.append(p)
        else:
            groups.setdefault((p.round, p.lane, _mode(p.call)), []).append(p.call)
    for (round_, lane, _), members in groups.items():
        for at in range(0, len(members), GROUP_LIMIT):
            out.append(Placed(fuse(members[at : at + GROUP_LIMIT], users), round_, lane, 0))
    return sorted(out, key=lambda p: (p.round, p.rounds > 0, p.lane))


def fuse(calls: Sequence[Call], users: dict[Slot, set[int]]) -> Call:
    """Several local calls as one, whose results are those that others read."""
    if len(calls) == 1:
        return calls[0]
    members = {id(c) for c in calls}
    made = dict.fromkeys(s for c in calls for s in c.outputs)
    inputs = list(dict.fromkeys(s for c in calls for s in c.inputs if s not in made))
    outputs = [s for s in made if users.get(s, set()) - members]
    numbers = {s: i for i, s in enumerate([*inputs, *made])}
    wiring = tuple((c.spec, tuple(numbers[s] for s in c.inputs), tuple(numbers[s] for s in c.outputs)) for c in calls)
    wanted = tuple(numbers[s] for s in outputs)
    elementwise = all(_mode(c) for c in calls)
    spec = KernelSpec(
        name="group",
        params=(("calls", wiring), ("results", wanted)),
        shapes=tuple((None if elementwise and s.shape != () else s.shape) for s in inputs),
        dtypes=tuple(s.dtype for s in inputs),
        holders=tuple(s.holders for s in inputs),
        out_holders=tuple(s.holders for s in outputs),
        elementwise=elementwise,
        communicates=False,
        function=_sequence(wiring, wanted),
    )
    return Call(spec, inputs, outputs, "+".join(dict.fromkeys(c.op for c in calls)), calls[0].location)


@cache
def _sequence(wiring: tuple[Any, ...], wanted: tuple[int, ...]) -> Callable[..., tuple[Any, ...]]:
    def run(*arrays: Any) -> tuple[Any, ...]:
        env = dict(enumerate(arrays))
        for spec, ins, outs in wiring:
            env.update(zip(outs, spec.function(*(env[i] for i in ins))))
        return tuple(env[i] for i in wanted)

    return run
