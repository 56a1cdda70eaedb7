"""Quantiles of secret numbers in secret groups, by bisection: no sort, and rounds that do not depend on the rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 9  # each finds two bits
SLACK = 2.0**-17  # of a share, so that what is rounded does not ask for a row more: right up to 10^5 rows
INNER = np.arange(1.0, 4.0, dtype=np.float32)  # places inside of an interval, in quarters of it


def quantiles(
    x: jax.Array, member: jax.Array, weight: jax.Array, share: float, within: tuple[float, float]
) -> jax.Array:
    """The least number at or below which `share` of a group's weight lies, rounded up to 2^-18 of the range.

    A step compares each row with three places of its own group's interval, sums the weights at or below each, and
    keeps the quarter in which the share is passed.

    Args:
        x: numbers [rows, K], those beyond `within` count as its ends.
        member: 1 of the group that a row is in, else 0: [rows, K, groups].
        weight: of the rows, 0 in other groups: [rows, K, groups].
        share: between 0 and 1.
        within: public ends of the numbers.

    Returns:
        [K, groups]; of groups without weight something within the range.
    """
    low, high = within
    wanted = jnp.sum(weight, axis=0) * (share - SLACK)
    sizes = (high - low) * 0.25 ** np.arange(1, STEPS + 1, dtype=np.float64)

    def step(start: jax.Array, size: jax.Array) -> tuple[jax.Array, None]:
        above = x - jnp.einsum("rkg,kg->rk", member, start)
        below = (above[..., None] <= size * INNER).astype(weight.dtype)
        short = jnp.einsum("rkp,rkg->kgp", below, weight) < wanted[..., None]
        return start + size * jnp.sum(short.astype(weight.dtype), axis=-1), None

    start = jnp.full(wanted.shape, low, x.dtype)
    found, _ = jax.lax.scan(step, start, jnp.asarray(sizes, x.dtype))
    out: jax.Array = found + sizes[-1]
    return out
