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
    """Of what is always as it was before, that: its size counts, as of all that is made."""
    found, makers, seen, whole = Choices(), _makers(region), set[Value](), Made(region, value, before)
    ahead = [(value, before, region)]
    while ahead:
        value, before, region = ahead.pop()
        if value is before or value in seen:  # many ways may lead to one value
            continue
        seen.add(value)
        op = makers.get(value)
        if op is not None and op.name == "select":
            ahead += [(x, before, region) for x in op.inputs[1:]]
        elif op is not None and op.name == "cond" and into:
            output = op.outputs.index(value)
            at = op.inputs.index(before, 1) if before in op.inputs[1:] else None
            found.passed.append(Passed(op, output, at))
            for branch in op.regions:
                makers |= _makers(branch)
                ahead.append((branch.results[output], None if at is None else branch.params[at - 1], branch))
        else:
            found.made.append(Made(region, value, before))
    found.made = found.made or [whole]
    return found


def _makers(region: Region) -> dict[Value, Op]:
    return {v: op for op in region.ops for v in op.outputs}


def pinned(passed: Passed) -> Iterator[Value]:
    """The values on the way that have one type in and out."""
    yield passed.op.outputs[passed.output]
    if passed.operand is not None:
        yield from (branch.params[passed.operand - 1] for branch in passed.op.regions)
