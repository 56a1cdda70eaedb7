"""The inverse of a symmetric positive matrix of secrets, by sweeping it column after column."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

LEAST_PIVOT = 2.0**-13  # below, a column is a sum of those before it as far as fixed point can tell
REFINEMENTS = 2


def inverse(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The inverse of a symmetric positive [d, d] whose diagonal is about 1, and whether it has one: bool [].

    A column whose pivot is below `LEAST_PIVOT` is left out: its row and column of the inverse are 0, so that a solution
    does not use it (a generalised inverse). Sweeping: J. H. Goodnight, A tutorial on the sweep operator, The
    American Statistician 33 (1979). 27 rounds a column; the error is that of fixed point times the condition.
    """
    size = a.shape[0]

    def sweep(k: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, regular = state
        row, column, pivot = a[k], a[:, k], a[k, k]
        good = pivot > LEAST_PIVOT
        scale = jnp.where(good, 1 / jnp.where(good, pivot, 1.0), 0.0)
        row = row * scale
        here = jnp.arange(size) == k
        a = a - column[:, None] * row
        a = jnp.where(here[:, None], row, jnp.where(here, -(column * scale)[:, None], a))
        return jnp.where(here[:, None] & here, scale, a), regular & good

    out: tuple[jax.Array, jax.Array] = lax.fori_loop(0, size, sweep, (a, jnp.bool_(True)))
    return out


def solve(a: jax.Array, inverted: jax.Array, b: jax.Array) -> jax.Array:
    """a^-1 b with the inverse that is at hand, refined: what fixed point lost in it is made up."""
    x = inverted @ b
    for _ in range(REFINEMENTS):
        x = x + inverted @ (b - a @ x)
    return x
