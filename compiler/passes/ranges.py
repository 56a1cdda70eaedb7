"""Ranges of the numbers of a program, found on public or synthetic data, and what scales make of them.

A range is a pair of powers of two: no number was 2^high or more, and of those that are not 0 one in twenty was below
2^low. It belongs to one value of the lowered program, by the place of its operation. Scales take numbers to stay below
2^(high + MARGIN) and want `DIGITS` binary digits of one of 2^low. Ranges are part of a program's text, which all see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spuvm.compiler.ir.module import Module, Op, Value
from spuvm.runtime.errors import InputError

MARGIN = 3
DIGITS = 12
SMALL = 0.05  # of the numbers that are not 0, so many may have fewer digits
INPUT = "input"
LEAST, MOST = -126, 126
MOST_BITS = {32: 6, 64: 20, 128: 40}  # that an input may have beyond the default

Range = tuple[int, int]  # low, high


@dataclass(frozen=True)
class Ranges:
    """`of` values by their numbers: inputs first, then the results of operations, those of bodies after their owner's.

    `operations` says which program they belong to; `words` are for people: a name or line, an operation, low, high.
    """

    operations: tuple[str, ...]
    of: tuple[tuple[int, int, int], ...]
    words: tuple[tuple[str, str, int, int], ...]

    def __str__(self) -> str:
        rows = [f"{where}  {what}  2^{low} to 2^{high}" for where, what, low, high in self.words]
        return "\n".join(["ranges, known to all parties:", *rows])

    @property
    def text(self) -> tuple[tuple[str, int, int], ...]:
        """For the text of a program, which is the same wherever its source lies."""
        return tuple(
            (f"{INPUT} {where}" if what == INPUT else what, low, high) for where, what, low, high in self.words
        )

    def input(self, number: int) -> Range | None:
        return next(((low, high) for i, low, high in self.of if i == number), None)

    def apply(self, module: Module) -> None:
        """Fit the scales of a lowered module, when they are chosen."""
        if operations(module) != self.operations:
            raise InputError(
                f"`{module.name}` was calibrated for arguments of other shapes, types or visibility: calibrate it with "
                "a sample like what it is called with."
            )
        values = list(_values(module))
        module.measured = {values[i]: (low, high) for i, low, high in self.of}
        module.ranges = self.text


def operations(module: Module) -> tuple[str, ...]:
    return (*(str(v.type.with_(frac=0)) for v in module.body.params), *(op.name for op in module.body.walk()))


def _values(module: Module) -> Iterator[Value]:
    yield from module.body.params
    for op in module.body.walk():
        yield from op.outputs


def fitted(found: Range, frac: int, ring_bits: int) -> tuple[int, float]:
    """Of an input: fraction bits beyond the default, and the bound that it is checked against."""
    low, high = found
    room = min(ring_bits - 2 - frac - high - MARGIN, MOST_BITS[ring_bits])
    extra = max(0, min(DIGITS - low - frac, room))
    return extra - extra % 2, 2.0 ** (high + MARGIN)


def bounds_of_inputs(text: Sequence[tuple[str, int, int]]) -> dict[str, float]:
    """By name, what the inputs of a calibrated program are checked against; of the ranges in its text."""
    inputs = ((what.partition(" "), high) for what, _, high in text)
    return {name: 2.0 ** (high + MARGIN) for (word, _, name), high in inputs if word == INPUT and name}


def scales_of_inputs(
    ranges: Ranges | None, count: int, frac: int, ring_bits: int
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """Fraction bits beyond the default and bounds of all inputs of a program."""
    found = [ranges.input(i) if ranges is not None else None for i in range(count)]
    each = [(0, None) if r is None else fitted(r, frac, ring_bits) for r in found]
    return tuple(extra for extra, _ in each), tuple(bound for _, bound in each)


def range_of(numbers: Sequence[object]) -> Range | None:
    """Of real numbers: all that a value has been."""
    sizes = np.concatenate([np.abs(np.asarray(x, np.float64)).reshape(-1) for x in numbers])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return None
    low = math.floor(math.log2(float(np.quantile(sizes, SMALL, method="lower"))))
    high = math.floor(math.log2(float(sizes.max()))) + 1
    return max(low, LEAST), min(high, MOST)


def recorded(module: Module, seen: Mapping[Value, Sequence[object]]) -> Ranges:
    """Ranges of the values that were seen."""
    places: dict[Value, tuple[str, str]] = {p: (n, INPUT) for n, p in zip(module.inputs, module.body.params)}
    for op in module.body.walk():
        places.update((v, (str(op.location), _operation(op))) for v in op.outputs)
    of, words = [], dict[tuple[str, str], Range]()
    for number, value in enumerate(_values(module)):
        found = range_of(seen[value]) if value in seen and value.type.kind == "fxp" else None
        if found is not None:
            of.append((number, *found))
            low, high = words.get(places[value], found)
            words[places[value]] = min(low, found[0]), max(high, found[1])
    return Ranges(operations(module), tuple(of), tuple((*place, *r) for place, r in words.items()))


def _operation(op: Op) -> str:
    return "product" if op.name == "trunc" else op.name
