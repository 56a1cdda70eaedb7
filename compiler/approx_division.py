"""Division by a secret number, reciprocals, integer powers. By public numbers: exact_division.py."""

from __future__ import annotations

from spuvm.compiler.builder import Builder
from spuvm.compiler.exact_division import div_public as div_public
from spuvm.compiler.exact_division import int_div as int_div
from spuvm.compiler.exact_division import int_rem as int_rem
from spuvm.compiler.ir import Value
from spuvm.compiler.normalize import COARSE, FINE, MIDDLE, Leading, leading_bit, mantissa
from spuvm.compiler.polynomial import Stack, constant, polynomial, reread, stack, times_integer

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
_R = 20  # fraction bits of 1/c
_LIMB = 37  # the numerator is cut into a high part and a low one of so many bits
_GUARD = 17  # of them below the unit of the result; _R + 17 = 37, so that the high part times 1/c is whole
_DROP = 14  # of them, dropped before the last product


def reciprocal(b: Builder, x: Value) -> Value:
    """1 / x, with b.frac fraction bits.

    |x| = c 2^E with c in [1/2, 1] (normalize.py), 1/c by a polynomial of degree 7, the sign and 2^-E at the
    end.
    Domain: every x whose result fits (|1/x| < 2^(62-f)), that is all but 0. 1/0 gives 0.
    Error: relative 5e-6 plus two units. 28 rounds, 915 bytes: see `div`, whose numerator part is
    local here.
    """
    return div(b, constant(b, 1.0, b.frac, x.shape), x)


def div(b: Builder, x: Value, y: Value) -> Value:
    """x / y for a secret (or private) y of the same shape; a public y goes to `div_public`.

    With |y| = c 2^E and E = 16 k + 4 i + j:  x / y = sign(y) (x 2^(-16 k)) (2^(-4 i - j)) (1/c). The coarse
    shift is a choice among four public shifts of x, made by products with the indicators of k. It keeps 17
    guard bits, hence two limbs: high * factor is an integer product, low * factor is truncated.
    Domain: |x|, |y| and |x / y| raw below 2^62. x / 0 gives 0.
    Error: relative 5e-6 (polynomial 1.6e-6, rounding of c and 1/c) plus two units.
    Cost: 28 rounds; one conversion to boolean, prefix_or, 11 bit injections, 5 integer products, 8
    truncated ones, and 5 truncations of x with 3 integer products if x is secret: 1165 bytes under ABY3.
    """
    if y.type.is_public:
        return div_public(b, x, y)
    lead = leading_bit(b, y, signed=True)
    coarse, middle, fine = lead.tables(
        b,
        (COARSE, lambda v: 1 << (48 - 16 * v)),
        (MIDDLE, lambda v: 1 << (12 - 4 * v)),
        (FINE, lambda v: 1 << (3 - v)),
    )
    assert lead.sign is not None
    magnitude = b.mul_raw(reread(b, y, 0), lead.sign)
    small_scale = b.mul_raw(middle, fine)  # 2^(15 - 4 i - j)
    u = mantissa(b, magnitude, lead, b.mul_raw(coarse, small_scale))
    inverse = polynomial(b, u, RECIPROCAL, _R)
    factor = b.mul_raw(small_scale, lead.sign)
    high, low = _coarse_shift(b, x, lead, b.frac - x.type.frac + y.type.frac)
    whole = b.mul_raw(b.mul_raw(high, factor), inverse)
    low = b.trunc(b.mul_raw(reread(b, low, 62), factor), _DROP)
    rest = b.mul_raw(reread(b, low, b.frac + _GUARD - _DROP), inverse)
    return b.add(reread(b, whole, b.frac), b.trunc(rest, rest.type.frac - b.frac))


def _coarse_shift(b: Builder, x: Value, lead: Leading, exponent: int) -> tuple[Value, Value]:
    """x 2^(exponent - 16 k - 15) as high 2^_R + low 2^-_GUARD, both fxp0, |low| <= 2^_LIMB; 0 if y is 0."""
    shifts = [16 * k + 15 - exponent - _GUARD for k in range(4)]
    whole = [_shifted(b, x, s) for s in shifts]
    high = [_shifted(b, x, s + _LIMB) for s in shifts if s + _LIMB < 62]
    low = [b.sub(w, times_integer(b, h, 1 << _LIMB)) for w, h in zip(whole, high)] + whole[len(high) :]
    chosen = lead.indicators.take(b, 4)
    return (
        _sum_of_products(b, chosen.take(b, len(high)), stack(b, high)),
        _sum_of_products(b, chosen, stack(b, low)),
    )


def _sum_of_products(b: Builder, x: Stack, y: Stack) -> Value:
    return x.map(b.mul_raw, y).sum(b)


def _shifted(b: Builder, x: Value, bits: int) -> Value:
    """x / 2^bits as fxp0, within one unit; a multiplication (in the ring) if bits are negative."""
    if bits <= 0:
        return times_integer(b, reread(b, x, 0), 1 << -bits)
    return reread(b, b.trunc(reread(b, x, 63), bits), 0)


def integer_pow(b: Builder, x: Value, n: int) -> Value:
    """x^n for a public integer n, by repeated squaring; a negative n takes the reciprocal of x^-n.

    Domain: what plain products allow, |x^m| < 2^(62 - 2 f) for each intermediate power. x^0 = 1, 0^-n = 0.
    Error: one unit per product, scaled by the factors still to come. 2 rounds and 36 bytes per product, of
    which there are log2 n squarings and as many more as n has further one bits.
    """
    if n == 0:
        return constant(b, 1.0, b.frac, x.shape)
    if n < 0:
        return reciprocal(b, integer_pow(b, x, -n))
    if n == 1:
        return x
    half = integer_pow(b, x, n // 2)
    square = b.mul(half, half)
    return b.mul(square, x) if n % 2 else square
