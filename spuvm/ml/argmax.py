"""Where the largest of many secret numbers stands, in few rounds.

A tournament of groups: within a group every pair is compared at once, so a level costs the rounds
of one comparison however large its groups are, and two or three levels are enough. Halving, as
`jnp.argmax` does it, needs log2(n) levels.
"""

from __future__ import annotations

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

LARGEST_GROUP = 48  # a group of k costs k (k - 1) / 2 comparisons


def largest(x: jax.Array) -> jax.Array:
    """Indicators of the largest element along the first axis; of equal ones, the first.

    Args:
        x: numbers [n, ...], all of them above -1.

    Returns:
        int32 [n, ...] with exactly one 1 along the first axis.
    """
    n = x.shape[0]
    if n == 1:
        return jnp.ones(x.shape, jnp.int32)
    size = group_size(n)
    if size == n:
        return _first_of_group(x[None])[0]
    groups = -(-n // size)
    padding = jnp.full((groups * size - n, *x.shape[1:]), -1.0, x.dtype)
    blocks = jnp.concatenate([x, padding]).reshape(groups, size, *x.shape[1:])
    inner = _first_of_group(blocks)
    tops = jnp.sum(inner.astype(x.dtype) * blocks, axis=1)
    outer = largest(tops)
    return (inner * outer[:, None]).reshape(groups * size, *x.shape[1:])[:n]


def group_size(n: int) -> int:
    """Elements a group, for as few levels as groups of `LARGEST_GROUP` allow."""
    levels = 1
    while LARGEST_GROUP**levels < n:
        levels += 1
    return math.ceil(math.pow(n, 1 / levels))


def _first_of_group(x: jax.Array) -> jax.Array:
    """int32 [groups, k, ...]: 1 where an element is above all before it and not below any after it."""
    size = x.shape[1]
    before, after, pair, earlier = _pairs(size)
    less = x[:, before] < x[:, after]
    others = less[:, pair].reshape(x.shape[0], size, size - 1, *x.shape[2:])
    flips = jnp.asarray(earlier).reshape(1, size, size - 1, *[1] * (x.ndim - 2))
    wins = jnp.logical_xor(others, jnp.broadcast_to(flips, others.shape))
    return jnp.all(wins, axis=2).astype(jnp.int32)


@cache
def _pairs(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i < j; for each element, its pairs [size * (size - 1)], and whether it wins where less is false."""
    before, after = np.triu_indices(size, 1)
    number = {(int(i), int(j)): n for n, (i, j) in enumerate(zip(before, after))}
    order = [(a, b) for a in range(size) for b in range(size) if a != b]
    pair = np.array([number[min(a, b), max(a, b)] for a, b in order])
    earlier = np.array([a < b for a, b in order])
    return before, after, pair, earlier
