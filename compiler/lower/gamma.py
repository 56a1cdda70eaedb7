"""The gamma function's logarithm and its derivative, written in JAX (lower/jax_rules.py); errors are for f = 18.

Both bring x < 4 to y in [2, 3], by the recurrences ln G(x + 1) = ln G(x) + ln x and psi(x + 1) = psi(x) + 1 / x,
where a polynomial of degree 7 is good to 5e-7. From 4 on, Stirling's series with three terms: below 4e-8. In a ring of
128 bits polynomials and series are longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.lower.context import Rule
from spuvm.compiler.lower.jax_rules import apply

Array = jax.Array

_LARGE = 4.0

# Stirling's series in 1 / x^2: a term 1 / x of ln G, and 1 of psi. Three in rings up to 64 bits.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
_STIRLING_PSI = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
_TERMS = {32: 3, 64: 3, 128: 8}

NEAR = {name: Primitive(f"spu_{name}_near") for name in ("lgamma", "digamma")}  # of 5/2 + u, by a polynomial
for _name, _function in (("lgamma", lax.lgamma), ("digamma", lax.digamma)):
    NEAR[_name].def_impl(lambda u, f=_function: f(u + 2.5))
    NEAR[_name].def_abstract_eval(lambda u: u)


def _near(name: str) -> Rule:
    return lambda ctx, u, **_: ctx.b.function(f"{name}_near", u)


def _places(x: Array) -> tuple[Array, Array, Array, Array]:
    """Whether x < 1, x < 2, 3 <= x < 4, x >= 4: comparisons with constants share their rounds."""
    large = x >= _LARGE
    return x < 1.0, x < 2.0, (x >= 3.0) & ~large, large


def _chosen(x: Array, places: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
    """u in [-1/2, 1/2] of the polynomial (x < 4), and what the recurrence reads: x, x - 1, 1 where nothing, or x."""
    first, second, fourth, large = places
    steps = first.astype(x.dtype) + second.astype(x.dtype) - fourth.astype(x.dtype)
    u = jnp.where(large, 0.0, x + steps - 2.5)
    read = jnp.where(second | large, x, jnp.where(fourth, x - 1.0, 1.0))
    return u, read


def horner(coefficients: Sequence[float], x: Array) -> Array:
    """The sum of coefficients[i] x^i."""
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = c + x * total
    return total


def lgamma(x: Array, terms: int = 3) -> Array:
    """Domain: 0 < x < 2^22. Error: 2e-5 plus 1e-5 of the result. Cost: 40 rounds, 2054 bytes.

    JAX's reflection for negative x is left out: what comes out there has no meaning.
    """
    places = _places(x)
    first, second, fourth, large = places
    u, read = _chosen(x, places)
    log, log_next = lax.log(read), lax.log(jnp.where(first, x + 1.0, 1.0))
    w = 1.0 / jnp.where(large, x, _LARGE)
    w2 = w * w
    series = w * horner(_STIRLING[:terms], w2)
    factor = jnp.where(large, x - 0.5, fourth.astype(x.dtype) - second.astype(x.dtype))
    far = series - x + 0.5 * math.log(2 * math.pi)
    near = NEAR["lgamma"].bind(u) - log_next
    return factor * log + jnp.where(large, far, near)


def digamma(x: Array, terms: int = 3) -> Array:
    """Domain: x > 0. Error: 2e-5 plus 1e-5 of the result. Cost: 44 rounds, 2043 bytes. As lgamma."""
    places = _places(x)
    first, second, fourth, large = places
    u, read = _chosen(x, places)
    w, w_next = 1.0 / read, 1.0 / jnp.where(first, x + 1.0, 1.0)
    w2 = w * w
    series = horner(_STIRLING_PSI[:terms], w2)
    far = lax.log(jnp.where(large, x, 1.0)) - w * (0.5 + w * series)
    step = fourth.astype(x.dtype) - second.astype(x.dtype)
    near = NEAR["digamma"].bind(u) + step * w - first.astype(x.dtype) * w_next
    return jnp.where(large, far, near)


def _rule(function: Callable[..., Array]) -> Rule:
    return lambda ctx, x, **_: apply(ctx, partial(function, terms=_TERMS[ctx.b.ring_bits]), x)[0]


RULES: dict[str, Rule] = {
    "lgamma": _rule(lgamma),
    "digamma": _rule(digamma),
    "spu_lgamma_near": _near("lgamma"),
    "spu_digamma_near": _near("digamma"),
}
