"""Loops and calls in the making: an operation goes into the first loop that can have it.

A loop runs over a number of elements. An operation on so many joins it, if what it reads is known by then; what
another loop or a call reads goes to an array. Equal operations of a loop are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spuvm.compiler.assemble.values import (
    Constant,
    Local,
    Placed,
    Shape,
    Value,
    broadcast,
    reshaped,
    size,
    strides_of,
    word,
)
from spuvm.runtime.engine.code import DRAW, UNIT, VIEW, Fold, View

# Operations of two operands whose second may be one element for all, by what they are with the operands exchanged.
EXCHANGED = {
    **{name: name for name in ("add", "mul", "and", "or", "xor", "max", "min", "smax", "smin", "eq", "ne")},
    **{"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "slt": "sgt", "sgt": "slt", "sle": "sge", "sge": "sle"},
}
BINARY = {*EXCHANGED, "sub", "div", "rem", "sdiv", "srem", "shl", "shr", "sar"}


@dataclass(frozen=True)
class Read:
    """An operand in the making: a storage of the loop, or an array as `mode` says."""

    mode: str  # "storage", "array" or "scalar"
    where: int
    offset: int = 0
    step: int = 0


@dataclass(frozen=True)
class Operation:
    name: str
    elements: int
    width: int
    storage: int
    reads: tuple[Read, ...]
    view: View | None = None


@dataclass
class LoopInMaking:
    index: int
    units: int
    operations: list[Operation] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)  # by storage, bytes of a unit
    memo: dict[Any, int] = field(default_factory=dict)
    arrays: dict[int, tuple[int, int]] = field(default_factory=dict)  # by storage, the array and byte it goes to
    folds: list[Fold] = field(default_factory=list)


@dataclass(frozen=True)
class CallInMaking:
    kind: str
    views: tuple[View, ...]
    parameters: tuple[int, ...]
    results: tuple[int, ...]  # arrays that it writes


@dataclass
class ArrayInMaking:
    source: str
    where: int
    bytes: int
    producer: int = -1  # the last segment that writes it


class Builder:
    def __init__(self, scales: bool) -> None:
        self.scales = scales
        self.arrays: list[ArrayInMaking] = []
        self.segments: list[LoopInMaking | CallInMaking] = []
        self.constants = bytearray()
        self._loops: dict[int, list[LoopInMaking]] = {}
        self._known: dict[bytes, int] = {}
        self._streams: dict[tuple[int, int], int] = {}

    # arrays ------------------------------------------------------------------------------------------

    def array(self, source: str, where: int, shape: Shape, dtype: np.dtype[Any]) -> Placed:
        self.arrays.append(ArrayInMaking(source, where, size(shape) * dtype.itemsize))
        return Placed(len(self.arrays) - 1, 0, shape, strides_of(shape, dtype), dtype)

    def temporary(self, shape: Shape, dtype: np.dtype[Any]) -> Placed:
        return self.array("temporary", 0, shape, dtype)

    def constant(self, value: np.ndarray) -> Placed:
        """An array known now."""
        word(value.dtype)
        content = np.ascontiguousarray(value).tobytes()
        array = self._known.get(content)
        if array is None:
            self.constants += bytes(-len(self.constants) % 64)
            array = self.array("constant", len(self.constants), value.shape, value.dtype).array
            self._known[content] = array
            self.constants += content
        return Placed(array, 0, value.shape, strides_of(value.shape, value.dtype), value.dtype)

    def placed(self, value: Value) -> Placed:
        """The value as elements of an array."""
        if isinstance(value, Placed):
            return value
        if isinstance(value, Constant):
            one = self.constant(np.asarray(value.value))
            return Placed(one.array, 0, value.shape, (0,) * len(value.shape), value.dtype)
        loop = self.loop(value.loop)
        if value.storage not in loop.arrays:
            self.keep(value, self.temporary(value.shape, value.dtype))
        array, offset = loop.arrays[value.storage]
        return Placed(array, offset, value.shape, strides_of(value.shape, value.dtype), value.dtype)

    def keep(self, value: Local, to: Placed) -> None:
        """What a loop computes goes to consecutive elements of an array, from now on."""
        self.loop(value.loop).arrays[value.storage] = (to.array, to.offset)
        self.written(to.array, value.loop)

    def written(self, array: int, segment: int) -> None:
        self.arrays[array].producer = max(self.arrays[array].producer, segment)

    def contiguous(self, value: Value) -> Placed:
        """The value as consecutive elements of an array."""
        placed = self.placed(value)
        return placed if placed.contiguous else self.placed(self.copied(placed))

    def copied(self, value: Value) -> Local:
        return self.emit("copy", value.dtype, value.shape, [value], shared=False)

    def reshape(self, value: Value, shape: Shape) -> Value:
        found = reshaped(value, shape)
        if found is None:
            found = reshaped(self.emit("copy", value.dtype, value.shape, [value]), shape)
            assert found is not None
        return found

    def view(self, value: Placed) -> View:
        return View(value.array, value.offset, value.shape, value.strides)

    # loops -------------------------------------------------------------------------------------------

    def loop(self, index: int) -> LoopInMaking:
        loop = self.segments[index]
        assert isinstance(loop, LoopInMaking)
        return loop

    def _loop_for(self, count: int, operands: Sequence[Value]) -> LoopInMaking:
        units = 1 if self.scales else count
        ready = 0
        for v in operands:
            if isinstance(v, Local):
                ready = max(ready, v.loop + (self.loop(v.loop).units != units))
            elif isinstance(v, Placed):
                ready = max(ready, self.arrays[v.array].producer + 1)
        for loop in self._loops.setdefault(units, []):
            if loop.index >= ready:
                return loop
        loop = LoopInMaking(len(self.segments), units)
        self.segments.append(loop)
        self._loops[units].append(loop)
        return loop

    def emit(
        self, name: str, dtype: np.dtype[Any], shape: Shape, operands: Sequence[Value], *, shared: bool = True
    ) -> Local:
        """An element-wise operation; the width in its name is that of the first operand."""
        count = self.count(shape)
        operands = [self._spread(v, shape) for v in operands]
        loop = self._loop_for(count, operands)
        width = word(operands[0].dtype)
        first_only = self._one_for_all(operands[0], count) and not self._one_for_all(operands[-1], count)
        if first_only and name in EXCHANGED:
            name, operands = EXCHANGED[name], operands[::-1]
        reads = tuple(
            self._read(loop, v, count, scalar=name == "fill" or (i == 1 and name in BINARY))
            for i, v in enumerate(operands)
        )
        word(dtype)
        return self._add(loop, f"{name}.{width}", dtype, shape, reads, shared=shared)

    def emit_several(
        self, name: str, dtype: np.dtype[Any], shape: Shape, operands: Sequence[Value], numbers: int
    ) -> Local:
        """An operation on so many numbers, of each of which an operand or the result may have several words."""
        operands = [v if isinstance(v, Local) else self.contiguous(v) for v in operands]
        loop = self._loop_for(numbers, operands)
        reads = []
        for v in operands:
            if isinstance(v, Local) and v.loop == loop.index:
                reads.append(Read("storage", v.storage))
                continue
            placed = self.contiguous(v)
            step = size(placed.shape) * placed.dtype.itemsize // max(loop.units, 1)
            reads.append(Read("array", placed.array, placed.offset, step))
        return self._add(loop, name, dtype, shape, tuple(reads))

    def _spread(self, value: Value, shape: Shape) -> Value:
        """An operand of one element along an axis stands for all of them, as JAX has it."""
        if self.scales or isinstance(value, Constant) or size(value.shape) == size(shape):
            return value
        return broadcast(self.placed(value), shape, range(len(shape) - len(value.shape), len(shape)))

    def draw(self, stream: Placed) -> Local:
        """What a stream gives, once for all that reads it."""
        count = size(stream.shape)
        key = (stream.array, count)
        loop = self.loop(self._streams[key]) if key in self._streams else self._loop_for(count, [])
        self._streams[key] = loop.index
        return self._add(loop, DRAW, stream.dtype, stream.shape, (Read("array", stream.array),))

    def count(self, shape: Shape) -> int:
        """The elements of a value in a loop: where blocks scale, a scalar is a block of equal ones."""
        return UNIT if self.scales and shape == () else size(shape)

    def _add(
        self,
        loop: LoopInMaking,
        name: str,
        dtype: np.dtype[Any],
        shape: Shape,
        reads: tuple[Read, ...],
        view: View | None = None,
        *,
        shared: bool = True,
    ) -> Local:
        elements = self.count(shape) // max(loop.units, 1)
        key = (name, dtype.itemsize, elements, reads, view)
        storage = loop.memo.get(key) if shared else None
        if storage is None:
            storage = len(loop.widths)
            loop.widths.append(elements * dtype.itemsize)
            loop.operations.append(Operation(name, elements, dtype.itemsize, storage, reads, view))
            if shared:
                loop.memo[key] = storage
        return Local(loop.index, storage, shape, dtype)

    def _one_for_all(self, value: Value, count: int) -> bool:
        return isinstance(value, Constant) or (
            isinstance(value, Placed) and value.uniform and (self.scales or count != 1)
        )

    def _read(self, loop: LoopInMaking, value: Value, count: int, *, scalar: bool) -> Read:
        if isinstance(value, Local) and value.loop == loop.index:
            return Read("storage", value.storage)
        placed = self.placed(value)
        if self._one_for_all(value, count) or (self.scales and placed.uniform):
            one = Read("scalar", placed.array, placed.offset)
            if scalar:
                return one
            filled = self._add(loop, f"fill.{word(placed.dtype)}", placed.dtype, (count,), (one,))
            return Read("storage", filled.storage)
        if placed.contiguous:
            step = count // max(loop.units, 1) * placed.dtype.itemsize
            return Read("array", placed.array, placed.offset, step)
        loaded = self._add(loop, VIEW, placed.dtype, placed.shape, (), self.view(placed))
        return Read("storage", loaded.storage)

    # calls -------------------------------------------------------------------------------------------

    def call(self, kind: str, views: Sequence[Placed], parameters: Sequence[int], results: Sequence[Placed]) -> None:
        """`views` in the order that the call wants them, its results among them."""
        for result in results:
            self.written(result.array, len(self.segments))
        made = tuple(self.view(v) for v in views)
        self.segments.append(CallInMaking(kind, made, tuple(parameters), tuple(r.array for r in results)))


def touched(segment: LoopInMaking | CallInMaking) -> set[int]:
    """The arrays that a segment reads or writes."""
    if isinstance(segment, CallInMaking):
        return {v.array for v in segment.views}
    read = {r.where for o in segment.operations for r in o.reads if r.mode != "storage"}
    read |= {o.view.array for o in segment.operations if o.view is not None}
    written = {segment.arrays[o.storage][0] for o in segment.operations if o.storage in segment.arrays}
    return read | written | {fold.to for fold in segment.folds}
