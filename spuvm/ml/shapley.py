"""Shapley values of secret trees: how far each feature moved each prediction, exactly, and nobody sees a tree.

The game is that of TreeSHAP (Lundberg and others, Nature Machine Intelligence 2020, path-dependent): where a feature is
not known, a row goes both ways, by the shares of the background's rows that took them. On the way to a leaf of weight v
let feature i send the row along (z_i, 0 or 1), as the share r_i of the background's rows. The leaf gives feature i

    v (z_i - r_i) integral_0^1 prod_{j != i} (r_j + u (z_j - r_j)) du

(Owen, Management Science 1972). The product is a polynomial in u, which Gauss and Legendre's rule integrates exactly
with half as many places as the tree has levels. A feature that is split twice on the way is one player: its z and r are
the products of both, and the lower split becomes one that changes nothing; which splits have one feature is secret.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.layout import Layout
from spuvm.ml.tree import Matrices, Pieces, Tree, goes_left, siblings

MOST_DEPTH = 6
Shares = list[jax.Array]  # of each level, [T, N]: the share of a node's rows that go left


def shares(matrices: Matrices, tree: Tree) -> Shares:
    """Where the background's rows go; of a node without rows all go right."""
    member = jnp.ones((matrices[0].shape[0], tree.left.shape[0], 1), jnp.float32)
    out = []
    for chosen in tree.splits:
        left = member * goes_left(matrices, chosen)
        out.append(jnp.sum(left, axis=0) / jnp.maximum(jnp.sum(member, axis=0), 1.0))
        member = siblings(left, member - left)
    return out


@cache
def contributions(layout: Layout, outputs: int) -> Callable[..., jax.Array]:
    """A function of matrices, a tree of T = rounds K side by side, and shares: float [rows, K, features + 1], the last
    what trees give without any feature."""

    def run(matrices: Matrices, tree: Tree, known: Shares) -> jax.Array:
        depth = len(tree.splits)
        features = [features_of(chosen, layout) for chosen in tree.splits]
        way = _ways([goes_left(matrices, chosen) for chosen in tree.splits])
        base = _ways(known)
        weights = siblings(tree.left, tree.right)  # [T, leaves]
        apart = apart_of(features)
        ways, bases = merged(way, apart, depth), merged(base, apart, depth)
        found: list[jax.Array] = []
        for level, share in enumerate(others(ways, bases)):
            each = (ways[level] - bases[level]) * share  # [rows, T, leaves]
            under = each.reshape(*each.shape[:2], 1 << level, -1)
            moved = jnp.einsum("rtnl,tnl->rtn", under, weights.reshape(weights.shape[0], 1 << level, -1))
            found.append(summed(moved, features[level], outputs))
        alone = jnp.sum(product(base) * weights, axis=1).reshape(-1, outputs).sum(axis=0)
        total = sum(found[1:], found[0])
        last = jnp.broadcast_to(alone[:, None], (total.shape[0], outputs, 1))
        return jnp.concatenate([total, last], axis=-1)

    return run


def features_of(chosen: Pieces, layout: Layout) -> jax.Array:
    """Which feature each node of a level splits: float [features, T, N]; of no split none."""
    nodes = jnp.concatenate(chosen[1:]).astype(jnp.float32)
    columns, first = np.unique(layout.columns, return_index=True)
    none = jnp.zeros((len(layout.all_features), *nodes.shape[1:]), jnp.float32)
    return none.at[layout.feature[first]].add(nodes[columns])


def _ways(left: list[jax.Array]) -> list[jax.Array]:
    """[..., N] of each level, of going left -> [..., leaves] of each level, of going towards the leaf."""
    depth = len(left)
    leaves = np.arange(1 << depth)
    out = []
    for level, x in enumerate(left):
        right = (leaves >> (depth - level - 1)) % 2
        here = x[..., leaves >> (depth - level)]
        out.append(here * (1 - 2 * right) + right)
    return out


Apart = dict[tuple[int, int], jax.Array]


def apart_of(features: list[jax.Array]) -> tuple[Apart, list[jax.Array]]:
    """For levels a < b: 1 if the split at b is of the feature of the one at a, and that is the first on the way with
    it; [T, leaves]. And of each level whether its split is the first of its feature."""
    depth, leaves = len(features), np.arange(1 << len(features))
    on_way = [f[..., leaves >> (depth - level)] for level, f in enumerate(features)]
    first = [jnp.ones(on_way[0].shape[1:], jnp.float32)]
    same: Apart = {}
    for below in range(1, depth):
        for above in range(below):
            same[above, below] = jnp.sum(on_way[above] * on_way[below], axis=0) * first[above]
        first.append(1 - jnp.sum(jnp.stack([same[above, below] for above in range(below)]), axis=0))
    return same, first


def merged(way: list[jax.Array], apart: tuple[Apart, list[jax.Array]], depth: int) -> list[jax.Array]:
    """Each feature's splits as one: at the first its product, below 1."""
    same, first = apart
    out = list(way)
    for above, below in combinations(range(depth), 2):
        out[above] = out[above] * (1 - same[above, below] * (1 - way[below]))
    return [x if level == 0 else 1 - first[level] * (1 - x) for level, x in enumerate(out)]


def others(ways: list[jax.Array], bases: list[jax.Array]) -> list[jax.Array]:
    """The integral of all others' product, for each level: [rows, T, leaves]."""
    depth = len(ways)
    if depth == 1:
        return [jnp.ones_like(ways[0])]
    places, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
    at = ((places + 1) / 2).reshape(-1, 1, 1, 1).astype(np.float32)
    factors = [base + at * (way - base) for way, base in zip(ways, bases)]
    before, after = [factors[0]], [factors[-1]]
    for level in range(1, depth - 1):
        before.append(before[-1] * factors[level])
        after.append(after[-1] * factors[-1 - level])
    inner = [before[k - 1] * after[depth - 2 - k] for k in range(1, depth - 1)]
    rule = (weights / 2).astype(np.float32)
    return [jnp.tensordot(rule, x, axes=1) for x in (after[-1], *inner, before[-1])]


def product(factors: list[jax.Array]) -> jax.Array:
    """Of all of them."""
    out = factors[0]
    for x in factors[1:]:
        out = out * x
    return out


def summed(moved: jax.Array, features: jax.Array, outputs: int) -> jax.Array:
    """[rows, T, N] of nodes -> [rows, K, features]."""
    by_class = moved.reshape(moved.shape[0], -1, outputs, moved.shape[-1])
    chosen = features.reshape(features.shape[0], -1, outputs, features.shape[-1])
    return jnp.einsum("rtkn,ftkn->rkf", by_class, chosen)


def added(parts: list[jax.Array], base: jax.Array, unit: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """The contributions of all trees in the units of predictions; what is there before the first tree counts as
    nobody's."""
    total = sum(parts[1:], parts[0])
    total = total.at[:, :, -1].add(base)
    if unit is not None:
        total = (total * unit[1]) * unit[0].astype(total.dtype)
    return total[:, 0] if total.shape[1] == 1 else total
