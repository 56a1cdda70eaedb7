"""Tails of the distributions that tests compare with, of numbers that were revealed: in the clear, double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.scipy import special


def _double(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def run(*args: Any) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(function(*(np.asarray(a, np.float64) for a in args)), np.float64)

    return run


@_double
def normal_two_sided(z: Any) -> Any:
    """The probability of a normal number at least so far from 0."""
    return special.erfc(abs(z) / np.sqrt(2.0))


@_double
def normal_quantile(p: Any) -> Any:
    """The inverse of the normal distribution function."""
    return special.ndtri(p)


@_double
def t_two_sided(t: Any, freedom: Any) -> Any:
    """The probability of Student's t at least so far from 0."""
    return special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t))


@_double
def chi2_above(x: Any, freedom: Any) -> Any:
    """The probability of chi squared at or above x."""
    return special.gammaincc(freedom / 2, x / 2)


@_double
def f_above(x: Any, first: Any, second: Any) -> Any:
    """The probability of Fisher's F at or above x."""
    return special.betainc(second / 2, first / 2, second / (second + first * x))


@_double
def kolmogorov_above(x: Any) -> Any:
    """The limit of the probability that sqrt(n) D is at or above x (Kolmogorov 1933)."""
    k = np.arange(1, 101)[:, None]
    terms = 2 * (-1.0) ** (k - 1) * np.exp(-2 * k**2 * np.maximum(np.atleast_1d(x), 0.05) ** 2)
    return np.clip(terms.sum(axis=0).reshape(np.shape(x)), 0, 1)


def kolmogorov_exact(d: float, first: int, second: int) -> tuple[float, float]:
    """The nearest distance that two samples of these sizes may have, and the probability of one at least so large.

    Random orders of both samples are paths from (0, 0) to (first, second): followed diagonal by diagonal, those that
    stay nearer (J. L. Hodges, Arkiv foer Matematik 3 (1958)).
    """
    unit = first * second // math.gcd(first, second)
    least = round(d * unit)
    i, near = np.arange(first + 1), np.zeros(first + 1)
    near[0] = 1.0
    for step in range(1, first + second + 1):
        right = np.where((step - i >= 1) & (step - i <= second), second - (step - 1 - i), 0) * near
        up = np.append(0.0, (first - i[:-1]) * near[:-1])
        apart = np.abs(i * (unit // first) - (step - i) * (unit // second))
        near = np.where((apart < least) & (step - i >= 0) & (step - i <= second), right + up, 0.0)
        near /= first + second - step + 1
    return least / unit, float(np.clip(1 - near[first], 0.0, 1.0)) if least else 1.0


def t_quantile(p: float, freedom: float) -> float:
    """The inverse of Student's distribution function, p above 1/2: by bisection of `t_two_sided`."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if float(t_two_sided(middle, freedom)) > 2 * (1 - p) else (low, middle)
    return (low + high) / 2
