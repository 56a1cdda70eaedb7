"""Sine and cosine of any representable number."""

from __future__ import annotations

from fractions import Fraction

from spuvm.compiler.functions import harmonics
from spuvm.compiler.functions.polynomial import line, plus, polynomial, raw_constant, reread, table, times_integer, work
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# 1 / (2 pi)
TURNS = Fraction("0.159154943091895335768883763372514362034459645740456448747667344058896797634226535090113802766")
# sin(pi/2 u) = u (s1 + s3 q + s5 q^2 + s7 q^3), q = u^2; error 7.3e-7. s3 and s7: multiples of 2^-16
SINE = (1.5707901544830212, -0.6458892822265625, 0.07943191147901273, -0.00433349609375)


def sin(b: Builder, x: Value) -> Value:
    """sin x, on all of the domain.

    The angle in turns, as a fraction of k bits, wraps around by itself: x_raw times 2^(k - f) / (2 pi),
    in two limbs so that the constant's rounding does not matter for large x. A comparison folds it to a
    quarter turn either way, and a polynomial of degree 7 does the rest.
    Error: 2e-6 (polynomial 7.3e-7, u rounded to 22 bits) plus one unit; in a ring of 128 bits one unit and 2^-40.
    Cost: 5 rounds and 74 bytes under ABY3: a truncation and `harmonics.sine_of_turns`. Elsewhere 20 rounds; 2
    truncations, one comparison, one bit injection, one integer product, 4 truncated products.
    """
    return _sine_of_turns(b, _turns(b, x))


def cos(b: Builder, x: Value) -> Value:
    """cos x = sin(x + a quarter turn): domain, error and cost of sin."""
    turns = _turns(b, x)
    return _sine_of_turns(b, b.add(turns, raw_constant(b, 1 << (b.ring_bits - 2), b.ring_bits - 2, x.shape)))


def _turns(b: Builder, x: Value) -> Value:
    """x / (2 pi) mod 1, times 2^k, as fxp k-2 (of quarter turns): odd, so that it never is -2^(k-2) or 2^(k-2)."""
    f, k = x.type.frac, b.ring_bits
    half = k // 2 - 1
    high = reread(b, b.trunc(reread(b, x, k - 1), half), 0)
    low = b.sub(reread(b, x, 0), times_integer(b, high, 1 << half))
    unit, limb = (2 * round(TURNS * 2 ** (k - 1 - f + bits)) for bits in (0, half))
    turns = b.add(times_integer(b, low, unit), times_integer(b, high, limb))
    return reread(b, b.add(turns, raw_constant(b, 1, 0, x.shape)), k - 2)


def _sine_of_turns(b: Builder, turns: Value) -> Value:
    """sin(pi/2 u), u = turns 2^-(k-2) in [-2, 2): beyond a quarter turn it is that of 2 - u."""
    if harmonics.available(b):
        return harmonics.sine_of_turns(b, turns)
    top, w = b.ring_bits - 2, work(b)
    half_turn = raw_constant(b, 2 << top, top, turns.shape)
    moved = b.add(turns, raw_constant(b, 1 << top, top, turns.shape))
    far = b.convert(b.less(moved, raw_constant(b, 0, top, turns.shape)), "fxp0")
    flip = b.mul_raw(far, b.sub(half_turn, times_integer(b, turns, 2)))
    u = b.trunc(b.add(turns, flip), top - w)
    q = b.trunc(b.mul_raw(u, u), w)
    if b.ring_bits != 64:
        ratio = polynomial(b, plus(b, q, -0.5), table(b, "sine", ()), w)
        return b.trunc(b.mul_raw(u, ratio), 2 * w - b.frac)
    q2 = b.trunc(b.mul_raw(q, q), w)
    high = b.trunc(b.mul_raw(u, line(b, q, SINE[2], SINE[3])), w)
    total = b.add(b.mul_raw(u, line(b, q, SINE[0], SINE[1])), b.mul_raw(q2, high))
    return b.trunc(total, total.type.frac - b.frac)
