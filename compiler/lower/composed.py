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

from spuvm.compiler.functions.polynomial import stack
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply, written

Array = jax.Array

# sums of exponentials -----------------------------------------------------------------------------------


def tan(x: Array) -> Array:
    """Error: (1 + |tan x|)^2 times 2e-6 plus two units, where |cos x| is 16 units and more.

    Cost: sin and cos together, then a division: 27 rounds, 692 bytes.
    """
    return lax.sin(x) / lax.cos(x)


def sinh(x: Array) -> Array:
    """Error: relative 4e-6 plus 4e-6 and two units; saturates with exp from (62 - f) ln 2 on, 30.5.

    Cost: 10 rounds, 270 bytes.
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

    Cost: sqrt, then log: 69 rounds, 1142 bytes.
    """
    size = jnp.abs(x)
    out = lax.log(size + _root(size, lambda x: lax.sqrt(x * x + 1.0), bits, 1.0))
    return jnp.where(x < 0, -out, out)


def acosh(x: Array, bits: int = _LARGE) -> Array:
    """log(x + sqrt(x - 1) sqrt(x + 1)), for x >= 1. Error: 8e-6 plus five units. Cost: 59 rounds, 1437 bytes."""
    return lax.log(x + _root(x, lambda x: lax.sqrt(x - 1.0) * lax.sqrt(x + 1.0), bits, -1.0))


def atanh(x: Array) -> Array:
    """(log(1 + x) - log(1 - x)) / 2, for |x| < 1. Error: 2e-6 plus two units. Cost: 26 rounds, 954 bytes."""
    return (lax.log(x + 1.0) - lax.log(1.0 - x)) * 0.5


# angles ---------------------------------------------------------------------------------------------------

ARC = Primitive("spu_arc")  # atan(y / x) for 0 <= y <= x
ARC.def_impl(jnp.arctan2)
ARC.def_abstract_eval(lambda y, x: y)


def _arc(ctx: Context, y: Operand, x: Operand, **_: Any) -> Value:
    return ctx.b.function("arc", ctx.value(y), ctx.value(x))


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
    """The angle of (sqrt(1 - x^2), x), for |x| <= 1. Error: 1.2e-5 plus six units. Cost: 75 rounds, 1946 bytes."""
    return atan2(x, _across(x))


def acos(x: Array) -> Array:
    """As asin."""
    return atan2(_across(x), x)


# the inverse error function ----------------------------------------------------------------------------------

_END = 12.5  # of w = -ln(1 - x^2); beyond, |x| > 1 - 1.9e-6, the result stays


def _ratio(ctx: Context, w: Operand, **_: Any) -> Value:
    return ctx.b.function("erf_inv_ratio", ctx.value(w))


RATIO = Primitive("spu_erf_inv_ratio")
RATIO.def_abstract_eval(lambda w: w)
RATIO.def_impl(lambda w: lax.erf_inv(jnp.sqrt(-jnp.expm1(-w))) / jnp.sqrt(-jnp.expm1(-w)))


def erf_inv(x: Array) -> Array:
    """Error: 1.2e-5 plus three units for |x| < 1 - 1.9e-6; 3.36 and -3.36 from there on. Cost: 46 rounds, 1514
    bytes.
    """
    w = jnp.minimum(-(lax.log(1.0 - x) + lax.log(1.0 + x)), _END)
    ratio: Array = RATIO.bind(w)
    return x * ratio


# by builder ------------------------------------------------------------------------------------------------


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
    "cbrt": lambda ctx, x, **_: ctx.b.function("cbrt", x),
    "population_count": population_count,
    "clz": clz,
}
