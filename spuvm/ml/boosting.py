"""The functions that the machine runs to train and to predict: one round, margins, sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.layout import Layout
from spuvm.ml.leaf_quantiles import quantiles
from spuvm.ml.objectives import OBJECTIVES
from spuvm.ml.parameters import Parameters
from spuvm.ml.tree import Matrices, Rules, Tree, exponent_for, goes_left, grow, leaf_weights, siblings


def rules_for(parameters: Parameters, layout: Layout, rows: int, weighted: bool) -> Rules:
    """The public part of what decides about splits."""
    goss = parameters.sampling_method == "goss"
    bits = OBJECTIVES[parameters.objective].score_bits + 2 * weighted + (_bits(amplified(parameters)) if goss else 0)
    return Rules(
        parameters.max_depth,
        parameters.reg_lambda,
        parameters.min_child_weight,
        parameters.learning_rate,
        exponent_for(rows, bits),
        layout.owners if parameters.reveal_splits_to_owner else (),
        signs(parameters, layout),
        parameters.quantile,
        (parameters.top_rate, amplified(parameters)) if goss else None,
    )


def amplified(parameters: Parameters) -> float:
    """How often a row counts that stands for others of small gradients."""
    return (1 - parameters.top_rate) / parameters.other_rate


def _bits(number: float) -> int:
    return max(0, math.ceil(math.log2(number)))


def signs(parameters: Parameters, layout: Layout) -> tuple[int, ...]:
    """Of each feature, 1 or -1 if predictions may only rise or fall with it, else 0; () if that is asked of none."""
    wanted = dict(parameters.monotone_constraints or ())
    out = tuple(wanted.get(c.name, 0) for c in layout.all_features)
    return out if any(out) else ()


@cache  # so that a function is traced and compiled once, however many models are trained
def one_round(layout: Layout, rules: Rules, objective: str) -> Callable[..., Any]:
    """The function that grows the K trees of a round."""

    def grow_round(
        matrices: Matrices, margin: jax.Array, labels: Mapping[str, jax.Array], public: Mapping[str, jax.Array]
    ) -> tuple[Tree, jax.Array]:
        extra = labels.get("extra", rules.quantile)
        gradients, hessians = OBJECTIVES[objective].gradients(margin, labels["target"], extra)
        if "weight" in labels:
            gradients, hessians = gradients * labels["weight"], hessians * labels["weight"]
        if "rows" in public:
            rows = public["rows"].astype(margin.dtype)
            rows = rows if rules.goss is None else one_sided(gradients * hessians, rows, *rules.goss)
            gradients, hessians = gradients * rows, hessians * rows
        given = gradients, hessians, labels["threshold"], public["allowed"], layout, rules
        left = labels["target"] - margin if rules.quantile is not None else None
        tree, change = grow(matrices, *given, alpha=labels.get("alpha"), residual=left)
        return tree, margin + change

    return grow_round


LARGEST_PRODUCT = 64.0  # of a gradient and its hessian, where rows are told apart


def one_sided(products: jax.Array, drawn: jax.Array, top: float, factor: float) -> jax.Array:
    """How often each row counts: 1 of the largest, `factor` of those drawn of the others, 0 of the rest: [rows, 1].

    The least of the largest is a secret quantile of the sizes of `products` [rows, K].
    """
    size = jnp.sum(jnp.abs(products), axis=1, keepdims=True)
    everyone = jnp.ones((*size.shape, 1), size.dtype)
    least = quantiles(size, everyone, everyone, 1 - top, (0.0, LARGEST_PRODUCT))
    return jnp.where(size > least[0], 1.0, drawn * factor)


def first_margins(base: jax.Array, like: jax.Array) -> jax.Array:
    """The base margins [K] for each row: [rows, K]."""
    return jnp.broadcast_to(base, (like.shape[0], base.shape[0]))


def margins(matrices: Matrices, trees: Sequence[Tree], before: jax.Array) -> jax.Array:
    """Margins [rows, K] after the trees of further rounds.

    All nodes of all trees in one product a level, and no comparison: where a row goes is a sum.
    """
    tree = side_by_side(trees)
    member = jnp.ones((before.shape[0], tree.left.shape[0], 1), before.dtype)
    for chosen in tree.splits[:-1]:
        left = member * goes_left(matrices, chosen)
        member = siblings(left, member - left)
    weights = leaf_weights(matrices, tree, member)
    return before + jnp.sum(weights.reshape(weights.shape[0], -1, before.shape[-1]), axis=1)


def side_by_side(trees: Sequence[Tree]) -> Tree:
    """The trees of several rounds as one: [..., rounds K, N]."""
    without = [replace(t, gains=None) for t in trees]
    stacked: Tree = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-2), *without)
    return stacked


class Sampling:
    """Which rows and features each round may use: drawn by a public generator, equal at all parties."""

    def __init__(self, parameters: Parameters, layout: Layout, rows: int) -> None:
        self.parameters = parameters
        self.layout = layout
        self.rows = rows
        # RandomState, as its numbers are the same in every version of NumPy.
        self.generator = np.random.RandomState(parameters.random_state)

    def draw(self) -> dict[str, np.ndarray]:
        """For the next round: `allowed` int8 [max_depth, candidates]; if rows are sampled, `rows` int8 [rows, 1]."""
        p, count = self.parameters, len(self.layout.all_features)
        of_tree = self._some(np.arange(count), p.colsample_bytree)
        levels = [self._some(of_tree, p.colsample_bylevel) for _ in range(p.max_depth)]
        allowed = [np.isin(self.layout.feature, level) for level in levels]
        out = {"allowed": np.array(allowed, np.int8)}
        share = p.other_rate / (1 - p.top_rate) if p.sampling_method == "goss" else p.subsample
        if share < 1 or p.sampling_method == "goss":
            chosen = np.zeros((self.rows, 1), np.int8)
            chosen[self._some(np.arange(self.rows), share)] = 1
            out["rows"] = chosen
        return out

    def _some(self, items: np.ndarray, share: float) -> np.ndarray:
        count = max(1, round(share * len(items)))
        return items if count == len(items) else self.generator.permutation(items)[:count]
