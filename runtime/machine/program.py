"""The program of one party: rounds of compiled stages, messages, and public control between them.

Values live in numbered registers. A `Straight` piece runs its rounds one after another: in each,
the tasks of the round, then one message to each peer and one from each. Loops and branches hold
blocks of their own. A program for `party=None` does everything at once: the simulator runs it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np

from spuvm.runtime import cores
from spuvm.runtime.engine import device
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.engine.random import PERMUTATION_BYTES

BLOCK = 1 << 17  # elements of an element-wise call that one executable takes at once: they stay in the cache
BLOCK_SIZES = (64, 1024, 8192, 1 << 15, BLOCK)  # all lengths that element-wise stages are ever compiled for
Holders = tuple[int, ...]
Registers = tuple[int | None, ...]  # None: a component that this party does not hold


@lru_cache(maxsize=4096)
def partition(size: int) -> tuple[tuple[int, int, int], ...]:
    """The blocks that `size` elements are processed in: (start, elements, compiled length)."""
    blocks, start = [], 0
    for length in BLOCK_SIZES[:1:-1] if size < 4 * BLOCK else (BLOCK,):  # many blocks: pad the last, compile once
        while size - start >= length:
            blocks.append((start, length, length))
            start += length
    if start < size or not blocks:
        rest = size - start
        fitting = BLOCK if size >= 4 * BLOCK else next(b for b in BLOCK_SIZES if b >= rest)
        blocks.append((start, rest, fitting))
    return tuple(blocks)


@dataclass(frozen=True)
class Random:
    """A pseudorandom input of a stage: `offset` counts 16-byte blocks within its kernel's share."""

    holders: Holders
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def nbytes(self) -> int:
        itemsize = PERMUTATION_BYTES if self.dtype == PERMUTATION else np.dtype(self.dtype).itemsize
        return math.prod(self.shape) * itemsize


class Span(NamedTuple):
    """Consecutive bytes of a stream, from `offset` (in 16-byte blocks) within a kernel's share."""

    holders: Holders
    offset: int
    nbytes: int


