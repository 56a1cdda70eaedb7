"""Quantile regression: the line below which a share of the labels lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import Given, Regressor
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table
from spuvm.ml.linear.least_squares import lasso_of
from spuvm.ml.linear.model import LinearModel
from spuvm.ml.linear.solve import inverse, solve
from spuvm.ml.machine import Machine

NEAR = 2.0**-7  # a residual below, in units of the labels' spread, counts as 0
FARTHEST = 256.0  # units from the mean: training takes what is further away for this far, as weights are up to 1 / NEAR
ENOUGH = 4.0  # a penalty that leaves no coefficient in units, as a mean of |x| is below 1


@dataclass(eq=False, kw_only=True, repr=False)
class QuantileRegressor(LinearModel, Regressor):
    """The mean of the pinball loss plus alpha |w|_1, as scikit-learn has it, by a fixed number of steps.

    A step majorises each absolute value by a square and solves for its least: |r| <= (r^2 / (e + |r0|) + e + |r0|) / 2
    (D. Hunter, K. Lange, Journal of Computational and Graphical Statistics 9 (2000)), e being a 128th of the labels'
    spread. Nothing is revealed.

    Args:
        quantile: above 0 and below 1; 0.5 is the median.
        alpha: of the penalty, which scikit-learn has at 1.
        max_iter: steps.
    """

    quantile: float = 0.5
    alpha: float = 1.0
    fit_intercept: bool = True
    max_iter: int = 30

    checks: ClassVar[dict[str, Rule]] = {
        "quantile": rules.between(0.001, 0.999),
        "alpha": rules.NOT_NEGATIVE,
        "fit_intercept": rules.FLAG,
        "max_iter": rules.COUNT,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        known, x, scales = self._prepared(given.table, 0.0, self.fit_intercept)
        assert given.labels.unit is not None
        run = pinball(float(self.quantile), float(self.alpha), self.fit_intercept, self.max_iter)
        # The loss is of the labels themselves: in their units the penalty keeps its ratio to it by w's power alone.
        operands = x, given.labels.values, given.weight, scales["power"]
        found = machine.run(run, *operands, what="training")
        facts = {"rows": given.table.rows, "steps": self.max_iter, "intercept": self.fit_intercept}
        arrays = {"coef": found["coef"], "intercept": found["intercept"], "scales": scales}
        return Fitted(machine, known, {**arrays, "unit": dict(given.labels.unit)}, facts)

    def _values(self, table: Table) -> Any:
        return self._fitted().machine.run(_column, self._predictor(table), what="prediction")


@cache
def pinball(quantile: float, alpha: float, intercept: bool, steps: int) -> Any:
    """A function of features, labels, weights and the features' powers, all in units.

    With u = e + |r|: the minimum of sum (r^2 / (4 u) + (q - 1/2) r) / rows + sum lasso_j w_j^2 / (2 (e + |w_j|)) over
    w, r = y - x w.
    """

    def run(x: jax.Array, y: jax.Array, weight: Any, power: jax.Array) -> dict[str, jax.Array]:
        rows, count = x.shape
        x = jnp.clip(x, -FARTHEST, FARTHEST)
        lasso = jnp.minimum(lasso_of(alpha, power), ENOUGH)
        design = jnp.concatenate([x, jnp.ones((rows, 1), x.dtype)], axis=1) if intercept else x
        lasso = jnp.pad(lasso, (0, 1)) if intercept else lasso
        share = jnp.ones_like(y) if weight is None else weight
        tilt = (2 * quantile - 1) * jnp.mean(share[:, None] * design, axis=0)

        def step(_: jax.Array, w: jax.Array) -> jax.Array:
            near = share / (NEAR + jnp.abs(y - design @ w))
            weighed = design * near[:, None]
            a = weighed.T @ design / rows + jnp.diag(2 * lasso / (NEAR + jnp.abs(w)))
            return _solved(a, weighed.T @ y / rows + tilt)

        w = lax.fori_loop(0, steps, step, jnp.zeros(design.shape[1], jnp.float32))
        return {"coef": w[:count], "intercept": w[-1] if intercept else jnp.zeros(())}

    return run


def _solved(a: jax.Array, b: jax.Array) -> jax.Array:
    """a^-1 b, with a brought to a diagonal of 1."""
    scale = lax.rsqrt(jnp.maximum(jnp.diag(a), 2.0**-12))
    a = a * scale[:, None] * scale
    inverted, _ = inverse(a)
    return solve(a, inverted, b * scale) * scale


def _column(x: jax.Array) -> jax.Array:
    return x[:, 0]
