"""Tails of the normal distribution, where the error function itself is 0 in fixed point; errors are for f = 18.

With t = 1 / (1 + z / 2), ln (e^(z^2) erfc(z)) = ln t + L(t) for z >= 0, and L is a polynomial over all of [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.scipy import special

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply

Array = jax.Array

_LOWEST = 10.0  # e^100 fits no ring

NEAR = Primitive("spu_erfc_tail")  # L(1 / y), y >= 1
NEAR.def_impl(lambda y: jnp.log(special.erfcx(2 * (y - 1)) * y))
NEAR.def_abstract_eval(lambda y: y)


def _tail(ctx: Context, y: Operand, **_: Any) -> Value:
    return ctx.b.function("erfc_tail", ctx.value(y))


def log_erfcx(z: Array) -> Array:
    """ln (e^(z^2) erfc(z)), z >= 0. Error: 3e-6 plus two units."""
    y = 1.0 + 0.5 * z
    near: Array = NEAR.bind(y)
    return near - lax.log(y)


def erfcx(x: Array) -> Array:
    """e^(x^2) erfc(x). Error: relative 1e-5 and two units of it, plus four units; for x < 0 it grows, and saturates.

    erfc(-z) = 2 - erfc(z).
    """
    out = lax.exp(log_erfcx(jnp.abs(x)))
    below = lax.exp(lax.square(jnp.clip(x, -_LOWEST, 0.0)) + math.log(2.0))
    return jnp.where(x < 0, below - out, out)


def log_ndtr(x: Array) -> Array:
    """ln of the normal distribution's function, for |x| < 2^13. Error: 5e-6 plus six units."""
    size = jnp.abs(x)
    below = log_erfcx(size * math.sqrt(0.5)) - 0.5 * lax.square(size) - math.log(2.0)
    return jnp.where(x < 0, below, lax.log1p(-0.5 * lax.erfc(size * math.sqrt(0.5))))


RULES: dict[str, Rule] = {"spu_erfc_tail": _tail}

# name of a function that JAX calls -> its own rule; constants of JAX's form come before the argument
CALLS: dict[str, Callable[[Context, Sequence[Operand], Any], list[Operand] | None]] = {
    "_erfcx": lambda ctx, args, closed: apply(ctx, erfcx, args[-1]),
    "log_ndtr": lambda ctx, args, closed: apply(ctx, log_ndtr, args[-1]),
}
