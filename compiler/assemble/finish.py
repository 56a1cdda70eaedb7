"""Loops and calls -> code: what nobody reads is left out; registers and temporaries find their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spuvm.compiler.assemble.builder import Builder, CallInMaking, LoopInMaking, Operation, Read, touched
from spuvm.compiler.assemble.folds import fold_in_loops
from spuvm.compiler.assemble.values import Local, Value
from spuvm.runtime.engine.code import UNIT, Array, Call, Code, Instruction, Loop, Operand, Port, View

BLOCK_BYTES = 24 << 10  # of registers: they and what is read stay in the first-level cache
BLOCKS = (256, 512, 1024, 2048)  # elements at a time
LINE = 64


def finished(builder: Builder, inputs: Sequence[Port], streams: Sequence[Port], results: Sequence[Value]) -> Code:
    """The code whose outputs are `results`."""
    for number, value in enumerate(results):
        _output(builder, number, value)
    _drop_dead_ones(builder)
    fold_in_loops(builder)
    used = _spans(builder)
    arena = _place_temporaries(builder, used)
    segments = tuple(_segment(builder, s) for s in builder.segments if not _empty(s))
    return Code(
        tuple(inputs),
        tuple(streams),
        tuple(Port(v.dtype.name, v.shape) for v in results),
        tuple(Array(a.source, a.where, a.bytes) for a in builder.arrays),
        segments,
        bytes(builder.constants),
        arena,
        builder.scales,
    )


def _output(builder: Builder, number: int, value: Value) -> None:
    """The value becomes output `number`: the array that holds it, or a copy."""
    if isinstance(value, Local) and value.storage not in builder.loop(value.loop).arrays:
        builder.keep(value, builder.array("output", number, value.shape, value.dtype))
        return
    placed = builder.placed(value)
    array = builder.arrays[placed.array]
    whole = placed.offset == 0 and placed.contiguous and array.bytes == np.prod(placed.shape) * placed.dtype.itemsize
    if array.source == "temporary" and whole:
        array.source, array.where = "output", number
        return
    copy = builder.copied(value)
    builder.keep(copy, builder.array("output", number, value.shape, value.dtype))


def _empty(segment: LoopInMaking | CallInMaking) -> bool:
    return isinstance(segment, LoopInMaking) and not segment.operations


def _drop_dead_ones(builder: Builder) -> None:
    """Operations and calls whose results are not read."""
    read = {i for i, a in enumerate(builder.arrays) if a.source == "output"}
    kept: list[LoopInMaking | CallInMaking] = []
    for segment in reversed(builder.segments):
        if isinstance(segment, LoopInMaking):
            _shorten(segment, read)
        elif read.isdisjoint(segment.results):
            continue
        else:
            read.update(v.array for v in segment.views)
        kept.append(segment)
    builder.segments = kept[::-1]


def _spans(builder: Builder) -> dict[int, tuple[int, int]]:
    """By array that is whole in memory, its first and last segment."""
    spans: dict[int, tuple[int, int]] = {}
    for at, segment in enumerate(builder.segments):
        for array in touched(segment):
            spans[array] = (spans.get(array, (at, at))[0], at)
        if isinstance(segment, LoopInMaking):
            for fold in segment.folds:
                del spans[fold.array]
    return spans


def _shorten(loop: LoopInMaking, read: set[int]) -> None:
    wanted: set[int] = set()
    kept: list[Operation] = []
    for o in reversed(loop.operations):
        array = loop.arrays.get(o.storage)
        if o.storage in wanted or (array is not None and array[0] in read):
            kept.append(o)
            wanted.update(r.where for r in o.reads if r.mode == "storage")
            read.update(r.where for r in o.reads if r.mode != "storage")
            if o.view is not None:
                read.add(o.view.array)
    loop.operations = kept[::-1]


def _place_temporaries(builder: Builder, spans: dict[int, tuple[int, int]]) -> int:
    """Each temporary where no other lies while it lives; the bytes of all."""
    placed: list[tuple[int, int, int, int]] = []  # first and last segment, first byte and the byte after
    arena = 0
    for i, array in enumerate(builder.arrays):
        if array.source != "temporary" or i not in spans:
            continue
        first, last = spans[i]
        length = -(-array.bytes // LINE) * LINE
        at = 0
        for _, _, start, end in sorted((p for p in placed if p[0] <= last and first <= p[1]), key=lambda p: p[2]):
            if at + length <= start:
                break
            at = max(at, end)
        array.where = at
        placed.append((first, last, at, at + length))
        arena = max(arena, at + length)
    return arena


def _segment(builder: Builder, segment: LoopInMaking | CallInMaking) -> Loop | Call:
    if isinstance(segment, CallInMaking):
        views = tuple(map(_collapsed, segment.views)) if segment.kind == "copy" else segment.views
        return Call(segment.kind, views, segment.parameters)
    registers, total = _registers(segment)
    code = tuple(_instruction(segment, o, registers) for o in segment.operations)
    unit = UNIT if builder.scales else 1
    element_bytes = max(1, total // unit)
    elements = max(b for b in BLOCKS if b == BLOCKS[0] or b * element_bytes <= BLOCK_BYTES)
    return Loop(segment.units, elements // unit, total, code, tuple(segment.folds))


def _registers(loop: LoopInMaking) -> tuple[dict[int, int], int]:
    """By storage, the place of its register: a free one of its width, else a new one; the bytes of all."""
    last: dict[int, int] = {}
    for at, o in enumerate(loop.operations):
        last[o.storage] = max(last.get(o.storage, at), at)
        for r in o.reads:
            if r.mode == "storage":
                last[r.where] = at
    ends: dict[int, list[int]] = {}
    for storage, at in last.items():
        ends.setdefault(at, []).append(storage)
    free: dict[int, list[int]] = {}
    places: dict[int, int] = {}
    total = 0
    for at, o in enumerate(loop.operations):
        reads = {r.where for r in o.reads if r.mode == "storage"}
        for storage in ends.get(at, ()):
            if storage in places and storage in reads:
                free.setdefault(loop.widths[storage], []).append(places[storage])
        if o.storage not in loop.arrays:
            width = loop.widths[o.storage]
            spare = free.get(width)
            if spare:
                places[o.storage] = spare.pop()
            else:
                places[o.storage] = total
                total += width
    return places, total


def _instruction(loop: LoopInMaking, o: Operation, registers: dict[int, int]) -> Instruction:
    def stored(storage: int) -> Operand:
        if storage in loop.arrays:
            array, offset = loop.arrays[storage]
            return Operand("array", array, offset, loop.widths[storage])
        return Operand("register", registers[storage])

    def operand(read: Read) -> Operand:
        return stored(read.where) if read.mode == "storage" else Operand(read.mode, read.where, read.offset, read.step)

    view = None if o.view is None else _collapsed(o.view)
    return Instruction(o.name, o.elements, o.width, stored(o.storage), tuple(map(operand, o.reads)), view)


def _collapsed(view: View) -> View:
    """The same elements in as few dimensions as can be."""
    pairs = [(d, s) for d, s in zip(view.sizes, view.strides) if d != 1]
    merged: list[tuple[int, int]] = []
    for d, s in pairs:
        if merged and merged[-1][1] == d * s:
            merged[-1] = (merged[-1][0] * d, s)
        else:
            merged.append((d, s))
    return View(view.array, view.offset, tuple(d for d, _ in merged), tuple(s for _, s in merged))
