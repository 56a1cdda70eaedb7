"""Between which numbers the ring elements of a guarded program lie, if every check so far has passed.

Fixed point is followed as integers are (ir/bounds.py), and never beyond 2^(k-2), which is what a truncation, a
comparison and a sum of two take: where an operation may give more, it is checked (`exceeds`), and what comes after may
rely on that. What comes in is below 2^(k-2), as inputs are when they are encoded, or below what is stated of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spuvm.compiler.ir.bounds import RULES as OF_INTEGERS
from spuvm.compiler.ir.bounds import Analysis, Bounds, hull, of_type, within
from spuvm.compiler.ir.elementary import ELEMENTARY
from spuvm.compiler.ir.module import Module, Op, Type, Value
from spuvm.runtime.ring.elements import signed

FEW = 8  # iterations that are followed, before what still grows may be anything
BELOW_ONE = frozenset({"logistic", "tanh", "erf", "sin", "cos"})
CHECKED = frozenset({"add", "sub", "neg", "sum", "cumsum", "scatter_add", "shift_left", "mul", "dot", "convert"})


class Held(Analysis):
    """`bounds` of all values; `exceeds`: by operation, what its result might be without a check."""

    def __init__(self, ring_bits: int, frac: int) -> None:
        super().__init__(ring_bits)
        self.frac = frac
        self.exceeds: dict[Op, Bounds] = {}
        self.limit = (1 << ring_bits - 2) - 1

    def module(self, module: Module) -> None:
        bounds = module.bounds or (None,) * len(module.body.params)
        self.run(module.body, [self._given(v.type, b) for v, b in zip(module.body.params, bounds, strict=True)])

    def bits(self, value: Value) -> int:
        """|value| < 2^bits, raw."""
        return bits_of(self.bounds[value])

    def unbounded(self) -> Bounds:
        return -self.limit, self.limit

    def _given(self, t: Type, bound: float | None) -> Bounds:
        if t.kind != "fxp":
            low, high = of_type(t, self.ring_bits)
            whole = high if bound is None else math.ceil(bound)
            return max(low, -whole), min(high, whole)
        most = self.limit if bound is None else min(math.ceil(bound * 2.0**t.frac), self.limit)
        return -most, most

    def _clipped(self, x: Bounds, t: Type) -> Bounds:
        return x if t.kind == "fxp" else super()._clipped(x, t)

    def _of(self, op: Op) -> Bounds:
        """The operation's result; of fixed point no more than the limit."""
        rule = OF_NUMBERS.get(op.name)
        found = rule(self, op) if rule is not None else super()._of(op)
        if op.stated is not None:
            return self._stated(op, found)
        if op.output.type.kind != "fxp":
            return found
        if op.name in CHECKED and not within(found, self.unbounded()) and not is_own(op, self.ring_bits, self.frac):
            self.exceeds[op] = found
        else:
            self.exceeds.pop(op, None)
        return max(found[0], -self.limit), min(found[1], self.limit)

    def _stated(self, op: Op, found: Bounds) -> Bounds:
        """What the user states of a value is checked, too, where it does not follow."""
        assert op.stated is not None
        most = min(math.floor(2.0 ** (op.stated + op.output.type.frac)), self.limit)
        if within(found, (-most, most)):
            self.exceeds.pop(op, None)
        else:
            self.exceeds[op] = found
        return max(found[0], -most), min(found[1], most)

    def _invariant(
        self, step: Callable[[list[Bounds]], list[Bounds]], state: list[Bounds], trips: int | None
    ) -> list[Bounds]:
        return super()._invariant(step, state, None if trips is not None and trips > FEW else trips)


def is_own(op: Op, ring_bits: int, frac: int) -> bool:
    """Whether an algorithm sees to its numbers itself: by its word, or by more bits than factors have room for."""
    most = ring_bits - 2 - frac
    return op.modular or (op.name in ("mul", "dot") and any(v.type.frac > most for v in op.inputs))


