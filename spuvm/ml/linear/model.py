"""What all linear models are: features in units, coefficients, and what is shown of them on request."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common.by_column import ByColumn
from spuvm.ml.common.estimator import Estimator
from spuvm.ml.common.standard import GRID, grid, matrix, scales, standard
from spuvm.ml.common.table import Table
from spuvm.ml.common.units import times_power
from spuvm.ml.linear.penalty import as_they_are, covariance_diagonal, shown
from spuvm.ml.linear.summary import Coefficients, Summary
from spuvm.ml.machine import Inside, Machine
from spuvm.runtime.errors import ConfigError, DataError, InputError

NO_UNIT = {"mean": 0.0, "power": 0}  # of classes
CONVERGENCE = "whether training goes on"  # a bit a step
SHOWN = {
    "loss": "mean loss",
    "spread": "mean squared error",
    "dispersion": "dispersion",
}  # by a summary, besides coefficients


class ConvergenceWarning(UserWarning):
    """Training ended before its criterion held."""


class LinearModel(Estimator):
    """A linear predictor: arrays `coef` and `intercept` in units, `scales` of features, `unit` of labels."""

    shown: Coefficients | None = None
    scale: ClassVar[float] = 1 / GRID

    def _prepared(self, table: Table, alpha: float, centred: bool) -> tuple[ByColumn, Any, dict[str, Any]]:
        """Units of the columns; the features in them; and the units' scales."""
        known = standard(table, float(np.sqrt(alpha)), centred)
        return known, matrix(known, known.match(table)), scales(known)

    def _predictor(self, table: Table) -> Any:
        """(x w + b) GRID in the labels' units, the same bits each time: secret [rows, 1] or [rows, classes]."""
        learned = self._fitted()
        assert learned.columns is not None
        x, arrays = grid(learned.columns, table), learned.arrays
        return learned.machine.run(linear, x, arrays["coef"], arrays["intercept"], what="prediction")

    # What is shown on request

    def reveal(self) -> Coefficients:
        """The coefficients of the features as they are, shown to all parties."""
        learned = self._fitted()
        a = learned.arrays
        operands = a["coef"], a["intercept"], a["scales"], a["unit"]
        both = learned.machine.reveal(learned.machine.run(as_they_are, *operands, what="coefficients"), "coefficients")
        assert learned.columns is not None
        names = tuple(c.name for c in learned.columns.columns)
        self.shown = Coefficients(names, shown(both["coef"]).T, shown(both["intercept"]))
        return self.shown

    @property
    def coef_(self) -> Any:
        """Coefficients of the features as they are: after `reveal`; inside a jitted function secret."""
        if isinstance(self._fitted().machine, Inside):
            a = self._fitted().arrays
            return secretly(a["coef"], a["intercept"], a["scales"], a["unit"])[0]
        return self._revealed().coef

    @property
    def intercept_(self) -> Any:
        """As `coef_`."""
        if isinstance(self._fitted().machine, Inside):
            a = self._fitted().arrays
            return secretly(a["coef"], a["intercept"], a["scales"], a["unit"])[1]
        return self._revealed().intercept

    def _revealed(self) -> Coefficients:
        self._fitted()
        if self.shown is None:
            raise InputError(
                "coefficients are secret: `reveal()` shows them to all parties, and is listed in `reveals`."
            )
        return self.shown

    def summary(self) -> Summary:
        """Coefficients, standard errors, tests, intervals and AIC, revealed to all parties."""
        learned = self._fitted()
        a, facts = learned.arrays, learned.facts
        if "covariance" not in a:
            raise ConfigError(f"{self!r} keeps no covariance: fit it with a Newton solver and `inference=True`.")
        run = covariances(bool(facts["intercept"]))
        variances = learned.machine.run(
            run, a["covariance"], a["scales"], self._variance_power(), what="standard errors"
        )
        found = [shown(v) for v in learned.machine.reveal(variances, "standard errors")]
        extra = {k: learned.machine.reveal(a[k], what) for k, what in SHOWN.items() if k in a}
        beta = self.reveal()
        coef, names = np.atleast_1d(beta.coef), beta.names
        variance = np.atleast_1d(found[0])
        if facts["intercept"]:
            coef, names = np.append(beta.intercept, coef), ("intercept", *names)
            variance = np.append(found[1], variance)
        stderr = np.sqrt(np.maximum(variance, 0) / facts["rows"])
        return self._summary(names, coef, stderr, extra)

    def _variance_power(self) -> Any:
        """The power of two that variances of coefficients are multiplied by: secret int32, of labels in units."""
        return 0

    def _summary(self, names: tuple[str, ...], coef: np.ndarray, stderr: np.ndarray, extra: Any) -> Summary:
        rows = self._fitted().facts["rows"]
        likelihood = -rows * float(extra["loss"]) if "loss" in extra else None
        return Summary(type(self).__name__, names, coef, stderr, rows, None, likelihood)


def outcome(machine: Machine, what: str, found: Any, limit: int, tol: float | None, strict: bool) -> int:
    """The number of steps, after one bit is revealed where it matters: whether the design is regular.

    Raises:
        DataError: for a singular design, if `strict`.
    """
    if isinstance(machine, Inside):
        return limit
    if strict and not bool(np.asarray(machine.reveal(found["regular"], "whether the design is regular"))):
        raise DataError(
            "the design is singular: some column is a sum of others, or constant beside the intercept. Leave one out, "
            "or use a penalty."
        )
    steps = int(np.asarray(machine.spu.vm.reveal([found["iterations"]])[0]))
    if tol is not None and steps >= limit:
        warnings.warn(
            f"{what} did not converge in {limit} steps to `tol` = {tol:g}: scale the features, use a stronger penalty "
            "or raise `max_iter`.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return steps


def linear(parts: list[jax.Array], coef: jax.Array, intercept: jax.Array) -> jax.Array:
    """Features of several owners on the grid -> predictors on it, [rows, 1] or [rows, classes]."""
    coef = coef[:, None] if coef.ndim == 1 else coef
    ends = np.cumsum([p.shape[1] for p in parts])
    some = jnp.split(coef, ends[:-1])
    return sum((p.astype(jnp.float32) @ w for p, w in zip(parts, some)), intercept * GRID)


def covariances(intercept: bool) -> Any:
    """`covariance_diagonal` as one function for the machine."""
    return _with_intercept if intercept else _without_intercept


def _with_intercept(covariance: jax.Array, scales: Any, power: Any) -> Any:
    return covariance_diagonal(covariance, scales, power, True)


def _without_intercept(covariance: jax.Array, scales: Any, power: Any) -> Any:
    return covariance_diagonal(covariance, scales, power, False)


def secretly(coef: jax.Array, intercept: jax.Array, scales: Any, unit: Any) -> tuple[jax.Array, jax.Array]:
    """Coefficients as they are, as secret floats: fine where they are not far from 1."""
    power = scales["power"] if coef.ndim == 1 else scales["power"][:, None]
    full = times_power(coef, unit["power"] - power)
    shift = scales["mean"] @ coef
    return full.T, times_power(intercept + unit["mean"] - shift, unit["power"] + jnp.zeros(shift.shape, jnp.int32))
