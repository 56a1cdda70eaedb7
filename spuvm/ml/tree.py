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

import spuvm as spu
from spuvm.ml.argmax import largest
from spuvm.ml.layout import Layout
from spuvm.ml.leaf_quantiles import quantiles
from spuvm.ml.noisy import Noise, noisy

Matrices = Sequence[jax.Array]
# [1, K, N] of a column of ones, which is chosen where nothing is split; then [width, K, N] of each owner's columns.
Pieces = list[jax.Array]


@dataclass(frozen=True)
class Rules:
    """What decides about splits: public, and part of the compiled program.

    `quantile`: leaves are this quantile of their rows' residuals. `goss`: the share of rows with the largest gradients
    that all count, and what these are below. `noise`: of differentially private sums. `max_leaves`: of
    a tree that grows leaf by leaf (`leafwise`); 0: level by level.
    `step`: the largest leaf before the learning rate; 0: any.
    `exponent`: quotients carry 2^exponent, so that scores use the range of fixed point (`exponent_for`).
    """

    max_depth: int
    reg_lambda: float
    min_child_weight: float
    learning_rate: float
    exponent: int
    reveal_to: tuple[str, ...] = ()  # the owners, if each may know the splits of its columns
    monotone: tuple[int, ...] = ()  # of each feature: 1 if predictions may only rise with it, -1 fall; () if none is
    quantile: float | None = None
    goss: tuple[float, float] | None = None
    noise: Noise | None = None
    max_leaves: int = 0
    step: float = 0.0


@dataclass(frozen=True)
class Tree:
    """K trees. All values are secret; `splits` are private to the columns' owners if these may know them.

    Attributes:
        splits: for each level, `Pieces`: indicators of the columns whose sum sends a row left, int32.
        left, right: weights of the leaves below the last level's nodes, [K, N].
        steps: the last level's splits times (left - right); None if splits are known to the owners.
        gains: by candidate, of all nodes that chose it, times 2^exponent.
    """

    splits: list[Pieces]
    left: jax.Array
    right: jax.Array
    steps: Pieces | None
    gains: jax.Array | None


jax.tree_util.register_dataclass(Tree, ["splits", "left", "right", "steps", "gains"], [])


class Penalties(NamedTuple):
    """What holds trees back: public numbers of `Rules`, or secret scalars where the labels' unit is.

    reg_lambda: is added to hessians; least: hessians of a child; alpha: of an L1 penalty, or None.
    """

    reg_lambda: jax.Array | float
    least: jax.Array | float
    alpha: jax.Array | None = None


SCORE_BITS = 26  # a product of fixed-point numbers is right below 2^26
TINY = 1e-5  # a hessian below is that of no row
UNBOUNDED = 2.0**25  # above all quotients


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
    *,
    penalties: Penalties | None = None,
    residual: jax.Array | None = None,
) -> tuple[Tree, jax.Array]:
    """Grow K trees.

    Args:
        matrices: of each owner, bool [rows, width].
        gradients, hessians: [rows, K]; 0 for rows left out.
        threshold: the least gain of a split, times 2^exponent: a scalar.
        allowed: public, 1 for each candidate that may be chosen at a level: int8 [max_depth, candidates].
        penalties: those of `rules` if not given.
        residual: labels less margins, [rows, K], if leaves are quantiles of them.

    Returns:
        The trees, and what they add to the margins, [rows, K].
    """
    penalties = penalties or penalties_of(rules)
    parts = jnp.stack([gradients, hessians, jnp.ones_like(gradients)], axis=1)[..., None]  # [rows, 3, K, N]
    sums, totals = histogram(matrices, parts)
    splits, gains = [], []
    bounds = step_bounds(rules)
    for level in range(rules.max_depth):
        choice = choose(sums, totals, threshold, allowed[level], layout, rules, penalties, bounds)
        splits.append(pieces(choice.chosen, matrices, rules))
        gains.append(choice.gains)
        if level == rules.max_depth - 1:
            break
        left = parts * goes_left(matrices, splits[-1])[:, None]
        left_sums, left_totals = histogram(matrices, left)
        sums, totals = siblings(left_sums, sums - left_sums), siblings(left_totals, totals - left_totals)
        parts = siblings(left, parts - left)
        bounds = bounds_below(choice, bounds, layout, rules)
    weights = leaves(choice, rules)
    if residual is not None:
        weights = quantile_leaves(matrices, splits[-1], parts, residual, rules)
    steps = None if rules.reveal_to else [piece.astype(parts.dtype) * (weights[0] - weights[1]) for piece in splits[-1]]
    tree = Tree(splits, *weights, steps, sum(gains[1:], gains[0]))
    return tree, leaf_weights(matrices, tree, parts[:, 2])


