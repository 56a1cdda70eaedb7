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
from typing import NamedTuple

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
        gains: by candidate, of all nodes that chose it, times 2^exponent.
    """

    splits: list[jax.Array]
    left: jax.Array
    right: jax.Array
    steps: jax.Array
    gains: jax.Array


jax.tree_util.register_dataclass(Tree, ["splits", "left", "right", "steps", "gains"], [])

SCORE_BITS = 26  # a product of fixed-point numbers is right below 2^26
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
    threshold: jax.Array,
    allowed: jax.Array,
    layout: Layout,
    rules: Rules,
) -> tuple[Tree, jax.Array]:
    """Grow K trees.

    Args:
        matrices: of each owner, bool [rows, width].
        gradients, hessians: [rows, K]; 0 for rows left out.
        threshold: the least gain of a split, times 2^exponent: a scalar.
        allowed: public, 1 for each candidate that may be chosen at a level: int8 [max_depth, candidates].

    Returns:
        The trees, and what they add to the margins, [rows, K].
    """
    parts = jnp.stack([gradients, hessians], axis=1)[..., None]  # [rows, 2, K, N]
    member: jax.Array | None = None  # int32 [rows, K, N]; of the root all ones
    sums, totals = histogram(matrices, parts), jnp.sum(parts, axis=0)
    splits, gains = [], []
    for level in range(rules.max_depth):
        choice = choose(sums, totals, threshold, allowed[level], layout, rules)
        splits.append(choice.chosen)
        gains.append(choice.gains)
        if level == rules.max_depth - 1:
            break
        left = goes_left(matrices, choice.chosen)
        below = parts * left[:, None].astype(parts.dtype)
        members = left if member is None else member * left
        member = siblings(members, 1 - members if member is None else member - members)
        left_sums, left_totals = histogram(matrices, below), jnp.sum(below, axis=0)
        sums, totals = siblings(left_sums, sums - left_sums), siblings(left_totals, totals - left_totals)
        parts = siblings(below, parts - below)
    left_weights, right_weights = leaves(choice, rules)
    steps = choice.chosen.astype(left_weights.dtype) * (left_weights - right_weights)
    tree = Tree(splits, left_weights, right_weights, steps, sum(gains[1:], gains[0]))
    return tree, leaf_weights(matrices, steps, right_weights, member)


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


def leaf_weights(matrices: Matrices, steps: jax.Array, right: jax.Array, member: jax.Array | None) -> jax.Array:
    """The weight of the leaf that each row is in, [rows, K]."""
    values = goes_left(matrices, steps) + right
    if member is None:
        return values[..., 0]
    return jnp.sum(member.astype(values.dtype) * values, axis=-1)


def siblings(left: jax.Array, right: jax.Array) -> jax.Array:
    """[..., N] of both children -> [..., 2 N], children of one node side by side."""
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:-1], -1)


# The choice of a level's splits ---------------------------------------------------------------------------


class Choice(NamedTuple):
    """What `choose` finds for a level.

    chosen: int32 [1 + width, K, N], see `Tree.splits`; gains: [candidates], of the chosen ones, summed over nodes;
    picked: indicators [1 + candidates, K, N]; weight: quotients [2, 1 + candidates, K, N].
    """

    chosen: jax.Array
    gains: jax.Array
    picked: jax.Array
    weight: jax.Array


def choose(
    sums: jax.Array, totals: jax.Array, threshold: jax.Array, allowed: jax.Array, layout: Layout, rules: Rules
) -> Choice:
    """The best candidate of each node. The first is no split: all rows go left, and it has the threshold in addition.

    The quotient G / (H + lambda) comes before its product with G: the square of G would not fit. Gradients of
    candidates that are not allowed are replaced by 0 while the division runs.
    """
    left = jnp.concatenate([totals[None], _candidates(sums, layout)])  # [1 + candidates, 2, K, N]
    sides = jnp.stack([left, totals - left])
    gradient, hessian = sides[:, :, 0], sides[:, :, 1]
    enough = jnp.all(hessian[:, 1:] >= max(rules.min_child_weight, TINY), axis=0) & (allowed[:, None, None] != 0)
    usable = jnp.concatenate([jnp.ones((1, *enough.shape[1:]), bool), enough])
    weight = (gradient * 2.0**rules.exponent) / (hessian + rules.reg_lambda)
    score = jnp.sum(jnp.where(usable, gradient, 0.0) * weight, axis=0)
    best = largest(jnp.concatenate([score[:1] + threshold, score[1:]]))
    picked = best.astype(score.dtype)
    gains = jnp.sum(picked[1:] * (score[1:] - score[:1]), axis=(1, 2))
    return Choice(_columns(best, layout), gains, picked, weight)


def leaves(choice: Choice, rules: Rules) -> tuple[jax.Array, jax.Array]:
    """The weights of the rows that the last level's nodes send left and right, [K, N] each."""
    both = jnp.sum(choice.picked * choice.weight, axis=1) * (-rules.learning_rate / 2.0**rules.exponent)
    return both[0], both[1]


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
