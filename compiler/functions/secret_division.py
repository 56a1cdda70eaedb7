"""Integer quotient and remainder by a secret number, exact, rounded toward zero as JAX does.

Integers of up to 32 bits, and fixed-point remainders: an estimate of the quotient is wrong by 5e-6 of it and two
units; the remainder that it leaves is divided again, until it is below a few times |y|; comparisons say how
many. Integers of 64 bits: long division, one bit a step.

x / 0 is -1, or the largest number of an unsigned type, and x rem 0 is x: what XLA gives. The lowest number
by -1 is the lowest number again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spuvm.compiler.functions import division as approx
from spuvm.compiler.functions.polynomial import raw_constant, reread, spread, stack, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Region, Value
from spuvm.runtime.errors import UnsupportedError

_GAIN = 17  # bits of the quotient that one estimate finds
_SPARE = 3  # the remainder is at last below this many |y|


@dataclass(frozen=True)
class _Division:
    """x = sign q |y| + r as ring elements (fxp0), 0 <= r < |y| or, for negative x sign, -|y| < r <= 0."""

    quotient: Value
    remainder: Value  # of x sign(y)
    sign: Value
    valid: Value  # 1, or 0 where y is 0


def quotient(b: Builder, x: Value, y: Value) -> Value:
    """x / y. Cost for 32 bits: 48 rounds; the inverse as in `approx_division.div`, then for each of 2 estimates 5
    truncations and 5 integer products, 7 comparisons: 2.3 kB. 64 bits: 64 steps of 14 rounds, 430 bytes each."""
    t = x.type
    if t.bits >= b.ring_bits or b.ring_bits < 64:
        return by_bits(b, x, y)[0]
    d = _divide(b, x, y, t.bits)
    top = -1 if t.signed else 2**t.bits - 1
    out = b.add(b.mul_raw(d.valid, b.sub(d.quotient, _whole(b, top, x))), _whole(b, top, x))
    if t.signed:
        out = b.sub(out, times_integer(b, _leaves_the_type(b, x, y), 1 << t.bits))
    return b.bitcast(out, t.element)


def bounded_quotient(b: Builder, x: Value, y: Value, bits: int) -> Value:
    """x / y of integers below 2^bits, bits <= ring - 4, in any signed type. An estimate for each 17 bits."""
    d = _divide(b, x, y, bits)
    one = _whole(b, 1, x)
    return b.bitcast(b.sub(b.mul_raw(d.valid, b.add(d.quotient, one)), one), x.type.element)


def remainder(b: Builder, x: Value, y: Value) -> Value:
    """x rem y, the sign of x. Cost: that of the quotient, and a product."""
    if x.type.bits >= b.ring_bits or b.ring_bits < 64:
        return by_bits(b, x, y)[1]
    d = _divide(b, x, y, x.type.bits)
    return b.bitcast(_rest(b, x, d), x.type.element)


def fixed_point_remainder(b: Builder, x: Value, y: Value) -> Value:
    """x rem y of fixed-point numbers of equal fraction bits, exact on their grid. |x|, |y| raw below 2^(ring - 4).

    About 70 rounds: 4 estimates.
    """
    if b.ring_bits < 64:
        raise UnsupportedError("a remainder by a secret in a ring of 32 bits: use ring=64.")
    return reread(b, _rest(b, x, _divide(b, x, y, b.ring_bits - 4)), x.type.frac)


def _rest(b: Builder, x: Value, d: _Division) -> Value:
    """The remainder, with the sign taken back; y = 0 leaves x."""
    whole = reread(b, x, 0)
    return b.add(whole, b.mul_raw(d.valid, b.sub(b.mul_raw(d.remainder, d.sign), whole)))


def _whole(b: Builder, number: int, like: Value) -> Value:
    return raw_constant(b, number, 0, like.shape)


def _divide(b: Builder, x: Value, y: Value, bits: int) -> _Division:
    x, y = reread(b, x, 0), reread(b, y, 0)
    inverse = approx.inverse_of(b, y)
    assert inverse.lead.sign is not None
    sign, valid = inverse.lead.sign, inverse.lead.valid(b)
    rest, total = x, None
    for _ in range(-(-bits // _GAIN)):
        part = approx.times_inverse(b, rest, inverse, 0, 0)
        rest = b.sub(rest, b.mul_raw(part, y))
        total = part if total is None else b.add(total, part)
    assert total is not None
    size = b.mul_raw(y, sign)
    turned, rest = b.mul_raw(x, sign), b.mul_raw(rest, sign)
    negative = b.convert(b.less(turned, _whole(b, 0, x)), "fxp0")
    # Floor division of a negative number less one, then one more: rounds toward zero.
    steps = [times_integer(b, size, n) for n in range(1 - _SPARE, _SPARE + 1)]
    reached = spread(b, b.sub(rest, negative), len(steps)).map(b.less, stack(b, steps))
    below = reached.map(lambda v: b.convert(v, "fxp0")).sum(b)
    change = b.add(b.sub(_whole(b, _SPARE, x), below), negative)
    return _Division(b.add(total, change), b.sub(rest, b.mul_raw(change, size)), sign, valid)


def _leaves_the_type(b: Builder, x: Value, y: Value) -> Value:
    """1 where the lowest number of a signed type is divided by -1."""
    lowest = b.equal(x, b.integer(-(1 << (x.type.bits - 1)), x.type))
    minus_one = b.equal(y, b.integer(-1, y.type))
    return b.convert(b.logical("and", lowest, minus_one), "fxp0")


# 64 bits ---------------------------------------------------------------------------------------------------


def by_bits(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """Quotient and remainder of all 64-bit integers: the bits of |x| enter a remainder from the top."""
    t = x.type
    if b.ring_bits != 64:
        raise UnsupportedError(
            f"integer division of {t.element} by a secret in a ring of {b.ring_bits} bits: use ring=64, or floats."
        )
    (n, x_sign), (d, y_sign) = (_magnitude(b, v) for v in (x, y))
    bits = [b.convert(b.op("bit_parity", n, mask=1 << i), "uint64") for i in reversed(range(64))]
    rows = b.concatenate([b.reshape(v, (1, *v.shape)) for v in bits], 0)
    zero = b.op("share", b.integer(0, n.type.with_(visibility="public")), to="secret")
    with b.inside(Region([Value(v.type.with_(visibility="secret")) for v in (d, zero)])) as body:
        body.params.append(Value(rows.type.with_(shape=rows.shape[1:])))
        divisor, rest, bit = body.params
        longer = b.add(b.op("shift_left", rest, bits=1), bit)  # its 65th bit is the top bit of `rest`
        fits = b.logical("or", b.op("bit_parity", rest, mask=1 << 63), b.not_(b.less(longer, divisor)))
        one = b.convert(fits, "uint64")
        body.results = [b.sub(longer, b.mul_raw(one, divisor)), one]
    d = d if d.type.is_secret else b.op("share", d, to="secret")
    last, digits = b.ops("loop", [d, zero, rows], [body], trips=64, carries=1, constants=1, reverse=False)
    weights = b.const(np.array([1 << i for i in reversed(range(64))], np.uint64), "uint64")
    size = b.op("dot", weights, digits, dims=(((0,), (0,)), ((), ())))
    if not t.signed:
        return size, last  # by zero every step fits: all ones, and x remains
    by_zero = b.convert(b.equal(y, b.integer(0, y.type)), "int64")
    value = b.mul_raw(b.bitcast(size, "int64"), b.mul_raw(x_sign, y_sign))
    minus_one = b.integer(-1, value.type.with_(visibility="public"))
    value = b.add(value, b.mul_raw(by_zero, b.sub(minus_one, value)))
    return value, b.mul_raw(b.bitcast(last, "int64"), x_sign)


def _magnitude(b: Builder, x: Value) -> tuple[Value, Value]:
    """|x| as uint64, and the sign as int64 1 or -1."""
    one = b.integer(1, x.type.with_(visibility="public"))
    if not x.type.signed:
        return x, one
    negative = b.convert(b.op("bit_parity", x, mask=1 << 63), "int64")
    sign = b.sub(one, b.add(negative, negative))
    return b.bitcast(b.mul_raw(x, sign), "uint64"), sign
