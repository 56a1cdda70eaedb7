"""The MPC IR: a typed SSA program over public, private and secret values.

A value is a ring element array read as `bool`, an integer of given width, or fixed point with a
given number of fraction bits. Who knows it is part of its type: `public` (all parties),
`private(i)` (party i alone), `secret` (nobody). How a secret is shared is not the IR's business:
`expand` decides that per protocol.

Regions (the bodies of `cond`, `loop`, `while`) close over nothing: what they use is passed in.
`ir/ops.py` gives every operation's type rule, `ir/text.py` the text form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["bool", "int", "fxp"]
Visibility = int | str  # "public", "secret", or the rank of the only party that knows it


@dataclass(frozen=True)
class Type:
    """`bits` and `signed` describe integers, `frac` fixed point; the others keep them at 0/False.

    `masked`: a private value that the other parties hold masked already, for products with secrets.
    It matters at the edge of a program, where a value comes in or goes out in that form.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    visibility: Visibility = "secret"
    bits: int = 0
    signed: bool = False
    frac: int = 0
    masked: bool = False

    @property
    def element(self) -> str:
        if self.kind == "bool":
            return "bool"
        if self.kind == "fxp":
            return f"fxp{self.frac}"
        return f"{'int' if self.signed else 'uint'}{self.bits}"

    @property
    def size(self) -> int:
        size = 1
        for d in self.shape:
            size *= d
        return size

    @property
    def is_public(self) -> bool:
        return self.visibility == "public"

    @property
    def is_secret(self) -> bool:
        return self.visibility == "secret"

    def with_(self, **changes: Any) -> Type:
        return replace(self, **changes)

    def __str__(self) -> str:
        who = f"private({self.visibility})" if isinstance(self.visibility, int) else self.visibility
        return f"{self.element}[{','.join(map(str, self.shape))}] {who}" + " masked" * self.masked


def join(*visibilities: Visibility) -> Visibility:
    """Who may know a value computed from values of these visibilities."""
    known = {v for v in visibilities if v != "public"}
    if not known:
        return "public"
    return known.pop() if len(known) == 1 else "secret"


@dataclass(frozen=True)
class Location:
    """The user's source line."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "unknown"


@dataclass(eq=False)
class Value:
    """One SSA value; identity is the object itself."""

    type: Type

    def __repr__(self) -> str:
        return f"<Value {self.type}>"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape


@dataclass(eq=False)
class Region:
    params: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)

    def walk(self) -> Iterator[Op]:
        """Every operation, those of nested regions after their owner."""
        for op in self.ops:
            yield op
            for region in op.regions:
                yield from region.walk()


@dataclass(eq=False)
class Op:
    name: str
    inputs: list[Value]
    outputs: list[Value]
    attrs: dict[str, Any] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)
    location: Location = Location()
    checked: tuple[Any, ...] = field(default=(), repr=False)  # what the checker found right, see `ops`
    stated: float | None = field(default=None, repr=False)  # log2 of the limit that the user states of the result
    modular: bool = field(default=False, repr=False)  # right modulo 2^k, whatever its operands: no overflow matters
    exact: Any = field(default=None, repr=False)  # the real numbers that a constant rounds, while they are known

    @property
    def output(self) -> Value:
        (out,) = self.outputs
        return out


@dataclass(eq=False)
class Module:
    """A whole program. `inputs` and `outputs` name the leaves of the user's pytrees in order.

    `input_dtypes` and `output_dtypes` are the JAX dtypes at the boundary; `config` is the
    dictionary of the configuration that the program was lowered for.
    """

    name: str
    body: Region
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    finer: tuple[int, ...] = ()  # fraction bits of the inputs beyond the default, until scales are chosen
    bounds: tuple[float | None, ...] = ()  # what is stated of the inputs' magnitudes
    keeps_scales: bool = False  # whether results may have more fraction bits than the default
    ranges: tuple[tuple[str, int, int], ...] = ()  # what scales were fitted to: operation, and powers of two
    measured: dict[Value, tuple[int, int]] = field(default_factory=dict)  # of its values, until scales are chosen
    refused: tuple[str, ...] = ()  # lines that hold less than what is stated of inputs allows, see passes/verdicts.py
    guard: bool = False  # whether numbers are checked before anything is revealed, see passes/guard.py


def uses(region: Region) -> dict[Value, list[Op | None]]:
    """The users of each value within one region; None stands for the region's results."""
    table: dict[Value, list[Op | None]] = {}
    for op in region.ops:
        for value in op.inputs:
            table.setdefault(value, []).append(op)
    for value in region.results:
        table.setdefault(value, []).append(None)
    return table
