"""What the approximations share: public constants, tables of secret bits, polynomials in few rounds.

Constants are scalars that are broadcast: a program holds each once, whatever the shape of its data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from spuvm.compiler.functions import chebyshev
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

LARGE = 4096  # elements from which on values are not stacked


@dataclass(frozen=True)
class Format:
    """Fraction bits in a ring of k bits: of a polynomial's variable, of its odd coefficients, of factors.

    Products then stay below 2^(2 work + coefficient + 2) <= 2^(k - 2).
    """

    work: int
    coefficient: int
    factor: int  # significant bits of a scale 2^(E / 2)


FORMATS = {32: Format(10, 8, 11), 64: Format(22, 16, 23), 128: Format(44, 36, 47)}


def work(b: Builder) -> int:
    """Fraction bits of a polynomial's variable."""
    return FORMATS[b.ring_bits].work


def coefficient(b: Builder) -> int:
    """Fraction bits of the odd coefficients."""
    return FORMATS[b.ring_bits].coefficient


def table(b: Builder, name: str, of_64: Sequence[float]) -> Sequence[float]:
    """The coefficients of a function in u, |u| <= 1/2: `of_64` in that ring, else as many as its fraction bits need."""
    if b.ring_bits == 64:
        return of_64
    return chebyshev.normalized(name, min(b.frac + 3, work(b) - 1))


def constant(b: Builder, value: float, frac: int, shape: tuple[int, ...]) -> Value:
    """The real number `value` in every element."""
    return b.broadcast(b.fxp(value, frac), shape)


def raw_constant(b: Builder, raw: int, frac: int, shape: tuple[int, ...]) -> Value:
    """The ring element `raw` (mod 2^k) in every element, read as fixed point."""
    return b.broadcast(b.const(np.array(raw, object), f"fxp{frac}"), shape)


def plus(b: Builder, x: Value, value: float) -> Value:
    return b.add(x, constant(b, value, x.type.frac, x.shape))


def times(b: Builder, x: Value, value: float, frac: int) -> Value:
    """x times a constant of `frac` fraction bits, which add to those of x: no truncation, no message."""
    return b.mul_raw(x, constant(b, value, frac, x.shape))


def times_integer(b: Builder, x: Value, factor: int) -> Value:
    """x times a public integer (mod 2^k); the type stays."""
    return b.mul_raw(x, raw_constant(b, factor, 0, x.shape))


def reread(b: Builder, x: Value, frac: int) -> Value:
    """The same ring element, read with `frac` fraction bits."""
    return b.bitcast(x, f"fxp{frac}")


@dataclass(frozen=True)
class Stack:
    """Values of one shape that are worked on together.

    While they are small they are one array with a new first axis, so that one kernel call serves them
    all. Large ones stay by themselves: their calls share rounds anyway, and blocks of them the cache.
    """

    count: int
    parts: tuple[Value, ...]  # the one array, or the values

    @property
    def joined(self) -> bool:
        return len(self.parts) < self.count or self.count == 1

    def map(self, function: Callable[..., Value], *others: Stack) -> Stack:
        """An element-wise function of this stack and others of the same count and shape."""
        return Stack(self.count, tuple(function(*xs) for xs in zip(self.parts, *(o.parts for o in others))))

    def row(self, b: Builder, i: int) -> Value:
        if not self.joined:
            return self.parts[i]
        (x,) = self.parts
        return b.reshape(b.slice(x, 0, i, i + 1), x.shape[1:])

    def rows(self, b: Builder) -> list[Value]:
        return [self.row(b, i) for i in range(self.count)]

    def take(self, b: Builder, count: int) -> Stack:
        """The first `count` values."""
        if not self.joined:
            return stack(b, self.parts[:count])
        return Stack(count, (b.slice(self.parts[0], 0, 0, count),))

    def sum(self, b: Builder) -> Value:
        return b.sum(self.parts[0], [0]) if self.joined else reduce(b.add, self.parts)


def stack(b: Builder, xs: Sequence[Value]) -> Stack:
    """The values as a stack."""
    if len(xs) > 1 and xs[0].type.size > LARGE:
        return Stack(len(xs), tuple(xs))
    return Stack(len(xs), (b.concatenate([b.reshape(x, (1, *x.shape)) for x in xs], 0),))


def spread(b: Builder, x: Value, count: int) -> Stack:
    """The same value `count` times."""
    if count > 1 and x.type.size > LARGE:
        return Stack(count, (x,) * count)
    return Stack(count, (b.broadcast(x, (count, *x.shape)),))


