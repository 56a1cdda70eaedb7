"""The gamma function's logarithm and its derivative, written in JAX (jax_rules.py); errors are for f = 18.

Both bring x < 4 to y in [2, 3], by the recurrences ln G(x + 1) = ln G(x) + ln x and psi(x + 1) = psi(x) + 1 / x,
where a polynomial of degree 7 is good to 5e-7. From 4 on, Stirling's series with three terms: below 4e-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.context import Context, Rule
from spuvm.compiler.ir import Value
from spuvm.compiler.jax_rules import written
from spuvm.compiler.polynomial import polynomial, work

Array = jax.Array

# ln G(5/2 + u) and psi(5/2 + u), |u| <= 1/2; errors 4.8e-7 and 2.8e-7. Odd coefficients are multiples of 2^-16.
LGAMMA = (
    0.28468253912096025,
    0.703155517578125,
    0.24518437283413944,
    -0.03936767578125,
    0.009295470168297668,
    -0.0026092529296875,
    0.0008954282481694869,
    -0.000274658203125,
)
DIGAMMA = (
    0.7031566755486242,
    0.4903564453125,
    -0.11810335926053199,
    0.037322998046875,
    -0.013054114505922471,
    0.0048065185546875,
    -0.0019507296725073437,
    0.0007781982421875,
)
_LARGE = 4.0

POLYNOMIALS: dict[str, Sequence[float]] = {"spu_lgamma_near": LGAMMA, "spu_digamma_near": DIGAMMA}
NEAR = {name: Primitive(name) for name in POLYNOMIALS}  # u -> the polynomial
for _primitive in NEAR.values():
    _primitive.def_abstract_eval(lambda u: u)


def _horner(table: Sequence[float]) -> Callable[[Any], Any]:
    """The polynomial of what is known when compiling."""
    return lambda u: jnp.polyval(jnp.asarray(table[::-1], u.dtype), u)


for _name, _table in POLYNOMIALS.items():
    NEAR[_name].def_impl(_horner(_table))


def _near(table: Sequence[float]) -> Rule:
    def rule(ctx: Context, u: Value, **_: Any) -> Value:
        return polynomial(ctx.b, ctx.b.with_frac(u, work(ctx.b)), table, ctx.b.frac)

    return rule


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


def lgamma(x: Array) -> Array:
    """Domain: 0 < x < 2^22. Error: 2e-5 plus 1e-5 of the result. Cost: 47 rounds, 3180 bytes.

    JAX's reflection for negative x is left out: what comes out there has no meaning.
    """
    places = _places(x)
    first, second, fourth, large = places
    u, read = _chosen(x, places)
    log, log_next = lax.log(read), lax.log(jnp.where(first, x + 1.0, 1.0))
    w = 1.0 / jnp.where(large, x, _LARGE)
    w2 = w * w
    series = w * (1 / 12 + w2 * (-1 / 360 + w2 * (1 / 1260)))
    factor = jnp.where(large, x - 0.5, fourth.astype(x.dtype) - second.astype(x.dtype))
    far = series - x + 0.5 * math.log(2 * math.pi)
    near = NEAR["spu_lgamma_near"].bind(u) - log_next
    return factor * log + jnp.where(large, far, near)


def digamma(x: Array) -> Array:
    """Domain: x > 0. Error: 2e-5 plus 1e-5 of the result. Cost: 51 rounds, 3400 bytes. As lgamma."""
    places = _places(x)
    first, second, fourth, large = places
    u, read = _chosen(x, places)
    w, w_next = 1.0 / read, 1.0 / jnp.where(first, x + 1.0, 1.0)
    w2 = w * w
    far = lax.log(jnp.where(large, x, 1.0)) - w * (0.5 + w * (1 / 12 + w2 * (-1 / 120 + w2 * (1 / 252))))
    step = fourth.astype(x.dtype) - second.astype(x.dtype)
    near = NEAR["spu_digamma_near"].bind(u) + step * w - first.astype(x.dtype) * w_next
    return jnp.where(large, far, near)


RULES: dict[str, Rule] = {
    "lgamma": written(lgamma),
    "digamma": written(digamma),
    **{name: _near(table) for name, table in POLYNOMIALS.items()},
}