@dataclass(eq=False)
class Stage:
    """What one party computes of a kernel between two of its rounds, for one block length.

    `load()` compiles it, or takes it from memory or disk; arguments are the task's inputs, then
    `randoms`. `draws` says how many 16-byte blocks of each stream one block of the kernel uses.
    """

    key: str
    load: Callable[[], Callable[..., Sequence[Any]]]
    randoms: tuple[Random, ...]
    draws: Mapping[Holders, int]

    @cached_property
    def spans(self) -> list[Span]:
        """The randoms, those that follow each other in a stream generated together."""
        return self._layout[0]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Of each random, the number of its span and its first byte there."""
        return self._layout[1]

    @cached_property
    def _layout(self) -> tuple[list[Span], list[tuple[int, int]]]:
        spans: list[Span] = []
        places = []
        last: dict[Holders, int] = {}  # the span that the holders' next random may continue
        for r in self.randoms:
            i = last.get(r.holders, -1)
            if i < 0 or 16 * (r.offset - spans[i].offset) != spans[i].nbytes:
                i = last[r.holders] = len(spans)
                spans.append(Span(r.holders, r.offset, 0))
            start = 16 * (r.offset - spans[i].offset)
            spans[i] = spans[i]._replace(nbytes=start + r.nbytes)
            places.append((i, start))
        return spans, places


@dataclass(eq=False)
class Task:
    """Run a stage. `size`: the elements of a block-wise call; None: whole arrays, `stages` has one entry."""

    stages: Mapping[int, Stage]  # by compiled length
    inputs: tuple[int, ...]
    scalars: tuple[bool, ...]  # inputs that every block takes whole
    outputs: tuple[int, ...]
    size: int | None
    shapes: tuple[tuple[int, ...], ...]  # of the inputs, if whole
    base: Mapping[Holders, int]  # where the call's randomness starts within the straight piece
    frees: tuple[int, ...] = ()
    op: str = ""
    location: str = ""


@dataclass(frozen=True)
class Message:
    """One register sent or received. `bits`: per element if block-wise (`size`), else `shape`."""

    register: int
    dtype: str
    size: int | None
    bits: int
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        if self.size is None:
            return math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return sum(-(-count * self.bits // 8) for _, count, _ in partition(self.size))


class Piece(NamedTuple):
    """What is sent at once of a message: one block, or all of it (`block` None)."""

    message: Message
    block: int | None
    nbytes: int


def pieces(messages: Sequence[Message]) -> tuple[Piece, ...]:
    """A round's messages to one peer as they go over the wire: of successive ones of one size block after block."""
    out: list[Piece] = []
    for size, run in groupby(messages, key=lambda m: m.size):
        same = tuple(run)
        if size is None:
            out.extend(Piece(m, None, m.nbytes) for m in same)
            continue
        for i, (_, count, _) in enumerate(partition(size)):
            out.extend(Piece(m, i, -(-count * m.bits // 8)) for m in same)
    return tuple(out)


@dataclass(eq=False)
class Round:
    tasks: list[Task] = field(default_factory=list)
    sends: dict[int, list[Message]] = field(default_factory=dict)
    receives: dict[int, list[Message]] = field(default_factory=dict)
    frees: tuple[int, ...] = ()  # after the messages have left

    @cached_property
    def batches(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks in order; successive ones on blocks of one size together: they run block after block."""
        out: list[list[Task]] = []
        made: set[int] = set()
        for task in self.tasks:
            scalars = {r for r, scalar in zip(task.inputs, task.scalars) if scalar}
            if task.size is None or not out or out[-1][0].size != task.size or not made.isdisjoint(scalars):
                out.append([])
                made = set()
            out[-1].append(task)
            made.update(task.outputs)
        return tuple(map(tuple, out))

    @cached_property
    def passing(self) -> frozenset[int]:
        """Registers that are made, sent to one peer, and read by nobody: what has been put need not be kept."""
        sent = Counter(m.register for messages in self.sends.values() for m in messages)
        read = {r for task in self.tasks for r in task.inputs}
        return frozenset(r for r in self.frees if sent[r] == 1 and r not in read)

    @cached_property
    def leaving(self) -> dict[int, tuple[Piece, ...]]:
        """By peer."""
        return {peer: pieces(messages) for peer, messages in self.sends.items()}

    @cached_property
    def arriving(self) -> dict[int, tuple[Piece, ...]]:
        """By peer."""
        return {peer: pieces(messages) for peer, messages in self.receives.items()}


@dataclass(eq=False)
class Straight:
    rounds: list[Round]
    draws: Mapping[Holders, int]  # 16-byte blocks of each stream that one execution uses


@dataclass(eq=False)
class LoopStep:
    body: BlockProgram
    trips: int
    reverse: bool
    constants: Registers
    carries: Registers
    xs: Registers
    outputs: Registers
    x_shapes: tuple[tuple[int, ...], ...]
    stacked: tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each stacked result
    frees: tuple[int, ...] = ()


@dataclass(eq=False)
class RankStep:
    """Put secret rows in order by comparisons that are opened (see `ranking`). `words`, per party its
    components of `count` words: each an array of `rows` times `length` elements. `compare(m)` compares m pairs.
    """

    compare: Callable[[int], BlockProgram]
    words: Registers
    rows: int
    length: int
    wanted: tuple[tuple[int, int], ...]
    output: int | None
    frees: tuple[int, ...] = ()


@dataclass(eq=False)
class CondStep:
    branches: list[BlockProgram]
    index: int
    operands: Registers
    outputs: Registers
    frees: tuple[int, ...] = ()


@dataclass(eq=False)
class WhileStep:
    condition: BlockProgram
    body: BlockProgram
    condition_constants: Registers
    body_constants: Registers
    carries: Registers
    outputs: Registers
    frees: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hashed:
    """A register to be added to the tag of what this party confirms to a peer (`mine`), or of what a peer confirms."""

    peer: int
    mine: bool
    register: int
    shape: tuple[int, ...]


@dataclass(eq=False)
class HashStep:
    """After a straight piece: what was confirmed in it."""

    hashed: list[Hashed]
    frees: tuple[int, ...] = ()


@dataclass(frozen=True)
class Product:
    """A product to be proved: the registers of two components each of x, y and z, and their shapes."""

    how: str
    registers: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str


@dataclass(eq=False)
class ProductStep:
    """After a straight piece: what was multiplied in it, to be proved at the next check."""

    products: list[Product]
    frees: tuple[int, ...] = ()


@dataclass(eq=False)
class CheckStep:
    """Prove what was multiplied, and compare tags, among so many parties; see `proofs.py` and `checks.py`."""

    parties: int
    frees: tuple[int, ...] = ()


@dataclass(eq=False)
class GuardStep:
    """Stop if the public bit in a register is set: a number left the ring, at `location` or before."""

    register: int
    location: str
    frees: tuple[int, ...] = ()


ProgramStep = Straight | LoopStep | CondStep | WhileStep | RankStep | HashStep | ProductStep | CheckStep | GuardStep


@dataclass(eq=False)
class BlockProgram:
    params: Registers
    steps: list[ProgramStep]
    results: Registers
    result_shapes: tuple[tuple[int, ...], ...]
    constants: dict[int, np.ndarray]


@dataclass(frozen=True)
class PortSpec:
    """An input or output as the runtime sees it."""

    name: str
    kind: str
    owner: int | None
    components: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class PartyProgram:
    party: int | None
    block: BlockProgram
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    prepared: bool = False

    def prepare(self) -> None:
        """Load every stage, compiling what is not in the cache on all cores: nobody waits for it later.

        Parties on one machine begin at different stages: many are the same, and one finds what another compiled.
        """
        if self.prepared:
            return
        stages = list({s.key: s for task in tasks_of(self.block) for s in task.stages.values()}.values())
        first = len(stages) * (self.party or 0) // 3
        chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
        named = device.wanted()

        def load(stage: Stage) -> None:
            with jax.default_device(chosen), device.on(named):  # other threads do not have the caller's
                stage.load()

        with ThreadPoolExecutor(cores.available(), "compile") as pool:
            try:
                list(pool.map(load, stages[first:] + stages[:first]))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self.prepared = True


def tasks_of(block: BlockProgram) -> Iterator[Task]:
    """Every task of a block and of the blocks within it."""
    for step in block.steps:
        match step:
            case Straight():
                for round_ in step.rounds:
                    yield from round_.tasks
            case LoopStep():
                yield from tasks_of(step.body)
            case CondStep():
                for branch in step.branches:
                    yield from tasks_of(branch)
            case RankStep():
                for size in (*BLOCK_SIZES, 4 * BLOCK):
                    yield from tasks_of(step.compare(size))
            case WhileStep():
                yield from tasks_of(step.condition)
                yield from tasks_of(step.body)
