"""Straight pieces on small arrays: what a round computes is one native call, what leaves for a peer one buffer.

Registers of such a piece lie in one arena, laid out once: a round's call takes what came in the round before to
its registers, runs the stages, and puts what leaves next to each other. Same bits, messages and rounds as the
executor's general way (`messages`), which everything else takes: wide arrays, stages of XLA, permutations.
"""

from __future__ import annotations

import ctypes
import math
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from spuvm.runtime.engine import interpreter, tier
from spuvm.runtime.engine.code import UNIT
from spuvm.runtime.engine.interpreter import Interpreted, place
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.engine.random import Stream, aligned_empty
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import Array, Blocked, Component, blocks, whole
from spuvm.runtime.machine.program import BLOCK_SIZES, Holders, Message, Round, Straight, Task, partition

LARGEST = 1 << 16  # bytes of a register
LARGEST_ALL = 1 << 22  # bytes of all
LINE = 64
ARENA, RESULTS, OUTGOING, INCOMING, FIRST_INPUT = range(5)  # spaces; each input of the piece is one more


@dataclass(frozen=True)
class Shape:
    """What a register is: elements in one block (`size`) of a length, or a whole array."""

    dtype: str
    shape: tuple[int, ...]
    size: int | None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Input:
    """A register that the piece takes: whole, or as a block of `size` elements."""

    register: int
    size: int | None
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    def array(self, value: Component) -> Array:
        if self.size is None:
            found = np.asarray(whole(value, self.shape))
        else:
            found = np.asarray(blocks(value, self.size)[0])
        if found.dtype != self.dtype or found.nbytes < self.nbytes:
            raise TypeError(f"a stage takes {self.nbytes} bytes of {self.dtype}, got {found.nbytes} of {found.dtype}")
        return found if found.flags.c_contiguous else np.ascontiguousarray(found).reshape(found.shape)


@dataclass(frozen=True)
class Exchanged:
    """What a round sends to and gets from each peer: (peer, first byte, bytes) of the two buffers."""

    sends: tuple[tuple[int, int, int], ...]
    receives: tuple[tuple[int, int, int], ...]


@dataclass
class SmallPiece:
    """A piece laid out. `made` are registers that outlive it, with their places among the results."""

    handle: int
    exchanges: tuple[Exchanged | None, ...]
    inputs: tuple[Input, ...]
    made: tuple[tuple[int, int, Shape], ...]
    gone: tuple[int, ...]  # registers that it takes and nobody reads afterwards
    holders: tuple[Holders, ...]
    sizes: tuple[int, int, int, int]  # bytes of the first four spaces
    programs: tuple[Interpreted, ...]  # whose code it runs: kept alive
    wide: tuple[Any, ...]  # loaders of its stages on wide arrays that may get machine code
    seconds: float = 0.0  # of the processor, if there are any

    def outdated(self) -> bool:
        """Whether wide stages have got all the machine code that they will. It is made beside the work, once earned."""
        if not self.wide or self.seconds < interpreter.EARNED:
            return False
        for load in self.wide:
            load.settle()
        return all(load.settled() for load in self.wide)

    def run(
        self,
        env: dict[int, Component],
        streams: Iterable[tuple[Stream, int]],
        link: Link | None,
    ) -> None:
        """`streams` are those of `holders`, each with the block at which the piece begins."""
        lib = interpreter.library()
        assert lib is not None
        taken = [i.array(env[i.register]) for i in self.inputs]
        arena, results, outgoing, incoming = (aligned_empty(n) for n in self.sizes)
        addresses = [x.__array_interface__["data"][0] for x in (arena, results, outgoing, incoming, *taken)]
        spaces = (ctypes.c_void_p * len(addresses))(*addresses)
        drawn = place(streams)
        start = drawn.ctypes.data
        threads = interpreter.threads()
        run, leaving, coming = lib.spuvm_engine_piece_run, outgoing.data, incoming.data
        for number, exchange in enumerate(self.exchanges):
            began = time.thread_time() if self.wide else 0.0
            if run(self.handle, number, spaces, start, threads):
                raise MemoryError("a stage's temporaries do not fit into memory")
            if self.wide:
                self.seconds += time.thread_time() - began
            if exchange is not None:
                assert link is not None
                link.exchange_short(
                    {peer: leaving[at : at + n] for peer, at, n in exchange.sends},
                    {peer: coming[at : at + n] for peer, at, n in exchange.receives},
                )
        for register, at, shape in self.made:
            value = results[at : at + shape.nbytes].view(shape.dtype)
            env[register] = Blocked([value], shape.size) if shape.size is not None else value.reshape(shape.shape)
        for register in self.gone:
            env.pop(register, None)


_KNOWN: WeakKeyDictionary[Straight, SmallPiece | None] = WeakKeyDictionary()


def small_piece(piece: Straight) -> SmallPiece | None:
    """The piece laid out, if it is one of small arrays that the engine alone can run."""
    if tier.current() == "xla":
        return None
    known = _KNOWN.get(piece)
    if piece not in _KNOWN or (known is not None and known.outdated()):
        layout = _Layout(piece) if any(r.tasks for r in piece.rounds) else None
        _KNOWN[piece] = layout.made() if layout is not None and layout.possible() else None
    return _KNOWN[piece]


