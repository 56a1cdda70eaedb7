"""Scales of roots, quotients and powers: what each takes, and with how many bits it is made."""

from __future__ import annotations

import numpy as np

from spuvm.compiler.functions.sqrt import ENOUGH
from spuvm.compiler.ir.module import Op, Value
from spuvm.compiler.passes.limits import OF_DIVISORS
from spuvm.compiler.passes.scaler import Scaler
from spuvm.compiler.passes.wishes import FEW, NO_WISH

LEAST_EXPONENT = 17  # fraction bits of result and divisor beyond those of the numerator
MOST_EXPONENT = {32: 12}  # as division.py has them
# Fraction bits of roots: an epsilon of 1e-8 beside them is 0, so that what is divided by a root that was lost gives 0.
UP_TO = {32: 16, 64: 24, 128: 60}
OF_QUOTIENTS = {32: 12, 64: 30, 128: 60}


def root(s: Scaler, op: Op) -> None:
    """Takes what there is, gives what is wanted."""
    op.inputs = [_unchanged(s, op.inputs[0])]
    parts = s.operands_of(op.inputs[0], "div")
    if len(parts) == 2 and s.of(parts[0]) >= s.limits.roots and _one_number(s, parts[1]):
        return _quotient_of_roots(s, parts[0], parts[1], op)
    _function(s, op, s.wish(op.output), _of_root(s, op.inputs[0], UP_TO[s.ring_bits]))


def _of_root(s: Scaler, x: Value, most: int) -> int:
    """Fraction bits that a root of x may have: its mantissa keeps what functions/sqrt.py states."""
    return min(most, s.ring_bits // 2 - 3 - ENOUGH[s.ring_bits] // 2 + x.type.frac // 2)


def _unchanged(s: Scaler, x: Value) -> Value:
    """What x is plus 0."""
    parts = s.operands_of(x, "add")
    for y, c in (parts, parts[::-1]) if parts else ():
        const = s.constants.get(c)
        if const and const[0].exact is not None and not np.any(const[0].exact):
            return y
    return x


def _one_number(s: Scaler, x: Value) -> Value | None:
    """The number that x repeats, if it does."""
    inner = s.operands_of(x, "broadcast")
    x = inner[0] if inner else x
    return x if x.type.size == 1 and x.type.kind == "fxp" and x not in s.constants else None


def _quotient_of_roots(s: Scaler, x: Value, y: Value, op: Op) -> None:
    """sqrt(x / y) as sqrt(s x) / sqrt(s y), s the sign of y: the quotient would lose the digits of a small x."""
    one = _one_number(s, y)
    assert one is not None
    zero, whole = (s.number(n, f"fxp{frac}", one.shape) for n, frac in ((0, one.type.frac), (1, 0)))
    negative = s.new("convert", [s.new("less", [one, zero])], to="fxp0")
    sign = s.new("sub", [whole, s.new("add", [negative, negative])])
    above, below = _times_sign(s, x, _spread(s, sign, x.shape)), _times_sign(s, one, sign)
    most = UP_TO[s.ring_bits]
    fine = [
        max(_of_root(s, v, n) - s.frac, 0) for v, n in ((above, max(most, OF_QUOTIENTS[s.ring_bits])), (below, most))
    ]
    roots = [s.new("sqrt", [v], to=f"fxp{s.frac + n}") for v, n in zip((above, below), fine)]
    s.extra.update(zip(roots, fine))
    divisor = _spread(s, roots[1], x.shape)
    s.extra[divisor] = fine[1]
    quotient(s, Op("div", [roots[0], divisor], op.outputs, {"to": f"fxp{s.frac}"}, location=op.location))


def _times_sign(s: Scaler, x: Value, sign: Value) -> Value:
    out = s.new("mul", [x, sign])
    s.extra[out] = s.of(x)
    return out


def _spread(s: Scaler, x: Value, shape: tuple[int, ...]) -> Value:
    """One number for all elements."""
    return s.new("broadcast", [s.new("reshape", [x], shape=())], shape=shape, dims=())


def quotient(s: Scaler, op: Op) -> None:
    """x / y, with as many bits as its ways take: see `by_logarithm.divides`."""
    x, y = op.inputs
    one = _one_number(s, y)
    wanted = s.wanted.of.get(op.output, NO_WISH).below
    if one is not None and min(s.of(x), wanted) >= s.limits.roots and s.lowered(op.output) == s.frac:
        return _times_reciprocal(s, x, one, op)
    up_to = OF_QUOTIENTS[s.ring_bits]
    y = s.at(y, min(s.of(y), max(0, up_to - y.type.frac + s.of(y))), op)
    extra = s.wish(op.output)
    if x not in s.constants:
        extra = min(extra, max(s.of(x), 0))
    extra = min(extra, max(0, up_to - op.output.type.frac))
    most = op.output.type.frac + extra + y.type.frac - LEAST_EXPONENT - x.type.frac + s.of(x)
    x = s.at(x, extra if x in s.constants else min(s.of(x), max(most, min(s.of(y), 0))), op)
    beyond = op.output.type.frac + extra + y.type.frac - x.type.frac - MOST_EXPONENT.get(s.ring_bits, s.ring_bits)
    less = min(max(beyond, 0), s.of(y))
    extra, y = max(extra - max(beyond - less, 0), 0), s.at(y, s.of(y) - less, op)
    op.inputs = [x, y]
    _function(s, op, extra, up_to)


def _times_reciprocal(s: Scaler, x: Value, y: Value, op: Op) -> None:
    """x / y by one number y, below a root: r = 1 / y, and h r + (x - h) r, h the leading bits of x.

    All of x counts, in the limit that x has come with.
    """
    more = s.of(x)
    y = s.at(y, min(s.of(y), max(0, OF_QUOTIENTS[s.ring_bits] - s.lowered(y))), op)
    r = _spread(s, s.new("reciprocal", [y], to=f"fxp{s.frac}"), x.shape)
    high = s.at(x, 0, op)
    low = s.new("mul", [s.new("sub", [x, s.at(high, more, op)]), r])
    low = s.new("trunc", [low], bits=low.type.frac - s.frac - s.limits.roots)
    high = s.new("mul", [high, r])
    s.extra[high] = high.type.frac - s.frac
    s.emit("add", [s.at(high, s.limits.roots, op), low], op, op.outputs)
    s.extra[op.output], s.limits.of[op.output] = s.limits.roots, s.limits.finer(s.limits.roots)
    s.limited.add(op.output)


def quotient_by(s: Scaler, op: Op) -> None:
    _function(s, op, s.wish(op.output), s.ring_bits)


def power(s: Scaler, op: Op) -> None:
    """A whole power of few numbers: see functions/whole_powers.py."""
    if not op.attrs.get("whole"):
        return s.keep_default(op)
    op.inputs = [s.at(op.inputs[0], 0, op)]
    few = op.output.type.size <= FEW and s.wish(op.output) >= s.limits.divisors
    if not few:
        op.attrs = {k: v for k, v in op.attrs.items() if k != "whole"}
    _function(s, op, OF_DIVISORS if few else 0, OF_QUOTIENTS[s.ring_bits])


def _function(s: Scaler, op: Op, extra: int, up_to: int) -> None:
    extra = min(extra, max(0, up_to - op.output.type.frac))
    if extra:
        op.attrs = {**op.attrs, "to": f"fxp{op.output.type.frac + extra}"}
    s.keep(op, op.inputs, extra)