RESIDUALS = (-4.0, 4.0)  # in units that labels are within 1 of the base score in


def quantile_leaves(
    matrices: Matrices, split: Pieces, parts: jax.Array, residual: jax.Array, rules: Rules
) -> tuple[jax.Array, jax.Array]:
    """The leaves below the last level's nodes as quantiles of their rows' residuals, by weight: [K, N] each."""
    assert rules.quantile is not None
    left = parts[:, 1:] * goes_left(matrices, split)[:, None]
    below = siblings(left, parts[:, 1:] - left)  # [rows, 2, K, 2 N]
    found = quantiles(residual, below[:, 1], below[:, 0], rules.quantile, RESIDUALS)
    there = jnp.sum(below[:, 0], axis=0) > TINY
    weights = jnp.where(there, found * rules.learning_rate, 0.0)
    return weights[:, ::2], weights[:, 1::2]


def histogram(matrices: Matrices, parts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums of gradients and hessians over the rows of each column, [width, 2, K, N], and over all rows, [2, K, N]."""
    flat = parts[:, :2].reshape(parts.shape[0], -1)
    sums = [jnp.matmul(x.astype(flat.dtype).T, flat) for x in matrices]
    shape = (2, *parts.shape[2:])
    return jnp.concatenate(sums).reshape(-1, *shape), jnp.sum(flat, axis=0).reshape(shape)


def pieces(chosen: jax.Array, matrices: Matrices, rules: Rules) -> Pieces:
    """[1 + width, K, N] cut by owner, and shown to the owners if they may know."""
    ends = np.cumsum([1, *(x.shape[1] for x in matrices)])
    out = jnp.split(chosen, ends[:-1])
    shown = [spu.reveal(piece, to=owner) for piece, owner in zip(out[1:], rules.reveal_to)]
    return [out[0], *(shown or out[1:])]


def goes_left(matrices: Matrices, chosen: Pieces) -> jax.Array:
    """Whether each row goes left at each node, times the scale of `chosen`: float [rows, K, N]."""
    ones, *rest = (piece.reshape(piece.shape[0], -1).astype(jnp.float32) for piece in chosen)
    total = sum(jnp.matmul(x.astype(jnp.float32), piece) for x, piece in zip(matrices, rest))
    return (total + ones[0]).reshape(-1, *chosen[0].shape[1:])


def leaf_weights(matrices: Matrices, tree: Tree, member: jax.Array) -> jax.Array:
    """The weight of the leaf that each row is in, [rows, K].

    `member`: 1 where a row is at a node of the last level, else 0: [rows, K, N].
    """
    if tree.steps is None:
        values = tree.right + goes_left(matrices, tree.splits[-1]) * (tree.left - tree.right)
    else:
        values = tree.right + goes_left(matrices, tree.steps)
    return jnp.einsum("rkn,rkn->rk", member, values)


def siblings(left: jax.Array, right: jax.Array) -> jax.Array:
    """[..., N] of both children -> [..., 2 N], children of one node side by side."""
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:-1], -1)


# The choice of a level's splits ---------------------------------------------------------------------------


class Choice(NamedTuple):
    """What `choose` finds for a level.

    chosen: int32 [1 + width, K, N], the `Pieces` side by side; gains: [candidates], of those chosen, over all
    nodes; each: [candidates, K, N], of each node; picked: indicators [1 + candidates, K, N]; weight: quotients
    [2, 1 + candidates, K, N].
    """

    chosen: jax.Array
    gains: jax.Array
    each: jax.Array
    picked: jax.Array
    weight: jax.Array


def choose(
    sums: jax.Array,
    totals: jax.Array,
    threshold: jax.Array,
    allowed: jax.Array,
    layout: Layout,
    rules: Rules,
    penalties: Penalties,
    bounds: Bounds | None = None,
) -> Choice:
    """The best candidate of each node. The first is no split: all rows go left, and it has the threshold in addition.

    The quotient G / (H + lambda) comes before its product with G: the square of G would not fit. Gradients of
    candidates that are not allowed are replaced by 0 while the division runs. With an L1 penalty alpha gradients are
    brought nearer to 0 by alpha, as XGBoost's.
    """
    least = penalties.least
    if rules.noise is not None:
        sums, totals = noisy(sums, totals, layout, rules.noise)
        least = max(rules.min_child_weight, TINY, rules.noise.floor)
    left = jnp.concatenate([totals[None], _candidates(sums, layout)])  # [1 + candidates, 2, K, N]
    sides = jnp.stack([left, totals - left])
    gradient, hessian = sides[:, :, 0], sides[:, :, 1]
    enough = jnp.all(hessian[:, 1:] >= least, axis=0) & (allowed[:, None, None] != 0)
    if rules.noise is not None:
        hessian = jnp.maximum(hessian, rules.noise.floor)
    gradient = shrunk(gradient, penalties)
    usable = jnp.concatenate([jnp.ones((1, *enough.shape[1:]), bool), enough])
    weight = (gradient * 2.0**rules.exponent) / (hessian + penalties.reg_lambda)
    if rules.monotone:
        usable &= in_order(weight if bounds is None else jnp.clip(weight, *bounds), layout, rules)
    if bounds is None:
        score = jnp.sum(jnp.where(usable, gradient, 0.0) * weight, axis=0)
    else:
        weight = jnp.clip(weight, *bounds).at[1, 0].set(0.0)  # no row is right of no split
        score = jnp.sum(jnp.where(usable, bounded_score(gradient, hessian, weight, rules, penalties), 0.0), axis=0)
    best = largest(jnp.concatenate([score[:1] + threshold, score[1:]]))
    picked = best.astype(score.dtype)
    each = picked[1:] * (score[1:] - score[:1])
    return Choice(_columns(best, layout), jnp.sum(each, axis=(1, 2)), each, picked, weight)


def penalties_of(rules: Rules, given: jax.Array | None = None, alpha: jax.Array | None = None) -> Penalties:
    """Those of `rules`, or what the label holder gave: lambda and the least hessians of a child, [2]."""
    if given is None:
        return Penalties(rules.reg_lambda, max(rules.min_child_weight, TINY), alpha)
    return Penalties(given[0], given[1], alpha)


def shrunk(gradient: jax.Array, penalties: Penalties) -> jax.Array:
    """Gradients nearer to 0 by the L1 penalty."""
    alpha = penalties.alpha
    return gradient if alpha is None else gradient - jnp.clip(gradient, -alpha, alpha)


# Predictions that only rise, or fall, with a feature ------------------------------------------------------------

# Of quotients of each node, [K, N]: the least and the largest that its leaves may have. A leaf is less its quotient.
Bounds = tuple[jax.Array, jax.Array]


def step_bounds(rules: Rules) -> Bounds | None:
    """The bounds of a tree's root, and of all nodes if nothing else bounds them."""
    most = jnp.float32(rules.step * 2.0**rules.exponent)
    return (-most, most) if rules.step else None


def in_order(weight: jax.Array, layout: Layout, rules: Rules) -> jax.Array:
    """Whether the children of a candidate are in the order that its feature asks for: bool [1 + candidates, K, N]."""
    signs = np.array(rules.monotone)[layout.feature]
    some = np.flatnonzero(signs)
    between = (weight[0] - weight[1])[1 + some] * signs[some, None, None].astype(np.float32)
    return jnp.ones(weight.shape[1:], bool).at[1 + some].set(between >= 0)


def bounded_score(
    gradient: jax.Array, hessian: jax.Array, weight: jax.Array, rules: Rules, penalties: Penalties
) -> jax.Array:
    """2 G q - (H + lambda) q^2, times 2^exponent, of quotients q that were bounded; G q where they were not."""
    pull = (hessian + penalties.reg_lambda) * (weight * 2.0**-rules.exponent)
    return (2 * gradient - pull) * weight


def bounds_below(choice: Choice, bounds: Bounds | None, layout: Layout, rules: Rules) -> Bounds | None:
    """The bounds of both children: leaves of one side stay below, those of the other above the middle of both sides.

    As XGBoost's: of a split on a feature that asks for an order; other children have the node's bounds.
    """
    if not rules.monotone:
        return bounds
    signs = np.array(rules.monotone)[layout.feature]
    left, right = jnp.sum(choice.picked * choice.weight, axis=1)
    rises, falls = (jnp.sum(choice.picked[1 + np.flatnonzero(signs == s)], axis=0) for s in (1, -1))
    middle = (left + right) * 0.5
    low, high = (jnp.broadcast_to(b, middle.shape) for b in bounds or (-UNBOUNDED, UNBOUNDED))
    up, down = middle - low, middle - high
    return siblings(low + rises * up, low + falls * up), siblings(high + falls * down, high + rises * down)


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
