"""Mechanisms for functions that `spu.jit` or a device runs: the noise is drawn in the machine, and nobody knows it.

Neighbours are tables that differ by one row that is there or not (add or remove). `sensitivity` is the most by which
one row can change a result (for arrays: the sum of absolute changes for Laplace, the root of the sum of squares for
Gaussian). `sum`, `mean`, `count` and `histogram` clip or count by themselves, so theirs is proved; that of `laplace`
and `gaussian` is the caller's word.

What leaves the machine is private, the noisy value that is revealed, and nothing else: reveal nothing but that.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.lower.noise import ARGMAX, BINS, PROVED, STATED, gaussian_p, laplace_p
from spuvm.dp.proving import open_sensitivity
from spuvm.dp.spending import rho_of
from spuvm.runtime.errors import InputError


def laplace(x: Any, sensitivity: float | None = None, epsilon: float = 1.0) -> Any:
    """x plus discrete Laplace noise of scale sensitivity / epsilon: epsilon-differentially private.

    Args:
        x: an array, of any shape; each element gets noise of its own.
        sensitivity: the most by which one row changes the sum of absolute values of x; None if it is to be proved,
            which `spu.dp.private` and `Budget.reveal` do.
        epsilon: more than 0.

    Raises:
        InputError: for a sensitivity or an epsilon that is not a positive number, or noise that the type cannot hold.
    """
    return _laplace(x, _sensitivity(sensitivity), epsilon, PROVED if sensitivity is None else STATED)


def _laplace(x: Any, sensitivity: float, epsilon: float, word: str) -> Any:
    return laplace_p.bind(jnp.asarray(x), sensitivity=sensitivity, epsilon=_positive(epsilon, "epsilon"), word=word)


def gaussian(x: Any, sensitivity: float, epsilon: float, delta: float) -> Any:
    """x plus discrete Gaussian noise: (epsilon, delta)-differentially private. x of floats.

    The standard deviation follows from concentrated privacy: rho = (sensitivity' / sigma)^2 / 2, with what rounding to
    the noise's grid adds to the sensitivity (Canonne, Kamath, Steinke, NeurIPS 2020, theorem 4 and corollary 13).
    """
    x = jnp.asarray(x)
    if kind_of(x.dtype) != "f":
        raise InputError(f"`x` must be of floats, got {x.dtype}: use `laplace` for integers.")
    if not 0 < delta < 1:
        raise InputError(f"`delta` must be between 0 and 1, got {delta}.")
    return _gaussian(x, sensitivity, rho_of(_positive(epsilon, "epsilon"), delta))


def gaussian_of(x: Any, sensitivity: float, ratio: float) -> Any:
    """x of floats plus discrete Gaussian noise whose sigma is `ratio` times the sensitivity, rounding included: of
    mechanisms that are accounted together, as `Spent("gaussian", ratio)`."""
    return _gaussian(jnp.asarray(x), sensitivity, 1 / (2 * _positive(ratio, "ratio") ** 2))


def _gaussian(x: Any, sensitivity: float, rho: float) -> Any:
    sigma, grid = _noise(_positive(sensitivity, "sensitivity"), rho, x.size)
    return gaussian_p.bind(x, sensitivity=sensitivity + grid * math.sqrt(x.size), sigma=sigma, grid=grid)


# Of the grid in a standard deviation: more cost more, and round less.
STEPS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MOST = 1.25  # times the sensitivity, with rounding


def _noise(sensitivity: float, rho: float, size: int) -> tuple[float, float]:
    """Standard deviation and grid: the coarsest grid whose rounding adds at most a quarter to the sensitivity."""
    for steps in STEPS:
        sigma = MOST * sensitivity / math.sqrt(2 * rho)
        grid = 2.0 ** math.floor(math.log2(sigma / steps))
        whole = sensitivity + grid * math.sqrt(max(size, 1))
        if whole <= MOST * sensitivity:
            return whole / math.sqrt(2 * rho), grid
    raise InputError(
        f"{size} elements at once are too many for this noise, which would be rounded to too coarse a grid: "
        "split the array, give it more epsilon, or use `laplace`."
    )


def clip(x: Any, low: float, high: float) -> Any:
    """x brought into [low, high]: what one row can change is at most high - low."""
    _range(low, high)
    return jnp.clip(x, low, high)


def count(mask: Any, epsilon: float) -> Any:
    """How many of mask, bool [rows], are true, with noise. Sensitivity 1."""
    return _laplace(jnp.sum(_mask(mask, "mask").astype(jnp.int32)), 1.0, epsilon, PROVED)


def sum(x: Any, low: float, high: float, epsilon: float, where: Any = None) -> Any:
    """The sum of x [rows], each clipped to [low, high], of the rows where `where` is true, with noise.

    Sensitivity: the larger magnitude of low and high.
    """
    _range(low, high)
    x = jnp.clip(_one_axis(x), low, high)
    x = x if where is None else jnp.where(_mask(where, "where", x.shape), x, 0)
    return _laplace(jnp.sum(x), float(_whole(x, max(abs(low), abs(high)))), epsilon, PROVED)


def mean(x: Any, low: float, high: float, epsilon: float, where: Any = None) -> Any:
    """The mean of x [rows], clipped to [low, high]: half of epsilon for the sum, half for the count."""
    _range(low, high)
    middle, half = (low + high) / 2, (high - low) / 2
    x = jnp.clip(_one_axis(x), low, high) - middle
    here = jnp.ones(x.shape, bool) if where is None else _mask(where, "where", x.shape)
    total = _laplace(jnp.sum(jnp.where(here, x, 0.0)), half, epsilon / 2, PROVED)
    rows = jnp.maximum(count(here, epsilon / 2), 1).astype(x.dtype)
    return jnp.clip(middle + total / rows, low, high)


def histogram(x: Any, edges: Any, epsilon: float) -> Any:
    """How many of x [rows] lie in each bin [edge, next edge), with noise. A row is in one bin: sensitivity 1."""
    edges = np.asarray(edges)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InputError("`edges` must be two or more numbers, each larger than the one before.")
    x = _one_axis(x)
    above = x[:, None] >= edges
    inside = above[:, :-1] & ~above[:, 1:]
    return _laplace(jnp.sum(inside.astype(jnp.int32), 0), 1.0, epsilon, BINS)


def noisy_max(scores: Any, sensitivity: float, epsilon: float) -> Any:
    """The index of the largest of scores [n] after noise, and nothing else (report noisy max).

    `sensitivity` is the most by which one row changes any one score. Dwork and Roth, "The algorithmic foundations of
    differential privacy" (2014), claim 3.9, with noise of twice the scale, as scores need not all move one way.
    """
    scores = _one_axis(scores)
    if not scores.size:
        raise InputError("`scores` is empty: there is no largest one.")
    return jnp.argmax(_laplace(scores, 2 * _positive(sensitivity, "sensitivity"), epsilon, ARGMAX))


def _one_axis(x: Any) -> Any:
    x = jnp.asarray(x)
    if x.ndim != 1:
        raise InputError(f"an array of one axis, the rows, is needed; got shape {x.shape}.")
    return x


def _mask(x: Any, name: str, shape: tuple[int, ...] | None = None) -> Any:
    x = jnp.asarray(x)
    if x.dtype != jnp.bool_ or x.ndim != 1 or shape not in (None, x.shape):
        wanted = "[rows]" if shape is None else f"of shape {shape}"
        raise InputError(f"`{name}` must be bools {wanted}, as a comparison gives; got {x.dtype} of shape {x.shape}.")
    return x


def _whole(x: Any, bound: float) -> float:
    return math.ceil(bound) if kind_of(x.dtype) in "iu" else bound


def _sensitivity(value: float | None) -> float:
    return open_sensitivity() if value is None else _positive(value, "sensitivity")


def _range(low: float, high: float) -> None:
    if any(isinstance(v, str | bool) for v in (low, high)) or not (-math.inf < low < high < math.inf):
        raise InputError(f"`low` must be below `high`, and both finite: got {low} and {high}.")


def _positive(value: float, name: str) -> float:
    if isinstance(value, str | bool) or value is None:
        raise InputError(f"`{name}` must be a positive number, got {value!r}.")
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise InputError(f"`{name}` must be a positive number, got {value}.")
    return number
