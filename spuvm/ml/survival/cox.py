"""Cox's proportional hazards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import times
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import table_of
from spuvm.ml.linear.families import LARGEST
from spuvm.ml.linear.irls import NEVER, ridge_of
from spuvm.ml.linear.model import CONVERGENCE, NO_UNIT, LinearModel, outcome
from spuvm.ml.linear.solve import inverse
from spuvm.ml.survival.times import features, grid_of, observed

GAIN = 16.0


@dataclass(eq=False, kw_only=True, repr=False)
class CoxPHFitter(LinearModel):
    """Log hazards that features add to, times on a public grid, ties as Breslow has them (D. R. Cox, 1972).

    Args:
        timeline: the grid, or a number of steps: then 1, 2, ...
        penalizer: of the ridge, for the mean log-likelihood.
        tol, max_iter: as of `LogisticRegression`.
    """

    timeline: Any = 36
    penalizer: float = 0.0
    tol: float | None = 1e-4
    max_iter: int = 30
    checks: ClassVar[dict[str, Rule]] = {
        "penalizer": rules.NOT_NEGATIVE,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
    }

    def fit(self, data: Any, duration: Any, event: Any) -> Self:
        """Fit the hazards of the features.

        Args:
            data: features: a frame that has both columns, or arrays, objects of PYUs or of an SPU.
            duration: until the event or the end of observation; event: 1 if it happened, else 0.
        """
        machine, grid = self._machine(data), grid_of(self.timeline)
        table = table_of(machine, features(data, duration, event))
        at_risk, died, rows = observed(machine, data, duration, event, grid)
        known, x, scales = self._prepared(table, self.penalizer, centred=True)
        run = proportional(self.penalizer, self.tol, self.max_iter)
        found = machine.run(run, x, at_risk, died, scales["power"], what="training", shows=CONVERGENCE)
        steps = outcome(machine, "CoxPHFitter", found, self.max_iter, self.tol, self.penalizer == 0)
        arrays = {k: found[k] for k in ("coef", "intercept", "covariance")}
        facts = {"rows": rows, "steps": steps, "intercept": False}
        self.fitted = Fitted(machine, known, {**arrays, "scales": scales, "unit": NO_UNIT}, facts)
        return self

    def predict_log_partial_hazard(self, data: Any, to: str | None = None) -> Any:
        """The log hazard of each row beside that of a row with mean features, float32 [rows]."""
        learned = self._fitted()
        out = learned.machine.run(_only, self._predictor(self._table(data)), what="prediction")
        if to is None:
            return learned.machine.run(times(self.scale), out, what="prediction")
        return spu.PYU(to)(lambda x: np.asarray(x) * self.scale)(learned.machine.to(out, to, "prediction"))


@cache
def proportional(penalizer: float, tol: float | None, max_iter: int) -> Any:
    """A function of features [rows, d], at risk and events [rows, T], and powers, that fits.

    With e = exp(x w), S0_t the mean of e at risk, c_t = d_t / S0_t and h = risk c, the gradient of the mean partial
    log-likelihood is x' (events - e h) / n and its Hessian -(x' diag(e h) x / n - sum_t d_t m_t m_t'), m_t the mean
    feature at risk.
    """
    limit = NEVER if tol is None else max(float(np.sqrt(tol)), NEVER)

    def run(x: jax.Array, risk: jax.Array, died: jax.Array, power: jax.Array) -> dict[str, jax.Array]:
        rows, count = x.shape
        ridge = ridge_of(penalizer, power, None) * GAIN
        deaths, happened = jnp.mean(died, axis=0), jnp.sum(died, axis=1)

        def derivatives(w: jax.Array) -> tuple[jax.Array, jax.Array]:
            e = jnp.exp(jnp.clip(x @ w, -LARGEST, LARGEST))
            s0 = jnp.maximum(e @ risk / rows, 2.0**-12)
            pace = deaths / s0
            hazard = e * (risk @ pace)
            means = (risk.T @ (x * e[:, None]) / rows) / s0[:, None]
            second = x.T @ (x * hazard[:, None]) * (GAIN / rows) - (means * deaths[:, None]).T @ means * GAIN
            return x.T @ (hazard - happened) * (GAIN / rows) + ridge * w, second

        def step(w: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            gradient, hessian = derivatives(w)
            inverted, regular = inverse(hessian + jnp.diag(ridge))
            change = inverted @ gradient
            return w - change, change, regular

        def body(state: Any) -> Any:
            w, done, _, _ = state
            w, change, regular = step(w)
            more = spu.reveal(jnp.any(jnp.abs(change) > limit)) if tol is not None else jnp.bool_(True)
            return w, done + 1, regular, more

        first = jnp.zeros(count, x.dtype), jnp.int32(0), jnp.bool_(True), jnp.bool_(True)
        if tol is None:
            w, regular = lax.fori_loop(0, max_iter, lambda _, s: step(s[0])[::2], (first[0], first[2]))
            steps = jnp.int32(max_iter)
        else:
            w, steps, regular, _ = lax.while_loop(lambda s: (s[1] < max_iter) & s[3], body, first)
        _, information = derivatives(w)
        inverted, _ = inverse(information + jnp.diag(ridge))
        covariance = (inverted @ information @ inverted) * GAIN
        out = {"coef": w, "intercept": jnp.zeros(()), "covariance": covariance}
        return out | {"iterations": steps, "regular": regular}

    return run


def _only(x: jax.Array) -> jax.Array:
    return x[:, 0]
