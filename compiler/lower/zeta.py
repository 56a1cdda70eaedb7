"""Hurwitz' zeta function and the derivatives of digamma, written in JAX; errors are for f = 18.

By Euler and Maclaurin: with y = q + 8 and four terms of Bernoulli's numbers, below 1e-9 of the result,

    sum_k (q + k)^-s = sum_(k < 8) (q + k)^-s + y^(1 - s) / (s - 1) + y^-s (1/2 + s / (12 y) - ...).

The derivative m of digamma is (-1)^(m + 1) m! zeta(m + 1, x); m! is added to the exponents.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply, written
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array

_STEPS = 8
_RATIOS = (60.0, 42.0, 40.0)  # of B_2j / (2j)!, each over the next: 1/12, -1/720, 1/30240, -1/1209600


def zeta(s: Array, q: Array, log_scale: float | Array = 0.0) -> Array:
    """e^log_scale times zeta(s, q). Domain: 1 < s <= 32, q > 0, a result that fits.

    Error: relative 1e-5 (s + 2) plus 6e-5.
    """
    s, q = jnp.broadcast_arrays(s, q)
    y = q + float(_STEPS)
    logs = lax.log(q + jnp.arange(_STEPS + 1, dtype=q.dtype).reshape(-1, *(1,) * q.ndim))
    exponents = jnp.concatenate([log_scale - s * logs, (log_scale + (1.0 - s) * logs[-1])[None]])
    powers = lax.exp(exponents)
    return powers[:_STEPS].sum(0) + powers[-1] / (s - 1.0) + powers[-2] * (0.5 + _bernoulli(s, 1.0 / y))


def _bernoulli(s: Array, r: Array) -> Array:
    """s r / 12 - s (s + 1) (s + 2) r^3 / 720 + ..., nested."""
    total = jnp.ones_like(r)
    for j in reversed(range(len(_RATIOS))):
        step = ((s + (2.0 * j + 1.0)) * r) * ((s + (2.0 * j + 2.0)) * r)
        total = 1.0 - step * total * (1 / _RATIOS[j])
    return s * r * total * (1 / 12)


def polygamma(x: Array, m: Any) -> Array:
    """The m-th derivative of digamma. Domain: x > 0, m < 32, a result that fits. Error: as zeta's, for s = m + 1."""
    if not m.any():
        return lax.digamma(x)
    order = np.maximum(m, 1)
    log_scale = np.vectorize(math.lgamma)(order + 1.0)
    size = zeta(jnp.asarray(order + 1.0, x.dtype), x, jnp.asarray(log_scale, x.dtype))
    out = jnp.asarray((-1.0) ** (order + 1), x.dtype) * size
    return out if m.all() else jnp.where(m == 0, lax.digamma(x), out)


def _polygamma(ctx: Context, m: Operand, x: Operand, **_: Any) -> Operand:
    orders = None if isinstance(m, Value) else np.asarray(m, np.float64)
    if orders is None or (orders != np.rint(orders)).any() or (orders < 0).any():
        raise UnsupportedError(
            "the order of a derivative must be a known whole number: a Python number, not an operand."
        )
    return apply(ctx, partial(polygamma, m=orders), x)[0]


RULES: dict[str, Rule] = {"zeta": written(zeta), "polygamma": _polygamma}
