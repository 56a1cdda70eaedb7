"""Scores of predictions: one number is revealed, labels and predictions stay where they are.

The functions are plain JAX, for use inside jitted functions (`spu.reveal(auc(labels, scores))`); `evaluate`
runs one of them on an SPU. Errors are stated for fixed point of 18 fraction bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.data.frame import Series
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.marking import reveal
from spuvm.runtime.errors import InputError

PAIRS_UP_TO = 256  # rows: 6 MB of comparisons in 33 rounds; beyond, AUC sorts in some 200


# Two classes --------------------------------------------------------------------------------------------


def auc(labels: jax.Array, scores: jax.Array) -> jax.Array:
    """Area under the ROC curve: the share of (positive, negative) pairs ranked correctly; ties count half.

    With R_i = how many scores are below s_i less how many are above (twice the midrank, centred), the area is
    1/2 + sum_i y_i R_i / (2 P N) for P positives and N negatives (Mann and Whitney 1947).

    Args:
        labels: f32[n] or bool[n], 0 or 1.
        scores: f32[n], larger for positives; of any scale.

    Returns:
        f32[], within 2e-5 for n below 2^26. If there is only one class, 1/2.
    """
    n = labels.shape[0]
    y = labels.astype(jnp.float32)
    if n > PAIRS_UP_TO:
        scores, y = lax.sort((scores, y), num_keys=1, is_stable=False)
    centred = _pairwise_ranks(scores) if n <= PAIRS_UP_TO else _sorted_ranks(scores)
    scale = 2.0 ** -math.ceil(math.log2(n)) if n > 1 else 1.0  # sums of products stay below 2^26
    positives = jnp.sum(y)
    pairs = positives * ((n - positives) * scale)
    return 0.5 + jnp.dot(y, centred.astype(jnp.float32) * scale) / (2 * pairs)


def _pairwise_ranks(scores: jax.Array) -> jax.Array:
    """R_i by n^2 comparisons: few rounds."""
    above = (scores[:, None] < scores[None, :]).astype(jnp.int32)
    return jnp.sum(above, axis=0) - jnp.sum(above, axis=1)


def _sorted_ranks(scores: jax.Array) -> jax.Array:
    """R_i of sorted scores: where the run of scores equal to s_i starts and ends, added.

    A run's start is passed on to its members in log2 n steps of doubling distance; all ends likewise.
    """
    n = scores.shape[0]
    rises = scores[:-1] < scores[1:]
    edge = jnp.ones(1, bool)
    known = jnp.stack([jnp.concatenate([edge, rises]), jnp.concatenate([rises, edge])[::-1]])
    place = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (2, n))
    for step in (1 << i for i in range((n - 1).bit_length())):
        before, told = _moved(place, step), _moved(known, step)
        place = jnp.where(known, place, before)
        known = known | told
    return place[0] - place[1][::-1]


def _moved(x: jax.Array, step: int) -> jax.Array:
    """x[:, i - step] at i; the first `step` are repeated, where everything is known already."""
    return jnp.concatenate([x[:, :step], x[:, :-step]], axis=1)


def accuracy(labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """The share of rows f32[n] that `probability > 1/2` puts into their class, 0 or 1; exact to one unit."""
    return jnp.mean((probabilities > 0.5) == (labels > 0.5))


def log_loss(labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Mean of -ln q, q the probability f32[n] that was given to the row's class, 0 or 1.

    A probability of 0 counts as 2^-19: no row adds more than 13.2. One that is known to 4e-6 has a logarithm
    known to 4e-6 / q: where margins are at hand, `margin_log_loss` is more exact, and cheaper.
    """
    y = labels.astype(jnp.float32)
    return -jnp.mean(jnp.log(1 - probabilities + y * (2 * probabilities - 1)))


def margin_log_loss(labels: jax.Array, margins: jax.Array) -> jax.Array:
    """`log_loss` of probabilities sigmoid(z) by their margins z f32[n]: mean of ln(1 + e^z) - y z."""
    return jnp.mean(jnp.logaddexp(margins, 0.0)) - jnp.mean(labels.astype(jnp.float32) * margins)


# Several classes --------------------------------------------------------------------------------------------


