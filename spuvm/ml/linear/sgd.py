"""Stochastic gradients: linear models in batches, for many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.class_weights import CLASS_WEIGHT_RULE, WeightedClassifier
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.labels import numbers_within
from spuvm.ml.common.predictors import CLASSES_RULE, Given, Regressor
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.table import Table
from spuvm.ml.linear import private
from spuvm.ml.linear.irls import ridge_of
from spuvm.ml.linear.least_squares import lasso_of
from spuvm.ml.linear.model import NO_UNIT, LinearModel
from spuvm.ml.linear.private import Private
from spuvm.ml.linear.proximal import shrink
from spuvm.ml.linear.svm import beside, targets
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError


def _hinge(z: jax.Array, y: jax.Array) -> jax.Array:
    sign = 2 * y - 1
    return jnp.where(sign * z < 1, -sign, 0.0)


def _perceptron(z: jax.Array, y: jax.Array) -> jax.Array:
    sign = 2 * y - 1
    return jnp.where(sign * z <= 0, -sign, 0.0)


def _squared_hinge(z: jax.Array, y: jax.Array) -> jax.Array:
    sign = 2 * y - 1
    return -2 * sign * jax.nn.relu(1 - sign * z)


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {  # derivatives by the linear predictor
    "hinge": _hinge,
    "log_loss": lambda z, y: jax.nn.sigmoid(z) - y,
    "squared_hinge": _squared_hinge,
    "perceptron": _perceptron,
    "squared_error": lambda z, y: z - y,
    "huber": lambda z, y: jnp.clip(z - y, -1.0, 1.0),
}


@cache
def descend(loss: str, alpha: float, l1_ratio: float, intercept: bool, rate: float, epochs: int, batch: int) -> Any:
    """A function of features, labels, weights, powers and an order of the rows that makes the epochs' steps.

    Step t of T moves by rate (1 - t / T) times the batch's mean gradient.
    """

    def run(
        x: jax.Array, y: jax.Array, weight: Any, power: jax.Array, label_power: Any, order: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        rows, size = x.shape[0], min(batch, x.shape[0])
        steps = -(-epochs * rows // size)
        ones = jnp.ones((rows, int(intercept)), x.dtype)
        around = jnp.concatenate([order, order[:size]])  # a batch can begin at the end
        design, y = jnp.concatenate([x, ones], axis=1)[around], y[around]
        scaled = None if weight is None else weight[around]
        pad = (0, int(intercept))
        ridge = jnp.pad(ridge_of(alpha * (1 - l1_ratio), power, None), pad)
        lasso = jnp.pad(lasso_of(alpha * l1_ratio, power + label_power), pad)

        def step(t: jax.Array, w: jax.Array) -> jax.Array:
            at = (t * size) % rows
            some = lax.dynamic_slice(design, (at, 0), (size, design.shape[1]))
            slope = LOSSES[loss](some @ w, lax.dynamic_slice(y, (at,), (size,)))
            if scaled is not None:
                slope = slope * lax.dynamic_slice(scaled, (at,), (size,))
            by = rate * (1 - t.astype(jnp.float32) / steps)
            w = w - by * (some.T @ slope / size + ridge * w)
            return shrink(w, lasso * by) if alpha * l1_ratio else w

        w = lax.fori_loop(0, steps, step, jnp.zeros(design.shape[1], x.dtype))
        return w[: x.shape[1]], w[-1] if intercept else jnp.zeros(())

    return run


SGD_CHECKS: dict[str, Rule] = {
    "alpha": rules.NOT_NEGATIVE,
    "l1_ratio": rules.SHARE,
    "penalty": rules.one_of("l2", "l1", "elasticnet", None),
    "fit_intercept": rules.FLAG,
    "max_iter": rules.COUNT,
    "batch_size": rules.COUNT,
    "eta0": rules.POSITIVE,
    "random_state": rules.SEED,
    "dp": rules.optional(Rule(lambda x: isinstance(x, Private), "a `spuvm.ml.Private`")),
}


@dataclass(eq=False, kw_only=True, repr=False)
class _Sgd(LinearModel):
    """The parameters of stochastic gradients.

    Args:
        max_iter: epochs; all are made, and nothing is revealed.
        batch_size: rows of a step.
        eta0: the first step size, in units of the features; it falls linearly to 0.
        random_state: of the rows' order, which is public.
        dp: differential privacy (`spuvm.ml.Private`): `max_iter` steps of all rows each, features and labels in units
            of stated ranges, noise drawn in the machine. It is not kept by `save`, but what it said is.
    """

    penalty: str | None = "l2"
    alpha: float = 0.0001
    l1_ratio: float = 0.15
    fit_intercept: bool = True
    max_iter: int = 20
    batch_size: int = 64
    eta0: float = 0.5
    random_state: int = 0
    dp: Private | None = None

    def _written_parameters(self) -> dict[str, Any]:
        return {k: v for k, v in super()._written_parameters().items() if k != "dp"}

    def explain(self) -> str:
        """What training and predictions cost, what they revealed, to whom, and what privacy holds."""
        said = self._fitted().facts.get("private")
        return super().explain() + (f"\n\n{said}" if said else "")

    def _trained(self, machine: Machine, given: Given, loss: str, goals: list[Any], label_power: Any) -> Any:
        alpha = 0.0 if self.penalty is None else self.alpha
        ratio = {"l2": 0.0, "l1": 1.0}.get(self.penalty or "", self.l1_ratio)
        if self.dp is not None:
            return self._privately(
                self.dp, machine, given, loss, goals, label_power, (alpha * (1 - ratio), alpha * ratio)
            )
        known, x, scales = self._prepared(given.table, alpha * (1 - ratio), self.fit_intercept)
        run = descend(loss, alpha, ratio, self.fit_intercept, self.eta0, self.max_iter, self.batch_size)
        # RandomState, as its numbers are the same in every version of NumPy.
        order = np.random.RandomState(self.random_state).permutation(given.table.rows).astype(np.int32)
        models = [
            machine.run(run, x, y, given.weight, scales["power"], label_power, order, what="training") for y in goals
        ]
        coef, intercept = machine.run(beside, models, what="training") if len(models) > 1 else models[0]
        return known, {"coef": coef, "intercept": intercept, "scales": scales}

    def _privately(
        self,
        dp: Private,
        machine: Machine,
        given: Given,
        loss: str,
        goals: list[Any],
        label_power: Any,
        penalties: tuple[float, float],
    ) -> Any:
        known, table, edges = private.prepared(dp, given.table, given.data)
        steps = self.max_iter * len(goals)
        x, units = matrix(known, known.match(table)), scales(known)
        run = private.descend(
            LOSSES[loss], penalties, self.fit_intercept, self.eta0, self.max_iter, dp.clip, dp.noise(steps)
        )
        operands = units["power"], label_power, edges["low"], edges["high"]
        private.spend(dp, machine, steps, f"{type(self).__name__}, {steps} steps")
        models = [machine.run(run, x, y, *operands, what="training") for y in goals]
        coef, intercept = machine.run(beside, models, what="training") if len(models) > 1 else models[0]
        return known, {"coef": coef, "intercept": intercept, "scales": units}

    def _unweighted(self, weight: Any) -> None:
        if self.dp is not None and weight is not None:
            raise ConfigError("`sample_weight` and `dp` exclude each other: weights would undo what bounds a row.")

    def _facts(self, given: Given, goals: int) -> dict[str, Any]:
        facts = {"rows": given.table.rows, "intercept": self.fit_intercept}
        return facts if self.dp is None else {**facts, "private": self.dp.said(self.max_iter * goals)}


@dataclass(eq=False, kw_only=True, repr=False)
class SGDClassifier(_Sgd, WeightedClassifier):
    """A linear classifier by stochastic gradients; of several classes one against the rest.

    Args:
        loss: "hinge", "log_loss", "squared_hinge" or "perceptron".
    """

    loss: str = field(default="hinge", kw_only=False)
    checks: ClassVar[dict[str, Rule]] = {
        **SGD_CHECKS,
        "loss": rules.one_of("hinge", "log_loss", "squared_hinge", "perceptron"),
        "n_classes": CLASSES_RULE,
        "class_weight": CLASS_WEIGHT_RULE,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        goals = targets(machine, given.labels.values, given.labels.classes)
        known, arrays = self._trained(machine, given, self.loss, goals, 0)
        facts = {"classes": given.labels.classes, **self._facts(given, len(goals))}
        return Fitted(machine, known, {**arrays, "unit": NO_UNIT}, facts)

    def _given(self, machine: Machine, data: Any, y: Any, weight: Any) -> Given:
        self._unweighted(weight)
        if self.dp is not None and self.n_classes is None:  # else their holder would say how many it has
            return replace(self, n_classes=2)._given(machine, data, y, weight)
        return super()._given(machine, data, y, weight)

    def _margins(self, table: Table) -> Any:
        return self._predictor(table)


@dataclass(eq=False, kw_only=True, repr=False)
class Perceptron(SGDClassifier):
    """Rosenblatt's: steps only for rows on the wrong side, no penalty."""

    loss: str = "perceptron"
    penalty: str | None = None
    probabilities: ClassVar[bool] = False


