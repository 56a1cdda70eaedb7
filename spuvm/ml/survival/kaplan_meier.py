"""Kaplan and Meier's curve, and the log-rank test of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.common import distributions
from spuvm.ml.common.estimator import Estimator, Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.statistics.columns import LEAST_ROWS, Statistic, machine_of, named, shown, two_groups
from spuvm.ml.survival.times import grid_of, observed
from spuvm.runtime.errors import InputError


@dataclass(eq=False, kw_only=True, repr=False)
class KaplanMeierFitter(Estimator):
    """The share of rows without event by the points of a public grid (E. L. Kaplan, P. Meier, 1958).

    Args:
        timeline: the grid, or a number of steps: then 1, 2, ...
    """

    timeline: Any = 36
    checks: ClassVar[dict[str, Rule]] = {}

    def fit(self, data: Any, duration: Any, event: Any) -> Self:
        """The curve, secret.

        Args:
            data: the frame, if columns are named; else None.
            duration: until the event or the end of observation; event: 1 if it happened, else 0.
        """
        machine, grid = self._machine(data, duration), grid_of(self.timeline)
        at_risk, died, rows = observed(machine, data, duration, event, grid)
        if rows < LEAST_ROWS:
            raise InputError(f"there are {rows} rows: a curve that is shown needs {LEAST_ROWS} or more.")
        curve = machine.run(_curve, at_risk, died, what="training")
        self.fitted = Fitted(machine, None, curve, {"rows": rows, "grid": grid.tolist()})
        return self

    @property
    def survival_function_(self) -> np.ndarray:
        """The curve float64 [T], revealed to all parties."""
        return self._shown("survival")

    @property
    def variance_(self) -> np.ndarray:
        """Greenwood's variance of the curve, float64 [T], revealed to all parties."""
        out: np.ndarray = self._shown("variance") / self._fitted().facts["rows"]
        return out

    @property
    def median_survival_time_(self) -> float:
        """The first time at which half of the rows or more have had the event; infinite if there is none."""
        below = np.flatnonzero(self.survival_function_ <= 0.5)
        return float(self._fitted().facts["grid"][below[0]]) if len(below) else float("inf")

    def _shown(self, name: str) -> np.ndarray:
        learned = self._fitted()
        return np.asarray(learned.machine.reveal(learned.arrays[name], f"{name} curve"), np.float64)


def _curve(at_risk: jax.Array, died: jax.Array) -> dict[str, jax.Array]:
    rows = at_risk.shape[0]
    n, d = jnp.mean(at_risk, axis=0), jnp.mean(died, axis=0)
    safe = jnp.maximum(n, 1 / rows)
    hazard = d / safe
    survival = jnp.cumprod(1 - hazard)
    greenwood = hazard / jnp.maximum(n - d, 1 / rows)
    return {"survival": survival, "variance": survival * survival * jnp.cumsum(greenwood)}


def logrank_test(
    data: Any, duration: Any, event: Any, by: Any, *, timeline: Any = 36, device: SPU | None = None
) -> Statistic:
    """Whether two groups, 0 and 1 or two texts, have the same hazards (N. Mantel, 1966).

    Returns:
        statistic (chi squared of one degree of freedom, revealed), pvalue.
    """
    by = named(data, by)
    machine = machine_of(by, device=device)
    at_risk, died, _ = observed(machine, data, duration, event, grid_of(timeline))
    found = float(shown(machine, _logrank, at_risk, died, two_groups(machine, by), what="log-rank statistic"))
    return Statistic(statistic=found, pvalue=float(distributions.chi2_above(found, 1)))


def _logrank(at_risk: jax.Array, died: jax.Array, g: jax.Array) -> jax.Array:
    rows = at_risk.shape[0]
    n, d = jnp.mean(at_risk, axis=0), jnp.mean(died, axis=0)
    n1, d1 = g @ at_risk / rows, g @ died / rows
    share = n1 / jnp.maximum(n, 1 / rows)
    variance = share * (1 - share) * d * (1 - (d - 1 / rows) / jnp.maximum(n - 1 / rows, 1 / rows))
    gap = jnp.sum(d1 - d * share) * np.sqrt(rows)
    out: jax.Array = spu.reveal(gap * gap / jnp.sum(variance))
    return out
