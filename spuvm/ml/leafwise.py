"""Growing a tree leaf by leaf: each step splits the leaf that gains most, and which one that is stays secret.

Notation: step s finds s leaves, counted from 0 in the order in which they came to be. What it splits keeps the rows
that go left; those that go right are leaf s. A step in which no leaf gains anything sends no row right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spuvm.ml.argmax import largest
from spuvm.ml.layout import Layout
from spuvm.ml.leaf_quantiles import quantiles
from spuvm.ml.tree import (
    RESIDUALS,
    TINY,
    Matrices,
    Penalties,
    Pieces,
    Rules,
    choose,
    goes_left,
    histogram,
    penalties_of,
    pieces,
    shrunk,
    step_bounds,
)


@dataclass(frozen=True)
class LeafTree:
    """K trees of L leaves; all values are secret.

    Attributes:
        splits: of each step, `Pieces` [..., K, 1]: indicators of the columns whose sum sends a row left, int32.
        picks: of each step s, which leaf it splits: int32 [K, s].
        weights: of the leaves, [K, L].
        gains: by candidate, of all steps that chose it, times 2^exponent.
    """

    splits: list[Pieces]
    picks: list[jax.Array]
    weights: jax.Array
    gains: jax.Array | None


jax.tree_util.register_dataclass(LeafTree, ["splits", "picks", "weights", "gains"], [])


class Leaves(NamedTuple):
    """What is known of each leaf, by the last axis.

    sums: [width, 2, K, s]; totals: [2, K, s]; columns: what splits it best, int32 [1 + width, K, s]; gains: by
    candidate, of that split, [candidates, K, s]; depth: of the leaf, int32 [K, s].
    """

    sums: jax.Array
    totals: jax.Array
    columns: jax.Array
    gains: jax.Array
    depth: jax.Array


def grow(
    matrices: Matrices,
    gradients: jax.Array,
    hessians: jax.Array,
    threshold: jax.Array,
    allowed: jax.Array,
    layout: Layout,
    rules: Rules,
    *,
    penalties: Penalties | None = None,
    residual: jax.Array | None = None,
) -> tuple[LeafTree, jax.Array]:
    """Grow K trees; see `tree.grow`."""
    penalties = penalties or penalties_of(rules)
    parts = jnp.stack([gradients, hessians], axis=1)[..., None]  # [rows, 2, K, 1]
    member = jnp.ones((*gradients.shape, 1), gradients.dtype)
    sums, totals = histogram(matrices, parts)
    depth = jnp.zeros((gradients.shape[1], 1), jnp.int32)

    def seen(sums: jax.Array, totals: jax.Array, depth: jax.Array) -> Leaves:
        choice = choose(sums, totals, threshold, allowed[0], layout, rules, penalties, step_bounds(rules))
        columns, gains = choice.chosen, choice.each
        if rules.max_depth < rules.max_leaves - 1:
            free = depth < rules.max_depth
            gains = jnp.where(free, gains, 0.0)
            columns = jnp.where(free, columns, jnp.zeros_like(columns).at[0].set(1))
        return Leaves(sums, totals, columns, gains, depth)

    leaves = seen(sums, totals, depth)
    splits, picks, gains = [], [], jnp.zeros(allowed.shape[1], gradients.dtype)
    for step in range(rules.max_leaves - 1):
        pick = jnp.moveaxis(largest(jnp.moveaxis(jnp.sum(leaves.gains, axis=0), -1, 0)), 0, -1)
        split: Leaves = jax.tree.map(lambda x, p=pick: jnp.sum(x * p.astype(x.dtype), axis=-1, keepdims=True), leaves)
        splits.append(pieces(split.columns, matrices, rules))
        picks.append(pick)
        gains = gains + jnp.sum(split.gains, axis=(1, 2))
        right = gone_right(member, pick, goes_left(matrices, splits[-1]))
        member = parted(member, pick, right)
        gone = histogram(matrices, parts * right[:, None])
        sums, totals = (jnp.concatenate([a - b, b], axis=-1) for a, b in zip((split.sums, split.totals), gone))
        if step == rules.max_leaves - 2:
            break
        both = seen(sums, totals, jnp.concatenate([split.depth, split.depth], axis=-1) + 1)
        leaves = jax.tree.map(lambda old, new, p=pick: _kept(old, new, p), leaves, both)
    last = _kept(leaves.totals, totals, picks[-1])
    weights = _weights(last, member, hessians, residual, rules, penalties)
    return LeafTree(splits, picks, weights, gains), jnp.einsum("rkl,kl->rk", member, weights)


def _kept(old: jax.Array, new: jax.Array, pick: jax.Array) -> jax.Array:
    """[..., s] of leaves and [..., 2] of the two that the picked one became -> [..., s + 1]."""
    first = old + pick.astype(old.dtype) * (new[..., :1] - old)
    return jnp.concatenate([first, new[..., 1:]], axis=-1)


def gone_right(member: jax.Array, pick: jax.Array, left: jax.Array) -> jax.Array:
    """1 of rows of the picked leaf that do not go left: [rows, K, 1]."""
    here = jnp.einsum("rkl,kl->rk", member, pick.astype(member.dtype))[..., None]
    return here - here * left


def parted(member: jax.Array, pick: jax.Array, right: jax.Array) -> jax.Array:
    """[rows, K, s] -> [rows, K, s + 1]."""
    return jnp.concatenate([member - pick.astype(member.dtype) * right, right], axis=-1)


def _weights(
    totals: jax.Array,
    member: jax.Array,
    hessians: jax.Array,
    residual: jax.Array | None,
    rules: Rules,
    penalties: Penalties,
) -> jax.Array:
    if residual is not None and rules.quantile is not None:
        found = quantiles(residual, member, member * hessians[..., None], rules.quantile, RESIDUALS)
        there = jnp.sum(member, axis=0) > 0.5
        return jnp.where(there, found * rules.learning_rate, 0.0)
    gradient, bounds = shrunk(totals[0], penalties), step_bounds(rules)
    quotient = (gradient * 2.0**rules.exponent) / (jnp.maximum(totals[1], TINY) + penalties.reg_lambda)
    quotient = quotient if bounds is None else jnp.clip(quotient, *bounds)
    return quotient * (-rules.learning_rate / 2.0**rules.exponent)


def margins(matrices: Matrices, tree: LeafTree, rows: int) -> jax.Array:
    """The weight of each row's leaf, [rows, K]."""
    member = jnp.ones((rows, tree.weights.shape[0], 1), jnp.float32)
    every = [jnp.concatenate(some, axis=-1) for some in zip(*tree.splits)]  # all steps' products at once
    left = goes_left(matrices, every)
    for step, pick in enumerate(tree.picks):
        right = gone_right(member, pick, left[..., step : step + 1])
        member = parted(member, pick, right)
    return jnp.einsum("rkl,kl->rk", member, tree.weights)
