"""Nearest neighbours: the training rows stay, secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Classifier, Given, Predictor, Regressor
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Table
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.kmeans import squared_distances
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import InputError


@dataclass(eq=False, kw_only=True, repr=False)
class _Neighbors(Predictor):
    """Euclidean distances of the numbers as they are; rows as far as the last neighbour are neighbours, too.

    Args:
        n_neighbors: how many.
    """

    n_neighbors: int = field(default=5, kw_only=False)

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        if given.table.rows < self.n_neighbors:
            raise InputError(f"there are {given.table.rows} rows for {self.n_neighbors} neighbours: use fewer.")
        known = standard(given.table, 0.0, centred=True)
        z = matrix(known, known.match(given.table))
        rows = machine.run(_placed, z, scales(known)["power"], what="training")
        arrays = {"rows": rows, "labels": given.labels.values}
        if given.labels.unit is not None:
            arrays["unit"] = dict(given.labels.unit)
        return Fitted(machine, known, arrays, {"classes": given.labels.classes, "rows": given.table.rows})

    def _votes(self, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"]
        run = _vote(self.n_neighbors, learned.facts["classes"])
        return learned.machine.run(run, *operands, learned.arrays["rows"], learned.arrays["labels"], what="prediction")


@dataclass(eq=False, kw_only=True, repr=False)
class KNeighborsClassifier(_Neighbors, Classifier):
    """The class of most of the nearest rows; of equally many the first."""

    probabilities: ClassVar[bool] = False
    checks: ClassVar[dict[str, Rule]] = {"n_neighbors": rules.whole(1, 1000), "n_classes": CLASSES_RULE}

    def _margins(self, table: Table) -> Any:
        return self._votes(table)


@dataclass(eq=False, kw_only=True, repr=False)
class KNeighborsRegressor(_Neighbors, Regressor):
    """The mean of the nearest rows."""

    checks: ClassVar[dict[str, Rule]] = {"n_neighbors": rules.whole(1, 1000)}

    def _values(self, table: Table) -> Any:
        return self._votes(table)


def _placed(z: jax.Array, power: jax.Array) -> jax.Array:
    return common(z, power)[0]


@cache
def _vote(count: int, classes: int) -> Any:
    def run(z: jax.Array, power: jax.Array, rows: jax.Array, labels: jax.Array) -> jax.Array:
        gaps = squared_distances(common(z, power)[0], rows)  # [new, rows]
        last = -lax.top_k(-gaps, count)[0][:, -1:]
        near = (gaps <= last).astype(jnp.float32)
        if not classes:
            return (near @ labels) / jnp.sum(near, axis=1)
        votes = near @ (labels[:, None] == jnp.arange(classes)).astype(jnp.float32)
        return votes[:, 1:] - votes[:, :1] if classes == 2 else votes

    return run
