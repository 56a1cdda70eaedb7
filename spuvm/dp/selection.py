"""Selection under noise: quantiles, the first value above a threshold, groups that enough rows are in.

What is shown is the choice alone; the noisy numbers that lead to it stay secret.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.lower.noise import FIRST, GROUPS, PROVED, laplace_p
from spuvm.dp.mechanisms import noisy_max
from spuvm.runtime.errors import InputError


def quantile(x: Any, q: float, candidates: Any, epsilon: float) -> Any:
    """One of the candidates, below which about a part q of x [rows] lies: the exponential mechanism (by report noisy
    max) with the distance of ranks as score (Smith, STOC 2011).

    Args:
        x: floats or integers [rows]. candidates: public numbers, increasing: what the answer may be.
    """
    values = np.asarray(candidates)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
        raise InputError("`candidates` must be two or more numbers, each larger than the one before.")
    if not 0 <= q <= 1:
        raise InputError(f"`q` must be from 0 to 1, got {q}.")
    x = jnp.asarray(x)
    if x.ndim != 1:
        raise InputError(f"an array of one axis, the rows, is needed; got shape {x.shape}.")
    below = jnp.sum((x[:, None] < values.astype(x.dtype)).astype(jnp.float32), axis=0)
    scores = -jnp.abs(below - q * x.shape[0])  # a row more or less moves no score by more than one
    chosen = jnp.arange(len(values)) == noisy_max(scores, 1.0, epsilon)
    return jnp.sum(jnp.where(chosen, jnp.asarray(values, jnp.float32), 0.0))


def above_threshold(values: Any, threshold: float, sensitivity: float, epsilon: float) -> Any:
    """The index of the first of values [n] that is above the threshold, n if none is: the sparse vector technique.

    Half of epsilon for the threshold's noise, half for all values' together, however many there are (Dwork and Roth
    2014, theorem 3.23). `sensitivity`: the most by which one row changes any one value.
    """
    values = jnp.asarray(values)
    if values.ndim != 1:
        raise InputError(f"`values` must have one axis, got shape {values.shape}.")
    if not (math.isfinite(sensitivity) and sensitivity > 0):
        raise InputError(f"`sensitivity` must be a positive number, got {sensitivity}.")
    noise = laplace_p.bind(jnp.zeros((), values.dtype), sensitivity=sensitivity, epsilon=_half(epsilon), word=PROVED)
    noisy = laplace_p.bind(values, sensitivity=2 * sensitivity, epsilon=_half(epsilon), word=FIRST)
    above = noisy >= noise + jnp.asarray(threshold, values.dtype)
    return jnp.argmax(jnp.concatenate([above, jnp.ones(1, bool)]).astype(jnp.int32))


def groups(counts: Any, epsilon: float, delta: float, contributions: int = 1) -> tuple[Any, Any]:
    """Which groups may be shown, and their noisy counts (0 of the others): (epsilon, delta)-private where the groups
    themselves are known by the data alone (Korolova and others, WWW 2009).

    Args:
        counts: int32[groups]: rows in each, of which one unit has at most `contributions` in all.
        delta: the probability that a group of one unit alone is shown.

    Returns:
        kept bool[groups], and int32[groups].
    """
    counts = jnp.asarray(counts).astype(jnp.int32)
    if not 0 < delta < 1 or isinstance(contributions, bool) or not isinstance(contributions, int) or contributions < 1:
        raise InputError(f"`delta` must be between 0 and 1 and `contributions` 1 or more: {delta}, {contributions}.")
    least = threshold(2 * _half(epsilon), delta, contributions)
    noisy = laplace_p.bind(
        counts, sensitivity=float(contributions), epsilon=2 * _half(epsilon), word=GROUPS, delta=float(delta)
    )
    kept = noisy >= least
    return kept, jnp.where(kept, noisy, 0)


def threshold(epsilon: float, delta: float, contributions: int = 1) -> int:
    """The least noisy count that is shown: a unit's own rows reach it with a probability of delta at most, in whichever
    groups they are."""
    q = math.exp(-epsilon / contributions)
    tail = math.log(delta / contributions * (1 + q)) / math.log(q)  # P(noise >= t) = q^t / (1 + q)
    return contributions + max(1, math.ceil(tail))


def _half(epsilon: float) -> float:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"`epsilon` must be a positive number, got {epsilon}.")
    return epsilon / 2
