"""Incomplete gamma and beta functions, written in JAX by quadratures with public nodes; errors are for f = 18.

With D = x^a e^-x / G(a + 1) and A = a + 1, the lower one is P(a, x) = D + P(A, x), and by t = x e^-s, or t = x e^s,

        P(A, x) = x D int_0^oo e^(-A s + x (1 - e^-s)) ds,
    1 - P(A, x) = x D int_0^oo e^(A s - x (e^s - 1)) ds.

The first falls from s = 0 on where x < A, the second elsewhere: one is chosen, and each node is an exponential of a
sum with public factors. For the beta function, with D = x^a (1 - x)^b G(a + b) / (G(a + 1) G(b)),

    I_x(a, b) = D + (a + b) x D int_0^oo e^(-(a + 1) s - (a + b + 1) ln(1 - x (1 - e^-s))) ds,

where I_x(a, b) = 1 - I_(1 - x)(b, a) keeps x below (a + 1) / (a + b + 2), and the integrand falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.lower.context import Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.compiler.lower.quadrature import nodes

Array = jax.Array

_FAR = 512.0  # from there on P(a, x) is 1 for all a of the domain
_COUNT = {32: 20, 64: 32, 128: 72}  # nodes by the ring's bits
_DOWN = {32: 8.0, 64: 14.0, 128: 20.0}  # where the first integral ends, e^-s there
_UP = {32: 2.4, 64: 2.8, 128: 3.1}  # and the second, e^(s - e^s + 1)


def igamma(a: Array, x: Array, ring: int = 64) -> Array:
    """P(a, x). Domain: 0 < a <= 128, x >= 0. Error: 5e-5 plus 1e-5 a."""
    top = a + 1.0
    x_near = jnp.minimum(x, _FAR)
    below = x_near < top
    log = lax.log(x_near)
    first = a * log - x_near - lax.lgamma(top)
    inside = _gamma_integral(top, x_near, below, first + log, ring)
    lower = lax.exp(first) + jnp.where(below, inside, 1.0 - inside)
    return jnp.where(x > 0, lower, 0.0)


def _gamma_integral(top: Array, x: Array, below: Array, base: Array, ring: int) -> Array:
    """The integral that falls, times e^base."""
    r, w = nodes(_COUNT[ring], 3)
    s, t = _DOWN[ring] * r, _UP[ring] * r
    a_below, x_below = jnp.where(below, top, 0.0), jnp.where(below, x, 0.0)
    terms = jnp.stack([a_below, x_below, top - a_below, x - x_below], -1)
    factors = np.stack([-s, -np.expm1(-s), t, -np.expm1(t)])
    length = jnp.where(below, math.log(_DOWN[ring]), math.log(_UP[ring]))
    exponents = (base + length)[..., None] + terms @ jnp.asarray(factors, x.dtype)
    return lax.exp(exponents) @ jnp.asarray(w, x.dtype)


def igammac(a: Array, x: Array, ring: int = 64) -> Array:
    """1 - P(a, x). As igamma."""
    return 1.0 - igamma(a, x, ring)


def regularized_incomplete_beta(a: Array, b: Array, x: Array, ring: int = 64) -> Array:
    """I_x(a, b). Domain: 0 < a, b <= 64, 0 <= x <= 1. Error: 1e-4 plus 1e-5 (a + b)."""
    both = a + b
    swapped = x * (both + 2.0) > a + 1.0
    p = jnp.where(swapped, b, a)
    q = both - p
    y = jnp.where(swapped, 1.0 - x, x)
    log_y, log_rest, log_q, log_both = lax.log(jnp.stack([y, 1.0 - y, q, both]))
    gammas = lax.lgamma(1.0 + jnp.stack([both, p, q]))
    base = p * log_y + q * log_rest + gammas[0] - gammas[1] - gammas[2] + log_q
    lower = lax.exp(base - log_both) + _beta_integral(p, both, y, base + log_y, ring)
    lower = jnp.where(y > 0, lower, 0.0)
    return jnp.where(swapped, 1.0 - lower, lower)


def _beta_integral(a: Array, both: Array, x: Array, base: Array, ring: int) -> Array:
    """The integral, times e^base."""
    s, w = nodes(_COUNT[ring], 3, _DOWN[ring])
    logs = lax.log(1.0 + x[..., None] * jnp.asarray(np.expm1(-s), x.dtype))
    falls = (a + 1.0)[..., None] * jnp.asarray(s, x.dtype) + (both + 1.0)[..., None] * logs
    return lax.exp(base[..., None] - falls) @ jnp.asarray(w, x.dtype)


def _rule(function: Callable[..., Array]) -> Rule:
    def broadcast(*xs: Array, ring: int) -> Array:
        return function(*jnp.broadcast_arrays(*xs), ring=ring)

    return lambda ctx, *xs, **_: apply(ctx, partial(broadcast, ring=ctx.b.ring_bits), *xs)[0]


RULES: dict[str, Rule] = {f.__name__: _rule(f) for f in (igamma, igammac, regularized_incomplete_beta)}
