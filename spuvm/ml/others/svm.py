"""A support vector machine with a kernel: the training rows stay, secret, whichever of them support it."""

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
from spuvm.ml.common.class_weights import CLASS_WEIGHT_RULE, WeightedClassifier
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Table
from spuvm.ml.common.units import times_power
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.kmeans import squared_distances
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import InputError

MOST_ROWS = 2000  # as all pairs of rows meet
RELAXED = 1.6  # how far a step goes, by what it found: 1.5 to 1.8 is the paper's advice
CORRECTIONS = 4  # of an inverse, once its error is well below 1
SHARPEST, FARTHEST = 2.0**13, 2.0**12  # of a kernel in the columns' unit: gamma, and a squared distance
FLAT = 2.0**-14  # a variance of all cells below counts as this


@dataclass(eq=False, kw_only=True, repr=False)
class SVC(WeightedClassifier):
    """Hinge loss times C plus |w|^2 / 2 among Gaussian kernels; of several classes one against the rest.

    The dual is solved by a fixed number of alternating steps (S. Boyd et al., Foundations and Trends in Machine
    Learning 3 (2011)), for all classes at once: a product with one matrix, which is inverted before, and a clip to the
    box. Nothing is revealed: which rows are support vectors stays secret, so all of them are kept. Costs grow with the
    square of the rows: some hundreds are well, 2000 the most.

    Args:
        gamma: exp(-gamma |x - x'|^2); "scale": 1 / (columns times the variance of all cells), "auto": 1 / columns.
        max_iter: steps.
    """

    C: float = 1.0
    kernel: str = "rbf"
    gamma: Any = "scale"
    max_iter: int = 100

    probabilities: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Rule]] = {
        "C": rules.between(0.01, 1000),
        "kernel": rules.one_of("rbf"),
        "gamma": Rule(
            lambda x: x in ("scale", "auto") or rules.between(1e-9, 1e9).holds(x),
            "'scale', 'auto', or a number from 1e-9 to 1e9",
        ),
        "max_iter": rules.COUNT,
        "n_classes": CLASSES_RULE,
        "class_weight": CLASS_WEIGHT_RULE,
    }

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        rows, classes = given.table.rows, given.labels.classes
        if rows > MOST_ROWS:
            raise InputError(
                f"there are {rows} rows: SVC compares all pairs of them, and takes {MOST_ROWS} at most. Use fewer, or "
                "`LinearSVC`."
            )
        known = standard(given.table, 0.0, centred=True)
        z, scale = matrix(known, known.match(given.table)), scales(known)
        at = machine.run(placed(self.gamma), z, scale["mean"], scale["power"], what="training")
        run = _dual(float(self.C), classes, self.max_iter)
        found = machine.run(run, at, given.labels.values, given.weight, what="training")
        return Fitted(machine, known, {**at, **found}, {"classes": classes, "rows": rows})

    def _margins(self, table: Table) -> Any:
        learned = self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"]
        return learned.machine.run(_margin, *operands, learned.arrays, what="prediction")


@cache
def placed(gamma: float | str) -> Any:
    """A function of features, means and powers: rows in the largest unit, and gamma for distances in it."""

    def run(z: jax.Array, mean: jax.Array, power: jax.Array) -> dict[str, jax.Array]:
        x, unit = common(z, power)
        if isinstance(gamma, str) and gamma == "scale":
            means = times_power(mean, power - unit)
            spread = jnp.mean(x * x) + jnp.var(means)
            return {"rows": x, "gamma": 1 / (jnp.maximum(spread, FLAT) * x.shape[1])}
        share, exponent = math.frexp(1 / x.shape[1] if isinstance(gamma, str) else gamma)
        return {"rows": x, "gamma": times_power(jnp.full((), share, jnp.float32), 2 * unit + exponent)}

    return run


def kernel_of(x: jax.Array, rows: jax.Array, gamma: jax.Array) -> jax.Array:
    """exp(-gamma |x - row|^2), [new, rows].

    Both factors are cut so that their product stays in the ring: a kernel that is 0 for any other row stays 0.
    """
    gaps = jnp.sum(x * x, axis=1)[:, None] + squared_distances(x, rows)
    return jnp.exp(-jnp.minimum(gamma, SHARPEST) * jnp.minimum(gaps, FARTHEST))


def _margin(z: jax.Array, power: jax.Array, model: Mapping[str, jax.Array]) -> jax.Array:
    """Margins [new, 1], or [new, classes]."""
    kernel = kernel_of(common(z, power)[0], model["rows"], model["gamma"])
    return kernel @ model["dual"] + model["intercept"]


def inverse(a: jax.Array, least: float, most: float) -> jax.Array:
    """Of a symmetric [n, n] whose eigenvalues are in these bounds: by Newton's steps (G. Schulz, 1933)."""
    eye = jnp.eye(a.shape[0], dtype=a.dtype)
    steps = math.ceil(math.log2((most + least) / (2 * least))) + CORRECTIONS

    def step(_: jax.Array, x: jax.Array) -> jax.Array:
        return x + x @ (eye - a @ x)

    out: jax.Array = lax.fori_loop(0, steps, step, eye * (2 / (most + least)))
    return out


@cache
def _dual(c: float, classes: int, steps: int) -> Any:
    """A function of rows, labels and weights: `dual` [rows, k], a row's multiplier times its sign, `intercept` [k].

    With b = dual / c: the minimum of b K b / 2 - b y / c over b from 0 to y whose sum is 0.
    """
    rho = min(3.0, max(0.3, c**-0.5))

    def run(at: Mapping[str, jax.Array], labels: jax.Array, weight: Any) -> dict[str, jax.Array]:
        x = at["rows"]
        rows = x.shape[0]
        member = labels[:, None] if classes == 2 else (labels[:, None] == jnp.arange(classes)).astype(x.dtype)
        share = jnp.ones((rows, 1), x.dtype) if weight is None else weight[:, None]
        sign, high, low = 2 * member - 1, member * share, (member - 1) * share
        kernel = kernel_of(x, x, at["gamma"])
        solved = inverse(kernel + rho * jnp.eye(rows, dtype=x.dtype), rho, rows + rho)
        sums = jnp.sum(solved, axis=1)
        sums = sums / jnp.sum(sums)
        # What a step makes of its right side: b, and the multiplier of the sum, which is the intercept by c.
        both = jnp.concatenate([solved - jnp.sum(solved, axis=1)[:, None] * sums, sums[None]])

        def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            inside, off, _last = state
            found = both @ (sign / c + rho * (inside - off))
            there = RELAXED * found[:-1] + (1 - RELAXED) * inside + off
            inside = jnp.minimum(jnp.maximum(there, low), high)
            return inside, there - inside, found[-1]

        start = jnp.zeros_like(sign)
        inside, _, last = lax.fori_loop(0, steps, step, (start, start, start[0]))
        return {"dual": c * inside, "intercept": c * last}

    return run
