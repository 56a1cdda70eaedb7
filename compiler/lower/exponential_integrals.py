"""Exponential integrals, written in JAX by quadratures with public nodes; errors are for f = 18.

Ei(x) = gamma + ln |x| + int_0^1 (e^(x t) - 1) / t dt, whose integrand has no pole: 16 nodes are exact to 1e-8 from -16
to 28, and are multiples of 2^-12, so that fixed point has them. E_n(x) = int_0^oo e^((1 - n) s - x e^s) ds for n > 1,
by nodes that are denser at 0. Each node is one exponential of a sum with public factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand
from spuvm.compiler.lower.jax_rules import apply
from spuvm.compiler.lower.quadrature import nodes, short_nodes
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array

_LOWEST = -16.0  # Ei is -7e-9 there
_NODES = 16
_NODES_OF_N = 48


def expi(x: Array) -> Array:
    """Domain: x != 0, a result that fits; below -16 it stays. Error: relative 1e-5 plus 6e-5."""
    x = jnp.maximum(x, _LOWEST)
    t, w = short_nodes(_NODES, 12)
    weights = w / t  # within the exponents: no product to pass what fits
    powers = lax.exp(x[..., None] * jnp.asarray(t, x.dtype) + jnp.asarray(np.log(weights), x.dtype))
    return lax.log(jnp.abs(x)) + powers.sum(-1) + float(np.euler_gamma - weights.sum())


def exp1(x: Array) -> Array:
    """Domain: x > 0. Error: 6e-5."""
    return -expi(-x)


def expn(x: Array, n: float) -> Array:
    """E_n, n > 1 known. Domain: x >= 0. Error: 3e-5."""
    x = jnp.minimum(x, -_LOWEST)
    s, w = nodes(_NODES_OF_N, 3, 14.0)
    exponents = jnp.asarray((1 - n) * s, x.dtype) - x[..., None] * jnp.asarray(np.exp(s), x.dtype)
    return lax.exp(exponents) @ jnp.asarray(w, x.dtype)


def _expn(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    if len(args) < 2:
        return None
    n, x = args[-2:]
    orders = None if isinstance(n, Value) else np.unique(np.asarray(n, np.float64))
    if orders is None or orders.size != 1 or orders[0] < 1:
        raise UnsupportedError("`expn`: its order must be one known number from 1 on: a Python number, not an operand.")
    return apply(ctx, exp1 if orders[0] == 1 else partial(expn, n=float(orders[0])), x)


# name of a function that JAX calls -> its own rule; constants of JAX's form come before the arguments
CALLS: dict[str, Callable[[Context, Sequence[Operand], Any], list[Operand] | None]] = {
    "expi": lambda ctx, args, closed: apply(ctx, expi, args[-1]),
    "expn": _expn,
}
