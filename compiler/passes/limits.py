"""How large the fixed-point numbers of a program may be: what is known of each, and else what is promised.

The promise is that of a program in which every number has the default fraction bits: no number of raw size 2^(k-2) and
above, nor any product before its truncation. So a product of two secrets is below 2^(k-2-2f), and c x below c times
that, for a public c: a number that is scaled by c < 1 keeps the limits of others times c, and has room for as many
fraction bits more as c takes away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.runtime.ring.elements import signed

OF_DIVISORS = 12  # extra bits that one that may be small wants
OF_ROOTS = 18  # wanted below a root, whose relative error is half that of its operand
OF_AVERAGES = 20  # of a moving average that a root is taken of
OF_LONG_AVERAGES = 24  # and of one to which less than a sixteenth comes at a time
OF_NUMERATORS = 8  # and of one that is divided: quotients take few bits more
NOTHING = -400.0  # log2 of the limit of zero


@dataclass(frozen=True)
class Limit:
    """|x| < 2^product where x is a factor; |x| < 2^whole anywhere. `known`: proved, not promised."""

    product: float
    whole: float
    known: bool = False

    def scaled(self, bits: float) -> Limit:
        return Limit(self.product + bits, self.whole + bits, self.known)


def known(bits: float) -> Limit:
    return Limit(bits, bits, True)


def either(*xs: Limit) -> Limit:
    """Of a choice."""
    return Limit(max(x.product for x in xs), max(x.whole for x in xs), all(x.known for x in xs))


class Limits:
    """`of` every fixed-point value of a module."""

    def __init__(self, frac: int, ring_bits: int) -> None:
        self.frac = frac
        self.top = ring_bits - 2
        self.most = self.top - 2 * frac  # log2 of what a product may be
        self.roots = min(OF_ROOTS, frac)  # as many as leave a number the range of a product
        self.averages = self.roots + OF_AVERAGES - OF_ROOTS
        self.long_averages = self.averages + (OF_LONG_AVERAGES - OF_AVERAGES if ring_bits > 32 else 0)
        self.divisors = min(OF_DIVISORS, max(frac - 2, 0))
        self.numerators = min(OF_NUMERATORS, frac)
        self.of: dict[Value, Limit] = {}
        self.pinned: dict[Value, Limit] = {}  # of what loops carry
        self.measured: dict[Value, float] = {}  # log2 of what values are taken to stay below
        self.digits: dict[Value, float] = {}  # extra bits that small ones want
        self.stated = False  # whether anything is stated: what is known may be large then, and has fewer bits

    @property
    def promised(self) -> Limit:
        return Limit(self.most, self.most + self.frac)

    def finer(self, extra: int) -> Limit:
        """Of a value that comes with so many fraction bits more."""
        whole = self.promised.whole - extra
        return Limit(min(self.most, whole), whole) if extra else self.promised

    def run(self, region: Region) -> None:
        for value in region.params:
            self.of.setdefault(value, self.promised)
        for op in region.ops:
            for inner in op.regions:
                self.run(inner)
            self.visit(op)

    def visit(self, op: Op) -> None:
        rule = RULES.get(op.name)
        numbers = [self.of.get(v, self.promised) for v in op.inputs]
        for out in op.outputs:
            if out.type.kind == "fxp":
                found = self._kept(rule(self, op, numbers)) if rule else self.promised
                self.of[out] = self.pinned.get(out, found)
                if out in self.measured and out not in self.pinned:
                    self.of[out] = known(min(self.measured[out], found.whole) if found.known else self.measured[out])

    def _kept(self, x: Limit) -> Limit:
        """A promise is never above what the ring holds; a sum may be above what a factor may be."""
        if x.known and x.whole <= (self.top if self.stated else self.most):
            return x
        return Limit(min(x.product, self.promised.whole), min(x.whole, self.promised.whole), False)


Rule = Callable[[Limits, Op, list[Limit]], Limit]


def magnitude(x: object) -> float:
    """log2 of the largest of real numbers."""
    largest = float(np.abs(np.asarray(x, np.float64)).max(initial=0.0))
    return math.log2(largest) if largest > 2.0**NOTHING else NOTHING


def _const(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    if op.exact is not None:
        return known(magnitude(op.exact))
    raw = signed(op.attrs["data"])
    return known(magnitude(np.asarray(raw).astype(np.float64)) - op.output.type.frac)


def _sum_of_two(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    x, y = xs
    if x.known and y.known:
        return known(max(x.whole, y.whole) + math.log2(1 + 2.0 ** -min(abs(x.whole - y.whole), 1000.0)))
    return either(x, y)


def _of_product(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    """Where a factor is promised, the product is: its raw size stays below 2^(k-2)."""
    x, y = xs
    if x.known and y.known:
        return known(x.whole + y.whole)
    x, y = (v if v.known else Limit(min(v.product, a.most), v.whole) for v in xs)
    whole_numbers = [t.frac == 0 for t in (op.inputs[0].type, op.inputs[1].type)]
    if any(whole_numbers):  # raw x n < 2^(k-2)
        factor, other = (x, y) if whole_numbers[0] else (y, x)
        bits = min(factor.whole, 0.0) if factor.known else 0.0
        return other.scaled(bits) if factor.known and factor.whole <= 0 else Limit(a.most, a.promised.whole)
    if x.known or y.known:
        promise, factor = (y, x) if x.known else (x, y)
        product = promise.product + factor.whole
    else:
        product = x.product + y.product - a.most
    return Limit(product, min(product, max(a.most, a.top - op.output.type.frac)))  # of a constant with few bits, more


def _repeated(x: Limit, count: int) -> Limit:
    return x.scaled(math.log2(max(count, 1)))


def count(x: Value, axes: Sequence[int]) -> int:
    """How many terms a sum along the axes has."""
    return math.prod(x.shape[d] for d in axes)


def _dot(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    out = _repeated(_of_product(a, op, xs), count(op.inputs[0], op.attrs["dims"][0][0]))
    return out if out.known else Limit(min(out.product, a.most), min(out.whole, a.most))


def _summed(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    axes = op.attrs["axes"] if op.name == "sum" else [op.attrs["axis"]]
    return _repeated(xs[0], count(op.inputs[0], axes))


def _local(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    at = index_operands(op.name, len(op.inputs))
    return either(*(x for i, x in enumerate(xs) if i not in at))


def _bitcast(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    source, target = op.inputs[0].type, op.output.type
    if op.stated is not None:
        return known(op.stated)
    return xs[0].scaled(source.frac - target.frac) if source.kind == "fxp" else a.promised


def _convert(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    source = op.inputs[0].type
    if source.kind == "bool":
        return known(0.0)
    return xs[0] if source.kind == "fxp" else a.promised


def _root(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    half = xs[0].whole / 2
    return Limit(half, half, xs[0].known)


def _quotient(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    """By what may be small: of numerators only what makes them smaller than others remains, of known ones than 1."""
    smaller = min(xs[0].product if xs[0].known else xs[0].product - a.most, 0.0)
    return Limit(a.most + smaller, a.promised.whole + smaller)


def _quotient_by(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    smallest = float(np.abs(np.asarray(op.attrs["by"], np.float64)).min(initial=np.inf))
    return xs[0].scaled(-math.log2(smallest)) if 0.0 < smallest < np.inf else a.promised


def _power(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    """Of a whole power of what is below 1, there is room for what a divisor wants: 2^32 in a ring of 64."""
    return a.finer(OF_DIVISORS) if op.attrs.get("whole") else a.promised


def _same(a: Limits, op: Op, xs: list[Limit]) -> Limit:
    return xs[0]


RULES: dict[str, Rule] = {
    "const": _const,
    "add": _sum_of_two,
    "sub": _sum_of_two,
    "neg": _same,
    "mul": _of_product,
    "dot": _dot,
    "trunc": _same,
    **dict.fromkeys(LOCAL, _local),
    "sum": _summed,
    "cumsum": _summed,
    "scatter_add": lambda a, op, xs: a.promised,
    "shift_left": lambda a, op, xs: xs[0].scaled(op.attrs["bits"]),
    "bitcast": _bitcast,
    "convert": _convert,
    "select": lambda a, op, xs: either(*xs[1:]),
    "reveal": _same,
    "share": _same,
    **dict.fromkeys(("logistic", "tanh", "erf", "sin", "cos"), lambda a, op, xs: known(0.01)),
    "sqrt": _root,
    "power_of": _power,
    "div": _quotient,
    "div_by": _quotient_by,
}