@dataclass
class _Space:
    """Places of one space: freed ones are used again, by their size."""

    size: int = 0
    free: dict[int, list[int]] = field(default_factory=dict)

    def take(self, nbytes: int) -> tuple[int, int]:
        room = max(LINE, -(-nbytes // LINE) * LINE)
        spare = self.free.get(room)
        if spare:
            return spare.pop(), room
        at, self.size = self.size, self.size + room
        return at, room

    def give(self, at: int, room: int) -> None:
        self.free.setdefault(room, []).append(at)


class _Layout:
    def __init__(self, piece: Straight) -> None:
        self.rounds = piece.rounds
        self.programs: dict[int, Interpreted] = {}  # by task
        self.wide: dict[str, Any] = {}  # by key, loaders of stages that may get machine code
        self.shapes: dict[int, Shape] = {}  # of registers made here
        self.holders: tuple[Holders, ...] = ()  # of the streams that it draws from

    # whether -----------------------------------------------------------------------------------------

    def possible(self) -> bool:
        total = 0
        for round_ in self.rounds:
            for task in round_.tasks:
                if not self._fits(task):
                    return False
            for message in (m for ms in (*round_.receives.values(), *round_.sends.values()) for m in ms):
                if message.size is not None and len(partition(message.size)) != 1:
                    return False
                total += message.nbytes
            for messages in round_.receives.values():
                self.shapes.update((m.register, _shape_of(m)) for m in messages)
        largest = max((s.nbytes for s in self.shapes.values()), default=0)
        return largest <= LARGEST and total <= LARGEST_ALL

    def _fits(self, task: Task) -> bool:
        """Whether the engine alone can run it on one block; notes its program and what it makes."""
        if task.size is not None and (task.size > BLOCK_SIZES[2] or len(partition(task.size)) != 1):
            return False
        if any(math.prod(s) * 8 > LARGEST for s in task.shapes):
            return False
        stage = task.stages[partition(task.size)[0][2] if task.size is not None else 0]
        program = getattr(stage.load, "engine", stage.load)()
        if not isinstance(program, Interpreted) or any(r.dtype == PERMUTATION for r in stage.randoms):
            return False
        self.programs[id(task)] = program
        factor = _factor(task, program)
        if factor >= interpreter.WIDE and not getattr(stage.load, "settled", lambda: True)():
            self.wide[stage.key] = stage.load
        self.holders = tuple(dict.fromkeys([*self.holders, *(r.holders for r in stage.randoms)]))
        for register, port in zip(task.outputs, program.code.outputs):
            shape = (port.shape[0] * factor, *port.shape[1:]) if program.code.scales else port.shape
            self.shapes[register] = Shape(port.dtype, shape, task.size)
        return True

    # where -------------------------------------------------------------------------------------------

    def made(self) -> SmallPiece | None:
        self.places: dict[int, tuple[int, int, int]] = {}  # by register: space, first byte, bytes
        self.arena, self.results = _Space(), _Space()
        self.outgoing = self.incoming = 0
        self.inputs: dict[tuple[int, bool], Input] = {}
        self.freed = {r for round_ in self.rounds for r in _frees(round_)}
        self.blockwise = {r for t in self._tasks() if t.size is not None for r in t.inputs}
        self.capacities = self._capacities()
        words: list[int] = [len(self.rounds)]
        exchanges = []
        arriving: list[tuple[Message, int]] = []
        for round_ in self.rounds:
            deeds = [self._arrive(m, at) for m, at in arriving]
            for task in round_.tasks:
                deeds += self._deeds(task)
                self._release(task.frees)
            sends, leaving = self._side(round_.sends)
            deeds += [self._leave(m, at) for m, at in leaving]
            receives, arriving = self._side(round_.receives)
            exchanges.append(Exchanged(sends, receives) if sends or receives else None)
            self.outgoing = max(self.outgoing, sum(n for _, _, n in sends))
            self.incoming = max(self.incoming, sum(n for _, _, n in receives))
            arrives = {m.register for m, _ in arriving}
            self._release(r for r in round_.frees if r not in arrives)
            words.append(len(deeds))
            for deed in deeds:
                words += deed
        if arriving:  # what came last goes to its registers in a round of its own
            words[0] += 1
            kept = [self._arrive(m, at) for m, at in arriving if m.register not in self.freed]
            words.append(len(kept))
            for deed in kept:
                words += deed
            exchanges.append(None)
        if self.arena.size > LARGEST_ALL:
            return None
        return self._piece(words, exchanges)

    def _piece(self, words: list[int], exchanges: list[Exchanged | None]) -> SmallPiece:
        lib = interpreter.library()
        assert lib is not None
        raw = np.array(words, np.int64)
        handle = lib.spuvm_engine_piece_new(raw.ctypes.data)
        kept = [(r, at) for r, (space, at, _) in self.places.items() if space == RESULTS]
        made = SmallPiece(
            handle,
            tuple(exchanges),
            tuple(self.inputs.values()),
            tuple((r, at, self.shapes[r]) for r, at in kept),
            tuple(r for r in self.freed if r not in self.shapes),
            self.holders,
            (self.arena.size, self.results.size, self.outgoing, self.incoming),
            tuple(self.programs.values()),
            tuple(self.wide.values()),
        )
        weakref.finalize(made, lib.spuvm_engine_piece_free, handle)
        return made

    def _tasks(self) -> Iterable[Task]:
        return (t for round_ in self.rounds for t in round_.tasks)

    def _capacities(self) -> dict[int, int]:
        """Bytes that each register is read or written with: blocks are longer than what they hold."""
        out = {r: s.nbytes for r, s in self.shapes.items()}
        for task in self._tasks():
            program = self.programs[id(task)]
            factor = _factor(task, program)
            for register, port in zip(task.inputs, program.code.inputs):
                scale = factor if program.code.scales and port.shape != () else 1
                nbytes = math.prod(port.shape) * np.dtype(port.dtype).itemsize * scale
                out[register] = max(out.get(register, 0), nbytes)
        return out

    def _define(self, register: int) -> tuple[int, int, int]:
        """A place for a register made here."""
        kept = register not in self.freed
        at, room = (self.results if kept else self.arena).take(self.capacities[register])
        self.places[register] = (RESULTS if kept else ARENA, at, room)
        return self.places[register]

    def _release(self, registers: Iterable[int]) -> None:
        for register in registers:
            if register in self.places:
                space, at, room = self.places.pop(register)
                if space == ARENA:
                    self.arena.give(at, room)

    def _place(self, register: int, task: Task, number: int) -> tuple[int, int]:
        """Where a task finds its input."""
        if register in self.places:
            return self.places[register][:2]
        block = task.size is not None and not task.scalars[number]
        shape = () if task.size is not None else task.shapes[number]
        program = self.programs[id(task)]
        port = program.code.inputs[number]
        times = _factor(task, program) if block and program.code.scales else 1
        nbytes = math.prod(port.shape) * np.dtype(port.dtype).itemsize * times
        return self._input(register, task.size if block else None, shape, port.dtype, nbytes), 0

    def _input(self, register: int, size: int | None, shape: tuple[int, ...], dtype: str, nbytes: int) -> int:
        """The space of a register that the piece takes, of at least so many bytes."""
        key = (register, size is not None)
        known = self.inputs.get(key)
        self.inputs[key] = Input(register, size, shape, dtype, max(nbytes, known.nbytes if known else 0))
        return FIRST_INPUT + list(self.inputs).index(key)

    # what is done ------------------------------------------------------------------------------------

    def _deeds(self, task: Task) -> Iterable[list[int]]:
        program = self.programs[id(task)]
        stage = task.stages[partition(task.size)[0][2] if task.size is not None else 0]
        places = [self._place(r, task, i) for i, r in enumerate(task.inputs)]
        for register in task.outputs:
            space, at, room = self._define(register)
            places.append((space, at))
            if task.size is None and register in self.blockwise and room > self.shapes[register].nbytes:
                yield [0, 1, 0, room, 1, space, at, 0]  # the rest of a block is zero
        words = [program.handle, _factor(task, program), 0, 0, len(places)]
        for space, at in places:
            words += [space, at]
        words.append(len(stage.randoms))
        for r in stage.randoms:
            words += [self.holders.index(r.holders), task.base.get(r.holders, 0) + r.offset]
        yield words

    def _side(self, messages: Mapping[int, list[Message]]) -> tuple[Any, list[tuple[Message, int]]]:
        """Per peer its part of a buffer, and each message's place there."""
        sides, places, at = [], [], 0
        for peer, from_peer in messages.items():
            start = at
            for message in from_peer:
                places.append((message, at))
                at += message.nbytes
            sides.append((peer, start, at - start))
        return tuple(s for s in sides if s[2]), places

    def _arrive(self, message: Message, at: int) -> list[int]:
        space, to, room = self._define(message.register)
        return [0, 1, message.nbytes, room - message.nbytes, 2, space, to, INCOMING, at, 0]

    def _leave(self, message: Message, at: int) -> list[int]:
        if message.register in self.places:
            space, source, _ = self.places[message.register]
        else:
            size, shape = message.size, message.shape
            space, source = self._input(message.register, size, shape, message.dtype, message.nbytes), 0
        return [0, 1, message.nbytes, 0, 2, OUTGOING, at, space, source, 0]


def _factor(task: Task, program: Interpreted) -> int:
    return partition(task.size)[0][2] // UNIT if task.size is not None and program.code.scales else 1


def _frees(round_: Round) -> Iterable[int]:
    yield from round_.frees
    for task in round_.tasks:
        yield from task.frees


def _shape_of(message: Message) -> Shape:
    if message.size is None:
        return Shape(message.dtype, message.shape, None)
    length = partition(message.size)[0][2]
    return Shape(message.dtype, (length * message.bits // (8 * np.dtype(message.dtype).itemsize),), message.size)