def linear_tables(b: Builder, bits: Stack, matrix: Sequence[Sequence[int]]) -> list[Value]:
    """For each row of integers (mod 2^k), the sum of row[i] * bits[i]: local, whatever the integers."""
    if bits.joined:
        raw = np.array([list(line) for line in matrix], object)
        out = b.op("dot", b.const(raw, "fxp0"), bits.parts[0], dims=(((1,), (0,)), ((), ())))
        return Stack(len(matrix), (out,)).rows(b)
    return [_combination(b, bits.parts, line) for line in matrix]


def _combination(b: Builder, xs: Sequence[Value], factors: Sequence[int]) -> Value:
    terms = [times_integer(b, x, c) if c != 1 else x for x, c in zip(xs, factors) if c]
    return reduce(b.add, terms) if terms else raw_constant(b, 0, xs[0].type.frac, xs[0].shape)


def inject(b: Builder, bools: Sequence[Value]) -> Stack:
    """Bools as integers 0 or 1 (fxp0): bit injections in the same rounds."""
    return stack(b, bools).map(lambda x: b.convert(x, "fxp0"))


def below(b: Builder, x: Value, limits: Sequence[Value]) -> list[Value]:
    """Whether x is below each of the limits: by one comparison with all of them where the protocol has it."""
    if "below_app" in b.kernels and all(limit.type.is_public for limit in limits):
        return [b.less(x, limit) for limit in limits]
    return spread(b, x, len(limits)).map(b.less, stack(b, limits)).rows(b)


def both(b: Builder, pairs: Sequence[tuple[Value, Value]]) -> list[Value]:
    """The `and` of each pair of bools, in one round."""
    left, right = stack(b, [p for p, _ in pairs]), stack(b, [q for _, q in pairs])
    return left.map(lambda p, q: b.logical("and", p, q), right).rows(b)


def line(b: Builder, x: Value, a: float, slope: float) -> Value:
    """a + slope x with x.frac + coefficient fraction bits; only the slope is rounded to so many."""
    return plus(b, times(b, x, slope, coefficient(b)), a)


def polynomial(b: Builder, u: Value, a: Sequence[float], out_frac: int) -> Value:
    """sum a[i] u^i with `out_frac` fraction bits: see `polynomial_sum`."""
    total = polynomial_sum(b, u, a)
    return b.trunc(total, total.type.frac - out_frac)


def polynomial_sum(b: Builder, u: Value, a: Sequence[float]) -> Value:
    """sum a[i] u^i of odd degree up to 15, |u| <= 1/2, with 2 u.frac + coefficient bits, still to be truncated.

    Estrin's scheme, with q = u^2:  (a0 + a1 u) + q (a2 + a3 u) + q^2 [(a4 + a5 u) + q (a6 + a7 u)] + q^4 (...). Up
    to degree 7: 5 rounds (6 with the truncation), truncated products u^2, q^2, q (a6 + a7 u), and the sum; above
    that 3 rounds and 5 products more. The odd coefficients are multiples of 2^-coefficient in the tables; what is
    left of the error is a few units of u.
    """
    w = u.type.frac
    lines = [line(b, u, a[i], a[i + 1]) for i in range(0, len(a), 2)]
    q = b.trunc(b.mul_raw(u, u), w)
    q2 = b.trunc(b.mul_raw(q, q), w) if len(lines) > 2 else q
    total = _estrin(b, lines[:4], q, q2)
    if len(lines) > 4:
        q4 = b.trunc(b.mul_raw(q2, q2), w)
        high = _estrin(b, lines[4:], q, q2)
        high = b.trunc(high, high.type.frac - w)
        total = b.add(total, b.trunc(b.mul_raw(q4, high), -(total.type.frac - 2 * w)))
    return total


def _estrin(b: Builder, lines: Sequence[Value], q: Value, q2: Value) -> Value:
    """Up to four lines with weights 1, q, q^2, q^3."""
    w = q.type.frac
    low = b.trunc(lines[0], -w)
    if len(lines) == 1:
        return low
    total = b.mul_raw(q, lines[1])
    if len(lines) > 2:
        high = lines[2]
        if len(lines) == 4:
            high = b.add(high, b.trunc(b.mul_raw(q, lines[3]), w))
        total = b.add(total, b.mul_raw(q2, high))
    return b.add(total, low)
