"""Bounds of the ring elements of a program: between which signed numbers each one lies.

Integers are computed modulo the ring, whatever their type: bounds say which of them may have left their
type. A body of a loop is followed for as many iterations as it takes; where that is too many, what still
grows counts as unbounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spuvm.compiler.ir.module import Op, Region, Type, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.runtime.ring import elements

Bounds = tuple[int, int]

MAX_ITERATIONS = 1024  # of a loop, before what grows is unbounded
MAX_STEPS = 100_000  # operations looked at, before loops are no longer followed


def is_narrow(t: Type, ring_bits: int) -> bool:
    """Whether a type is an integer of fewer bits than the ring has."""
    return t.kind == "int" and t.bits < ring_bits


def of_type(t: Type, ring_bits: int) -> Bounds:
    """What a value of the type may be; types that are not narrow fill the ring."""
    if t.kind == "bool":
        return 0, 1
    if not is_narrow(t, ring_bits):
        return -(1 << ring_bits - 1), (1 << ring_bits - 1) - 1
    return (-(1 << t.bits - 1), (1 << t.bits - 1) - 1) if t.signed else (0, (1 << t.bits) - 1)


def within(x: Bounds, y: Bounds) -> bool:
    return y[0] <= x[0] and x[1] <= y[1]


def hull(*xs: Bounds) -> Bounds:
    return min(x[0] for x in xs), max(x[1] for x in xs)


def product(x: Bounds, y: Bounds) -> Bounds:
    corners = [a * b for a in x for b in y]
    return min(corners), max(corners)


def repeated(x: Bounds, count: int) -> Bounds:
    """Of a sum of `count` terms."""
    return x[0] * count, x[1] * count


class Analysis:
    """`bounds` of every value of a program, and of what operations that look at the high bits see."""

    def __init__(self, ring_bits: int) -> None:
        self.ring_bits = ring_bits
        self.bounds: dict[Value, Bounds] = {}
        self._steps = 0

    def run(self, region: Region, params: Sequence[Bounds]) -> list[Bounds]:
        """The bounds of a region's results."""
        self.bounds.update(zip(region.params, params))
        for op in region.ops:
            self._steps += 1
            if op.regions:
                outs = CONTROL[op.name](self, op)
            elif op.name in ("sort", "guarded"):  # each of the last operands, rearranged or as it is
                outs = [self.bounds[v] for v in op.inputs[-len(op.outputs) :]]
            else:
                outs = [self._clipped(self._of(op), op.output.type)]
            self.bounds.update(zip(op.outputs, outs))
        return [self.bounds[v] for v in region.results]

    def inside(self, value: Value) -> bool:
        """Whether a value is known to be within its type."""
        return within(self.bounds[value], of_type(value.type, self.ring_bits))

    def seen(self, value: Value) -> Bounds:
        """The bounds of the number that the value stands for in its type."""
        return self.bounds[value] if self.inside(value) else of_type(value.type, self.ring_bits)

    def unbounded(self) -> Bounds:
        return of_type(Type("fxp"), self.ring_bits)

    def _clipped(self, x: Bounds, t: Type) -> Bounds:
        """What exceeds the ring wraps around in it, and may then be anything."""
        everything = self.unbounded()
        if t.kind == "fxp" and t.frac:
            return everything  # fixed point is not followed
        return x if within(x, everything) else everything

    def _of(self, op: Op) -> Bounds:
        rule = RULES.get(op.name)
        if rule is not None:
            return rule(self, op)
        if op.name in LOCAL:
            at = index_operands(op.name, len(op.inputs))
            return hull(*(self.bounds[v] for i, v in enumerate(op.inputs) if i not in at))
        return of_type(op.output.type, self.ring_bits)

    # control -------------------------------------------------------------------------------------------

    def cond(self, op: Op) -> list[Bounds]:
        given = [self.bounds[v] for v in op.inputs[1:]]
        return [hull(*cases) for cases in zip(*(self.run(r, given) for r in op.regions))]

    def loop(self, op: Op) -> list[Bounds]:
        k, c = op.attrs["constants"], op.attrs["carries"]
        given = [self.bounds[v] for v in op.inputs]
        if not op.attrs["trips"]:
            return given[k : k + c] + [self.unbounded()] * (len(op.outputs) - c)
        (body,) = op.regions

        def step(state: list[Bounds]) -> list[Bounds]:
            return self.run(body, [*given[:k], *state, *given[k + c :]])

        self._invariant(lambda state: step(state)[:c], given[k : k + c], op.attrs["trips"] - 1)
        return [self.bounds[v] for v in body.results]

    def while_(self, op: Op) -> list[Bounds]:
        condition, body = op.regions
        a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
        given = [self.bounds[v] for v in op.inputs]
        state = self._invariant(lambda s: self.run(body, [*given[a : a + b], *s]), given[a + b :], None)
        self.run(condition, [*given[:a], *state])
        return state

    def _invariant(
        self, step: Callable[[list[Bounds]], list[Bounds]], state: list[Bounds], trips: int | None
    ) -> list[Bounds]:
        """Bounds that hold in the first iteration and after `trips` (None: any number of) further ones.

        The last call of `step` is with these bounds.
        """
        done = 0
        while True:
            after = step(state)
            if done == trips:
                return state
            wider = [hull(s, x) for s, x in zip(state, after)]
            if wider == state:
                return state
            done += 1
            if done >= (4 if trips is None else MAX_ITERATIONS) or self._steps > MAX_STEPS:
                wider = [s if s == w else self.unbounded() for s, w in zip(state, wider)]
                trips = None
            state = wider


