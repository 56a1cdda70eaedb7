"""AdaBoost: small trees one after another, each for the rows that those before it got wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.devices import SPU
from spuvm.ml.boosting import Sampling, rules_for
from spuvm.ml.common import rules
from spuvm.ml.common.rules import Rule
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.partitions import SIDES
from spuvm.ml.sgb import Sgb
from spuvm.ml.training import check
from spuvm.ml.tree import Matrices, Rules, Tree, grow
from spuvm.ml.trees.forest import CHECKS, RIDGE, ClassifierTrees
from spuvm.runtime.errors import ConfigError

LEAST_ERROR = 1e-3  # of a tree: its vote is at most ln(999)


@dataclass(eq=False, kw_only=True, repr=False)
class AdaBoostClassifier(ClassifierTrees):
    """SAMME for two classes (J. Zhu and others, Statistics and Its Interface 2, 2009); votes and weights are secret.

    Args:
        n_estimators: how many trees.
        learning_rate: by which votes are multiplied.
    """

    n_estimators: int = 50
    learning_rate: float = 1.0
    max_depth: int = 1
    trees: ClassVar[str] = "n_estimators"
    checks: ClassVar[Mapping[str, Rule]] = {
        **CHECKS,
        "n_estimators": rules.whole(1, 10_000),
        "learning_rate": rules.between(1e-3, 10),
    }

    def _grow(self, frame: Any, label: str, weight: str | None, device: SPU) -> Sgb:
        if self._classes(frame, label) != 2:
            raise ConfigError("AdaBoostClassifier takes two classes: labels 0 and 1.")
        inner = Sgb(
            device=device,
            n_estimators=self.n_estimators,
            max_depth=self.max_depth,
            max_bin=max(2, min(self.max_bin, frame.rows)),
            learning_rate=1.0,
            reg_lambda=RIDGE,
            min_child_weight=0.0,
            base_score=0.5,
            random_state=self.random_state,
        )
        inner.model = self._boosted(Machine(device), inner, frame, label, weight)
        return inner

    def _boosted(self, machine: Machine, inner: Sgb, frame: Any, label: str, weight: str | None) -> Model:
        p, side = inner.parameters, SIDES[frame.kind]
        features, layout = check(p, frame, label, weight, {})
        limits = rules_for(replace(p, objective="binary:squared"), layout, frame.rows, True)
        known = side.labels(machine, p, frame, label, weight, limits.exponent).prepared
        bins = side.bins.find(machine, features, layout)
        x, drawn = bins.matrices(features), Sampling(p, layout, frame.rows)
        base, up, down = known["base"], known["up"], known["down"]
        model = Model(machine, p, bins, frame.schema[label], [], base, up, down, limits.exponent)
        step = vote(layout, limits, self.learning_rate)
        weights = known["weight"] if "weight" in known else np.ones((frame.rows, 1), np.float32)
        for _ in range(self.n_estimators):
            operands = x, known["target"], weights, known["threshold"], drawn.draw()["allowed"]
            tree, weights = machine.run(step, *operands, what="training")
            model.trees.append(tree)
        return model


@cache
def vote(layout: Layout, limits: Rules, rate: float) -> Callable[..., Any]:
    """A function that grows a tree for weighted rows, gives its leaves votes, and weighs the rows anew."""

    def run(
        matrices: Matrices, target: jax.Array, weight: jax.Array, threshold: jax.Array, allowed: jax.Array
    ) -> tuple[Tree, jax.Array]:
        tree, share = grow(matrices, -target * weight, weight, threshold, allowed, layout, limits)
        wrong = (share > 0.5) != (target > 0.5)
        error = jnp.mean(jnp.where(wrong, weight, 0.0)) / jnp.mean(weight)
        error = jnp.clip(error, LEAST_ERROR, 1 - LEAST_ERROR)
        strength = (jnp.log(1 - error) - jnp.log(error)) * rate
        left, right = (jnp.where(leaf > 0.5, strength, -strength) for leaf in (tree.left, tree.right))
        steps = None if tree.steps is None else [piece.astype(left.dtype) * (left - right) for piece in tree.splits[-1]]
        after = jnp.where(wrong, weight * jnp.exp(strength), weight)
        return replace(tree, left=left, right=right, steps=steps), after / jnp.mean(after)

    return run
