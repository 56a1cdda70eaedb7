"""The largest eigenvalues of a secret symmetric matrix, and their vectors: by subspace iteration.

Y. Saad, "Numerical methods for large eigenvalue problems" (2011), 5.3: powers of the matrix times a few columns more
than are wanted, made orthonormal again after each, and Rayleigh-Ritz at the end. A full decomposition would turn all
n columns against each other.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MORE = 6  # columns beside those that are wanted, so that these come apart
LARGER = 1024.0  # what remains of a column of 1 is multiplied by this before its length is taken: it may be small
LEAST = 2.0**-12  # of a squared length, so that no column of zeros is divided by 0


def leading(
    a: jax.Array, count: int, steps: int, squarings: int = 3, largest: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """The `count` largest eigenvalues of `a` in descending order, and unit vectors [n, count].

    Args:
        a: symmetric [n, n], with eigenvalues from 0 to `largest`, up to 256; smaller ones count as 0. Those far below
            the largest are found the better the larger it is.
        steps: of iteration, each with the 2^squarings-th power of the matrix.
    """
    n = a.shape[0]
    columns = min(n, count + MORE)
    power = a
    for _ in range(squarings):
        power = power @ power
    start = np.linalg.qr(np.random.RandomState(0).normal(size=(n, columns)))[0].astype(np.float32)
    found = lax.fori_loop(0, steps, lambda _, q: orthonormal(power @ q, LARGER / largest), jnp.asarray(start))
    found = found * (1.5 - 0.5 * jnp.sum(found * found, axis=0))  # Newton's step: lengths of 1 to the last bits
    values, within = jnp.linalg.eigh(found.T @ a @ found)
    return values[::-1][:count], found @ within[:, ::-1][:, :count]


def orthonormal(y: jax.Array, larger: float = LARGER) -> jax.Array:
    """Columns [n, k] made orthonormal one after another; each against those before twice, which is enough."""
    done: list[jax.Array] = []
    for k in range(y.shape[1]):
        column = y[:, k] * larger
        for _ in range(2 if done else 0):
            before = jnp.stack(done, axis=1)
            column = column - before @ (before.T @ column)
        done.append(column * lax.rsqrt(jnp.maximum(jnp.sum(column * column), LEAST)))
    return jnp.stack(done, axis=1)


def turned(vectors: jax.Array) -> jax.Array:
    """Vectors [n, k] whose entries add up to 0 or more: a sign that does not depend on how they were found."""
    return vectors * jnp.where(jnp.sum(vectors, axis=0) < 0, -1.0, 1.0)
