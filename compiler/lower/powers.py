"""Powers whose exponents differ from element to element: whole numbers that are known, and any that are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.compiler.functions.polynomial import constant
from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context
from spuvm.runtime.errors import UnsupportedError

LARGEST = 64  # exponents by squaring; larger ones go through the logarithm


def by_whole_numbers(ctx: Context, x: Value, y: np.ndarray[Any, Any]) -> Value:
    """x^y for known whole y: squares of x, each multiplied in where y has the bit. 2 rounds a product."""
    b, shape = ctx.b, ctx.outs[0].shape
    x, y = ctx.broadcast(x, shape), np.broadcast_to(y, shape)
    if x.type.kind == "int" and (y < 0).any():
        raise UnsupportedError("a negative power of an integer: convert it to float first.")
    one = ctx.like(1, x)
    out, square = one, x
    for bit in range(int(np.abs(y).max(initial=0)).bit_length()):
        square = square if not bit else b.mul(square, square)
        mask = (np.abs(y) >> bit) & 1 == 1
        if mask.any():
            product = square if out is one else b.mul(out, square)
            out = product if mask.all() else b.select(_known(ctx, mask), product, out)
    if (y < 0).any():
        inverse = b.function("reciprocal", out)
        out = inverse if (y < 0).all() else b.select(_known(ctx, y < 0), inverse, out)
    return out


def _known(ctx: Context, mask: np.ndarray[Any, Any]) -> Value:
    return fixedpoint.constant(ctx.b, mask.astype(np.int64), "bool")


def signed_power(ctx: Context, x: Value, y: Value) -> Value:
    """x^y for any x: |x|^y, with a sign where x is negative and y odd. 0 where x < 0 and y is not whole (JAX: NaN).

    x^0 is 1. Domain and error: of `functions.sqrt.pow_` for |x|. 51 rounds.
    """
    b = ctx.b
    zero = ctx.like(0.0, x)
    negative = b.less(x, zero)
    size = b.select(negative, b.neg(x), x)
    if y.type.kind == "int":
        odd, stray = b.op("bit_parity", y, mask=1), None
        exponent = b.convert(y, f"fxp{b.frac}")
    else:
        odd = b.op("bit_parity", y, mask=1 << y.type.frac)
        rest = b.op("shift_left", y, bits=b.ring_bits - y.type.frac)
        stray = b.not_(b.equal(rest, ctx.like(0.0, rest)))
        exponent = y
    out = b.function("pow", size, exponent)
    flipped = b.convert(b.logical("and", negative, odd), "fxp0")
    sign = b.sub(constant(b, 1, 0, x.shape), b.add(flipped, flipped))
    if stray is not None:
        dead = b.convert(b.logical("and", negative, stray), "fxp0")
        sign = b.mul_raw(sign, b.sub(constant(b, 1, 0, x.shape), dead))
    nothing = b.equal(exponent, ctx.like(0.0, exponent))
    return b.select(nothing, ctx.like(1.0, out), b.mul_raw(out, sign))
