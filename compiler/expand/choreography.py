"""The choreography: one program for all parties, as calls of kernels over share components.

A `Slot` is one component array and the parties that know it. A `Call` applies a kernel to slots.
`Loop`, `Cond` and `While` have public control and are driven by the executor. `expand` makes a
choreography of IR, `project` makes a program per party of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spuvm.compiler.ir.module import Location

Ranks = frozenset[int]


@dataclass(eq=False)
class Slot:
    """One component: a ring element array (uint32, uint64) or bools (uint8, 0 or 1).

    A component of 128 bits is two slots of uint64, the low limb and the high one.
    """

    shape: tuple[int, ...]
    dtype: str
    holders: Ranks

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class KernelSpec:
    """A kernel and all that its compiled form depends on: equal specs share one compilation.

    Element-wise specs leave the length open: `shapes` holds `None` for an operand of the block's
    length and `()` for a scalar that applies to every element.
    """

    name: str
    params: tuple[tuple[str, Any], ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    dtypes: tuple[str, ...]
    holders: tuple[Ranks, ...]
    out_holders: tuple[Ranks, ...]
    elementwise: bool
    communicates: bool
    function: Callable[..., tuple[Any, ...]] = field(repr=False)
    limbs: int = 1  # slots of a ring element
    shows: bool = False  # whether the result is a secret in the clear

    def __str__(self) -> str:
        params = ", ".join(f"{k}={v}" for k, v in self.params)
        return f"{self.name}({params})" if params else self.name


@dataclass(eq=False)
class Call:
    spec: KernelSpec
    inputs: list[Slot]
    outputs: list[Slot]
    op: str = ""
    location: Location = Location()

    @property
    def size(self) -> int:
        """The number of elements of an element-wise call."""
        return self.outputs[0].size


@dataclass(eq=False)
class Block:
    params: list[Slot] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    results: list[Slot] = field(default_factory=list)
    constants: list[tuple[Slot, np.ndarray]] = field(default_factory=list)

    def walk(self) -> Iterator[Step]:
        for step in self.steps:
            yield step
            for block in blocks_of(step):
                yield from block.walk()


@dataclass(eq=False)
class Loop:
    """`trips` times: constants and carries go in whole, xs row by row; ys are stacked."""

    body: Block
    trips: int
    reverse: bool
    constants: list[Slot]
    carries: list[Slot]
    xs: list[Slot]
    outputs: list[Slot]  # carries, then ys
    op: str = "loop"
    location: Location = Location()

    @property
    def inputs(self) -> list[Slot]:
        return [*self.constants, *self.carries, *self.xs]


@dataclass(eq=False)
class Cond:
    """The branch of a public index, clamped as JAX does."""

    branches: list[Block]
    index: Slot
    operands: list[Slot]
    outputs: list[Slot]
    op: str = "cond"
    location: Location = Location()

    @property
    def inputs(self) -> list[Slot]:
        return [self.index, *self.operands]


@dataclass(eq=False)
class While:
    """As long as the public result of `condition` is not zero."""

    condition: Block
    body: Block
    condition_constants: list[Slot]
    body_constants: list[Slot]
    carries: list[Slot]
    outputs: list[Slot]
    op: str = "while"
    location: Location = Location()

    @property
    def inputs(self) -> list[Slot]:
        return [*self.condition_constants, *self.body_constants, *self.carries]


@dataclass(eq=False)
class Rank:
    """The order of the rows of shuffled words by comparisons: `compare` makes one, `opened` shows it."""

    compare: KernelSpec
    opened: KernelSpec
    inputs: list[Slot]
    outputs: list[Slot]  # one, public: uint64[rows, length], indices into the flat array
    wanted: tuple[tuple[int, int], ...]
    op: str = "sort"
    location: Location = Location()

    @property
    def rows(self) -> int:
        return self.outputs[0].shape[0]

    @property
    def length(self) -> int:
        return self.outputs[0].shape[1]

    def batch(self, pairs: int) -> Block:
        """One step of it: `pairs` comparisons."""
        operands = [Slot((pairs,), s.dtype, s.holders) for _ in range(2) for s in self.inputs]
        bits = [Slot((pairs,), "uint8", h) for h in self.compare.out_holders]
        shown = [Slot((pairs,), "uint8", self.outputs[0].holders)]
        calls = [Call(self.compare, operands, bits), Call(self.opened, bits, shown)]
        return Block(operands, [replace(c, op=self.op, location=self.location) for c in calls], shown)


@dataclass(eq=False)
class Check:
    """Everybody compares tags of all that was confirmed since the last one; nothing goes on if they differ.

    Two rounds: commitments to what is told of the tags, and that.
    """

    parties: int
    op: str = "check"
    location: Location = Location()
    inputs: list[Slot] = field(default_factory=list)
    outputs: list[Slot] = field(default_factory=list)


@dataclass(eq=False)
class Guard:
    """Nothing goes on if a public bit is set: every party raises RangeError, and all of them have seen the bit."""

    inputs: list[Slot]  # one
    op: str = "guarded"
    location: Location = Location()
    outputs: list[Slot] = field(default_factory=list)


Step = Call | Loop | Cond | While | Rank | Check | Guard


def blocks_of(step: Step) -> list[Block]:
    """The nested blocks of a control step."""
    match step:
        case Loop():
            return [step.body]
        case Cond():
            return step.branches
        case While():
            return [step.condition, step.body]
    return []


@dataclass(frozen=True)
class Port:
    """One input or output of the program: its share kind, owner, and component slots."""

    kind: str
    owner: int | None
    slots: tuple[Slot, ...]


@dataclass(eq=False)
class Choreography:
    block: Block
    inputs: list[Port]
    outputs: list[Port]


def to_text(choreography: Choreography) -> str:
    """A listing for people: one line a call, components numbered, holders as {ranks}."""
    names: dict[Slot, str] = {}
    lines: list[str] = []

    def name(slot: Slot) -> str:
        return names.setdefault(slot, f"%{len(names)}")

    def describe(slot: Slot) -> str:
        dims = ",".join(map(str, slot.shape))
        return f"{name(slot)}:{slot.dtype}[{dims}]{{{','.join(map(str, sorted(slot.holders)))}}}"

    def write(block: Block, indent: str) -> None:
        for slot, data in block.constants:
            value = f"= {data.reshape(-1)[0]}" if data.size == 1 else ""
            lines.append(f"{indent}constant {describe(slot)} {value}".rstrip())
        for step in block.steps:
            outs = ", ".join(describe(s) for s in step.outputs)
            ins = ", ".join(name(s) for s in step.inputs)
            head = str(step.spec) if isinstance(step, Call) else step.op
            if isinstance(step, Loop):
                head += f" {step.trips} times"
            lines.append(f"{indent}{outs} = {head} {ins}  # {step.op} {step.location}")
            for inner in blocks_of(step):
                lines.append(f"{indent}  ({', '.join(describe(s) for s in inner.params)}) {{")
                write(inner, indent + "    ")
                lines.append(f"{indent}  }} -> {', '.join(name(s) for s in inner.results)}")

    lines.append("inputs " + ", ".join(describe(s) for p in choreography.inputs for s in p.slots))
    write(choreography.block, "")
    lines.append("outputs " + ", ".join(name(s) for p in choreography.outputs for s in p.slots))
    return "\n".join(lines) + "\n"
