"""Bytecode of a stage: arrays, loops of element-wise operations between them, and calls on whole arrays.

Words have a width, no sign: `u8` (bools too), `u16`, `u32`, `u64`; an operation that heeds a sign says so (`slt`).
A loop passes over `units`, a block of them at a time. What it computes lies in registers of a block, or goes to an
array. A program with `scales` was made for blocks of 64 elements, one unit each, and runs on any number of them.
Sizes and places are in bytes; of registers and arrays of a program that scales, those of one unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from spuvm.runtime.ring.keyed import COMPARISONS

SOURCES = ("input", "output", "temporary", "constant", "stream")
MODES = ("none", "register", "array", "scalar")
VIEW, DRAW = "view", "draw"  # the two instructions that are no operation: load through a view, keystream
CALLS = {"copy": 1, "reduce": 2, "dot": 3, "gather": 4, "scan": 5, "matmul": 6, "matmul_wide": 7}
UNIT = 64  # elements of a unit of what scales


class Keyed(NamedTuple):
    """For each number: the elements of the result, and the bytes of each operand (native/keyed.h)."""

    results: int
    operands: tuple[int, int, int]


# Comparisons by keys: of one number, several words stand one after another.
KEYED = {
    f"{of.relation}_{of.bits}_{what}.u64": keyed
    for of in COMPARISONS
    for what, keyed in (
        ("keys", Keyed(of.words, (8, 16, 16))),
        ("first", Keyed(1, (8, 8 * of.words, 16))),
        ("second", Keyed(1, (8, 8 * of.words, 16))),
    )
}


class Array(NamedTuple):
    """`where`: the number of the input, output or stream, the first byte among temporaries or constants."""

    source: str
    where: int
    bytes: int


class View(NamedTuple):
    """Elements of an array in row-major order of `sizes`; `strides` in bytes, zero where one stands for all."""

    array: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Operand(NamedTuple):
    """A register at byte `where` of a unit's; an array from `offset` on, `step` bytes a unit; or one element of it."""

    mode: str
    where: int = 0
    offset: int = 0
    step: int = 0


NONE = Operand("none")


class Instruction(NamedTuple):
    """`operation` on `elements` of each unit: a name as `add.u64`, VIEW or DRAW, whose elements have `width` bytes."""

    operation: str
    elements: int
    width: int
    result: Operand
    operands: tuple[Operand, ...]
    view: View | None = None


class Fold(NamedTuple):
    """`array`, one element a unit of the loop that writes it, folded into the element of `to` at byte `offset`.

    Nobody else reads the array, which is never whole in memory. `operation` is one of two operands, such as `add.u64`.
    """

    operation: str
    width: int
    array: int
    to: int
    offset: int


class Loop(NamedTuple):
    units: int
    block: int  # units at a time
    registers: int  # bytes of a unit
    code: tuple[Instruction, ...]
    folds: tuple[Fold, ...] = ()


class Call(NamedTuple):
    """An operation of CALLS; what views and parameters mean is said in native/calls.cc."""

    kind: str
    views: tuple[View, ...]
    parameters: tuple[int, ...]


class Port(NamedTuple):
    """An input or output: of what scales, the elements of one unit."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Code:
    """`inputs` are the stage's arguments that are arrays; `streams` are drawn as the program runs."""

    inputs: tuple[Port, ...]
    streams: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arrays: tuple[Array, ...]
    segments: tuple[Loop | Call, ...]
    constants: bytes
    temporaries: int  # bytes of all
    scales: bool

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(code: Code) -> Iterator[str]:
    for title, ports in (("input", code.inputs), ("stream", code.streams), ("output", code.outputs)):
        for i, port in enumerate(ports):
            yield f"{title} {i}: {port.dtype}[{','.join(map(str, port.shape))}]"
    for i, array in enumerate(code.arrays):
        yield f"a{i} = {array.source} {array.where}, {array.bytes} bytes"
    for segment in code.segments:
        if isinstance(segment, Call):
            yield f"{segment.kind} {', '.join(map(_view, segment.views))} {list(segment.parameters)}"
            continue
        each = " each of 64 elements" if code.scales else ""
        yield f"loop {segment.units} units{each}, {segment.block} at a time, {segment.registers} bytes of registers:"
        for step in segment.code:
            operands = [_view(step.view)] if step.view is not None else [_operand(o) for o in step.operands]
            yield f"  {_operand(step.result)} = {step.operation} {', '.join(operands)}"
        for fold in segment.folds:
            yield f"  a{fold.to}[{fold.offset}] = a{fold.array} folded by {fold.operation}"


def _view(view: View) -> str:
    sizes = ",".join(map(str, view.sizes))
    return f"a{view.array}+{view.offset}[{sizes}]:{','.join(map(str, view.strides))}"


def _operand(operand: Operand) -> str:
    match operand.mode:
        case "register":
            return f"r{operand.where}"
        case "array":
            return f"a{operand.where}+{operand.offset}"
        case "scalar":
            return f"a{operand.where}[{operand.offset}]"
    return "-"
