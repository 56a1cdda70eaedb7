"""Mixtures of normal distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

import spuvm as spu
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.table import Table
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.kmeans import _member, best_of, drawn_starts, spread_within

STARTING = 12  # of Lloyd's steps before the first component
LEAST_VARIANCE = 2.0**-10  # of a feature within a component, of its variance over all rows


@dataclass(eq=False, kw_only=True, repr=False)
class GaussianMixture(Unsupervised):
    """Normal components with variances for each column (scikit-learn's "diag"), by expectation maximisation.

    Nothing is revealed: all `max_iter` steps are made, from what `KMeans` finds of `n_init` starts.
    """

    n_components: int = field(default=1, kw_only=False)
    n_init: int = 8
    max_iter: int = 30
    random_state: int = 0
    checks: ClassVar[dict[str, Rule]] = {
        "n_components": rules.whole(1, 100),
        "n_init": rules.whole(1, 50),
        "max_iter": rules.COUNT,
        "random_state": rules.SEED,
    }

    def _needed(self) -> int:
        return max(2, self.n_components)

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        known, z, _ = self._prepared(table)
        drawn, sample = drawn_starts(self.n_components, self.n_init, table.rows, self.random_state)
        found = machine.run(_mixture(self.n_components, self.max_iter), z, drawn, sample, what="training")
        return Fitted(machine, known, found, {"rows": table.rows})

    def predict(self, data: Any, to: str | None = None) -> Any:
        """The likeliest component of each row, int32 [rows]; secret, or shown to the party `to`."""
        return self._given_to(self._run(_likeliest, data), to)

    def predict_proba(self, data: Any) -> Any:
        """The probability of each component, secret float [rows, components]."""
        return self._run(_responsibilities, data)

    def score(self, data: Any) -> float:
        """The mean logarithm of a row's density, of the columns as they are, revealed to all parties."""
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays
        return float(spu.reveal(learned.machine.run(_likelihood, *operands, what="score")))

    def _run(self, function: Any, data: Any) -> Any:
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        return learned.machine.run(function, matrix(learned.columns, table), learned.arrays, what="prediction")


def _densities(z: jax.Array, model: Any) -> jax.Array:
    """Logarithms of shares times densities, but for a constant: [rows, components]."""
    inverse = 1 / model["variance"]
    means = model["means"]
    logs = jnp.log(model["shares"]) - 0.5 * jnp.sum(jnp.log(model["variance"]) + means * means * inverse, axis=1)
    out: jax.Array = -0.5 * (z * z) @ inverse.T + z @ (means * inverse).T + logs
    return out


def _responsibilities(z: jax.Array, model: Any) -> jax.Array:
    return jax.nn.softmax(_densities(z, model), axis=-1)


def _likelihood(z: jax.Array, power: jax.Array, model: Any) -> Any:
    """Units of columns are powers of two, which densities are divided by."""
    units = math.log(2) * jnp.sum(power).astype(z.dtype) + 0.5 * z.shape[1] * math.log(2 * math.pi)
    return spu.reveal(jnp.mean(jax.nn.logsumexp(_densities(z, model), axis=1)) - units)


def _likeliest(z: jax.Array, model: Any) -> jax.Array:
    return jnp.argmax(_densities(z, model), axis=1).astype(jnp.int32)


def _maximised(z: jax.Array, member: jax.Array) -> dict[str, jax.Array]:
    rows = z.shape[0]
    shares = jnp.maximum(jnp.mean(member, axis=0), 0.5 / rows)
    means = (member.T @ z / rows) / shares[:, None]
    squares = (member.T @ (z * z) / rows) / shares[:, None]
    variance = jnp.maximum(squares - means * means, LEAST_VARIANCE)
    return {"shares": shares, "means": means, "variance": variance}


@cache
def _mixture(count: int, steps: int) -> Any:
    def run(z: jax.Array, drawn: jax.Array, sample: jax.Array | None) -> dict[str, jax.Array]:
        centres = best_of(z, drawn, count, STARTING, sample)
        inertia = spread_within(z, centres)
        best = (jnp.arange(inertia.shape[0]) == jnp.argmin(inertia)).astype(z.dtype)
        member = jnp.tensordot(best, _member(z, centres), axes=1)
        model = _maximised(z, member)
        out: dict[str, jax.Array] = lax.fori_loop(0, steps, lambda _, m: _maximised(z, _responsibilities(z, m)), model)
        return out

    return run
