"""Linear regression, ridge, lasso and elastic net: all from one product of the features with themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import rules, units
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import Given, Regressor
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table
from spuvm.ml.linear.irls import ridge_of
from spuvm.ml.linear.model import CONVERGENCE, LinearModel, outcome
from spuvm.ml.linear.penalty import shown
from spuvm.ml.linear.proximal import descend, inverse_norm
from spuvm.ml.linear.solve import inverse, solve
from spuvm.ml.linear.summary import Summary
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError

NEVER = 2.0**-16


def moments(
    x: jax.Array, y: jax.Array, weight: jax.Array | None, intercept: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features with a column of ones [rows, d], and means of their products with themselves and the labels."""
    if intercept:
        x = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    weighed = x if weight is None else x * weight[:, None]
    return x, weighed.T @ x / x.shape[0], weighed.T @ y / x.shape[0]


@cache
def exact(alpha: float, intercept: bool, inference: bool) -> Callable[..., dict[str, jax.Array]]:
    """A function of features, labels, weights and the features' powers that minimises |y - x w|^2 / n + alpha |w|^2."""

    def run(x: jax.Array, y: jax.Array, weight: Any, power: jax.Array) -> dict[str, jax.Array]:
        ridge = ridge_of(alpha, power, None)
        ridge = jnp.pad(ridge, (0, 1)) if intercept else ridge
        design, gram, target = moments(x, y, weight, intercept)
        a = gram + jnp.diag(ridge)
        inverted, regular = inverse(a)
        w = solve(a, inverted, target)
        out = {"coef": w[: x.shape[1]], "intercept": w[-1] if intercept else jnp.zeros(()), "regular": regular}
        if inference:
            error = (y - design @ w) ** 2
            out["spread"] = jnp.mean(error if weight is None else error * weight)
            out["covariance"] = inverted @ gram @ inverted
        return out | {"iterations": jnp.int32(1)}

    return run


@cache
def sparse(alpha: float, l1_ratio: float, intercept: bool, tol: float | None, max_iter: int) -> Callable[..., Any]:
    """Likewise |y - x w|^2 / 2n + alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2)."""

    def run(x: jax.Array, y: jax.Array, weight: Any, power: jax.Array, label_power: jax.Array) -> dict[str, jax.Array]:
        _, gram, target = moments(x, y, weight, intercept)
        ridge, lasso = ridge_of(alpha * (1 - l1_ratio), power, None), lasso_of(alpha * l1_ratio, power + label_power)
        if intercept:
            ridge, lasso = jnp.pad(ridge, (0, 1)), jnp.pad(lasso, (0, 1))
        a = gram + jnp.diag(ridge)
        size = inverse_norm(a)
        a, target, lasso = a * size, target * size, lasso * size
        w, steps = descend(lambda w: a @ w - target, jnp.zeros_like(target), lasso, tol, max_iter)
        intercept_ = w[-1] if intercept else jnp.zeros(())
        return {"coef": w[: x.shape[1]], "intercept": intercept_, "iterations": steps}

    return run


def lasso_of(alpha: float, power: jax.Array) -> jax.Array:
    """alpha 2^-power: what the penalty alpha |w| is for coefficients in units."""
    if alpha == 0:
        return jnp.zeros(power.shape, jnp.float32)
    exponent = int(np.floor(np.log2(alpha)))
    return units.times_power(jnp.full(power.shape, alpha * 2.0**-exponent, jnp.float32), exponent - power)


