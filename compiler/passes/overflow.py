"""Bools that say whether an operation leaves what the ring holds, computed from operands that have not left it yet.

A product modulo 2^k leaves no trace of what was lost, so it is computed once more, without its low bits. Let S be a sum
of n products x y of raw elements, right if |S| < 2^L, L = k - 2. With x = 2^h x1 + x0 (a truncation and what it has
left) and y likewise,

    S = 2^2h sum x1 y1 + 2^h sum (x1 y0 + x0 y1) + sum x0 y0,      |sum x0 y0| <= n 2^2h <= 2^(L-24),

so S / 2^h is known but for its last part: compared with 2^(L-h) it says whether |S| < 2^L, and errs only on the safe
side, for |S| above (1 - 2^-22) 2^L (in a ring of 32 bits, 0.98 2^L). It is computed modulo 2^k itself; where it may not
fit, S / 2^2h is compared, and where that may not fit either, sum (x / 2^g) (y / 2^g) comes first, with g so large that
nothing wraps. Factors are checked against what this needs: 2^(L-2) / n, and 2^(1.25 L - 15) / n^1.25 (32 bits: - 7).

Sums of many numbers are summed once more without their low bits, to see whether |sum| < 2^L.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Op, Value
from spuvm.compiler.passes.held import Held, bits_of, terms
from spuvm.runtime.ring.elements import signed, words

SPARE = {32: 8, 64: 24, 128: 24}  # bits below the limit at which what is dropped of a sum of products counts

Apply = Callable[[Value, Value], Value]


@dataclass(frozen=True)
class Watch:
    """Builds the bools of one operation after another. `constants`: the operations that make known values."""

    b: Builder
    held: Held
    constants: dict[Value, Op]

    @property
    def top(self) -> int:
        return self.b.ring_bits - 2

    @property
    def spare(self) -> int:
        return SPARE[self.b.ring_bits]

    def of(self, op: Op) -> list[Value]:
        """The bools for an operation: none if its operands' bounds say that nothing can happen."""
        rule = FUNCTIONS.get(op.name)
        if rule is not None:
            return rule(self, op)
        if op not in self.held.exceeds:
            return []
        return LINEAR[op.name](self, op)

    # comparisons ----------------------------------------------------------------------------------------

    def outside(self, x: Value, low: int, high: int, bits: int) -> list[Value]:
        """Where a raw element, |x| < 2^bits, is not in [low, high). One comparison sees what is beyond 2^L."""
        b, found = self.b, []
        x = self.whole(x)
        if bits > self.top:
            found.append(b.less(b.add(x, self.number(1 << self.top, x)), self.number(0, x)))
            if (low, high) == (-1 << self.top, 1 << self.top):
                return found
        found.append(b.less(x, self.number(low, x)))
        found.append(b.less(self.number(high - 1, x), x))
        return found

    def within(self, x: Value, limit: int, bits: int) -> list[Value]:
        return self.outside(x, -limit, limit, bits) if limit < 1 << bits else []

    def number(self, n: int, like: Value) -> Value:
        data = words(np.asarray(n, object), self.b.ring_bits)
        return self.b.broadcast(self.b.op("const", data=data, to=like.type.element), like.shape)

    def whole(self, x: Value) -> Value:
        return self.b.bitcast(x, "fxp0")

    def less_precise(self, x: Value, bits: int) -> Value:
        """x / 2^bits, raw."""
        return self.b.trunc(self.b.bitcast(x, f"fxp{bits}"), bits) if bits else self.whole(x)

    # sums -----------------------------------------------------------------------------------------------

    def result(self, op: Op) -> list[Value]:
        """Of two summands: they are within the limit, so that their sum is below 2^(k-1)."""
        return self.outside(op.output, -1 << self.top, 1 << self.top, self.top + 1)

    def total(self, op: Op) -> list[Value]:
        """Of many."""
        drop = bits_of(self.held.exceeds[op]) - self.top
        if drop <= 1:
            return self.result(op)
        inputs = [v if v.type.kind != "fxp" else self.less_precise(v, drop) for v in op.inputs]
        coarse = self.b.op(op.name, *inputs, **op.attrs)
        return self.within(coarse, (1 << self.top - drop) - terms(op) - 1, self.top)

    def shifted(self, op: Op) -> list[Value]:
        """A number with more fraction bits, or a whole one with some."""
        bits = op.attrs["bits"] if op.name == "shift_left" else op.output.type.frac - op.inputs[0].type.frac
        return self.within(op.inputs[0], 1 << self.top - bits, self.held.bits(op.inputs[0]))

    def stated(self, op: Op) -> list[Value]:
        """Beyond what the user has stated."""
        low, high = self.held.bounds[op.output]
        return self.outside(op.inputs[0], low, high + 1, self.held.bits(op.inputs[0]))

    # products -------------------------------------------------------------------------------------------

    def product(self, op: Op) -> list[Value]:
        for x, y in (op.inputs, op.inputs[::-1]):
            if op.name == "mul" and y in self.constants:
                return self._by_constant(x, y)
        n = math.ceil(math.log2(max(terms(op), 1)))
        most = min(self.top - 2 - n, math.floor(1.25 * (self.top - n)) - self.spare // 2 - 3)
        found = [bit for v in dict.fromkeys(op.inputs) for bit in self.within(v, 1 << most, self.held.bits(v))]
        sizes = [min(self.held.bits(v), most) for v in op.inputs]
        return found + self._twice(lambda x, y: self.b.op(op.name, x, y, **op.attrs), op.inputs, sizes, n)

    def _by_constant(self, x: Value, y: Value) -> list[Value]:
        """|x| |y| < 2^L for a known y, element by element."""
        data = np.maximum(np.abs(np.asarray(signed(self.constants[y].attrs["data"])).astype(object)), 1)
        most = int(data.max(initial=1))
        return self.within(x, (1 << self.top) // most, self.held.bits(x)) if data.size else []

    def _twice(self, apply: Apply, factors: list[Value], sizes: list[int], n: int) -> list[Value]:
        """Whether a sum of 2^n products of |x| < 2^size is 2^L or more."""
        size, h = sum(sizes) + n, (self.top - self.spare - n) // 2
        if size <= self.top:
            return []
        split = [self._split(v, h, s) for v, s in zip(factors, sizes)]
        (x1, x0), (y1, y0) = split
        mixed = [apply(x1, y0)] if x1 is not None else []
        mixed += [apply(x0, y1)] if y1 is not None else []
        cross = mixed[0] if len(mixed) == 1 else self.b.add(*mixed)
        high = apply(x1, y1) if x1 is not None and y1 is not None else None
        if size <= self.top + h:
            if high is not None:
                cross = self.b.add(cross, self.b.op("shift_left", high, bits=h))
            return self.outside(cross, *_around((1 << self.top - h) - (1 << h + n) - 1), self.top)
        found = self._far(apply, factors, sizes, n) if size - 2 * h > self.top else []
        coarse = self.less_precise(cross, h)
        coarse = coarse if high is None else self.b.add(coarse, high)
        return [*found, *self.outside(coarse, *_around((1 << self.top - 2 * h) - (1 << n) - 2), self.top)]

    def _split(self, x: Value, h: int, size: int) -> tuple[Value | None, Value]:
        if size <= h:
            return None, self.whole(x)
        high = self.less_precise(x, h)
        return high, self.b.sub(self.whole(x), self.b.op("shift_left", high, bits=h))

    def _far(self, apply: Apply, factors: list[Value], sizes: list[int], n: int) -> list[Value]:
        """|S| < 2^(L + 2h), so that S / 2^2h does not wrap; S < 2^L is far below."""
        g = (sum(sizes) + n - self.top) // 2 + 1
        h = (self.top - self.spare - n) // 2
        coarse = apply(*(self.less_precise(v, g) for v in factors))
        return self.outside(coarse, *_around(1 << self.top + 2 * h - 1 - 2 * g), self.top)

    # functions ------------------------------------------------------------------------------------------

    def exponential(self, op: Op) -> list[Value]:
        """A result that the ring does not hold."""
        base = math.log2(op.attrs["base"]) if op.name == "power_of" else math.log2(math.e)
        (x,) = op.inputs
        if not base:
            return []
        raw = math.floor((self.top - op.output.type.frac) / base * 2.0**x.type.frac)
        low, high = self.held.bounds[x]
        if low > raw if base < 0 else high < raw:
            return []
        edge = self.number(raw, self.whole(x))
        return [self.b.less(self.whole(x), edge) if base < 0 else self.b.less(edge, self.whole(x))]

    def powers(self, op: Op) -> list[Value]:
        """x^y as y log x, of which the exponential is taken."""
        x, y = op.inputs
        most = self.within(y, 1 << 36 - self.b.frac + y.type.frac, self.held.bits(y))
        log = self.b.function("log", x)
        exponent = self.b.trunc(self.b.mul_raw(log, y), y.type.frac)
        raw = math.floor((self.top - op.output.type.frac) * math.log(2) * 2.0**self.b.frac)
        return [*most, self.b.less(self.number(raw, exponent), exponent)]

    def power(self, op: Op) -> list[Value]:
        """x^|n|, and each power on the way."""
        (x,), n = op.inputs, abs(op.attrs["n"])
        if n < 2:
            return []
        most = 2.0 ** ((self.top - 2 * self.b.frac) / n + x.type.frac)
        return self.within(x, math.floor(most), self.held.bits(x))

    def quotient(self, op: Op) -> list[Value]:
        """|x / y| of 2^(L-f) and more, where y is not 0: |x| 2^-s is not below |y|, raw."""
        x, y = op.inputs if op.name == "div" else (None, op.inputs[0])
        frac = op.output.type.frac + y.type.frac - (x.type.frac if x is not None else 0)
        drop = self.top - frac  # |x| 2^frac / |y| < 2^L, raw
        if x is None or drop <= 0 or self.held.bits(x) <= drop:
            return []
        size, of = self._size(self.less_precise(x, drop)), self._size(self.whole(y))
        large = self.b.not_(self.b.less(size, of))
        return [self.b.logical("and", large, self.b.less(self.number(0, of), of))]

    def quotient_by(self, op: Op) -> list[Value]:
        """By known numbers, of which the smallest counts."""
        (x,) = op.inputs
        sizes = np.abs(np.asarray(op.attrs["by"], np.float64))
        smallest = float(sizes[sizes > 0].min(initial=np.inf))
        most = smallest * 2.0 ** (self.top - op.output.type.frac + x.type.frac)
        return self.within(x, math.floor(most), self.held.bits(x)) if most < 2.0**self.top else []

    def _size(self, x: Value) -> Value:
        return self.b.select(self.b.less(x, self.number(0, x)), self.b.neg(x), x)


def _around(limit: int) -> tuple[int, int]:
    return -limit, limit


LINEAR: dict[str, Callable[[Watch, Op], list[Value]]] = {
    "add": Watch.result,
    "sub": Watch.result,
    "neg": Watch.result,
    "sum": Watch.total,
    "cumsum": Watch.total,
    "scatter_add": Watch.total,
    "shift_left": Watch.shifted,
    "convert": Watch.shifted,
    "bitcast": Watch.stated,
    "mul": Watch.product,
    "dot": Watch.product,
}
FUNCTIONS: dict[str, Callable[[Watch, Op], list[Value]]] = {
    **dict.fromkeys(("exp", "expm1", "power_of"), Watch.exponential),
    "integer_pow": Watch.power,
    "pow": Watch.powers,
    "div": Watch.quotient,
    "div_by": Watch.quotient_by,
}
