"""Whether bytecode stays within its arrays and registers: checked when it is made, and when it comes from disk.

The native engine trusts what passed. A fault here is a fault of the compiler, or of a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spuvm.runtime.engine.code import (
    CALLS,
    DRAW,
    KEYED,
    MODES,
    SOURCES,
    UNIT,
    VIEW,
    Call,
    Code,
    Instruction,
    Loop,
    Operand,
    View,
)

RANK = 12  # kRank of native/engine.h
FOLDING = ("add", "mul", "and", "or", "xor", "max", "min", "smax", "smin")
WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class BadCode(Exception):
    """Bytecode that would read or write outside of its arrays."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise BadCode(what)


def check(code: Code) -> None:
    """Raise BadCode unless every access of the code is within its arrays."""
    _check_arrays(code)
    folded = [fold.array for segment in code.segments if isinstance(segment, Loop) for fold in segment.folds]
    require(len(folded) == len(set(folded)), "an array that is folded twice")
    for segment in code.segments:
        if isinstance(segment, Call):
            require(segment.kind in CALLS and not code.scales, "a call that is none")
            for view in segment.views:
                require(view.array not in folded, "an array that is never whole")
                _check_view(code, view, _width_of(segment, view))
        else:
            _check_loop(code, segment)
            _check_folds(code, segment, folded)


def _check_arrays(code: Code) -> None:
    ports = {"input": code.inputs, "output": code.outputs, "stream": code.streams}
    for array in code.arrays:
        require(array.source in SOURCES and array.where >= 0 and array.bytes >= 0, "an array from nowhere")
        if array.source in ports:
            require(array.where < len(ports[array.source]), "a port that is not there")
            port = ports[array.source][array.where]
            nbytes = int(np.prod(port.shape, dtype=np.int64)) * np.dtype(port.dtype).itemsize
            require(array.bytes == nbytes, "an array of another size than its port's")
        else:
            end = array.where + array.bytes
            unused = array.source == "temporary" and array.where == 0
            limit = code.temporaries if array.source == "temporary" else len(code.constants)
            require(end <= limit or unused, "an array that ends outside")


def _check_loop(code: Code, loop: Loop) -> None:
    require(loop.units >= 0 and loop.block > 0 and loop.registers >= 0, "a loop over nothing")
    for i in loop.code:
        require(i.elements >= 0 and i.width in (1, 2, 4, 8), "elements of no width")
        _check_operand(code, loop, i.result, i.elements * i.width, writes=True)
        if i.operation == VIEW:
            assert i.view is not None
            _check_view(code, i.view, i.width)
            require(int(np.prod(i.view.sizes, dtype=np.int64)) >= loop.units * i.elements, "a view that is too short")
        elif i.operation == DRAW:
            _check_draw(code, loop, i)
        else:
            _check_reads(code, loop, i)


def _check_folds(code: Code, loop: Loop, folded: Sequence[int]) -> None:
    own = {fold.array: fold.width for fold in loop.folds}
    operands = [(i, o) for i in loop.code for o in (i.result, *i.operands) if o.mode in ("array", "scalar")]
    views = [i.view.array for i in loop.code if i.view is not None]
    require(not set(folded).intersection(views), "an array that is never whole")
    for i, o in operands:
        mine = o.mode == "array" and o.offset == 0 and o.step == own.get(o.where) and i.elements == 1
        require(mine or o.where not in folded, "an array that is never whole")
    for fold in loop.folds:
        writes = [i for i in loop.code if i.result.mode == "array" and i.result.where == fold.array]
        require(bool(writes) and all(i.width == fold.width for i in writes), "a fold of none")
        require(code.arrays[fold.array].source == "temporary" and loop.units > 0 and not code.scales, "a fold of none")
        name, _, word = fold.operation.partition(".")
        require(name in FOLDING and WIDTHS.get(word) == fold.width, f"a fold by {fold.operation}")
        view = View(fold.to, fold.offset, (1,), (fold.width,))
        require(fold.to not in folded and code.arrays[fold.to].source in ("output", "temporary"), "a fold to nowhere")
        _check_view(code, view, fold.width)


def _check_draw(code: Code, loop: Loop, i: Instruction) -> None:
    (operand,) = i.operands
    require(operand.where < len(code.arrays) and code.arrays[operand.where].source == "stream", "a draw from no stream")
    require(loop.block * i.elements * i.width % 16 == 0, "a keystream cut within its blocks")


def _check_reads(code: Code, loop: Loop, i: Instruction) -> None:
    name, _, word = i.operation.partition(".")
    require(word in WIDTHS, f"the operation {i.operation}")
    if i.operation in KEYED:
        return _check_keyed(code, loop, i)
    for number, operand in enumerate(i.operands):
        width = 1 if name == "select" and number == 2 else WIDTHS[word]
        if operand.mode == "scalar":
            require(number == (0 if name == "fill" else 1), "one element where many are read")
            _check_operand(code, loop, operand, width, writes=False)
        else:
            _check_operand(code, loop, operand, i.elements * width, writes=False)


def _check_keyed(code: Code, loop: Loop, i: Instruction) -> None:
    keyed = KEYED[i.operation]
    require(i.elements % keyed.results == 0 and i.width == (1 if keyed.results == 1 else 8), "a key that is cut")
    for operand, nbytes in zip(i.operands, keyed.operands, strict=True):
        require(operand.mode != "scalar", "one element where many are read")
        _check_operand(code, loop, operand, i.elements // keyed.results * nbytes, writes=False)


def _check_operand(code: Code, loop: Loop, operand: Operand, unit: int, *, writes: bool) -> None:
    """`unit`: the bytes that are read or written of each unit."""
    require(operand.mode in MODES[1:] and min(operand[1:]) >= 0, "an operand that is none")
    if operand.mode == "register":
        require(operand.where + unit <= loop.registers, "a register that ends outside")
        return
    require(operand.where < len(code.arrays), "an array that is not there")
    array = code.arrays[operand.where]
    require(array.source != "stream" and not (writes and array.source in ("input", "constant")), "a write to an input")
    if operand.mode == "scalar":
        require(operand.offset + unit <= array.bytes and not writes, "an element outside of its array")
    elif loop.units:
        require(operand.step >= unit or loop.units == 1, "units that overlap")
        end = operand.offset + (loop.units - 1) * operand.step + unit
        require(end <= array.bytes, "elements outside of their array")
        if code.scales:
            require(operand.offset == 0 and operand.step == array.bytes, "an array that does not scale")


def _check_view(code: Code, view: View, width: int) -> None:
    require(0 <= view.array < len(code.arrays) and len(view.sizes) == len(view.strides) <= RANK, "a view of nothing")
    require(code.arrays[view.array].source != "stream" and min(view.sizes, default=0) >= 0, "a view of no elements")
    if 0 in view.sizes:
        return
    reach = [(d - 1) * s for d, s in zip(view.sizes, view.strides)]
    low, high = (sum(r for r in reach if (r < 0) == negative) for negative in (True, False))
    inside = view.offset + low >= 0 and view.offset + high + width <= code.arrays[view.array].bytes
    require(inside, "a view outside of its array")


def _width_of(call: Call, view: View) -> int:
    """The bytes of a view's elements."""
    if call.kind in ("copy", "gather"):
        return call.parameters[1] if call.kind == "gather" and view is call.views[1] else call.parameters[0]
    if call.kind in ("reduce", "scan"):
        return call.parameters[1]
    if call.kind == "dot":
        return 1 << call.parameters[0]
    return 1


assert UNIT % 16 == 0, "a unit of bytes is whole blocks of keystream"
