"""Division by a secret number, reciprocals, integer powers. By public numbers: functions/exact_division.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from spuvm.compiler.functions import by_logarithm
from spuvm.compiler.functions.exact_division import div_public as div_public
from spuvm.compiler.functions.exact_division import int_div as int_div
from spuvm.compiler.functions.exact_division import int_rem as int_rem
from spuvm.compiler.functions.exact_division import raw_rem as raw_rem
from spuvm.compiler.functions.leading_bit import FINE, MIDDLE, Leading, leading_bit, mantissa, scales
from spuvm.compiler.functions.polynomial import Stack, constant, polynomial, reread, spread, stack, table, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.errors import UnsupportedError

# 1 / c with c = 3/4 + u/2, |u| <= 1/2; relative error 1.6e-6
RECIPROCAL = (
    1.333331323804225,
    -0.888885498046875,
    0.5928428183240885,
    -0.395263671875,
    0.25841935959143997,
    -0.172088623046875,
    0.14748528777969636,
    -0.098663330078125,
)


@dataclass(frozen=True)
class Limbs:
    """How a numerator is cut into a high part and a low one of inverse + guard bits.

    `inverse` are the fraction bits of 1/c, `guard` those of the low part below the unit of the result, so that the
    high part times 1/c is whole. `drop` of the guard bits are dropped before the last product, whose 15 bits of
    factor, twice `inverse` and the rest of the guard then stay below the limit.
    """

    inverse: int
    guard: int
    drop: int

    @property
    def low(self) -> int:
        return self.inverse + self.guard


LIMBS = {64: Limbs(20, 17, 14), 128: Limbs(44, 20, 17)}
_SHORT_INVERSE = 12  # fraction bits of 1/c in a ring of 32 bits


def reciprocal(b: Builder, x: Value) -> Value:
    """1 / x, with b.frac fraction bits.

    |x| = c 2^E with c in [1/2, 1] (functions/leading_bit.py), 1/c by a polynomial of degree 7, the sign and 2^-E at the
    end.
    Domain: every x whose result fits (|1/x| < 2^(k-2-f)), that is all but 0. 1/0 gives 0.
    Error: relative 5e-6 plus two units. 28 rounds: see `div`, whose numerator part is local here. Under ABY3 22
    rounds, 427 bytes and an error of relative 3e-7 plus one unit, see `by_logarithm`.
    """
    if by_logarithm.available(b, x.type.frac):
        return reread(b, by_logarithm.magnitude(b, x, signed=True).power(b, -2, b.frac + x.type.frac), b.frac)
    return div(b, constant(b, 1.0, b.frac, x.shape), x)


def div(b: Builder, x: Value, y: Value) -> Value:
    """x / y for a secret (or private) y of the same shape; a public y goes to `div_public`.

    With |y| = c 2^E and E = 16 k + 4 i + j:  x / y = sign(y) (x 2^(-16 k)) (2^(-4 i - j)) (1/c). The coarse
    shift is a choice among four public shifts of x, made by products with the indicators of k. It keeps 17
    guard bits, hence two limbs: high * factor is an integer product, low * factor is truncated.
    Domain: |x|, |y| and |x / y| raw below 2^(k-2). x / 0 gives 0.
    Error: relative 5e-6 (polynomial 1.6e-6, rounding of c and 1/c) plus two units; with 128 bits 2^-40, with 32
    2^-8 in its place. Cost: 28 rounds; one conversion to boolean, prefix_or, 11 bit injections, 5 integer products, 8
    truncated ones, and 5 truncations of x with 3 integer products if x is secret. Under ABY3, with 16 fraction bits and
    more: x 2^(-log2 |y|), see `by_logarithm`, 22 rounds, 583 bytes, an error of relative 2e-6 and two units.
    """
    if y.type.is_public:
        return div_public(b, x, y)
    exponent = b.frac - x.type.frac + y.type.frac
    if by_logarithm.divides(b, y.type.frac, exponent):
        return reread(b, _inverse(b, y, exponent).times(b, x), b.frac)
    return times_inverse(b, x, inverse_of(b, y), exponent)


def _inverse(b: Builder, y: Value, exponent: int) -> by_logarithm.Inverse:
    """Of a divisor that is broadcast: worked out before."""
    spread = next((op for op in reversed(b.region.ops) if op.name == "broadcast" and op.output is y), None)
    few = y if spread is None else spread.inputs[0]
    inverse = by_logarithm.magnitude(b, few, signed=True).inverse(b, exponent)
    if spread is None:
        return inverse
    return inverse.map(lambda v: b.op("broadcast", v, **spread.attrs))


@dataclass(frozen=True)
class Inverse:
    """1 / y in parts: y = sign(y) c 2^E raw; `factor` is 2^(15 - 4 i - j) sign(y), `mantissa` is 1 / c.

    In a ring of 32 bits `mantissa` is sign(y) / c.
    """

    lead: Leading
    factor: Value
    mantissa: Value


def inverse_of(b: Builder, y: Value) -> Inverse:
    """What a quotient by y needs, for any number of numerators. 22 rounds."""
    lead = leading_bit(b, y, signed=True)
    coarse, middle, fine = lead.tables(b, *scales(b))
    assert lead.sign is not None
    magnitude = b.mul_raw(reread(b, y, 0), lead.sign)
    small_scale = b.mul_raw(middle, fine)  # 2^(15 - 4 i - j)
    u = mantissa(b, magnitude, lead, b.mul_raw(coarse, small_scale))
    a = table(b, "reciprocal", RECIPROCAL)
    if b.ring_bits not in LIMBS:
        return Inverse(lead, lead.sign, b.mul_raw(polynomial(b, u, a, _SHORT_INVERSE), lead.sign))
    return Inverse(lead, b.mul_raw(small_scale, lead.sign), polynomial(b, u, a, LIMBS[b.ring_bits].inverse))


def times_inverse(b: Builder, x: Value, inverse: Inverse, exponent: int, frac: int | None = None) -> Value:
    """x 2^exponent / y of raw numbers, read with `frac` fraction bits. 8 rounds."""
    frac = b.frac if frac is None else frac
    if b.ring_bits not in LIMBS:
        return _short(b, x, inverse, exponent)
    limbs = LIMBS[b.ring_bits]
    high, low = _coarse_shift(b, x, inverse.lead, exponent)
    whole = b.mul_raw(b.mul_raw(high, inverse.factor), inverse.mantissa)
    low = b.trunc(b.mul_raw(reread(b, low, b.ring_bits - 2), inverse.factor), limbs.drop)
    rest = b.mul_raw(reread(b, low, frac + limbs.guard - limbs.drop), inverse.mantissa)
    return b.add(reread(b, whole, frac), b.trunc(rest, rest.type.frac - frac))


def _coarse_shift(b: Builder, x: Value, lead: Leading, exponent: int) -> tuple[Value, Value]:
    """x 2^(exponent - 16 k - 15) as high 2^inverse + low 2^-guard, both fxp0, |low| <= 2^limbs.low; 0 if y is 0."""
    limbs, count = LIMBS[b.ring_bits], b.ring_bits // 16
    shifts = [16 * k + 15 - exponent - limbs.guard for k in range(count)]
    whole = [_shifted(b, x, s) for s in shifts]
    high = [_shifted(b, x, s + limbs.low) for s in shifts if s + limbs.low < b.ring_bits - 2]
    low = [b.sub(w, times_integer(b, h, 1 << limbs.low)) for w, h in zip(whole, high)] + whole[len(high) :]
    chosen = lead.indicators.take(b, count)
    return (
        _sum_of_products(b, chosen.take(b, len(high)), stack(b, high)),
        _sum_of_products(b, chosen, stack(b, low)),
    )


def _short(b: Builder, x: Value, inverse: Inverse, exponent: int) -> Value:
    """x (1/c) 2^(exponent - E) in a ring of 32 bits, with x = high 2^split + low: 9 rounds.

    A digit of E after another chooses among the public shifts that it may stand for. Both parts join where
    they are shifted to the right. Where y is small the high one is shifted to the left, by as much as the result has
    room for: it keeps all digits until then. The split is such that no shift of its is now left, now right, as the
    fine digit may be.
    """
    extra = _SHORT_INVERSE - exponent
    if extra < 0:
        raise UnsupportedError(
            f"division in a ring of 32 bits: the result has {exponent} fraction bits, at most {_SHORT_INVERSE} fit."
        )
    split = next(s for s in (14, 15, 16) if (s - extra) % 4 in (0, 3))
    digits = inverse.lead.indicators.rows(b)
    is_coarse, is_middle, is_fine = digits[:2], digits[2:5], digits[5:]
    high = _shifted(b, x, split)
    low = b.sub(reread(b, x, 0), times_integer(b, high, 1 << split))
    high, low = stack(b, [high, low]).map(b.mul_raw, spread(b, reread(b, inverse.mantissa, 0), 2)).rows(b)
    right = b.add(
        b.mul_raw(is_coarse[0], low),
        b.mul_raw(is_coarse[1], b.add(_shifted(b, low, 16), _shifted(b, high, 16 - split))),
    )
    left = b.mul_raw(is_coarse[0], high)
    shifts = [split - extra - (v << MIDDLE) for v in range(4)]  # of the high part to the left, before the fine digit
    rights = [_shifted(b, right, (v << MIDDLE) + extra) for v in range(4)]
    rights = [b.add(x, _shifted(b, left, -n)) if n <= 0 else x for x, n in zip(rights, shifts)]
    lefts = [times_integer(b, left, 1 << (n - 3) if n > 0 else 0) for n in shifts]
    right, left = (_chosen(b, is_middle, xs) for xs in (rights, lefts))
    right = _chosen(b, is_fine, [_shifted(b, right, v << FINE) for v in range(4)])
    return reread(b, b.add(right, b.mul_raw(left, _fine_scale(b, inverse.lead))), b.frac)


def _fine_scale(b: Builder, lead: Leading) -> Value:
    """2^(3 - j)."""
    return lead.tables(b, scales(b)[2])[0]


def _chosen(b: Builder, digit: Sequence[Value], xs: Sequence[Value]) -> Value:
    """One of four values, by the indicators of 1, 2 and 3."""
    none, *others = xs
    return reduce(b.add, [b.mul_raw(d, b.sub(x, none)) for d, x in zip(digit, others)], none)


def _sum_of_products(b: Builder, x: Stack, y: Stack) -> Value:
    return x.map(b.mul_raw, y).sum(b)


def _shifted(b: Builder, x: Value, bits: int) -> Value:
    """x / 2^bits as fxp0, within one unit; a multiplication (in the ring) if bits are negative."""
    if bits <= 0:
        return times_integer(b, reread(b, x, 0), 1 << -bits)
    return reread(b, b.trunc(reread(b, x, b.ring_bits - 1), bits), 0)


def integer_pow(b: Builder, x: Value, n: int) -> Value:
    """x^n for a public integer n, by repeated squaring; a negative n takes powers of the reciprocal.

    Domain: what plain products allow, |x^m| < 2^(k - 2 - 2 f) for each intermediate power. x^0 = 1, 0^-n = 0.
    A small x^n has too few digits for a reciprocal, and a large one does not fit.
    Error: one unit per product, scaled by the factors still to come. 2 rounds and 36 bytes per product, of
    which there are log2 n squarings and as many more as n has further one bits.
    """
    if n == 0:
        return constant(b, 1.0, b.frac, x.shape)
    if n < 0:
        return integer_pow(b, reciprocal(b, x), -n)
    if n == 1:
        return x
    half = integer_pow(b, x, n // 2)
    square = b.mul(half, half)
    return b.mul(square, x) if n % 2 else square
