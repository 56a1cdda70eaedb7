"""t-SNE: places whose neighbours are those of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.rules import Rule
from spuvm.ml.machine import Machine
from spuvm.ml.manifold.base import Embedding, gaps_of, spread_out
from spuvm.ml.manifold.eigen import leading, turned
from spuvm.ml.others.svm import FLAT
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import InputError

BISECTIONS = 20  # of the widths of kernels, as powers of two
WIDEST = 12.0  # logarithms to base 2 of what widths are tried
EXAGGERATED = 250  # steps, at most a half of all: scikit-learn's
SOFT, HARD = 0.5, 0.8  # momentum during these, and after
FINER = 8.0  # units in the rows' spread, so that the nearest rows are told apart
SCALE = 64.0  # of eigenvalues, so that small ones have digits
LEAST_GAIN = 0.01
FIRST = 2.0**-7  # spread of the first places; scikit-learn's is 1e-4, which fixed point would round
LEAST_TOTAL = 2.0**-10


@dataclass(eq=False, kw_only=True, repr=False)
class TSNE(Embedding):
    """L. van der Maaten, G. Hinton, JMLR 9 (2008); all pairs of rows, begun at principal components.

    Nothing is revealed: all steps are made. A step has a quotient for each pair of rows, so some hundreds of rows are
    well.

    Args:
        perplexity: how many neighbours count; below the number of rows.
        early_exaggeration: by which neighbours attract at first.
        learning_rate: "auto": rows / early_exaggeration / 4, at least 50; or a number.
        max_iter: steps.
    """

    perplexity: float = 30.0
    early_exaggeration: float = 12.0
    learning_rate: Any = "auto"
    max_iter: int = 1000
    checks: ClassVar[dict[str, Rule]] = {
        "n_components": rules.whole(1, 3),
        "perplexity": rules.between(2, 500),
        "early_exaggeration": rules.between(1, 100),
        "learning_rate": Rule(
            lambda x: x == "auto" or rules.between(1, 1000).holds(x), "'auto', or a number from 1 to 1000"
        ),
        "max_iter": rules.whole(10, 10_000),
    }

    def _embedded(self, machine: Machine, z: Any, power: Any) -> dict[str, Any]:
        rows = z.shape[0]
        if self.perplexity >= rows:
            raise InputError(f"`perplexity` of TSNE is {self.perplexity:g}, but there are {rows} rows: use less.")
        rate = self.learning_rate
        rate = max(rows / self.early_exaggeration / 4, 50.0) if rate == "auto" else float(rate)
        begun = machine.run(_begun(self.n_components, float(self.perplexity)), z, power, what="training")
        run = _moved(float(self.early_exaggeration), rate, self.max_iter)
        return {"embedding": machine.run(run, begun, what="training")}


@cache
def _begun(count: int, perplexity: float) -> Any:
    """A function of features and powers: first places [rows, count], and how near pairs are [rows, rows], n times a
    distribution over all pairs."""

    def run(z: jax.Array, power: jax.Array) -> dict[str, jax.Array]:
        x = spread_out(common(z, power)[0]) * FINER
        near = _nearness(gaps_of(x), perplexity)
        covariance = x.T @ x / x.shape[0]
        covariance = covariance * (SCALE / jnp.maximum(jnp.trace(covariance), FLAT))
        _, directions = leading(covariance, min(count, x.shape[1]), 8, squarings=0, largest=SCALE)
        place = x @ turned(directions)
        place = place * lax.rsqrt(jnp.maximum(jnp.mean(place[:, 0] ** 2), FLAT)) * FIRST
        if place.shape[1] < count:
            more = np.random.RandomState(0).normal(size=(x.shape[0], count - place.shape[1])) * FIRST
            place = jnp.concatenate([place, more.astype(np.float32)], axis=1)
        return {"near": near, "place": place}

    return run


def _nearness(gaps: jax.Array, perplexity: float) -> jax.Array:
    """n p of all pairs, whose sum is n: the widths of rows' kernels are found by bisection, all at once.

    The entropy of a row's kernel exp(-gap 2^w) falls with w; what is 0 is compared after a product with its sum.
    """
    n = gaps.shape[0]
    others = 1 - jnp.eye(n, dtype=gaps.dtype)
    nearest = jnp.min(gaps + (1 - others) * jnp.max(gaps), axis=1, keepdims=True)
    shifted = jax.nn.relu(gaps - nearest)  # so that the nearest of each row counts 1, whatever the width
    target = math.log(perplexity)

    def kernel(width: jax.Array) -> jax.Array:
        sharp = jnp.exp2(width)[:, None]
        return jnp.exp(-jnp.minimum(shifted * sharp, 30.0)) * others

    def step(k: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        width, half = state
        weight = kernel(width)
        total = jnp.sum(weight, axis=1)
        mean = jnp.sum(weight * shifted, axis=1) / total
        entropy = jnp.log(total) + jnp.exp2(width) * mean
        return jnp.where(entropy > target, width + half, width - half), half * 0.5

    first = jnp.zeros(n, gaps.dtype)
    width, _ = lax.fori_loop(0, BISECTIONS, step, (first, jnp.float32(WIDEST / 2)))
    weight = kernel(width)
    weight = weight / jnp.sum(weight, axis=1, keepdims=True)
    return (weight + weight.T) * 0.5


@cache
def _moved(exaggeration: float, rate: float, steps: int) -> Any:
    """A function of what has begun: places after all steps of gradients, with momentum and gains.

    With weights w = 1 / (1 + |y - y'|^2) and q = w / sum(w), the gradient of y is 4 sum (p - q) w (y - y').
    """
    early = min(EXAGGERATED, steps // 2)

    def run(begun: dict[str, jax.Array]) -> jax.Array:
        near, place = begun["near"], begun["place"]
        n = place.shape[0]
        others = 1 - jnp.eye(n, dtype=place.dtype)

        def step(more: float, momentum: float) -> Any:
            def move(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
                place, speed, gain = state
                weight = others / (1 + gaps_of(place))
                share = weight * (n / jnp.maximum(jnp.sum(weight), LEAST_TOTAL))
                pull = (near * more - share) * weight
                slope = place * jnp.sum(pull, axis=1, keepdims=True) - pull @ place  # n / 4 of the gradient
                against = (speed < 0) != (slope < 0)
                gain = jnp.maximum(jnp.where(against, gain + 0.2, gain * 0.8), LEAST_GAIN)
                speed = momentum * speed - (4 * rate / n) * (gain * slope)
                place = place + speed
                return place - jnp.mean(place, axis=0), speed, gain

            return move

        state = place, jnp.zeros_like(place), jnp.ones_like(place)
        state = lax.fori_loop(0, early, step(exaggeration, SOFT), state)
        out: jax.Array = lax.fori_loop(0, steps - early, step(1.0, HARD), state)[0]
        return out

    return run
