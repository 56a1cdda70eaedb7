"""What a value may be that conditions keep as it was, and the branches of public conditions that make it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spuvm.compiler.ir.module import Op, Region, Value


@dataclass(frozen=True)
class Made:
    """A value that a region makes, and what it was before, as the region sees it."""

    region: Region
    value: Value
    before: Value | None


@dataclass(frozen=True)
class Passed:
    """A `cond` that gives a value at `output`, and takes what it was before at `operand`, if it does."""

    op: Op
    output: int
    operand: int | None


@dataclass
class Choices:
    """All that `value` may be but `before`, through choices, and into branches if `into`."""

    made: list[Made] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)

    @property
    def values(self) -> list[Value]:
        return [m.value for m in self.made]


def choices(value: Value, before: Value | None, region: Region, into: bool = False) -> Choices:
    found = Choices()
    _follow(value, before, region, into, found)
    return found


def _follow(value: Value, before: Value | None, region: Region, into: bool, found: Choices) -> None:
    op = next((op for op in region.ops if value in op.outputs), None)
    if value is before:
        return
    if op is not None and op.name == "select":
        for x in op.inputs[1:]:
            _follow(x, before, region, into, found)
    elif op is not None and op.name == "cond" and into:
        at = op.inputs.index(before, 1) if before in op.inputs[1:] else None
        found.passed.append(Passed(op, op.outputs.index(value), at))
        for branch in op.regions:
            inner = None if at is None else branch.params[at - 1]
            _follow(branch.results[op.outputs.index(value)], inner, branch, into, found)
    else:
        found.made.append(Made(region, value, before))


def pinned(passed: Passed) -> Iterator[Value]:
    """The values on the way that have one type in and out."""
    yield passed.op.outputs[passed.output]
    if passed.operand is not None:
        yield from (branch.params[passed.operand - 1] for branch in passed.op.regions)
