"""What is minimised over a linear predictor: by its first two derivatives, as iterated least squares take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

FAR = 2.0**11  # of a residual in standard deviations: its square fits
LARGEST = 9.0  # of a linear predictor whose exponential is taken: e^9 in units of the mean label


class Family(NamedTuple):
    """A loss of labels and the linear predictor z, all [rows].

    Attributes:
        working: z, y -> the loss' derivative, and a positive second derivative (or its expectation).
        loss: z, y -> the loss itself.
        start: labels -> the intercept to start at.
        largest: of the mean second derivative, as a power of two.
        least: is added to second derivatives while steps are made, so that none is far.
        expected: whether second derivatives are expectations: steps then fall by a factor, not by their squares.
        variance: the power of the mean that variances are in proportion to, where the factor is to be estimated.
    """

    working: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    start: Callable[[jax.Array], jax.Array]
    largest: int = 0
    least: float = 0.0
    expected: bool = False
    variance: float | None = None


def _zero(y: jax.Array) -> jax.Array:
    return jnp.zeros((), jnp.float32)


def _log_mean(y: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(jnp.mean(y), 2.0**-12))


def _logistic(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = jax.nn.sigmoid(z)
    return p - y, p * (1 - p)


def _logistic_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    return jax.nn.softplus(z) - y * z


def _squared(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return z - y, jnp.ones_like(z)


def _squared_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * (z - y) ** 2


def _squared_hinge(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    sign = 2 * y - 1
    short = 1 - sign * z
    inside = short > 0
    return jnp.where(inside, -2 * sign * short, 0.0), jnp.where(inside, 2.0, 2.0**-6)


def _squared_hinge_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.maximum(1 - (2 * y - 1) * z, 0.0) ** 2


def _poisson(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = jnp.exp(jnp.minimum(z, LARGEST))
    return mean - y, mean


def _poisson_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    z = jnp.minimum(z, LARGEST)
    return jnp.exp(z) - y * z


def _gamma(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return 1 - y * jnp.exp(-jnp.clip(z, -LARGEST, LARGEST)), jnp.ones_like(z)


def _gamma_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    z = jnp.clip(z, -LARGEST, LARGEST)
    return y * jnp.exp(-z) + z


@cache
def tweedie(power: float) -> Family:
    """The half deviance of a Tweedie distribution with log link: variance mean^power, 1 < power < 2."""

    def both(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.clip(z, -LARGEST, LARGEST)
        return jnp.exp((1 - power) * z), jnp.exp((2 - power) * z)

    def working(z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b = both(z)
        return b - y * a, b

    def loss(z: jax.Array, y: jax.Array) -> jax.Array:
        a, b = both(z)
        return b / (2 - power) - y * a / (1 - power)

    return Family(working, loss, _log_mean, 2, 2.0**-9, expected=True, variance=power)


def pearson(z: jax.Array, y: jax.Array, variance: float) -> jax.Array:
    """(y - mean)^2 / mean^variance of means e^z."""
    z = jnp.clip(z, -LARGEST, LARGEST)
    root = y * jnp.exp(z * (-variance / 2)) - jnp.exp(z * (1 - variance / 2))
    return jnp.clip(root, -FAR, FAR) ** 2


FAMILIES = {
    "logistic": Family(_logistic, _logistic_loss, _zero, -2, 2.0**-12),
    "squared": Family(_squared, _squared_loss, _zero),
    "squared hinge": Family(_squared_hinge, _squared_hinge_loss, _zero, 1),
    "poisson": Family(_poisson, _poisson_loss, _log_mean, 2, 2.0**-9),
    "gamma": Family(_gamma, _gamma_loss, _log_mean, 2, expected=True, variance=2.0),
}


def family_of(name: str, power: float | None) -> Family:
    """A family by its name; "tweedie" has a power."""
    return tweedie(power) if name == "tweedie" and power is not None else FAMILIES[name]