@dataclass(eq=False, kw_only=True, repr=False)
class _Linear(LinearModel, Regressor):
    """Fitting and predicting are the same for all; `_alpha` and `_run` differ."""

    fit_intercept: bool = True

    def _values(self, table: Table) -> Any:
        return self._fitted().machine.run(_column, self._predictor(table), what="prediction")

    def _learned(self, machine: Machine, given: Given, alpha: float, run: Any, tol: float | None, limit: int) -> Fitted:
        known, x, scales = self._prepared(given.table, alpha, self.fit_intercept)
        assert given.labels.unit is not None
        operands = [x, given.labels.values, given.weight, scales["power"]]
        if isinstance(self, ElasticNet):
            operands.append(given.labels.unit["power"])
        found = machine.run(run, *operands, what="training", shows=CONVERGENCE)
        strict = isinstance(self, LinearRegression)
        steps = outcome(machine, type(self).__name__, found, limit, tol, strict)
        arrays = {k: found[k] for k in ("coef", "intercept", "covariance") if k in found}
        if "spread" in found:
            arrays["spread"] = machine.run(_squared_float, found["spread"], given.labels.unit["power"], what="training")
        facts = {"rows": given.table.rows, "steps": steps, "intercept": self.fit_intercept}
        return Fitted(machine, known, {**arrays, "scales": scales, "unit": dict(given.labels.unit)}, facts)

    def _summary(self, names: tuple[str, ...], coef: np.ndarray, stderr: np.ndarray, extra: Any) -> Summary:
        learned = self._fitted()
        rows, freedom = learned.facts["rows"], learned.facts["rows"] - len(names)
        spread = float(shown(extra["spread"]))
        likelihood = -rows / 2 * (np.log(2 * np.pi * max(spread, 1e-300)) + 1)
        if freedom < 1:
            raise ConfigError(f"{rows} rows and {len(names)} coefficients leave no degrees of freedom.")
        stderr = stderr * np.sqrt(spread * rows / freedom)
        return Summary(type(self).__name__, names, coef, stderr, rows, freedom, likelihood)


@dataclass(eq=False, kw_only=True, repr=False)
class LinearRegression(_Linear):
    """Ordinary least squares; `summary()` has standard errors and t tests.

    A singular design is an error: that it is not one is revealed, one bit.

    Args:
        inference: keep the covariance of the coefficients, secret, for `summary`.
    """

    inference: bool = True
    checks: ClassVar[dict[str, Rule]] = {"fit_intercept": rules.FLAG, "inference": rules.FLAG}

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        run = exact(0.0, self.fit_intercept, self.inference)
        return self._learned(machine, given, 0.0, run, None, 1)


@dataclass(eq=False, kw_only=True, repr=False)
class Ridge(_Linear):
    """Least squares with the penalty alpha |w|^2.

    Args:
        alpha: the penalty's strength, as scikit-learn has it: for the sum of squares.
    """

    alpha: float = field(default=1.0, kw_only=False)
    inference: bool = True
    checks: ClassVar[dict[str, Rule]] = {
        "alpha": rules.POSITIVE,
        "fit_intercept": rules.FLAG,
        "inference": rules.FLAG,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        alpha = self.alpha / given.table.rows
        return self._learned(machine, given, alpha, exact(alpha, self.fit_intercept, self.inference), None, 1)


@dataclass(eq=False, kw_only=True, repr=False)
class ElasticNet(_Linear):
    """Least squares with the penalty alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2), for the mean of squares by 2.

    Args:
        tol: steps end when none changes a coefficient (in units) by more: one bit for 20 steps is revealed.
            None: all `max_iter` are made, and nothing is revealed.
    """

    alpha: float = field(default=1.0, kw_only=False)
    l1_ratio: float = 0.5
    tol: float | None = 1e-4
    max_iter: int = 1000
    checks: ClassVar[dict[str, Rule]] = {
        "alpha": rules.POSITIVE,
        "l1_ratio": rules.SHARE,
        "fit_intercept": rules.FLAG,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        tol = None if self.tol is None else max(self.tol, NEVER)
        run = sparse(self.alpha, self.l1_ratio, self.fit_intercept, tol, self.max_iter)
        return self._learned(machine, given, self.alpha * (1 - self.l1_ratio), run, tol, self.max_iter)


@dataclass(eq=False, kw_only=True, repr=False)
class Lasso(ElasticNet):
    """Least squares with the penalty alpha |w|_1."""

    l1_ratio: float = 1.0


def _column(x: jax.Array) -> jax.Array:
    return x[:, 0]


def _squared_float(x: jax.Array, power: jax.Array) -> Any:
    return units.as_float(x, 2 * power)
