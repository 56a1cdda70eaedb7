"""Linear discriminant analysis: normal classes of one covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Classifier, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, standard
from spuvm.ml.common.table import Table
from spuvm.ml.linear.solve import inverse, solve
from spuvm.ml.machine import Machine
from spuvm.ml.others.naive_bayes import of_two
from spuvm.runtime.errors import ConfigError, InputError

LEAST_SPREAD = 2.0**-7  # within classes, of a column's over all rows: below, fixed point cannot tell it from none


@dataclass(eq=False, kw_only=True, repr=False)
class LinearDiscriminantAnalysis(Classifier):
    """Classes are normal around their means, with the covariance within all of them; shares are those of the rows.

    Nothing is revealed. A column that is a sum of others, or constant within the classes, is left out.

    Args:
        shrinkage: from 0, the covariance as it is, to 1, no correlations at all and the columns' own variances within
            classes. (scikit-learn shrinks towards one variance for all columns, which depends on their units.)
    """

    shrinkage: float | None = None
    checks: ClassVar[dict[str, Rule]] = {"shrinkage": rules.optional(rules.SHARE), "n_classes": CLASSES_RULE}

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        if given.weight is not None:
            raise ConfigError("LinearDiscriminantAnalysis takes no `sample_weight`, as scikit-learn's.")
        rows, classes = given.table.rows, given.labels.classes
        if rows <= classes:
            raise InputError(f"there are {rows} rows of {classes} classes: a covariance within them needs more.")
        known = standard(given.table, 0.0, centred=True)
        operands = matrix(known, known.match(given.table)), given.labels.values
        found = machine.run(_discriminants(classes, float(self.shrinkage or 0.0)), *operands, what="training")
        return Fitted(machine, known, found, {"classes": classes, "rows": rows})

    def _margins(self, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        return learned.machine.run(_linear, matrix(learned.columns, table), learned.arrays, what="prediction")


@cache
def _discriminants(classes: int, shrinkage: float) -> Any:
    def fit(z: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        """Margins z b + c: logarithms of each class's share and density, but for what is the same for all."""
        rows = z.shape[0]
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        shares = jnp.maximum(jnp.mean(hot, axis=0), 0.5 / rows)
        means = (hot.T @ z / rows) / shares[:, None]
        off = z - hot @ means
        within = off.T @ off / (rows - classes)
        spread = jnp.sqrt(jnp.maximum(jnp.diag(within), 0.0))
        there = spread > LEAST_SPREAD
        scale = jnp.where(there, 1 / jnp.where(there, spread, 1.0), 0.0)
        shared = within * scale[:, None] * scale * (1 - shrinkage) + shrinkage * jnp.diag(there.astype(jnp.float32))
        inverted, _ = inverse(shared)
        b = solve(shared, inverted, (means * scale).T) * scale[:, None]
        return {"b": b, "c": jnp.log(shares) - 0.5 * jnp.sum(means.T * b, axis=0)}

    return fit


def _linear(z: jax.Array, model: Any) -> jax.Array:
    return of_two(z @ model["b"] + model["c"])
