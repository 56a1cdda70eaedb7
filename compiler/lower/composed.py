"""Elementary functions made from others, and counts of bits.

Compositions are written in JAX (lower/jax_rules.py). Errors are for f = 18 (a unit is 3.8e-6), absolute where not
said to be relative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.functions.division import div
from spuvm.compiler.functions.exp import _exponential as exponential
from spuvm.compiler.functions.log import LOG_FRAC, log2_and_valid
from spuvm.compiler.functions.polynomial import constant, plus, polynomial, stack, table, times, times_integer, work
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply, written

Array = jax.Array

# sums of exponentials -----------------------------------------------------------------------------------


def tan(x: Array) -> Array:
    """Error: (1 + |tan x|)^2 times 2e-6 plus two units, where |cos x| is 16 units and more.

    Cost: sin and cos together, then a division: 27 rounds, 700 bytes.
    """
    return lax.sin(x) / lax.cos(x)


def sinh(x: Array) -> Array:
    """Error: relative 4e-6 plus 4e-6 and two units; saturates with exp from (62 - f) ln 2 on, 30.5.

    Cost: 11 rounds, 400 bytes.
    """
    return (lax.exp(x) - lax.exp(-x)) * 0.5


def cosh(x: Array) -> Array:
    """As sinh."""
    return (lax.exp(x) + lax.exp(-x)) * 0.5


# logarithms of roots ------------------------------------------------------------------------------------

_LARGE = 12  # from 2^12 on sqrt(x^2 + 1) is x, relative 3e-8
_NEAR = 10  # from 2^10 on an error of 2.4e-7 in the logarithm


def _root(size: Array, inner: Callable[[Array], Array], bits: int, sign: float) -> Array:
    """sqrt(size^2 + sign): by `inner` below 2^bits, where it fits; above size, and the next term if that is early."""
    bits = min(bits, _LARGE)
    far = size if bits >= _NEAR else size + sign * 0.5 / size
    return jnp.where(size < 2.0**bits, inner(jnp.minimum(size, 2.0**bits)), far)


def asinh(x: Array, bits: int = _LARGE) -> Array:
    """sign(x) log(|x| + sqrt(x^2 + 1)); x^2 fits below 2^bits. Error: 8e-6 plus three units.

    Cost: sqrt, then log: 71 rounds, 1190 bytes.
    """
    size = jnp.abs(x)
    out = lax.log(size + _root(size, lambda x: lax.sqrt(x * x + 1.0), bits, 1.0))
    return jnp.where(x < 0, -out, out)


def acosh(x: Array, bits: int = _LARGE) -> Array:
    """log(x + sqrt(x - 1) sqrt(x + 1)), for x >= 1. Error: 8e-6 plus five units. Cost: 60 rounds, 1510 bytes."""
    return lax.log(x + _root(x, lambda x: lax.sqrt(x - 1.0) * lax.sqrt(x + 1.0), bits, -1.0))


def atanh(x: Array) -> Array:
    """(log(1 + x) - log(1 - x)) / 2, for |x| < 1. Error: 2e-6 plus two units. Cost: 26 rounds, 960 bytes."""
    return (lax.log(x + 1.0) - lax.log(1.0 - x)) * 0.5


# angles ---------------------------------------------------------------------------------------------------

# atan(1/2 + u), |u| <= 1/2; error 1.7e-6. The odd coefficients are multiples of 2^-16.
ATAN = (
    0.4636492596877539,
    0.8000030517578125,
    -0.32011326092900466,
    -0.0428924560546875,
    0.15528504169463672,
    -0.0749664306640625,
    -0.04013832441276948,
    0.0512237548828125,
)

ARC = Primitive("spu_arc")  # atan(y / x) for 0 <= y <= x
ARC.def_impl(jnp.arctan2)
ARC.def_abstract_eval(lambda y, x: y)


def _arc(ctx: Context, y: Operand, x: Operand, **_: Any) -> Value:
    """A quotient with more fraction bits than the result, then a polynomial."""
    b, frac = ctx.b, ctx.b.frac
    b.frac = work(b)
    try:
        quotient = div(b, ctx.value(y), ctx.value(x))
    finally:
        b.frac = frac
    return polynomial(b, plus(b, quotient, -0.5), table(b, "atan", ATAN), frac)


def atan2(y: Array, x: Array) -> Array:
    """The angle of (x, y), 0 for (0, 0). Error: 7e-6 plus two units.

    The smaller coordinate over the larger one, then a reflection for each of |x| < |y|, x < 0 and y < 0. Cost:
    51 rounds; one division, 4 comparisons: 1110 bytes.
    """
    width, height = jnp.abs(x), jnp.abs(y)
    steep = width < height
    large = jnp.where(steep, height, width)
    arc = ARC.bind(width + height - large, large)
    arc = jnp.where(steep, math.pi / 2 - arc, arc)
    arc = jnp.where(x < 0, math.pi - arc, arc)
    return jnp.where(y < 0, -arc, arc)


def atan(x: Array) -> Array:
    """As atan2."""
    return atan2(x, jnp.ones_like(x))


def _across(x: Array) -> Array:
    """sqrt(1 - x^2), near 1 as precise as anywhere."""
    return lax.sqrt(1.0 - x) * lax.sqrt(1.0 + x)


def asin(x: Array) -> Array:
    """The angle of (sqrt(1 - x^2), x), for |x| <= 1. Error: 1.2e-5 plus six units. Cost: 76 rounds, 2030 bytes."""
    return atan2(x, _across(x))


def acos(x: Array) -> Array:
    """As asin."""
    return atan2(_across(x), x)


# the inverse error function ----------------------------------------------------------------------------------

# erf_inv(x) / x for w = -ln(1 - x^2) = 5 (u + 1/2) and 5 + 15/2 (u + 1/2), |u| <= 1/2; errors 2.7e-6, 6.2e-7
ERF_INV = (
    1.5014067405990277,
    1.2332000732421875,
    -0.10431125138439554,
    -0.156768798828125,
    0.13504047398192284,
    -0.0132904052734375,
    -0.04794375178294351,
    0.02581787109375,
)
ERF_INV_TAIL = (
    2.790963007950776,
    1.268798828125,
    -0.2549935943725153,
    0.0915985107421875,
    -0.031651259067835565,
    0.0014190673828125,
    0.0199958204509646,
    -0.02008056640625,
)
_U = {32: 8, 64: 20, 128: 40}  # fraction bits of u
_TAIL, _END = 5.0, 12.5  # of w; beyond the end, |x| > 1 - 1.9e-6, the result stays


def _ratio(ctx: Context, w: Operand, **_: Any) -> Value:
    """Both polynomials, and a choice; what the other one gives may overflow and is dropped."""
    b, w = ctx.b, ctx.value(w)
    near = plus(b, times(b, w, 1 / _TAIL, work(b)), -0.5)
    far = plus(b, times(b, w, 1 / (_END - _TAIL), work(b)), -_TAIL / (_END - _TAIL) - 0.5)
    small = b.less(w, ctx.like(_TAIL, w))
    near, far = (
        polynomial(b, b.with_frac(u, _U[b.ring_bits]), table(b, name, of_64), b.frac)
        for u, name, of_64 in ((near, "erf_inv", ERF_INV), (far, "erf_inv_tail", ERF_INV_TAIL))
    )
    return b.select(small, near, far)


RATIO = Primitive("spu_erf_inv_ratio")
RATIO.def_abstract_eval(lambda w: w)
RATIO.def_impl(lambda w: lax.erf_inv(jnp.sqrt(-jnp.expm1(-w))) / jnp.sqrt(-jnp.expm1(-w)))


def erf_inv(x: Array) -> Array:
    """Error: 1.2e-5 plus three units for |x| < 1 - 1.9e-6; 3.36 and -3.36 from there on. Cost: 46 rounds, 1540
    bytes.
    """
    w = jnp.minimum(-(lax.log(1.0 - x) + lax.log(1.0 + x)), _END)
    ratio: Array = RATIO.bind(w)
    return x * ratio


# by builder ------------------------------------------------------------------------------------------------

_THIRD = {32: 10, 64: 28, 128: 60}  # fraction bits of 1/3; log2 |x| < 2^6 and 6 + 26 + 28 < 62


def cbrt(ctx: Context, x: Value, **_: Any) -> Value:
    """sign(x) 2^(log2 |x| / 3); 0 for 0. Error: relative 6e-6 plus one unit. Cost: 43 rounds, 790 bytes."""
    b = ctx.b
    negative = b.convert(b.less(x, ctx.like(0.0, x)), "fxp0")
    sign = b.sub(constant(b, 1, 0, x.shape), times_integer(b, negative, 2))
    third = _THIRD[b.ring_bits]
    logarithm, valid = log2_and_valid(b, b.mul_raw(x, sign), LOG_FRAC[b.ring_bits])
    size = exponential(b, logarithm, (2**third + 1) // 3, third)
    return b.mul_raw(size, b.mul_raw(sign, valid))


def population_count(ctx: Context, x: Value, **_: Any) -> Value:
    """Ones among the bits of an integer. 10 rounds, 920 bytes for 32 bits: a bit injection for each."""
    return _ones(ctx, x)


def clz(ctx: Context, x: Value, **_: Any) -> Value:
    """Zeros above the leading bit: those of the word in which every bit is the `or` of those from it on. 16 rounds."""
    return ctx.b.sub(ctx.like(np.int64(x.type.bits), x), _ones(ctx, ctx.b.op("prefix_or", x, bits=0)))


def _ones(ctx: Context, x: Value) -> Value:
    b = ctx.b
    bits = stack(b, [b.op("bit_parity", x, mask=1 << i) for i in range(x.type.bits)])
    return bits.map(lambda v: b.convert(v, x.type.element)).sum(b)


RULES: dict[str, Rule] = {
    **{f.__name__: written(f) for f in (tan, sinh, cosh, atanh, atan2, atan, asin, acos, erf_inv)},
    "asinh": lambda ctx, x, **_: apply(ctx, partial(asinh, bits=(ctx.b.ring_bits - 4) // 2 - ctx.b.frac), x)[0],
    "acosh": lambda ctx, x, **_: apply(ctx, partial(acosh, bits=ctx.b.ring_bits - 4 - 2 * ctx.b.frac), x)[0],
    "spu_arc": _arc,
    "spu_erf_inv_ratio": _ratio,
    "cbrt": cbrt,
    "population_count": population_count,
    "clz": clz,
}