def multiclass_accuracy(labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """The share of rows whose class, 0 to k - 1, has the largest of the probabilities (or margins) f32[n, k].

    Of several largest the first counts.
    """
    return jnp.mean(jnp.argmax(probabilities, axis=1) == labels)


def multiclass_log_loss(labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Mean of -ln q, q the probability of f32[n, k] that was given to the row's class; see `log_loss`."""
    return -jnp.mean(jnp.log(_of_class(labels, probabilities)))


def margin_multiclass_log_loss(labels: jax.Array, margins: jax.Array) -> jax.Array:
    """`multiclass_log_loss` of probabilities softmax(z) by their margins z f32[n, k]."""
    return jnp.mean(jax.nn.logsumexp(margins, axis=1)) - jnp.mean(_of_class(labels, margins))


def _of_class(labels: jax.Array, x: jax.Array) -> jax.Array:
    mine = labels[:, None] == jnp.arange(x.shape[1], dtype=labels.dtype)
    return jnp.sum(jnp.where(mine, x, 0.0), axis=1)


# Numbers ---------------------------------------------------------------------------------------------------


def rmse(labels: jax.Array, predictions: jax.Array) -> jax.Array:
    """Root of the mean squared difference of f32[n] and f32[n]; right while it is below 8,192.

    Below 0.002 / sqrt(n) it is lost, as the squares are. Where those would sum to more than 2^24, differences are
    first scaled by a power of two near 1 / sqrt(n).
    """
    n = labels.shape[0]
    scale = 0.5 ** math.ceil(math.log2(n) / 2)
    d = labels.astype(jnp.float32) - predictions
    small = jnp.dot(d * scale, d * scale) < 2.0**24 * scale**2
    d = jnp.where(small, d, d * scale)
    root = jnp.sqrt(jnp.dot(d, d))
    return jnp.where(small, root * (1 / math.sqrt(n)), root * (1 / (math.sqrt(n) * scale)))


def mae(labels: jax.Array, predictions: jax.Array) -> jax.Array:
    """Mean absolute difference of f32[n] and f32[n]."""
    return jnp.mean(jnp.abs(labels.astype(jnp.float32) - predictions))


Metric = Callable[[jax.Array, jax.Array], jax.Array]

METRICS: dict[str, Metric] = {  # by the names of XGBoost's `eval_metric`; it lacks accuracy and macc
    "auc": auc,
    "accuracy": accuracy,
    "error": lambda y, p: 1 - accuracy(y, p),
    "logloss": log_loss,
    "macc": multiclass_accuracy,
    "merror": lambda y, p: 1 - multiclass_accuracy(y, p),
    "mlogloss": multiclass_log_loss,
    "rmse": rmse,
    "mae": mae,
}
LARGER_IS_BETTER = frozenset({"auc", "accuracy", "macc"})
CLASSES = {"auc": 2, "accuracy": 2, "error": 2, "logloss": 2, "macc": None, "merror": None, "mlogloss": None}


# On a machine -------------------------------------------------------------------------------------------------


def evaluate(device: SPU, metric: str, labels: Any, scores: Any) -> float:
    """Score predictions; the number is revealed to all parties, and nothing else.

    Args:
        device: the machine to compute on.
        metric: one of `METRICS`: "auc", "accuracy", "error", "logloss" for labels 0 and 1; "macc", "merror",
            "mlogloss" for classes 0 to k - 1; "rmse", "mae".
        labels: a frame's column, an object of a PYU or an SPU, shape [n]; or a sequence of these, joined.
        scores: likewise, [n]; of the metrics for k classes [n, k].

    Raises:
        InputError: for an unknown metric; and, where labels are at their owner and not secret-shared, for
            labels that are missing or no classes, and of "auc" for labels of one class.
    """
    if metric not in METRICS:
        raise InputError(f"`metric` must be one of {', '.join(METRICS)}, got {metric!r}.")
    y, s = _pieces(labels), _pieces(scores)
    one = len(y) == 1
    y = [_checked(piece, metric, alone=one) for piece in y]
    return float(reveal(device(_revealed(metric))(y, s)))


@functools.cache
def _revealed(metric: str) -> Callable[..., Any]:
    def score(labels: Sequence[jax.Array], scores: Sequence[jax.Array]) -> Any:
        y, s = (jnp.concatenate(list(x)) if len(x) > 1 else x[0] for x in (labels, scores))
        several = CLASSES.get(metric, 2) is None
        if y.ndim != 1 or s.ndim != 1 + several or s.shape[:1] != y.shape:
            raise InputError(f"`scores` of shape {s.shape} do not fit `labels` of shape {y.shape} for {metric!r}.")
        if y.shape[0] == 0:
            raise InputError(f"`labels` are empty: {metric!r} needs rows.")
        return reveal(METRICS[metric](y, s))

    return score


def _pieces(x: Any) -> list[Any]:
    if isinstance(x, Series):
        return [x.at(party) for party in x.parties]
    return list(x) if isinstance(x, list | tuple) else [x]


def _checked(labels: Any, metric: str, alone: bool) -> Any:
    if not isinstance(labels, PYUObject):
        return labels
    owner = labels.device.party

    def check(values: Any) -> np.ndarray:
        y: np.ndarray = np.asarray(values, np.float64)
        if not np.isfinite(y).all():
            raise InputError(f"`labels` of {owner} have missing or infinite cells: fill them, or leave out their rows.")
        if metric in CLASSES and (np.any(y != np.rint(y)) or np.any(y < 0)):
            raise InputError(f"`labels` of {owner} are not classes: {metric!r} takes integers from 0.")
        if CLASSES.get(metric) == 2 and np.any(y > 1):
            raise InputError(f"`labels` of {owner} have more than two classes: {metric!r} takes 0 and 1.")
        if metric == "auc" and alone and len(np.unique(y)) < 2:
            raise InputError(f"`labels` of {owner} are of one class: the area needs both.")
        return y

    return PYU(owner)(check)(labels)
