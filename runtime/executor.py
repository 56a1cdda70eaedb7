"""Running a party's program: rounds of stages, one message to each peer a round, public control.

The same executor runs the simulator's program, which has no messages. Randomness comes from
`Streams`: one AES-128-CTR key for each set of parties, and a counter that moves on with every
straight piece executed, so no counter is used twice, loop iterations and later runs included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from spuvm.runtime.link import Link
from spuvm.runtime.primitives import PERMUTATION
from spuvm.runtime.program import (
    BlockProgram,
    CondStep,
    Holders,
    LoopStep,
    PartyProgram,
    ProgramStep,
    Random,
    RankStep,
    Registers,
    Round,
    Straight,
    Task,
    WhileStep,
    partition,
)
from spuvm.runtime.random import Stream, aligned_empty, permutations
from spuvm.runtime.ranking import ranking
from spuvm.runtime.values import Blocked, Component, blocks, empty, incoming, outgoing, taken, whole
from spuvm.runtime.word import signed

PREFETCH_BYTES = 1 << 20  # a piece that draws no more than this per stream has it generated at once


class Streams:
    """The keystreams that this process may use, and how far each has been used."""

    def __init__(self, keys: Callable[[Holders], bytes], party: int | None) -> None:
        self._keys = keys
        self._party = party
        self._streams: dict[Holders, Stream] = {}
        self._next: dict[Holders, int] = {}

    def stream(self, holders: Holders) -> Stream:
        if holders not in self._streams:
            self._streams[holders] = Stream(self._keys(holders))
        return self._streams[holders]

    def advance(self, draws: Mapping[Holders, int]) -> dict[Holders, int]:
        """Reserve `draws` blocks of each stream; returns where they begin."""
        start = {h: self._next.get(h, 0) for h in draws}
        for holders, n in draws.items():
            self._next[holders] = start[holders] + n
        return start

    def may_use(self, holders: Holders) -> bool:
        return self._party is None or self._party in holders


class Listener(Protocol):
    """What observes a run: the profiler, the tracer and the tests implement it."""

    def did_run(self, task: Task) -> None: ...
    def did_exchange(self, round_: Round) -> None: ...


class _Draws:
    """The randomness of one execution of a straight piece."""

    def __init__(self, streams: Streams, draws: Mapping[Holders, int]) -> None:
        self._streams = streams
        self._start = streams.advance(draws)
        self._ready: dict[Holders, np.ndarray] = {}
        for holders, n in draws.items():
            if 16 * n <= PREFETCH_BYTES and streams.may_use(holders):
                buffer = aligned_empty(16 * n)
                streams.stream(holders).fill(buffer, self._start[holders])
                self._ready[holders] = buffer

    def get(self, random: Random, base: int) -> np.ndarray:
        """The value of `random` for the kernel block whose randomness begins at `base`."""
        at, size = base + random.offset, random.nbytes
        if random.holders in self._ready:
            raw = self._ready[random.holders][16 * at : 16 * at + size]
        else:
            raw = aligned_empty(size)
            self._streams.stream(random.holders).fill(raw, self._start[random.holders] + at)
        if random.dtype == PERMUTATION:
            return permutations(raw, random.shape)
        return raw.view(random.dtype).reshape(random.shape)


class Executor:
    """Runs programs of one party over its link; without a link, simulated programs."""

    def __init__(self, streams: Streams, link: Link | None = None, listener: Listener | None = None) -> None:
        self.streams = streams
        self.link = link
        self.listener = listener

    def run(self, program: PartyProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        """`inputs` and results are components, in the order of the program's ports."""
        with jax.enable_x64(True):
            return self._block(program.block, list(inputs))

    def _block(self, block: BlockProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        env: dict[int, Component] = dict(block.constants)
        for register, value in zip(block.params, inputs, strict=True):
            if register is not None:
                assert value is not None
                env[register] = value
        for step in block.steps:
            self._step(step, env)
        return [None if r is None else whole(env[r], shape) for r, shape in zip(block.results, block.result_shapes)]

    def _step(self, step: ProgramStep, env: dict[int, Component]) -> None:
        match step:
            case Straight():
                return self._straight(step, env)
            case LoopStep():
                self._loop(step, env)
            case CondStep():
                choice = int(signed(np.asarray(whole(env[step.index], ()))))
                branch = step.branches[min(max(choice, 0), len(step.branches) - 1)]
                _store(env, step.outputs, self._block(branch, _load(env, step.operands)))
            case WhileStep():
                self._while(step, env)
            case RankStep():
                self._rank(step, env)
        for register in step.frees:
            env.pop(register, None)

    def _loop(self, step: LoopStep, env: dict[int, Component]) -> None:
        constants, carries = _load(env, step.constants), _load(env, step.carries)
        xs = [None if r is None else np.asarray(whole(env[r], s)) for r, s in zip(step.xs, step.x_shapes)]
        n = len(step.carries)
        held = [r is not None for r in step.outputs[n:]]
        stacked = [empty(s, d) if h else None for (s, d), h in zip(step.stacked, held)]
        for trip in reversed(range(step.trips)) if step.reverse else range(step.trips):
            rows = [None if x is None else x[trip] for x in xs]
            results = self._block(step.body, [*constants, *carries, *rows])
            carries = results[:n]
            for out, value in zip(stacked, results[n:]):
                if out is not None:
                    out[trip] = np.asarray(value)
        _store(env, step.outputs, [*carries, *stacked])

    def _while(self, step: WhileStep, env: dict[int, Component]) -> None:
        first, second = _load(env, step.condition_constants), _load(env, step.body_constants)
        carries = _load(env, step.carries)
        while np.asarray(self._block(step.condition, [*first, *carries])[0]).reshape(()):
            carries = self._block(step.body, [*second, *carries])
        _store(env, step.outputs, carries)

    def _rank(self, step: RankStep, env: dict[int, Component]) -> None:
        count = step.rows * step.length
        words = [None if r is None else np.asarray(whole(env[r], (count,))) for r in step.words]

        def compare(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            pairs = [None if w is None else taken(w, which) for which in (first, second) for w in words]
            (bits,) = self._block(step.compare(len(first)), pairs)
            return np.asarray(bits)

        order = ranking(step.rows, step.length, step.wanted, compare)
        if step.output is not None:
            env[step.output] = order.view(np.uint64).reshape(step.rows, step.length)

    # straight pieces -----------------------------------------------------------------------------

    def _straight(self, piece: Straight, env: dict[int, Component]) -> None:
        draws = _Draws(self.streams, piece.draws)
        for round_ in piece.rounds:
            for task in round_.tasks:
                run_task(task, env, draws)
                for register in task.frees:
                    del env[register]
                if self.listener is not None:
                    self.listener.did_run(task)
            if round_.sends or round_.receives:
                self._exchange(round_, env)

    def _exchange(self, round_: Round, env: dict[int, Component]) -> None:
        assert self.link is not None
        send = {
            peer: [view for m in messages for view in outgoing(env[m.register], m)]
            for peer, messages in round_.sends.items()
        }
        receive: dict[int, list[np.ndarray]] = {}
        for peer, messages in round_.receives.items():
            for m in messages:
                env[m.register], views = incoming(m)
                receive.setdefault(peer, []).extend(views)
        self.link.exchange(send, receive)
        for register in round_.frees:
            del env[register]
        if self.listener is not None:
            self.listener.did_exchange(round_)


def run_task(task: Task, env: dict[int, Component], draws: _Draws) -> None:
    """Run one stage on whole arrays, or on every block."""
    if task.size is None:
        stage = task.stages[0]
        arguments = [whole(env[r], shape) for r, shape in zip(task.inputs, task.shapes)]
        arguments += [draws.get(x, task.base.get(x.holders, 0)) for x in stage.randoms]
        env.update(zip(task.outputs, stage.load()(*arguments)))
        return
    operands = [
        whole(env[r], ()) if scalar else blocks(env[r], task.size) for r, scalar in zip(task.inputs, task.scalars)
    ]
    results: list[list[Any]] = [[] for _ in task.outputs]
    base = dict(task.base)
    for i, (_, _, length) in enumerate(partition(task.size)):
        stage = task.stages[length]
        arguments = [x if scalar else x[i] for x, scalar in zip(operands, task.scalars)]
        arguments += [draws.get(x, base.get(x.holders, 0)) for x in stage.randoms]
        for out, value in zip(results, stage.load()(*arguments)):
            out.append(value)
        for holders, n in stage.draws.items():
            base[holders] = base.get(holders, 0) + n
    env.update((r, Blocked(out, task.size)) for r, out in zip(task.outputs, results))


def _load(env: Mapping[int, Component], registers: Registers) -> list[Component | None]:
    return [None if r is None else env[r] for r in registers]


def _store(env: dict[int, Component], registers: Registers, values: Sequence[Component | None]) -> None:
    for register, value in zip(registers, values, strict=True):
        if register is not None:
            assert value is not None
            env[register] = value