def of_value(value: Value, region: Region, ring_bits: int) -> Bounds:
    """Of one value, while a program is built: from the operations of its region that lead to it, and from types."""
    analysis, needed, steps = Analysis(ring_bits), {value}, []
    for op in reversed(region.ops):
        if len(op.outputs) == 1 and op.output in needed and not op.regions and op.name != "sort":
            steps.append(op)
            needed.update(op.inputs)
    for v in needed:
        analysis.bounds[v] = of_type(v.type, ring_bits)
    analysis.run(Region([], steps[::-1]), [])
    return analysis.bounds[value]


# one rule an operation -------------------------------------------------------------------------------------

Rule = Callable[[Analysis, Op], Bounds]


def _const(a: Analysis, op: Op) -> Bounds:
    data = op.attrs["data"]
    if not data.size or (op.output.type.kind == "fxp" and op.output.type.frac):
        return a.unbounded() if data.size else (0, 0)
    signed = elements.signed(data)
    return int(signed.min()), int(signed.max())


def _add(a: Analysis, op: Op) -> Bounds:
    x, y = (a.bounds[v] for v in op.inputs)
    return x[0] + y[0], x[1] + y[1]


def _sub(a: Analysis, op: Op) -> Bounds:
    x, y = (a.bounds[v] for v in op.inputs)
    return x[0] - y[1], x[1] - y[0]


def _neg(a: Analysis, op: Op) -> Bounds:
    x = a.bounds[op.inputs[0]]
    return -x[1], -x[0]


def _factors(a: Analysis, op: Op) -> Bounds:
    """Of a product; an integer that meets a fixed-point number counts as the number it stands for."""
    x, y = (a.seen(v) if op.output.type.kind == "fxp" else a.bounds[v] for v in op.inputs)
    if op.inputs[0] is op.inputs[1]:
        return (0 if x[0] <= 0 <= x[1] else min(x[0] ** 2, x[1] ** 2)), max(x[0] ** 2, x[1] ** 2)
    return product(x, y)


def _dot(a: Analysis, op: Op) -> Bounds:
    x, y = (a.seen(v) if op.output.type.kind == "fxp" else a.bounds[v] for v in op.inputs)
    count = int(np.prod([op.inputs[0].shape[d] for d in op.attrs["dims"][0][0]], dtype=object))
    return repeated(product(x, y), count)


def _sum(a: Analysis, op: Op) -> Bounds:
    count = int(np.prod([op.inputs[0].shape[d] for d in op.attrs["axes"]], dtype=object))
    return repeated(a.bounds[op.inputs[0]], count)


def _cumsum(a: Analysis, op: Op) -> Bounds:
    x = a.bounds[op.inputs[0]]
    return hull(x, repeated(x, max(1, op.inputs[0].shape[op.attrs["axis"]])))


