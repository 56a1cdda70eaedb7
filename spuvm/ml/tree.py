"""Growing one tree on secret gradients: JAX functions whose rounds depend on the depth alone.

Notation: K trees are grown at once (one for each class), a level has N = 2^level nodes. An owner's
matrix X has one row for each row of the data and a column of 0 and 1 for each possible split ("goes
left", 0 where the cell is missing), then a column for each feature that may miss cells ("is
missing"). A candidate is a split column with the side to which missing cells go.

All trees are complete: a node that finds no split sends all of its rows to the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.argmax import largest
from spuvm.ml.layout import Layout

Matrices = Sequence[jax.Array]


@dataclass(frozen=True)
class Rules:
    """What decides about splits: public, and part of the compiled program.

    `exponent`: quotients carry 2^exponent, so that scores use the range of fixed point (`exponent_for`).
    """

    max_depth: int
    reg_lambda: float
    min_child_weight: float
    learning_rate: float
    exponent: int


@dataclass(frozen=True)
class Tree:
    """K trees. All values are secret.

    Attributes:
        splits: for each level, int32 [1 + width, K, N]: 1 at the columns whose sum sends a row left; the
            first stands for a column of ones, chosen where nothing is split.
        left, right: weights of the leaves below the last level's nodes, [K, N].
        steps: the last level's splits times (left - right), [1 + width, K, N].
    """

    splits: list[jax.Array]
    left: jax.Array
    right: jax.Array
    steps: jax.Array


jax.tree_util.register_dataclass(Tree, ["splits", "left", "right", "steps"], [])

SCORE_BITS = 26  # a product of fixed-point numbers is right below 2^26
SMALLEST_GAIN = 1e-6  # XGBoost's: a gain below is none
TINY = 1e-5  # a hessian below is that of no row


def exponent_for(rows: int, margin_bits: int) -> int:
    """The power of two that scores G^2 / (H + lambda) may be multiplied with to stay below 2^26.

    `margin_bits`: scores are below rows 2^margin_bits (an objective knows).
    """
    return SCORE_BITS - margin_bits - (rows - 1).bit_length()


def grow(
    matrices: Matrices,
    gradients: jax.Array,
    hessians: jax.Array,
    gamma: jax.Array,
    allowed: jax.Array,
    layout: Layout,
    rules: Rules,
) -> tuple[Tree, jax.Array]:
    """Grow K trees.

    Args:
        matrices: of each owner, int8 [rows, width].
        gradients, hessians: [rows, K]; 0 for rows left out.
        gamma: the least gain of a split, a scalar.
        allowed: public, 1 for each candidate that may be chosen at a level: int8 [max_depth, candidates].

    Returns:
        The trees, and what they add to the margins, [rows, K].
    """
    parts = jnp.stack([gradients, hessians], axis=1)[..., None]  # [rows, 2, K, N]
    member: jax.Array | None = None  # int32 [rows, K, N]; of the root all ones
    sums = histogram(matrices, parts)
    totals = jnp.sum(parts, axis=0)
    splits = []
    for level in range(rules.max_depth):
        last = level == rules.max_depth - 1
        chosen, weights = choose(sums, totals, gamma, allowed[level], layout, rules, last)
        splits.append(chosen)
        if last:
            break
        left = goes_left(matrices, chosen)
        below = parts * left[:, None].astype(parts.dtype)
        members = left if member is None else member * left
        member = siblings(members, 1 - members if member is None else member - members)
        left_sums, left_totals = histogram(matrices, below), jnp.sum(below, axis=0)
        sums, totals = siblings(left_sums, sums - left_sums), siblings(left_totals, totals - left_totals)
        parts = siblings(below, parts - below)
    left_weights, right_weights = weights
    steps = chosen.astype(left_weights.dtype) * (left_weights - right_weights)
    tree = Tree(splits, left_weights, right_weights, steps)
    return tree, _reached(matrices, steps, right_weights, member)


def histogram(matrices: Matrices, parts: jax.Array) -> jax.Array:
    """Sums over the rows of each column, [width, 2, K, N]."""
    flat = parts.reshape(parts.shape[0], -1)
    sums = [jnp.matmul(x.astype(flat.dtype).T, flat) for x in matrices]
    return jnp.concatenate(sums).reshape(-1, *parts.shape[1:])


def goes_left(matrices: Matrices, chosen: jax.Array) -> jax.Array:
    """Whether each row goes left at each node, [rows, K, N], times the scale of `chosen`, [1 + width, K, N]."""
    flat = chosen.reshape(chosen.shape[0], -1)
    total, at = flat[0], 1
    for x in matrices:
        total, at = total + jnp.matmul(x.astype(flat.dtype), flat[at : at + x.shape[1]]), at + x.shape[1]
    return total.reshape(-1, *chosen.shape[1:])


def _reached(matrices: Matrices, steps: jax.Array, right: jax.Array, member: jax.Array | None) -> jax.Array:
    """The weight of the leaf that each row is in, [rows, K]."""
    values = goes_left(matrices, steps) + right
    if member is None:
        return values[..., 0]
    return jnp.sum(member.astype(values.dtype) * values, axis=-1)


def siblings(left: jax.Array, right: jax.Array) -> jax.Array:
    """[..., N] of both children -> [..., 2 N], children of one node side by side."""
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:-1], -1)


# The choice of a level's splits ---------------------------------------------------------------------------


def choose(
    sums: jax.Array, totals: jax.Array, gamma: jax.Array, allowed: jax.Array, layout: Layout, rules: Rules, last: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Splits of a level's nodes, int32 [1 + width, K, N], and if it is the last the weights left and right."""
    left = _candidates(sums, layout)  # [candidates, 2, K, N]
    sides = jnp.stack([left, totals - left])
    gradient, hessian = sides[:, :, 0], sides[:, :, 1]
    enough = jnp.all(hessian >= max(rules.min_child_weight, TINY), axis=0) & (allowed[:, None, None] != 0)
    scale = 2.0**rules.exponent
    weight = quotient(gradient, hessian, rules)
    score = jnp.sum(jnp.where(enough, gradient, 0.0) * weight, axis=0)
    own = quotient(totals[0], totals[1], rules)
    stay = totals[0] * own + jnp.maximum(gamma, SMALLEST_GAIN) * scale
    best = largest(jnp.concatenate([stay[None], score]))
    chosen = _columns(best, layout)
    if not last:
        return chosen, (own, own)
    picked = best.astype(weight.dtype)
    leaves = jnp.sum(picked[1:] * weight, axis=1)  # [2, K, N]
    leaves = jnp.concatenate([leaves[:1] + picked[0] * own, leaves[1:]]) * (-rules.learning_rate / scale)
    return chosen, (leaves[0], leaves[1])


def quotient(gradient: jax.Array, hessian: jax.Array, rules: Rules) -> jax.Array:
    """2^exponent G / (H + lambda)."""
    if rules.exponent >= 0:
        return (gradient * 2.0**rules.exponent) / (hessian + rules.reg_lambda)
    return gradient / ((hessian + rules.reg_lambda) * 2.0**-rules.exponent)


def _candidates(sums: jax.Array, layout: Layout) -> jax.Array:
    """Sums of the rows that each candidate sends left."""
    if layout.plain:
        return sums
    columns, missing = layout.columns, layout.missing
    both = np.flatnonzero(missing >= 0)
    return sums[columns].at[both].add(sums[missing[both]])


def _columns(best: jax.Array, layout: Layout) -> jax.Array:
    """Indicators of no split and of the candidates -> of the column of ones and the columns."""
    if layout.plain:
        return best
    columns, missing = layout.columns, layout.missing
    both = np.flatnonzero(missing >= 0)
    chosen = jnp.zeros((1 + layout.width, *best.shape[1:]), best.dtype).at[0].set(best[0])
    return chosen.at[1 + columns].add(best[1:]).at[1 + missing[both]].add(best[1 + both])
