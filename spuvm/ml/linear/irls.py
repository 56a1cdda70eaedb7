"""Newton's method for linear predictors: iterated reweighted least squares, the machine's side.

The mean loss plus the ridge sum_j ridge_j w_j^2 / 2 is minimised over coefficients w of features in units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.ml.common import units
from spuvm.ml.linear.families import Family, family_of, pearson
from spuvm.ml.linear.solve import inverse

NEVER = 2.0**-14  # a step below is noise of fixed point


@cache
def fit(
    family: str, power: float | None, alpha: float, intercept: bool, tol: float | None, max_iter: int, inference: bool
) -> Callable[..., dict[str, jax.Array]]:
    """A function of features, labels and perhaps weights that fits the model.

    Args:
        alpha: of the ridge alpha |w|^2 / 2 on the coefficients of the features as they are.
        tol: steps end when none is above its root, Newton's error being a step's square (Fisher's, of expected second
            derivatives, is a part of a step: when none is above tol^(3/4)); that they do is revealed, one bit a step.
            None: all `max_iter` are made, and nothing is revealed.
        inference: whether the covariance of the coefficients is wanted.

    Returns:
        coef: [d], in units; intercept: []; iterations: public; regular: whether the design is.
        With inference: covariance: [d + 1, d + 1] times rows (intercept last), loss: the mean, without the ridge; of
        families with a factor to estimate, dispersion: the mean of squared residuals by their variance's power.
    """

    def run(
        x: jax.Array, y: jax.Array, weight: Any, offset: Any, column_power: jax.Array, scale: Any
    ) -> dict[str, jax.Array]:
        problem = Problem(
            family_of(family, power), x, y, weight, offset, ridge_of(alpha, column_power, scale), intercept
        )
        w, steps, regular = newton(problem, tol, max_iter)
        out = {"coef": w[: x.shape[1]], "intercept": w[-1] if intercept else jnp.zeros(()), "iterations": steps}
        out["regular"] = regular
        if inference:
            out |= problem.inference(w)
        return out

    return run


def ridge_of(alpha: float, power: jax.Array, scale: Any) -> jax.Array:
    """alpha 2^(-2 power), of units that are not smaller than alpha's root, hence at most 1; times `scale`, if given."""
    if alpha == 0:
        return jnp.zeros(power.shape, jnp.float32)
    exponent = int(np.floor(np.log2(alpha)))
    ridge = units.times_power(jnp.full(power.shape, alpha * 2.0**-exponent, jnp.float32), exponent - 2 * power)
    return ridge if scale is None else ridge * scale


SUMS = 22  # bits of the largest sums of products: four fewer than fixed point holds
MOST_GAIN = 6


class Problem:
    """Data and loss: gradient and Hessian at coefficients, times a gain that leaves their sums room."""

    def __init__(
        self, family: Family, x: jax.Array, y: jax.Array, weight: Any, offset: Any, ridge: jax.Array, intercept: bool
    ) -> None:
        self.family, self.y, self.weight, self.offset = family, y, weight, offset
        room = SUMS - family.largest - (x.shape[0] - 1).bit_length()
        self.gain = 2.0 ** int(np.clip(room, 0, MOST_GAIN))
        ones = jnp.ones((x.shape[0], 1), x.dtype)
        self.x = jnp.concatenate([x, ones], axis=1) if intercept else x
        self.ridge = (jnp.pad(ridge, (0, 1)) if intercept else ridge) * self.gain
        self.intercept = intercept

    def start(self) -> jax.Array:
        w = jnp.zeros(self.x.shape[1], self.x.dtype)
        return w.at[-1].set(self.family.start(self.y)) if self.intercept else w

    def predictor(self, w: jax.Array) -> jax.Array:
        z = self.x @ w
        return z if self.offset is None else z + self.offset

    def derivatives(self, w: jax.Array, least: float = 0.0) -> tuple[jax.Array, jax.Array]:
        """Gradient [d], and the Hessian without its ridge [d, d]; `least` is added to second derivatives."""
        first, second = self.family.working(self.predictor(w), self.y)
        second = second + least if least else second
        if self.weight is not None:
            first, second = first * self.weight, second * self.weight
        part = self.gain / self.x.shape[0]
        gradient = (self.x.T @ first) * part + self.ridge * w
        return gradient, (self.x.T @ (self.x * second[:, None])) * part

    def inference(self, w: jax.Array) -> dict[str, jax.Array]:
        """Covariance H^-1 F H^-1 of penalised coefficients, times rows: F is the Hessian without ridge, H with."""
        _, information = self.derivatives(w)
        inverted, _ = inverse(information + jnp.diag(self.ridge))
        loss = self.family.loss(self.predictor(w), self.y)
        mean = jnp.mean(loss if self.weight is None else loss * self.weight)
        out = {"covariance": (inverted @ information @ inverted) * self.gain, "loss": mean}
        if self.family.variance is not None:
            squares = pearson(self.predictor(w), self.y, self.family.variance)
            out["dispersion"] = jnp.mean(squares if self.weight is None else squares * self.weight)
        return out


def newton(problem: Problem, tol: float | None, max_iter: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Coefficients, the number of steps (public) and whether the last design was regular."""

    def step(w: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        gradient, hessian = problem.derivatives(w, problem.family.least)
        inverted, regular = inverse(hessian + jnp.diag(problem.ridge))
        change = inverted @ gradient
        return w - change, change, regular

    if tol is None:
        w, regular = lax.fori_loop(0, max_iter, lambda _, s: step(s[0])[::2], (problem.start(), jnp.bool_(True)))
        return w, jnp.int32(max_iter), regular
    limit = max(tol ** (0.75 if problem.family.expected else 0.5), NEVER)

    def body(state: Any) -> Any:
        w, count, _, _ = state
        w, change, regular = step(w)
        return w, count + 1, regular, spu.reveal(jnp.any(jnp.abs(change) > limit))

    first = problem.start(), jnp.int32(0), jnp.bool_(True), jnp.bool_(True)
    w, steps, regular, _ = lax.while_loop(lambda s: (s[1] < max_iter) & s[3], body, first)
    return w, steps, regular
