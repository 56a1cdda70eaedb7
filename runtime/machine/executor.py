"""Running a party's program: rounds of stages, one message to each peer a round, public control.

The same executor runs the simulator's program, which has no messages. Randomness comes from
`Streams`: one AES-128-CTR key for each set of parties, and a counter that moves on with every
straight piece executed, so no counter is used twice, loop iterations and later runs included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from spuvm.runtime.engine.correlated import Family, is_correlated
from spuvm.runtime.engine.interpreter import Interpreted, place
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.engine.random import Stream, aligned_empty, derive_key, permutations
from spuvm.runtime.errors import CancelledError, RangeError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.checks import Checks
from spuvm.runtime.machine.claims import PARTIES, Claim
from spuvm.runtime.machine.components import Blocked, Component, blocks, empty, own, taken, whole
from spuvm.runtime.machine.messages import Transfers
from spuvm.runtime.machine.program import (
    BlockProgram,
    CheckStep,
    CondStep,
    GuardStep,
    HashStep,
    Holders,
    LoopStep,
    PartyProgram,
    Product,
    ProductStep,
    ProgramStep,
    Random,
    RankStep,
    Registers,
    Round,
    Span,
    Stage,
    Straight,
    Task,
    WhileStep,
    partition,
)
from spuvm.runtime.machine.proofs import Drawn, Proofs
from spuvm.runtime.machine.small import small_piece
from spuvm.runtime.oblivious.store import opened
from spuvm.runtime.oblivious.streams import Made, Within, stream_of
from spuvm.runtime.protocols.ranking import ranking
from spuvm.runtime.ring.elements import signed

PREFETCH_BYTES = 1 << 20  # a piece that draws no more than this per stream has it generated at once
TOGETHER = 4  # blocks that are awaited, computed and sent in one go: each go wakes threads


class Streams:
    """The keystreams that this process may use, and how far each has been used."""

    def __init__(self, keys: Callable[[Holders], bytes], party: int | None) -> None:
        self._keys = keys
        self._party = party
        self._streams: dict[Holders, Any] = {}
        self._made: Made | None = None
        self.link: Link | None = None  # over which correlated streams are made
        self._next: dict[Holders, int] = {}
        self._apart: dict[tuple[Holders, str], Drawn] = {}

    def stream(self, holders: Holders) -> Any:
        if holders not in self._streams:
            made = stream_of(holders, self._keys, self.stream, self._party is None) if is_correlated(holders) else None
            self._streams[holders] = Stream(self._keys(holders)) if made is None else made
        return self._streams[holders]

    def advance(self, draws: Mapping[Holders, int]) -> dict[Holders, int]:
        """Reserve `draws` blocks of each stream, and make those that are correlated; returns where they begin."""
        start = self._reserved(draws)
        if self.link is not None and any(is_correlated(h) and h[0] == self._party for h in draws):
            self._maker(self.link).prepare(draws, start)
        return start

    def ahead(self, wanted: Mapping[Family, int], chunk: Mapping[Family, int]) -> None:
        """Make so many units of correlated streams, and store them, in chunks of so many."""
        assert self.link is not None
        maker = self._maker(self.link)
        for family, units in sorted(wanted.items()):
            for _ in range(0, units, chunk[family]):
                maker.ahead(family, chunk[family], self._reserved(family.draws(chunk[family])))

    def open_store(self, folder: Path | None, names: tuple[str, str]) -> None:
        """Take correlated streams from a folder first (None: one of this process's own), in step with the other party.

        Raises what `store.opened` does.
        """
        assert self.link is not None
        maker = self._maker(self.link)
        with self.link.uncounted():
            maker.store = opened(folder, names, self._party == 0, maker.swap)

    def close_store(self) -> None:
        """Let go of the folder; runs make what they need."""
        if self._made is not None and self._made.store is not None:
            self._made.store.close()
            self._made.store = None

    @property
    def within(self) -> Within:
        """What was made of correlated streams within runs."""
        return Within(0, (0, 0)) if self._made is None else self._made.within

    @property
    def stored(self) -> bool:
        """Whether correlated streams are taken from a folder first."""
        return self._made is not None and self._made.store is not None

    def _maker(self, link: Link) -> Made:
        self._made = self._made or Made(link, self.stream)
        return self._made

    def _reserved(self, draws: Mapping[Holders, int]) -> dict[Holders, int]:
        start = {h: self._next.get(h, 0) for h in draws}
        for holders, n in draws.items():
            self._next[holders] = start[holders] + n
        return start

    def apart(self, holders: Holders, label: str) -> Drawn:
        """A stream of its own: what is drawn for checks moves no other on, so that shares are those of a simulation."""
        if (holders, label) not in self._apart:
            self._apart[holders, label] = Drawn(derive_key(self._keys(holders), label))
        return self._apart[holders, label]


class Listener(Protocol):
    """What observes a run: the profiler, the tracer and the tests implement it."""

    def did_run(self, task: Task) -> None: ...
    def did_exchange(self, round_: Round) -> None: ...


class _Draws:
    """The randomness of one execution of a straight piece."""

    def __init__(self, streams: Streams, draws: Mapping[Holders, int]) -> None:
        self._streams = streams
        self._start = streams.advance(draws)
        self._draws = draws
        self._ready: dict[Holders, np.ndarray] = {}

    def values(self, stage: Stage, base: Mapping[Holders, int]) -> list[np.ndarray]:
        """The randomness of a stage for the kernel block whose randomness begins at `base`."""
        raw = [self._span(span, base.get(span.holders, 0) + span.offset) for span in stage.spans]
        return [_shaped(raw[i][start : start + r.nbytes], r) for r, (i, start) in zip(stage.randoms, stage.places)]

    def run(self, stage: Stage, arguments: list[Any], base: Mapping[Holders, int], length: int = 0) -> Sequence[Any]:
        """A stage's results: the engine draws randomness as it goes, XLA is given it."""
        function = stage.load()
        if not isinstance(function, Interpreted):
            return function(*arguments, *self.values(stage, base))
        streams: list[tuple[Stream | np.ndarray, int]] = []
        for r in stage.randoms:
            at = base.get(r.holders, 0) + r.offset
            stream = self._streams.stream(r.holders)
            if r.dtype == PERMUTATION:
                arguments.append(_shaped(self._span(Span(r.holders, r.offset, r.nbytes), at), r))
            elif stream.by_openssl:
                streams.append((self._span(Span(r.holders, r.offset, r.nbytes), at), 0))
            else:
                streams.append((stream, self._start[r.holders] + at))
        return function(arguments, place(streams), length)

    def _span(self, span: Span, at: int) -> np.ndarray:
        n = self._draws[span.holders]
        if 16 * n <= PREFETCH_BYTES:
            if span.holders not in self._ready:
                self._ready[span.holders] = aligned_empty(16 * n)
                self._streams.stream(span.holders).fill(self._ready[span.holders], self._start[span.holders])
            return self._ready[span.holders][16 * at : 16 * at + span.nbytes]
        raw = aligned_empty(span.nbytes)
        self._streams.stream(span.holders).fill(raw, self._start[span.holders] + at)
        return raw


def _shaped(raw: np.ndarray, random: Random) -> np.ndarray:
    if random.dtype == PERMUTATION:
        return permutations(raw, random.shape)
    return raw.view(random.dtype).reshape(random.shape)


class Executor:
    """Runs programs of one party over its link; without a link, simulated programs."""

    def __init__(
        self,
        streams: Streams,
        link: Link | None = None,
        listener: Listener | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.streams = streams
        self.link = streams.link = link
        self.listener = listener
        self.cancelled = threading.Event() if cancelled is None else cancelled
        self.checks = Checks(link, self._for_tags)
        self.proofs = None if link is None else Proofs(link, self._for_proofs, self.checks)

    def _for_proofs(self, component: int, nbytes: int) -> np.ndarray:
        """Bytes of the holders of a component of a replicated sharing."""
        i, j = sorted((component, (component - 1) % PARTIES))
        return self.streams.apart((i, j), "spuvm proofs of products").draw(nbytes)

    def _for_tags(self, peer: int, nbytes: int) -> np.ndarray:
        """Bytes that nobody has but this party and a peer."""
        assert self.link is not None
        i, j = sorted((peer, self.link.rank))
        return self.streams.apart((i, j), "spuvm tags of what is confirmed").draw(nbytes)

    def _multiplied(self, product: Product, env: Mapping[int, Component]) -> None:
        if self.proofs is not None:
            bits = 8 * np.dtype(product.dtype).itemsize
            shapes = [shape for shape in product.shapes for _ in range(2)]
            held = [np.asarray(whole(env[r], shape)) for r, shape in zip(product.registers, shapes)]
            self.proofs.add(Claim(product.how, product.shapes, bits), held)

    def _go_on(self) -> None:
        """CancelledError if another thread has asked for it."""
        if self.cancelled.is_set():
            raise CancelledError("the run was cancelled: nothing of it was shown.")

    def run(self, program: PartyProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        """`inputs` and results are components, in the order of the program's ports."""
        results = self.run_blocked(program, inputs)
        return [None if r is None else whole(r, shape) for r, shape in zip(results, program.block.result_shapes)]

    def run_blocked(self, program: PartyProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        """The same; results may be in blocks, as the next program takes them."""
        with jax.enable_x64(True):
            results = self._blocked(program.block, list(inputs))
        if self.link is not None:
            self.link.settle()
        return results

    def _block(self, block: BlockProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        results = self._blocked(block, inputs)
        return [None if r is None else whole(r, shape) for r, shape in zip(results, block.result_shapes)]

    def _blocked(self, block: BlockProgram, inputs: Sequence[Component | None]) -> list[Component | None]:
        env: dict[int, Component] = dict(block.constants)
        for register, value in zip(block.params, inputs, strict=True):
            if register is not None:
                assert value is not None
                env[register] = own(value)
        for step in block.steps:
            self._step(step, env)
        return [None if r is None else env[r] for r in block.results]

    def _step(self, step: ProgramStep, env: dict[int, Component]) -> None:
        self._go_on()
        match step:
            case Straight():
                return self._straight(step, env)
            case LoopStep():
                self._loop(step, env)
            case CondStep():
                self._cond(step, env)
            case WhileStep():
                self._while(step, env)
            case RankStep():
                self._rank(step, env)
            case HashStep():
                for hashed in step.hashed:
                    self.checks.add(hashed, env[hashed.register])
            case ProductStep():
                for product in step.products:
                    self._multiplied(product, env)
            case CheckStep():
                if self.proofs is not None:
                    self.proofs.prove()
                self.checks.compare(step.parties)
            case GuardStep():
                self._guard(step, env)
        for register in step.frees:
            env.pop(register, None)

    def _guard(self, step: GuardStep, env: dict[int, Component]) -> None:
        if np.asarray(whole(env[step.register], ())).any():
            if self.link is not None:
                self.link.settle()  # all that peers need to see the bit, too
            raise RangeError(
                f"{step.location}: a number left what the ring holds, here or before; nothing is revealed but that. "
                "`f.scales(*args)` lists the lines where it may happen, `spu.check` on test data finds the one; "
                "smaller numbers (means in place of sums) or `ring=128` have room."
            )

    def _loop(self, step: LoopStep, env: dict[int, Component]) -> None:
        constants, carries = load(env, step.constants), load(env, step.carries)
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
        store(env, step.outputs, [*carries, *stacked])

    def _cond(self, step: CondStep, env: dict[int, Component]) -> None:
        choice = int(signed(np.asarray(whole(env[step.index], ()))))
        branch = step.branches[min(max(choice, 0), len(step.branches) - 1)]
        store(env, step.outputs, self._block(branch, load(env, step.operands)))

    def _while(self, step: WhileStep, env: dict[int, Component]) -> None:
        first, second = load(env, step.condition_constants), load(env, step.body_constants)
        carries = load(env, step.carries)
        while np.asarray(self._block(step.condition, [*first, *carries])[0]).reshape(()):
            carries = self._block(step.body, [*second, *carries])
        store(env, step.outputs, carries)

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
        if self.listener is None and (small := small_piece(piece)) is not None:
            streams = [self.streams.stream(h) for h in small.holders]
            if not any(s.by_openssl for s in streams):
                start = self.streams.advance(piece.draws)
                return small.run(env, [(s, start[h]) for s, h in zip(streams, small.holders)], self.link)
        draws = _Draws(self.streams, piece.draws)
        transfers = Transfers(self.link, env)
        for round_ in piece.rounds:
            self._go_on()
            exchanges = bool(round_.sends or round_.receives)
            if exchanges:
                transfers.begin(round_)
                transfers.send()
            for batch in round_.batches:
                if batch[0].size is None:
                    _run_whole(batch[0], env, draws, transfers)
                else:
                    _run_blocks(batch, batch[0].size, env, draws, transfers)
                for task in batch:
                    for register in task.frees:
                        del env[register]
                    if self.listener is not None:
                        self.listener.did_run(task)
            for register in round_.frees:
                del env[register]
            if exchanges and self.listener is not None:
                self.listener.did_exchange(round_)
        transfers.finish()


def _run_whole(task: Task, env: dict[int, Component], draws: _Draws, transfers: Transfers) -> None:
    """Run one stage on whole arrays."""
    for register in task.inputs:
        transfers.wait(register)
    stage = task.stages[0]
    arguments = [whole(env[r], shape) for r, shape in zip(task.inputs, task.shapes)]
    env.update(zip(task.outputs, draws.run(stage, arguments, task.base)))
    transfers.send()


def _run_blocks(
    batch: Sequence[Task], size: int, env: dict[int, Component], draws: _Draws, transfers: Transfers
) -> None:
    """Run successive stages on the first block, then on the second, and so on."""
    runs = [_BlockRun(task, size, env, transfers) for task in batch]
    freed = {r for task in batch for r in task.frees}
    passing = [value.blocks for r in freed if isinstance(value := env[r], Blocked) and value.size == size]
    parts = partition(size)
    for i, (_, _, length) in enumerate(parts):
        if i % TOGETHER == 0:
            for run in runs:
                run.wait(min(i + TOGETHER, len(parts)) - 1)
        for run in runs:
            run.block(i, length, draws)
        for values in passing:  # nobody reads this block again
            values[i] = None
        if (i + 1) % TOGETHER == 0 or i + 1 == len(parts):
            transfers.send()


class _BlockRun:
    """A task that runs on one block after another; its outputs grow in their registers."""

    def __init__(self, task: Task, size: int, env: dict[int, Component], transfers: Transfers) -> None:
        self._task = task
        self._base = dict(task.base)
        self._transfers = transfers
        self._awaited = [r for r in task.inputs if transfers.awaits(r)]
        self._operands = []
        for register, scalar in zip(task.inputs, task.scalars):
            if scalar:
                transfers.wait(register)
                self._operands.append(whole(env[register], ()))
            else:
                self._operands.append(blocks(env[register], size))
        self._results: list[list[Any]] = [[] for _ in task.outputs]
        env.update((r, Blocked(out, size)) for r, out in zip(task.outputs, self._results))

    def wait(self, i: int) -> None:
        """Until the blocks up to number i are there."""
        for register in self._awaited:
            self._transfers.wait(register, i)

    def block(self, i: int, length: int, draws: _Draws) -> None:
        stage, base = self._task.stages[length], self._base
        arguments = [x if scalar else x[i] for x, scalar in zip(self._operands, self._task.scalars)]
        for out, value in zip(self._results, draws.run(stage, arguments, base, length)):
            out.append(value)
        for holders, n in stage.draws.items():
            base[holders] = base.get(holders, 0) + n


def load(env: Mapping[int, Component], registers: Registers) -> list[Component | None]:
    return [None if r is None else env[r] for r in registers]


def store(env: dict[int, Component], registers: Registers, values: Sequence[Component | None]) -> None:
    for register, value in zip(registers, values, strict=True):
        if register is not None:
            assert value is not None
            env[register] = value