def _scatter_add(a: Analysis, op: Op) -> Bounds:
    x, _, updates = op.inputs
    change = hull((0, 0), repeated(a.bounds[updates], max(1, updates.type.size)))
    return a.bounds[x][0] + change[0], a.bounds[x][1] + change[1]


def _convert(a: Analysis, op: Op) -> Bounds:
    source, target = op.inputs[0].type, op.output.type
    if target.kind == "bool":
        return 0, 1
    x = a.seen(op.inputs[0])
    if target.kind == "fxp" or source.kind == "fxp":
        shift = target.frac - source.frac  # integers and bools have none
        if shift < 0:  # to an integer: what does not fit is the program's mistake, as in JAX
            x = (x[0] >> -shift, -(-x[1] >> -shift))
            return (
                x if target.kind == "fxp" or within(x, of_type(target, a.ring_bits)) else of_type(target, a.ring_bits)
            )
        return x[0] << shift, x[1] << shift
    return x


def _bitcast(a: Analysis, op: Op) -> Bounds:
    source, target = op.inputs[0].type, op.output.type
    if not same_residue(op, a.ring_bits):
        return a.seen(op.inputs[0])
    x = a.bounds[op.inputs[0]]
    if source.kind == "fxp" and is_narrow(target, a.ring_bits) and not within(x, of_type(target, a.ring_bits)):
        return of_type(target, a.ring_bits)  # as a conversion
    return x


def same_residue(op: Op, ring_bits: int) -> bool:
    """Whether a bitcast asks for no more low bits than its operand's type has."""
    source, target = op.inputs[0].type, op.output.type
    return not is_narrow(source, ring_bits) or (target.kind == "int" and target.bits <= source.bits)


def _shift_left(a: Analysis, op: Op) -> Bounds:
    return repeated(a.bounds[op.inputs[0]], 1 << op.attrs["bits"])


def _shift_right(a: Analysis, op: Op) -> Bounds:
    x = a.seen(op.inputs[0])
    return x[0] >> op.attrs["bits"], x[1] >> op.attrs["bits"]


def _shift_right_logical(a: Analysis, op: Op) -> Bounds:
    t, bits = op.output.type, op.attrs["bits"]
    width = t.bits if is_narrow(t, a.ring_bits) else a.ring_bits
    return (0, (1 << max(width - bits, 0)) - 1) if bits else a.seen(op.inputs[0])


def _select(a: Analysis, op: Op) -> Bounds:
    return hull(*(a.bounds[v] for v in op.inputs[1:]))


def _and(a: Analysis, op: Op) -> Bounds:
    """With a number that is not negative, not above it."""
    tops = [x[1] for x in map(a.seen, op.inputs) if x[0] >= 0]
    return (0, min(tops)) if tops else of_type(op.output.type, a.ring_bits)


def _integer_division(a: Analysis, op: Op) -> Bounds:
    """By zero: all ones. The lowest number by -1 leaves a signed type."""
    x, t = a.seen(op.inputs[0]), op.output.type
    if not is_narrow(t, a.ring_bits):
        return a.unbounded()
    size = max(abs(x[0]), abs(x[1]))
    return (-size if t.signed else 0) - 1, size


def _same(a: Analysis, op: Op) -> Bounds:
    return a.bounds[op.inputs[0]]


def _shown(a: Analysis, op: Op) -> Bounds:
    return a.seen(op.inputs[0])


RULES: dict[str, Rule] = {
    "const": _const,
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _factors,
    "dot": _dot,
    "sum": _sum,
    "cumsum": _cumsum,
    "scatter_add": _scatter_add,
    "gather": lambda a, op: hull((0, 0), a.bounds[op.inputs[0]]),
    "convert": _convert,
    "bitcast": _bitcast,
    "shift_left": _shift_left,
    "shift_right_arithmetic": _shift_right,
    "shift_right_logical": _shift_right_logical,
    "select": _select,
    "and": _and,
    "integer_division": _integer_division,
    "reveal": _shown,
    "wrap": _shown,
    "share": _same,
}
CONTROL: dict[str, Callable[[Analysis, Op], list[Bounds]]] = {
    "cond": Analysis.cond,
    "loop": Analysis.loop,
    "while": Analysis.while_,
}
