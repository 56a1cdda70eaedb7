"""Logistic regression by accelerated gradients: for several classes, and for penalties that set coefficients to 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from spuvm.ml.linear.irls import ridge_of
from spuvm.ml.linear.least_squares import lasso_of, moments
from spuvm.ml.linear.proximal import descend, inverse_norm
from spuvm.ml.linear.solve import inverse


@cache
def fit(
    classes: int, alpha: float, lasso: float, intercept: bool, tol: float | None, max_iter: int
) -> Callable[..., dict[str, jax.Array]]:
    """A function of features, labels, weights and powers (as `irls.fit`) that fits the model.

    The Hessian is at most (I - 11'/K) / 2 times X'X / n for K classes, X'X / 4n for two (D. Boehning, Annals of the
    Institute of Statistical Mathematics 44 (1992)): its inverse is the step where nothing is shrunk.
    """

    def run(x: jax.Array, y: jax.Array, weight: Any, offset: Any, power: jax.Array, scale: Any) -> dict[str, jax.Array]:
        design, gram, _ = moments(x, y, weight, intercept)
        pad = (0, 1) if intercept else (0, 0)
        ridge, shrinks = (
            jnp.pad(ridge_of(alpha, power, None), pad)[:, None],
            jnp.pad(lasso_of(lasso, power), pad)[:, None],
        )
        target = y[:, None] if classes == 2 else (y[:, None] == jnp.arange(classes)).astype(jnp.float32)

        def gradient(w: jax.Array) -> jax.Array:
            z = design @ w
            found = jax.nn.sigmoid(z) if classes == 2 else jax.nn.softmax(z, axis=-1)
            error = found - target if weight is None else (found - target) * weight[:, None]
            return design.T @ error / x.shape[0] + ridge * w

        bound = gram * (0.25 if classes == 2 else 0.5) + jnp.diag(ridge[:, 0])
        start = jnp.zeros((design.shape[1], target.shape[1]), x.dtype)
        regular = jnp.bool_(True)
        if lasso:
            size = inverse_norm(bound)
            w, steps = descend(lambda w: gradient(w) * size, start, shrinks * size, tol, max_iter)
        else:
            step, regular = inverse(bound)
            w, steps = descend(lambda w: step @ gradient(w), start, None, tol, max_iter)
        coef, last = w[: x.shape[1]], w[-1] if intercept else jnp.zeros(target.shape[1])
        if classes == 2:
            coef, last = coef[:, 0], last[0]
        return {"coef": coef, "intercept": last, "iterations": steps, "regular": regular}

    return run
