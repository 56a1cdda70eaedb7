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

from spuvm.ml import leafwise
from spuvm.ml.layout import Layout
from spuvm.ml.leaf_quantiles import quantiles
from spuvm.ml.leafwise import LeafTree
from spuvm.ml.noisy import Noise
from spuvm.ml.objectives import OBJECTIVES, STEP
from spuvm.ml.parameters import LOG_LINK, RANKS, Parameters
from spuvm.ml.tree import Matrices, Rules, Tree, exponent_for, goes_left, grow, leaf_weights, penalties_of, siblings

AnyTree = Tree | LeafTree


def rules_for(parameters: Parameters, layout: Layout, rows: int, weighted: bool, noise: Noise | None = None) -> Rules:
    """The public part of what decides about splits."""
    rows += 0 if noise is None else math.ceil(8 * noise.sigma)  # as many as noise may look like
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
        (parameters.top_rate, largest_product(parameters)) if goss else None,
        noise,
        parameters.max_leaves if parameters.grow_policy == "lossguide" else 0,
        STEP if parameters.objective == "count:poisson" else 0.0,
    )


def amplified(parameters: Parameters) -> float:
    """How often a row counts that stands for others of small gradients."""
    return (1 - parameters.top_rate) / parameters.other_rate


def largest_product(parameters: Parameters) -> float:
    """Of a gradient and its hessian, where rows are told apart by it."""
    if parameters.objective in (*LOG_LINK, *RANKS):
        return 64.0
    return 1.0 if parameters.objective in ("binary:logistic", "multi:softprob", "multi:softmax") else 4.0


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
        matrices: Matrices, margin: jax.Array, labels: Mapping[str, jax.Array], public: Mapping[str, Any]
    ) -> tuple[AnyTree, jax.Array]:
        extra: Any = labels.get("extra", rules.quantile)
        if "groups" in public:
            extra = extra, public["groups"]
        gradients, hessians = OBJECTIVES[objective].gradients(margin, labels["target"], extra)
        if "counting" in labels:  # exactly nothing of rows that are not there
            gradients, hessians = (jnp.where(labels["counting"], x, 0.0) for x in (gradients, hessians))
        if "weight" in labels:
            gradients, hessians = gradients * labels["weight"], hessians * labels["weight"]
        if "rows" in public:
            rows = public["rows"].astype(margin.dtype)
            rows = rows if rules.goss is None else one_sided(gradients * hessians, rows, *rules.goss)
            gradients, hessians = gradients * rows, hessians * rows
        if rules.noise is not None:
            gradients = jnp.clip(gradients, -rules.noise.gradient, rules.noise.gradient)
        given = gradients, hessians, labels["threshold"], public["allowed"], layout, rules
        left = labels["target"] - margin if rules.quantile is not None else None
        held = penalties_of(rules, labels.get("penalties"), labels.get("alpha"))
        tree, change = (leafwise.grow if rules.max_leaves else grow)(matrices, *given, penalties=held, residual=left)
        return tree, margin + change

    return grow_round


def one_sided(products: jax.Array, others: jax.Array, top: float, most: float) -> jax.Array:
    """How often each row counts: 1 of the largest, else what `others` says: [rows, 1].

    The least of the largest is a secret quantile of the sizes of `products` [rows, K], which are below `most`.
    """
    size = jnp.sum(jnp.abs(products), axis=1, keepdims=True)
    everyone = jnp.ones((*size.shape, 1), size.dtype)
    least = quantiles(size, everyone, everyone, 1 - top, (0.0, most))
    return jnp.where(size > least[0], 1.0, others)


def first_margins(base: jax.Array, like: jax.Array) -> jax.Array:
    """The base margins [K] for each row: [rows, K]."""
    return jnp.broadcast_to(base, (like.shape[0], base.shape[0]))


def margins(matrices: Matrices, trees: Sequence[AnyTree], before: jax.Array) -> jax.Array:
    """Margins [rows, K] after the trees of further rounds.

    All nodes of all trees in one product a level, and no comparison: where a row goes is a sum.
    """
    tree = side_by_side(trees)
    if isinstance(tree, LeafTree):
        weights = leafwise.margins(matrices, tree, before.shape[0])
        return before + jnp.sum(weights.reshape(weights.shape[0], -1, before.shape[-1]), axis=1)
    member = jnp.ones((before.shape[0], tree.left.shape[0], 1), before.dtype)
    for chosen in tree.splits[:-1]:
        left = member * goes_left(matrices, chosen)
        member = siblings(left, member - left)
    weights = leaf_weights(matrices, tree, member)
    return before + jnp.sum(weights.reshape(weights.shape[0], -1, before.shape[-1]), axis=1)


def side_by_side(trees: Sequence[AnyTree]) -> AnyTree:
    """The trees of several rounds as one: [..., rounds K, N]."""
    without = [replace(t, gains=None) for t in trees]
    stacked: AnyTree = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-2), *without)
    return stacked


class Sampling:
    """Which rows and features each round may use: drawn by a public generator, equal at all parties."""

    def __init__(self, parameters: Parameters, layout: Layout, rows: int) -> None:
        self.parameters = parameters
        self.layout = layout
        self.rows = rows
        # RandomState, as its numbers are the same in every version of NumPy.
        self.generator = np.random.RandomState(parameters.random_state)
        self.drawn = 0  # rounds so far

    def draw(self) -> dict[str, np.ndarray]:
        """For the next round: `allowed` int8 [max_depth, candidates]; if rows are sampled, `rows` [rows, 1]."""
        p, count = self.parameters, len(self.layout.all_features)
        of_tree = self._some(np.arange(count), p.colsample_bytree)
        levels = [self._some(of_tree, p.colsample_bylevel) for _ in range(p.max_depth)]
        allowed = [np.isin(self.layout.feature, level) for level in levels]
        out = {"allowed": np.array(allowed, np.int8)}
        if p.sampling_method == "goss":
            out["rows"] = self._others()
        elif p.subsample < 1:
            chosen = np.zeros((self.rows, 1), np.int8)
            chosen[self._some(np.arange(self.rows), p.subsample)] = 1
            out["rows"] = chosen
        self.drawn += 1
        return out

    def _others(self) -> np.ndarray:
        """How often rows count that are not among the largest: float32 [rows, 1]. All once until trees have learned
        something, as LightGBM does: in the first 1 / learning_rate rounds."""
        p = self.parameters
        if self.drawn < int(1 / p.learning_rate):
            return np.ones((self.rows, 1), np.float32)
        count = np.zeros((self.rows, 1), np.float32)
        count[self._some(np.arange(self.rows), p.other_rate / (1 - p.top_rate))] = amplified(p)
        return count

    def _some(self, items: np.ndarray, share: float) -> np.ndarray:
        count = max(1, round(share * len(items)))
        return items if count == len(items) else self.generator.permutation(items)[:count]
