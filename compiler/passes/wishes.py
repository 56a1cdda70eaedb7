"""What uses ask of fixed-point values: extra fraction bits, found going back from the results of a region."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.compiler.passes.limits import Limit, Limits, count

FEW = 32  # terms of a sum

REARRANGED = frozenset(LOCAL) - {"sum", "cumsum", "scatter_add"} | {"neg", "share"}


def _typical(x: Limit, most: float) -> float:
    """log2 of what a value usually is: known ones are near their limit, promised ones near 1 when all limits are."""
    return x.product if x.known else min(x.product - most, 0.0)


@dataclass(frozen=True)
class Wish:
    """Extra bits: `bits` as far as a factor may have them, `below` a root or a quotient as many as the ring holds."""

    bits: float
    below: float


NO_WISH = Wish(-math.inf, -math.inf)


@dataclass
class Pins:
    """The extra bits of what loops carry and branches give (see `carried`): of operands and of results of regions, by
    their positions, and of the values that parameters and outputs are.
    """

    operands: dict[tuple[Op, int], int] = field(default_factory=dict)
    results: dict[tuple[Region, int], int] = field(default_factory=dict)
    values: dict[Value, int] = field(default_factory=dict)


@dataclass
class Wanted:
    """Extra bits that the uses of values ask for."""

    limits: Limits
    pins: Pins = field(default_factory=Pins)
    of: dict[Value, Wish] = field(default_factory=dict)
    cancelled: set[Value] = field(default_factory=set)

    def ask(self, value: Value, bits: float, below: float = -math.inf) -> None:
        if value.type.kind == "fxp":
            before = self.of.get(value, NO_WISH)
            self.of[value] = Wish(max(before.bits, bits), max(before.below, below))

    def run(self, region: Region) -> None:
        self.cancelled = _cancelled(region)
        self.of.update({v: Wish(bits, -math.inf) for v, bits in self.limits.digits.items() if bits > 0})
        for i, value in enumerate(region.results):
            self.ask(value, 0.0, self.pins.results.get((region, i), -math.inf))
        for op in reversed(region.ops):
            rule = WANTS.get(op.name)
            if rule is None or len(op.outputs) != 1 or op.output.type.kind != "fxp":
                for i, value in enumerate(op.inputs):
                    self.ask(value, 0.0, self.pins.operands.get((op, i), -math.inf))
            else:
                rule(self, op, self.of.get(op.output, NO_WISH))

    def typical(self, value: Value) -> float:
        return _typical(self.limits.of[value], self.limits.most)

    def room(self, value: Value) -> float:
        """Extra bits that a factor has room for."""
        limit = self.limits.of[value]
        return max((0.0 if limit.known else self.limits.most) - limit.product, 0.0)


def _cancelled(region: Region) -> set[Value]:
    """1 - b^n and the like, which may be small: whole powers, and sums of them and others."""
    found: set[Value] = set()
    for op in region.ops:
        if op.attrs.get("whole") or (op.name in REARRANGED | {"sub", "add"} and not found.isdisjoint(op.inputs)):
            found.update(op.outputs)
    return found


def _want_product(w: Wanted, op: Op, wish: Wish) -> None:
    x, y = op.inputs
    terms = count(x, op.attrs["dims"][0][0]) if op.name == "dot" else 1
    for one, other in ((x, y), (y, x)):
        below = wish.below if w.limits.of[other].known else -math.inf
        w.ask(one, max(wish.bits, below) + _of_sum(terms) + w.typical(other) if other.type.frac else 0.0)
        if op.name == "mul" and other.type.frac and other.type.is_secret and below > 0 and not w.limits.of[one].known:
            w.ask(one, -math.inf, below + w.typical(other))  # a small secret factor, as of moments with a sign


def _of_sum(terms: int) -> int:
    """Roundings of so many terms add up like the root of it; two bits in hand. Few are left: bits cost range."""
    return math.ceil(math.log2(terms) / 2) + 2 if terms >= FEW else 0


def _want_sum(w: Wanted, op: Op, wish: Wish) -> None:
    x = op.inputs[0]
    axes = op.attrs["axes"] if op.name == "sum" else [op.attrs["axis"]]
    w.ask(x, wish.bits + _of_sum(count(x, axes)), wish.below)


def _want_each(w: Wanted, op: Op, wish: Wish) -> None:
    at = index_operands(op.name, len(op.inputs)) if op.name in LOCAL else ()
    beside = max((w.pins.values.get(x, -math.inf) for x in op.inputs), default=-math.inf)  # as fine as what is carried
    for i, x in enumerate(op.inputs):
        if i not in at:
            w.ask(x, wish.bits, max(wish.below, beside))


def _want_root(w: Wanted, op: Op, wish: Wish) -> None:
    w.ask(op.inputs[0], 0.0, w.limits.roots)


def _want_quotient(w: Wanted, op: Op, wish: Wish) -> None:
    """A divisor that may be small makes small numerators large."""
    small = min(w.limits.divisors, w.room(op.inputs[1]))
    w.ask(op.inputs[0], wish.bits, max(small if small > 0 else -math.inf, wish.below))
    w.ask(op.inputs[1], small, w.limits.divisors if op.inputs[1] in w.cancelled else -math.inf)


def _want_power(w: Wanted, op: Op, wish: Wish) -> None:
    w.ask(op.inputs[0], 0.0)


def _want_quotient_by(w: Wanted, op: Op, wish: Wish) -> None:
    smallest = float(np.abs(np.asarray(op.attrs["by"], np.float64)).min(initial=np.inf))
    if 0.0 < smallest < np.inf:
        w.ask(op.inputs[0], wish.bits - math.log2(smallest), wish.below - math.log2(smallest))


WANTS: dict[str, Callable[[Wanted, Op, Wish], None]] = {
    **dict.fromkeys(REARRANGED | {"add", "sub", "select", "trunc", "bitcast", "shift_left", "convert"}, _want_each),
    "mul": _want_product,
    "dot": _want_product,
    "sum": _want_sum,
    "cumsum": _want_sum,
    "sqrt": _want_root,
    "rsqrt": _want_root,
    "div": _want_quotient,
    "power_of": _want_power,
    "div_by": _want_quotient_by,
}
