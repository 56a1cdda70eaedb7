"""Sine and cosine of any representable number."""

from __future__ import annotations

from fractions import Fraction

from spuvm.compiler.builder import Builder
from spuvm.compiler.ir import Value
from spuvm.compiler.polynomial import WORK, line, raw_constant, reread, times_integer

TURNS = Fraction("0.15915494309189533576888376337251436203445964574046")  # 1 / (2 pi)
# sin(pi/2 u) = u (s1 + s3 q + s5 q^2 + s7 q^3), q = u^2; error 7.3e-7. s3 and s7: multiples of 2^-16
SINE = (1.5707901544830212, -0.6458892822265625, 0.07943191147901273, -0.00433349609375)
_LIMB = 31


def sin(b: Builder, x: Value) -> Value:
    """sin x, on all of the domain.

    The angle in turns, as a fraction of 64 bits, wraps around by itself: x_raw times 2^(64 - f) / (2 pi),
    in two limbs so that the constant's rounding does not matter for large x. A comparison folds it to a
    quarter turn either way, and a polynomial of degree 7 does the rest.
    Error: 2e-6 (polynomial 7.3e-7, u rounded to 22 bits) plus one unit.
    Cost: 20 rounds; 2 truncations, one comparison, one bit injection, one integer product, 4 truncated
    products: 335 bytes.
    """
    return _sine_of_turns(b, _turns(b, x))


def cos(b: Builder, x: Value) -> Value:
    """cos x = sin(x + a quarter turn): domain, error and cost of sin."""
    turns = _turns(b, x)
    return _sine_of_turns(b, b.add(turns, raw_constant(b, 1 << 62, 62, x.shape)))


def _turns(b: Builder, x: Value) -> Value:
    """x / (2 pi) mod 1, times 2^64, as fxp62 (of quarter turns): odd, so that it never is -2^62 or 2^62."""
    f = x.type.frac
    high = reread(b, b.trunc(reread(b, x, 63), _LIMB), 0)
    low = b.sub(reread(b, x, 0), times_integer(b, high, 1 << _LIMB))
    unit, limb = (2 * round(TURNS * 2 ** (63 - f + bits)) for bits in (0, _LIMB))
    turns = b.add(times_integer(b, low, unit), times_integer(b, high, limb))
    return reread(b, b.add(turns, raw_constant(b, 1, 0, x.shape)), 62)


def _sine_of_turns(b: Builder, turns: Value) -> Value:
    """sin(pi/2 u), u = turns 2^-62 in [-2, 2): beyond a quarter turn it is that of 2 - u."""
    half_turn = raw_constant(b, 1 << 63, 62, turns.shape)
    moved = b.add(turns, raw_constant(b, 1 << 62, 62, turns.shape))
    far = b.convert(b.less(moved, raw_constant(b, 0, 62, turns.shape)), "fxp0")
    flip = b.mul_raw(far, b.sub(half_turn, times_integer(b, turns, 2)))
    u = b.trunc(b.add(turns, flip), 62 - WORK)
    q = b.trunc(b.mul_raw(u, u), WORK)
    q2 = b.trunc(b.mul_raw(q, q), WORK)
    high = b.trunc(b.mul_raw(u, line(b, q, SINE[2], SINE[3])), WORK)
    total = b.add(b.mul_raw(u, line(b, q, SINE[0], SINE[1])), b.mul_raw(q2, high))
    return b.trunc(total, total.type.frac - b.frac)
