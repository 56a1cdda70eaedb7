"""Gaussian processes of a Gaussian kernel: the training rows stay, secret."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
from spuvm.ml.others.svm import inverse, kernel_of, placed
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import ConfigError, InputError

MOST_ROWS = 2000  # as all pairs of rows meet


@dataclass(eq=False, kw_only=True, repr=False)
class _Process(Predictor):
    """Of variance 1, and covariance exp(-|x - x'|^2 / (2 length_scale^2)), of the numbers as they are.

    Nothing is revealed. Costs grow with the square of the rows: some hundreds are well, 2000 the most.

    Args:
        length_scale: not fitted, as scikit-learn's default kernel is not.
    """

    length_scale: float = 1.0

    def _located(self, machine: Machine, given: Given) -> tuple[Any, Any]:
        if given.table.rows > MOST_ROWS:
            raise InputError(
                f"there are {given.table.rows} rows: a Gaussian process compares all pairs of them, and takes "
                f"{MOST_ROWS} at most. Use fewer."
            )
        if given.weight is not None:
            raise ConfigError(f"{type(self).__name__} takes no `sample_weight`, as scikit-learn's.")
        known = standard(given.table, 0.0, centred=True)
        z, scale = matrix(known, known.match(given.table)), scales(known)
        run = placed(1 / (2 * float(self.length_scale) ** 2))
        return known, machine.run(run, z, scale["mean"], scale["power"], what="training")

    def _found(self, run: Any, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"]
        return learned.machine.run(run, *operands, learned.arrays, what="prediction")


@dataclass(eq=False, kw_only=True, repr=False)
class GaussianProcessRegressor(_Process, Regressor):
    """The mean of the process given the labels, of mean 0 and variance 1 (scikit-learn's `normalize_y=True`).

    Args:
        alpha: the variance of the labels' noise, as a share of their variance. The less, the more counts what fixed
            point rounds: up to some 2^-18 rows / alpha.
    """

    alpha: float = 0.1
    checks: ClassVar[Mapping[str, Rule]] = {
        "length_scale": rules.between(1e-4, 1e6),
        "alpha": rules.between(0.01, 1000),
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        known, at = self._located(machine, given)
        dual = machine.run(_smoothed(float(self.alpha)), at, given.labels.values, what="training")
        unit = given.labels.unit
        assert unit is not None
        return Fitted(machine, known, {**at, "dual": dual, "unit": dict(unit)}, {"rows": given.table.rows})

    def _values(self, table: Table) -> Any:
        return self._found(_mean, table)


@dataclass(eq=False, kw_only=True, repr=False)
class GaussianProcessClassifier(_Process, Classifier):
    """Two classes by Laplace's approximation.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), 3.4. Probabilities are means over the
    process, by MacKay's formula (1992): within some thousandths of scikit-learn's.

    Args:
        max_iter: Newton's steps; all are made.
    """

    max_iter: int = 8
    checks: ClassVar[Mapping[str, Rule]] = {
        "length_scale": rules.between(1e-4, 1e6),
        "max_iter": rules.whole(1, 100),
        "n_classes": CLASSES_RULE,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        if given.labels.classes != 2:
            raise ConfigError(f"GaussianProcessClassifier takes two classes, got {given.labels.classes}.")
        known, at = self._located(machine, given)
        found = machine.run(_laplace(self.max_iter), at, given.labels.values, what="training")
        return Fitted(machine, known, {**at, **found}, {"classes": 2, "rows": given.table.rows})

    def _margins(self, table: Table) -> Any:
        return self._found(_averaged, table)


@cache
def _smoothed(alpha: float) -> Any:
    """A function of rows and labels: (K + alpha I)^-1 y, times the labels' deviation."""

    def run(at: Mapping[str, jax.Array], labels: jax.Array) -> jax.Array:
        rows = labels.shape[0]
        kernel = kernel_of(at["rows"], at["rows"], at["gamma"])
        solved = inverse(kernel + alpha * jnp.eye(rows, dtype=kernel.dtype), alpha, rows + alpha)
        middle = jnp.mean(labels)
        out: jax.Array = jnp.concatenate([solved @ (labels - middle), middle[None]])
        return out

    return run


def _mean(z: jax.Array, power: jax.Array, model: Mapping[str, jax.Array]) -> jax.Array:
    kernel = kernel_of(common(z, power)[0], model["rows"], model["gamma"])
    return kernel @ model["dual"][:-1] + model["dual"][-1]


@cache
def _laplace(steps: int) -> Any:
    """A function of rows and labels: where the posterior is largest, its slope [n], and (K + 1 / W)^-1 [n, n].

    A step: with pi = sigmoid(f), W = pi (1 - pi), s = W^(1/2) and B = I + s K s, whose eigenvalues lie between 1 and
    1 + n / 4: a = b - s B^-1 s K b of b = W f + y - pi, and f = K a.
    """

    def run(at: Mapping[str, jax.Array], labels: jax.Array) -> dict[str, jax.Array]:
        rows = labels.shape[0]
        kernel = kernel_of(at["rows"], at["rows"], at["gamma"])
        eye = jnp.eye(rows, dtype=kernel.dtype)

        def curved(f: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            p = jax.nn.sigmoid(f)
            bend = p * (1 - p)
            root = jnp.sqrt(bend)
            solved = inverse(eye + root[:, None] * kernel * root, 1.0, 1 + rows / 4)
            return labels - p, bend, root[:, None] * solved * root

        def step(_: jax.Array, f: jax.Array) -> jax.Array:
            slope, bend, within = curved(f)
            b = bend * f + slope
            return kernel @ (b - within @ (kernel @ b))

        f = lax.fori_loop(0, steps, step, jnp.zeros(rows, kernel.dtype))
        slope, _, within = curved(f)
        return {"slope": slope, "within": within}

    return run


def _averaged(z: jax.Array, power: jax.Array, model: Mapping[str, jax.Array]) -> jax.Array:
    """Margins [new, 1] whose sigmoids are the probabilities."""
    kernel = kernel_of(common(z, power)[0], model["rows"], model["gamma"])
    variance = 1 - jnp.sum((kernel @ model["within"]) * kernel, axis=1)
    middle = kernel @ model["slope"]
    return (middle * lax.rsqrt(1 + math.pi / 8 * jnp.maximum(variance, 0.0)))[:, None]
