"""Generalised linear models with a logarithmic link: Poisson, Gamma, Tweedie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.ml.common import rules, units
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.labels import features_of, labels_of, offset_of
from spuvm.ml.common.predictors import Given, Predictor, _number
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import GRID
from spuvm.ml.linear import irls
from spuvm.ml.linear.families import LARGEST, family_of
from spuvm.ml.linear.model import CONVERGENCE, LinearModel, outcome
from spuvm.ml.linear.summary import Summary
from spuvm.ml.machine import Inside, Machine


@dataclass(eq=False, kw_only=True, repr=False)
class PoissonRegressor(LinearModel, Predictor):
    """Counts: the mean half deviance of a Poisson distribution with mean e^(x w + b), plus alpha |w|^2 / 2.

    Args:
        alpha: of the ridge, as scikit-learn has it; 0 for `summary()` as statsmodels has it.
        tol, max_iter: as of `LogisticRegression`.
    """

    alpha: float = 1.0
    fit_intercept: bool = True
    tol: float | None = 1e-4
    max_iter: int = 100
    inference: bool = True

    labels: ClassVar[str] = "not negative"
    weights_of_mean_one: ClassVar[bool] = True
    checks: ClassVar[dict[str, Rule]] = {
        "alpha": rules.NOT_NEGATIVE,
        "fit_intercept": rules.FLAG,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
        "inference": rules.FLAG,
    }

    def fit(
        self, data: Any, y: Any = None, *, label: Any = None, sample_weight: Any = None, offset: Any = None, **_: Any
    ) -> Self:
        """As of all predictors; `offset`: a column, or an array [rows], that is added to the linear predictor.

        Predictions are those of an offset of 0.
        """
        if isinstance(offset, str):
            features = features_of(data, offset)
            machine = self._machine(data)
            return super().fit(features, y, label=label, sample_weight=sample_weight, offset=(machine, data, offset))
        return super().fit(data, y, label=label, sample_weight=sample_weight, offset=(None, data, offset))

    def _family(self) -> tuple[str, float]:
        """The family and the power of its variance."""
        return "poisson", 1.0

    def _learn(self, machine: Machine, given: Given, offset: Any = None) -> Fitted:
        name, power = self._family()
        rows, unit = given.table.rows, given.labels.unit
        assert unit is not None
        known, x, scales = self._prepared(given.table, self.alpha, self.fit_intercept)
        added = None if offset is None else offset_of(machine, offset[1], offset[2], rows)
        scale = machine.run(_deviance_unit(power), unit["power"], what="training") if self.alpha and power < 2 else None
        run = irls.fit(name, power, self.alpha, self.fit_intercept, self.tol, self.max_iter, self.inference)
        operands = x, given.labels.values, given.weight, added, scales["power"], scale
        found = machine.run(run, *operands, what="training", shows=CONVERGENCE)
        steps = outcome(machine, type(self).__name__, found, self.max_iter, self.tol, self.alpha == 0)
        arrays = {k: found[k] for k in ("coef", "intercept", "covariance", "dispersion") if k in found}
        if self.inference and name == "poisson" and not self.alpha:  # else there is no maximum of it
            labelled = given.labels.values, given.weight, unit["power"]
            arrays["loss"] = machine.run(_poisson_loss, found["loss"], *labelled, what="training")
        logs = machine.run(_log_unit, unit["power"], what="training")
        facts = {"rows": rows, "steps": steps, "intercept": self.fit_intercept}
        arrays |= {"scales": scales, "unit": {"mean": logs, "power": 0}, "label": dict(unit)}
        return Fitted(machine, known, arrays, facts)

    def _variance_power(self) -> Any:
        """Counts have their mean as variance: in units of 2^p information is 2^p as much."""
        learned = self._fitted()
        counts = self._family()[0] == "poisson"
        return learned.machine.run(_negative, learned.arrays["label"]["power"], what="standard errors") if counts else 0

    def _summary(self, names: tuple[str, ...], coef: np.ndarray, stderr: np.ndarray, extra: Any) -> Summary:
        """With the dispersion that is estimated, as statsmodels has it; then there is no likelihood."""
        if "dispersion" in extra:
            rows = self._fitted().facts["rows"]
            factor = float(extra["dispersion"]) * rows / max(rows - len(coef), 1)
            stderr = stderr * np.sqrt(max(factor, 0.0))
        return super()._summary(names, coef, stderr, extra)

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Means float32 [rows]; otherwise as of all predictors. The party is shown their logarithms."""
        learned = self._fitted()
        z, unit = self._predictor(self._table(data)), learned.arrays["unit"]["mean"]
        if to is None or isinstance(learned.machine, Inside):
            return learned.machine.run(_means, z, learned.arrays["label"]["power"], what="prediction")
        shown = learned.machine.run(_logs, z, unit, what="prediction")
        return spu.PYU(to)(_exponential)(self._scaled(shown, to))

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """D^2, the share of the deviance that is explained; revealed to all parties."""
        table, data, y = self._scored(data, y, label)
        learned = self._fitted()
        truth = labels_of(learned.machine, data, y, self.labels, table.rows)
        assert truth.unit is not None
        operands = self._predictor(table), truth.values, truth.unit["power"], learned.arrays["label"]["power"]
        return _number(learned.machine.run(_explained(*self._family()), *operands, what="score"))


