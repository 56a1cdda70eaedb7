"""Shapley values of trees that grew leaf by leaf: where a leaf hangs is secret, too.

As in `shapley`, with a factor for each step of growth in place of each level: 1 where the step is not on the way to
a leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp

from spuvm.ml.layout import Layout
from spuvm.ml.leafwise import LeafTree, parted
from spuvm.ml.shapley import Apart, Shares, features_of, merged, others, product, summed
from spuvm.ml.tree import Matrices, goes_left

MOST_LEAVES = 16  # pairs of steps are compared for each leaf


def leaf_shares(matrices: Matrices, tree: LeafTree) -> Shares:
    """Of each step [T, 1]: the share of the background's rows at its leaf that go left; none of a leaf without rows."""
    member = jnp.ones((matrices[0].shape[0], tree.weights.shape[0], 1), jnp.float32)
    out = []
    for chosen, pick in zip(tree.splits, tree.picks):
        here = jnp.sum(member * pick.astype(member.dtype), axis=-1, keepdims=True)
        left = here * goes_left(matrices, chosen)
        out.append(jnp.sum(left, axis=0) / jnp.maximum(jnp.sum(here, axis=0), 1.0))
        member = parted(member, pick, here - left)
    return out


def sides(tree: LeafTree) -> list[tuple[jax.Array, jax.Array]]:
    """Of each step [T, leaves]: 1 of leaves that hang left of it, and right.

    Going back: after step s there are s + 2 leaves, of which the last is right, and the one it picked is left.
    """
    count = tree.weights.shape[1]
    stems = jnp.broadcast_to(jnp.eye(count, dtype=jnp.float32), (tree.weights.shape[0], count, count))
    out = []
    for step in range(count - 2, -1, -1):
        pick = tree.picks[step].astype(stems.dtype)[:, None]
        right, before = stems[..., step + 1], stems[..., : step + 1]
        out.append((jnp.sum(before * pick, axis=-1), right))
        stems = before + right[..., None] * pick
    return out[::-1]


@cache
def leaf_contributions(layout: Layout, outputs: int) -> Callable[..., jax.Array]:
    """See `shapley.contributions`."""

    def run(matrices: Matrices, tree: LeafTree, known: Shares) -> jax.Array:
        hangs, steps = sides(tree), len(tree.splits)
        features = [features_of(chosen, layout) for chosen in tree.splits]
        way = [_along(goes_left(matrices, chosen), side) for chosen, side in zip(tree.splits, hangs)]
        base = [_along(share, side) for share, side in zip(known, hangs)]
        apart = _apart(features, hangs)
        ways, bases = merged(way, apart, steps), merged(base, apart, steps)
        found = []
        for step, share in enumerate(others(ways, bases)):
            moved = jnp.sum((ways[step] - bases[step]) * share * tree.weights, axis=-1, keepdims=True)
            found.append(summed(moved, features[step], outputs))
        alone = jnp.sum(product(base) * tree.weights, axis=1).reshape(-1, outputs).sum(axis=0)
        total = sum(found[1:], found[0])
        last = jnp.broadcast_to(alone[:, None], (total.shape[0], outputs, 1))
        return jnp.concatenate([total, last], axis=-1)

    return run


def _along(left: jax.Array, side: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Of going left [..., T, 1] -> of going towards each leaf [..., T, leaves]; 1 where the step is not on the way."""
    on_left, on_right = side
    return 1 - on_left + left * (on_left - on_right)


def _apart(features: list[jax.Array], hangs: list[tuple[jax.Array, jax.Array]]) -> tuple[Apart, list[jax.Array]]:
    """See `shapley.apart_of`; steps that are not on the way are apart from all."""
    on_way = [left + right for left, right in hangs]
    first = [jnp.ones_like(on_way[0])]
    same: Apart = {}
    for later in range(1, len(features)):
        for earlier in range(later):
            alike = jnp.sum(features[earlier] * features[later], axis=0)
            same[earlier, later] = alike * on_way[earlier] * on_way[later] * first[earlier]
        first.append(1 - jnp.sum(jnp.stack([same[earlier, later] for earlier in range(later)]), axis=0))
    return same, first
