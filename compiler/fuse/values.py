"""A loop of bytecode as values: which instruction gives what another reads; registers are forgotten."""

from __future__ import annotations

from typing import NamedTuple

from spuvm.runtime.engine.code import DRAW, KEYED, VIEW, Instruction, Loop, Operand

BITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}


class Lacking(Exception):
    """Machine code is not made of this loop: the interpreter keeps it. The text says why."""


class Made(NamedTuple):
    """What operation number `number` of the loop computes."""

    number: int


class Given(NamedTuple):
    """Elements of an array, `bits` each, of which a unit takes `step` bytes."""

    array: int
    offset: int
    step: int
    bits: int


class One(NamedTuple):
    """One element of an array, for all."""

    array: int
    offset: int
    bits: int


Read = Made | Given | One


class Operation(NamedTuple):
    """`name` on words of `bits`, for `elements` of each unit; results have `width` bits. A draw has no `bits`."""

    name: str
    bits: int
    elements: int
    width: int
    reads: tuple[Read, ...]
    result: Operand

    @property
    def is_draw(self) -> bool:
        return self.name == DRAW

    @property
    def kept(self) -> bool:
        """Whether it goes to an array."""
        return self.result.mode == "array"


def operations(loop: Loop) -> list[Operation]:
    """The loop's instructions in order; raises Lacking if elements move within it."""
    registers: dict[int, int] = {}
    arrays: dict[tuple[int, int], int] = {}
    out = []
    for number, instruction in enumerate(loop.code):
        if instruction.operation == VIEW:
            raise Lacking("elements that move")
        if instruction.operation in KEYED:
            raise Lacking("comparisons by keys")
        out.append(_operation(instruction, registers, arrays))
        result = instruction.result
        if result.mode == "register":
            registers[result.where] = number
        else:
            arrays[result.where, result.offset] = number
    return out


def _operation(i: Instruction, registers: dict[int, int], arrays: dict[tuple[int, int], int]) -> Operation:
    if i.operation == DRAW:
        return Operation(DRAW, 0, i.elements, 8 * i.width, (One(i.operands[0].where, 0, 8 * i.width),), i.result)
    name, _, word = i.operation.partition(".")

    def read(number: int, operand: Operand) -> Read:
        bits = 8 if name == "select" and number == 2 else BITS[word]
        if operand.mode == "register":
            return Made(registers[operand.where])
        if operand.mode == "scalar" or name == "fill":
            return One(operand.where, operand.offset, bits)
        place = (operand.where, operand.offset)
        return Made(arrays[place]) if place in arrays else Given(*place, operand.step, bits)

    reads = tuple(read(n, o) for n, o in enumerate(i.operands) if o.mode != "none")
    return Operation(name, BITS[word], i.elements, 8 * i.width, reads, i.result)
