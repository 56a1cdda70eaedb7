"""A linear support vector machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from spuvm.ml.common import rules
from spuvm.ml.common.class_weights import CLASS_WEIGHT_RULE, WeightedClassifier
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table
from spuvm.ml.linear import irls
from spuvm.ml.linear.model import CONVERGENCE, NO_UNIT, LinearModel, outcome
from spuvm.ml.machine import Machine


@dataclass(eq=False, kw_only=True, repr=False)
class LinearSVC(LinearModel, WeightedClassifier):
    """Squared hinge loss times C plus |w|^2 / 2; of several classes one against the rest.

    Newton's method on the squared hinge, whose second derivative is 2 where a row is short of its margin (O. Chapelle,
    Neural Computation 19 (2007)). The intercept is not penalised, as scikit-learn's is.
    """

    C: float = 1.0
    fit_intercept: bool = True
    tol: float | None = 1e-4
    max_iter: int = 30

    probabilities: ClassVar[bool] = False
    checks: ClassVar[dict[str, Rule]] = {
        "C": rules.POSITIVE,
        "fit_intercept": rules.FLAG,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
        "n_classes": CLASSES_RULE,
        "class_weight": CLASS_WEIGHT_RULE,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        rows, classes = given.table.rows, given.labels.classes
        alpha = 1 / (rows * self.C)
        known, x, scales = self._prepared(given.table, alpha, self.fit_intercept)
        run = irls.fit("squared hinge", None, alpha, self.fit_intercept, self.tol, self.max_iter, False)
        found, steps = [], []
        for target in targets(machine, given.labels.values, classes):
            one = machine.run(
                run, x, target, given.weight, None, scales["power"], None, what="training", shows=CONVERGENCE
            )
            steps.append(outcome(machine, "LinearSVC", one, self.max_iter, self.tol, False))
            found.append((one["coef"], one["intercept"]))
        coef, intercept = machine.run(beside, found, what="training") if classes > 2 else found[0]
        facts = {"classes": classes, "rows": rows, "steps": max(steps), "intercept": self.fit_intercept}
        return Fitted(machine, known, {"coef": coef, "intercept": intercept, "scales": scales, "unit": NO_UNIT}, facts)

    def _margins(self, table: Table) -> Any:
        return self._predictor(table)


def targets(machine: Machine, labels: Any, classes: int) -> list[Any]:
    """Of two classes the labels; else of each class whether a row has it."""
    return [labels] if classes == 2 else list(machine.run(_one_by_one(classes), labels, what="training"))


@cache
def _one_by_one(classes: int) -> Any:
    def split(y: jax.Array) -> list[jax.Array]:
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        return [hot[:, k] for k in range(classes)]

    return split


def beside(models: list[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    """Coefficients [d, classes] and intercepts [classes]."""
    return jnp.stack([c for c, _ in models], axis=1), jnp.stack([b for _, b in models])