def bits_of(x: Bounds) -> int:
    return max(abs(x[0]), abs(x[1])).bit_length()


def terms(op: Op) -> int:
    """How many products a dot adds up, or how many numbers a sum does."""
    if op.name == "dot":
        return int(np.prod([op.inputs[0].shape[d] for d in op.attrs["dims"][0][0]], dtype=object))
    if op.name == "sum":
        return int(np.prod([op.inputs[0].shape[d] for d in op.attrs["axes"]], dtype=object))
    if op.name == "cumsum":
        return int(op.inputs[0].shape[op.attrs["axis"]])
    return op.inputs[2].type.size + 1 if op.name == "scatter_add" else 1


def _const(a: Analysis, op: Op) -> Bounds:
    data = op.attrs["data"]
    if not data.size:
        return 0, 0
    raw = signed(data)
    return int(raw.min()), int(raw.max())


def _trunc(a: Analysis, op: Op) -> Bounds:
    low, high = a.bounds[op.inputs[0]]
    return low >> op.attrs["bits"], (high >> op.attrs["bits"]) + 1


def _converted(a: Analysis, op: Op) -> Bounds:
    source, target = op.inputs[0].type, op.output.type
    if source.kind == target.kind == "fxp" and target.frac < source.frac:
        low, high = a.bounds[op.inputs[0]]
        return low >> source.frac - target.frac, (high >> source.frac - target.frac) + 1
    return OF_INTEGERS["convert"](a, op)


def _below_one(a: Analysis, op: Op) -> Bounds:
    one = (1 << op.output.type.frac) + 4
    return -one, one


def _monotone(a: Analysis, op: Op) -> Bounds:
    """A function that grows with its operand, between its values at the ends."""
    scale = 2.0 ** op.inputs[0].type.frac
    attrs = {k: v for k, v in op.attrs.items() if k != "to"}
    with np.errstate(all="ignore"):
        ends = [ELEMENTARY[op.name](np.float64(x / scale), **attrs) for x in a.bounds[op.inputs[0]]]
    least, most = (int(np.clip(np.nan_to_num(e), -(2.0**100), 2.0**100) * 2.0**op.output.type.frac) for e in ends)
    return least - (abs(least) >> 8) - 8, most + (abs(most) >> 8) + 8


def _logarithm(a: Analysis, op: Op) -> Bounds:
    """Of what is at least a unit, or 0: its size."""
    most = a.ring_bits << op.output.type.frac
    return -most, most


def _quotient_by(a: Analysis, op: Op) -> Bounds:
    """By known numbers, of which the smallest counts; by 0 the result is 0."""
    sizes = np.abs(np.asarray(op.attrs["by"], np.float64))
    smallest = float(sizes[sizes > 0].min(initial=np.inf))
    most = max(map(abs, a.bounds[op.inputs[0]])) * 2.0 ** (op.output.type.frac - op.inputs[0].type.frac) / smallest
    whole = int(most * (1 + 2.0**-20)) + 4
    return -whole, whole


def _anything(a: Analysis, op: Op) -> Bounds:
    return a.unbounded()


def _same(a: Analysis, op: Op) -> Bounds:
    return a.bounds[op.inputs[0]]


def _padded(a: Analysis, op: Op) -> Bounds:
    return hull(*(a.bounds[v] for v in op.inputs))


ANYTHING = ELEMENTARY.keys() - BELOW_ONE - {"exp", "expm1", "sqrt", "cbrt", "log", "log1p", "div_by"}
OF_NUMBERS: dict[str, Callable[[Analysis, Op], Bounds]] = {
    "const": _const,
    "trunc": _trunc,
    "convert": _converted,
    "mask": _same,
    "pad": _padded,
    **dict.fromkeys(ANYTHING, _anything),
    **dict.fromkeys(BELOW_ONE, _below_one),
    **dict.fromkeys(("exp", "expm1", "sqrt", "cbrt"), _monotone),
    **dict.fromkeys(("log", "log1p"), _logarithm),
    "div_by": _quotient_by,
}
