"""Logistic regression with noise in the coefficients alone: many steps of gradients, one Gaussian mechanism at the end.

Output perturbation (Chaudhuri, Monteleoni, Sarwate, JMLR 2011), for the coefficients that so many steps get to rather
than for the best ones, which no number of steps reaches (Wu, Li, Kumar, Chaudhuri, Jha, Naughton, "Bolt-on differential
privacy", SIGMOD 2017). A row of norm |x| counts min(1, clip / |x|) times. With a penalty of lambda, on all coefficients
and the intercept in units of the ranges, the objective is lambda-strongly convex and beta-smooth, and a step of
1 / beta brings two points nearer by 1 - lambda / beta. A row that is there or not moves a step by clip / (rows beta)
at most, so that after T steps coefficients differ by at most

    clip / (rows lambda) (1 - (1 - lambda / beta)^T)

and by what secret arithmetic rounds in each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.dp.mechanisms import gaussian_of
from spuvm.ml.linear.private import ROUNDED, row_weights

SIGMOID = 2.0**-15  # the error of a secret sigmoid, and of what is summed with it, of a row of norm 1
UNIT = 2.0**-18  # of fixed point


@dataclass(frozen=True)
class Descent:
    """Public: the objective of `rows` rows of so many columns, the intercept's among them.

    Attributes:
        penalty: lambda, of the mean loss.
        clip: the largest norm of a row's gradient.
    """

    rows: int
    columns: int
    penalty: float
    clip: float
    steps: int

    @property
    def smoothness(self) -> float:
        """beta: rows' cells are within 1 of 0."""
        return self.clip * math.sqrt(self.columns) / 4 + self.penalty

    @property
    def sensitivity(self) -> float:
        """Of the coefficients after all steps, with what two runs round differently."""
        nearer = self.penalty / self.smoothness
        whole = -math.expm1(self.steps * math.log1p(-nearer)) / nearer
        row = ROUNDED * self.clip / (self.rows * self.smoothness)
        rounding = 2 * (SIGMOID * self.clip / self.smoothness + 3 * UNIT * math.sqrt(self.columns))
        return (row + rounding) * whole


@cache
def settled(descent: Descent, intercept: bool, ratio: float) -> Any:
    """A function of features [rows, n], labels 0 and 1, and ranges that gives noisy coefficients and intercept.

    `ratio`: sigma by the sensitivity.
    """
    rate, shrunk = 1 / descent.smoothness, 1 - descent.penalty / descent.smoothness

    def run(x: jax.Array, y: jax.Array, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        ones = jnp.ones((x.shape[0], int(intercept)), x.dtype)
        design = jnp.concatenate([jnp.clip(x, low, high), ones], axis=1)
        bounded = design * row_weights(design, descent.clip)[:, None]

        def step(_: jax.Array, w: jax.Array) -> jax.Array:
            slope = jnp.clip(jax.nn.sigmoid(design @ w) - y, -1.0, 1.0)
            return shrunk * w - (bounded.T @ slope) * (rate / descent.rows)

        w = lax.fori_loop(0, descent.steps, step, jnp.zeros(design.shape[1], x.dtype))
        w = gaussian_of(w, descent.sensitivity, ratio)
        return w[: x.shape[1]], w[-1] if intercept else jnp.zeros(())

    return run
