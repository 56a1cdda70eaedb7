"""Naive Bayes: features that are independent within a class, normal or of two values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import rules, units
from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Classifier, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, refuse_categories, scales, standard
from spuvm.ml.common.table import Table, secret, without_powers
from spuvm.ml.machine import Machine

MOST_ADDED = 2.0**10  # times a column's own variance, with which it says nothing any more
LEAST_VARIANCE = 2.0**-12  # of a feature within a class, of its variance over all rows


@dataclass(eq=False, kw_only=True, repr=False)
class GaussianNB(Classifier):
    """Normal features; variances within a class below 2^-12 of those over all rows count as that.

    Args:
        var_smoothing: the share of the largest column's variance that is added to all, as scikit-learn does.
    """

    var_smoothing: float = 1e-9
    checks: ClassVar[dict[str, Rule]] = {"var_smoothing": rules.between(0, 1), "n_classes": CLASSES_RULE}

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        known = standard(given.table, 0.0, centred=True)
        z = matrix(known, known.match(given.table))
        operands = z, given.labels.values, given.weight, scales(known)["power"]
        found = machine.run(_normal(given.labels.classes, float(self.var_smoothing)), *operands, what="training")
        return Fitted(machine, known, found, {"classes": given.labels.classes, "rows": given.table.rows})

    def _margins(self, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        return learned.machine.run(_quadratic, matrix(learned.columns, table), learned.arrays, what="prediction")


@cache
def _normal(classes: int, smoothing: float) -> Any:
    def fit(z: jax.Array, y: jax.Array, weight: Any, power: jax.Array) -> dict[str, jax.Array]:
        """Margins z^2 a + z b + c: the logarithm of each class's share and density."""
        rows = z.shape[0]
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        hot = hot if weight is None else hot * weight[:, None]
        shares = jnp.maximum(jnp.mean(hot, axis=0), 0.5 / rows)
        means = (hot.T @ z / rows) / shares[:, None]
        own = (y[:, None] == jnp.arange(classes)).astype(jnp.float32) @ means
        variance = jnp.maximum((hot.T @ (z - own) ** 2 / rows) / shares[:, None], LEAST_VARIANCE)
        if smoothing:
            variance = variance + smoothed(z, power, smoothing)
        inverse = 1 / variance
        logs = jnp.log(shares) - 0.5 * jnp.sum(jnp.log(variance) + means * means * inverse, axis=1)
        return {"a": -0.5 * inverse.T, "b": (means * inverse).T, "c": logs}

    return fit


def smoothed(z: jax.Array, power: jax.Array, share: float) -> jax.Array:
    """That share of the largest variance, in each column's unit, at most MOST_ADDED: [n]."""
    largest = jnp.max(power)
    most = jnp.max(units.times_power(jnp.mean(z * z, axis=0), 2 * (power - largest)))
    bits = int(np.floor(np.log2(share)))
    limit = jnp.minimum(2 * (largest - power) + bits, int(np.log2(MOST_ADDED)))
    return units.times_power(jnp.full(power.shape, share * 2.0**-bits, z.dtype) * most, limit)


def _quadratic(z: jax.Array, model: Any) -> jax.Array:
    margins = (z * z) @ model["a"] + z @ model["b"] + model["c"]
    return of_two(margins)


@dataclass(eq=False, kw_only=True, repr=False)
class BernoulliNB(Classifier):
    """Features of two values: above `binarize` or not.

    Args:
        alpha: added to each count.
    """

    alpha: float = 1.0
    binarize: float = 0.0
    checks: ClassVar[dict[str, Rule]] = {
        "alpha": rules.between(1e-3, 1e3),
        "binarize": rules.between(-1e6, 1e6),
        "n_classes": CLASSES_RULE,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        refuse_categories(given.table)
        known = learn(given.table, _no_state, _no_secret_state, "BernoulliNB")
        x = self._bits(known, known.match(given.table))
        run = _counted(given.labels.classes, self.alpha)
        found = machine.run(run, x, given.labels.values, given.weight, what="training")
        return Fitted(machine, known, found, {"classes": given.labels.classes, "rows": given.table.rows})

    def _bits(self, known: ByColumn, table: Table) -> Any:
        limit = self.binarize
        plain = without_powers(table, "BernoulliNB")
        made = known.apply(plain, lambda x, _: (x > limit).astype(np.float64), _above(limit), "BernoulliNB")
        return secret(made, "BernoulliNB")

    def _margins(self, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        x = self._bits(learned.columns, table)
        return learned.machine.run(_linear, x, learned.arrays, what="prediction")


@cache
def _counted(classes: int, alpha: float) -> Any:
    def fit(x: jax.Array, y: jax.Array, weight: Any) -> dict[str, jax.Array]:
        rows = x.shape[0]
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        hot = hot if weight is None else hot * weight[:, None]
        count = jnp.sum(hot, axis=0)
        ones = jnp.log((hot.T @ x + alpha) / rows)
        zeros = jnp.log((count[:, None] - hot.T @ x + alpha) / rows)
        both = jnp.log((count + 2 * alpha) / rows)
        prior = jnp.log(jnp.maximum(count, 0.5) / rows)
        return {"b": (ones - zeros).T, "c": prior + jnp.sum(zeros, axis=1) - x.shape[1] * both}

    return fit


def _linear(x: jax.Array, model: Any) -> jax.Array:
    margins = x @ model["b"] + model["c"]
    return of_two(margins)


def of_two(margins: jax.Array) -> jax.Array:
    """Margins of two classes as one, for the second."""
    return margins[:, 1:] - margins[:, :1] if margins.shape[1] == 2 else margins


@cache
def _above(limit: float) -> Any:
    return lambda x, _: (x > limit).astype(jnp.float32)


def _no_state(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"none": np.zeros(1)}


def _no_secret_state(x: jax.Array) -> dict[str, jax.Array]:
    return {"none": jnp.zeros(1)}