@dataclass(eq=False, kw_only=True, repr=False)
class GammaRegressor(PoissonRegressor):
    """Positive numbers whose spread is in proportion to their mean."""

    labels: ClassVar[str] = "positive"

    def _family(self) -> tuple[str, float]:
        return "gamma", 2.0


@dataclass(eq=False, kw_only=True, repr=False)
class TweedieRegressor(PoissonRegressor):
    """Numbers with variance mean^power: 1 Poisson, between 1 and 2 sums of a Poisson number of Gammas, 2 Gamma."""

    power: float = 1.5
    checks: ClassVar[dict[str, Rule]] = {**PoissonRegressor.checks, "power": rules.between(1, 2)}

    def _family(self) -> tuple[str, float]:
        return {1.0: "poisson", 2.0: "gamma"}.get(float(self.power), "tweedie"), float(self.power)


@cache
def _deviance_unit(variance: float) -> Any:
    """What a ridge is multiplied by if labels are divided by 2^p: the deviance is by 2^((2 - variance) p)."""

    def scale(power: jax.Array) -> jax.Array:
        powers = np.arange(units.LOW, units.HIGH + 1)
        factor = np.clip(2.0 ** (-(2 - variance) * powers), 2.0**-17, 2.0**17).astype(np.float32)
        return jnp.asarray(factor)[jnp.clip(power - units.LOW, 0, len(powers) - 1)]

    return scale


@cache
def _explained(name: str, variance: float) -> Any:
    def score(z: jax.Array, y: jax.Array, own: jax.Array, power: jax.Array) -> jax.Array:
        """1 - deviance / deviance of the mean, both from losses less that of a perfect fit."""
        y = units.times_power(y, own - power)
        loss = family_of(name, variance).loss
        base = jnp.log(jnp.maximum(jnp.mean(y), 2.0**-12))
        if name == "gamma":
            best = jnp.mean(1 + jnp.log(jnp.maximum(y, 2.0**-12)))
        elif name == "poisson":
            best = jnp.mean(y - y * jnp.log(jnp.maximum(y, 2.0**-12)))
        else:
            logs = jnp.log(jnp.maximum(y, 2.0**-12))
            part = jnp.where(y > 2.0**-12, jnp.exp((2 - variance) * logs), 0.0)  # many labels are 0
            best = jnp.mean(part) * (1 / (2 - variance) + 1 / (variance - 1))
        out: jax.Array = spu.reveal(
            1 - (jnp.mean(loss(z[:, 0] / GRID, y)) - best) / (jnp.mean(loss(base + 0 * y, y)) - best)
        )
        return out

    return score


def _negative(power: jax.Array) -> jax.Array:
    return -power


def _poisson_loss(loss: jax.Array, y: jax.Array, weight: Any, power: jax.Array) -> jax.Array:
    """Less the mean logarithm of the likelihood of counts y 2^power, of the loss of labels y."""
    counts = units.times_power(y, power)
    rest = jax.lax.lgamma(counts + 1) - counts * _log_unit(power)
    return units.times_power(loss, power) + jnp.mean(rest if weight is None else rest * weight)


def _log_unit(power: jax.Array) -> jax.Array:
    return power.astype(jnp.float32) * np.float32(np.log(2.0))


def _logs(z: jax.Array, unit: jax.Array) -> jax.Array:
    out: jax.Array = jnp.clip(z[:, 0], -LARGEST * GRID, LARGEST * GRID) + unit * GRID
    return out


def _exponential(logs: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp(np.asarray(logs, np.float64)).astype(np.float32)
    return out


def _means(z: jax.Array, power: jax.Array) -> jax.Array:
    return units.times_power(jnp.exp(jnp.clip(z[:, 0] / GRID, -LARGEST, LARGEST)), power)