@dataclass(eq=False, kw_only=True, repr=False)
class SGDRegressor(_Sgd, Regressor):
    """A linear regression by stochastic gradients.

    Args:
        loss: "squared_error", or "huber" (linear beyond one unit of the labels).
    """

    loss: str = field(default="squared_error", kw_only=False)
    eta0: float = 0.2
    checks: ClassVar[dict[str, Rule]] = {**SGD_CHECKS, "loss": rules.one_of("squared_error", "huber")}

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        unit = given.labels.unit
        assert unit is not None
        known, arrays = self._trained(machine, given, self.loss, [given.labels.values], unit["power"])
        return Fitted(machine, known, {**arrays, "unit": dict(unit)}, self._facts(given, 1))

    def _given(self, machine: Machine, data: Any, y: Any, weight: Any) -> Given:
        self._unweighted(weight)
        if self.dp is None:
            return super()._given(machine, data, y, weight)
        if self.dp.label is None:
            raise ConfigError("`dp` of a regression needs the range of its labels: `Private(label=(low, high), ...)`.")
        table = self._features(machine, data, y, weight)
        low, high = self.dp.label
        labels = numbers_within(machine, data, y, table.rows, (low, high), private.unit_of((low, high)))
        return Given(table, labels, weight, data)

    def _values(self, table: Table) -> Any:
        return self._fitted().machine.run(_column, self._predictor(table), what="prediction")


def _column(x: jax.Array) -> jax.Array:
    return x[:, 0]
