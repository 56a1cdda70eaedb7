"""What a score is worth: confusion, ROC, precision and recall, lift, calibration; at public thresholds, revealed."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Series
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.ml.common.table import table_of
from spuvm.ml.machine import Machine
from spuvm.ml.statistics.columns import Statistic, groups, machine_of, rows_in, shown
from spuvm.objects import SPUObject
from spuvm.runtime.errors import InputError


def confusion_matrix(
    labels: Any, predicted: Any, *, n_classes: int | None = None, device: SPU | None = None
) -> np.ndarray:
    """Counts int64 [k, k] of labels (rows) by predicted classes, revealed to all parties."""
    machine = machine_of(labels, predicted, device=device)
    y, classes = groups(machine, labels, n_classes)
    found = shown(machine, _confusion(classes), y, _codes(machine, predicted), what="confusion matrix")
    out: np.ndarray = np.rint(found).astype(np.int64)
    return out


def _codes(machine: Machine, x: Any) -> Any:
    return x if isinstance(x, SPUObject) else groups(machine, x)[0]


@cache
def _confusion(classes: int) -> Any:
    def run(y: jax.Array, p: jax.Array) -> jax.Array:
        truth, found = ((c[:, None] == jnp.arange(classes)).astype(jnp.float32) for c in (y, p))
        out: jax.Array = spu.reveal(truth.T @ found)
        return out

    return run


def roc_curve(labels: Any, scores: Any, *, points: int = 21, device: SPU | None = None) -> Statistic:
    """False and true positive rates at thresholds from 0 to 1 of probabilities; revealed to all parties.

    Returns:
        thresholds, fpr, tpr, float64 [points].
    """
    thresholds, above, ones, rows = _counted(labels, scores, points, device)
    tp, every = above
    return Statistic(thresholds=thresholds, fpr=(every - tp) / max(rows - ones, 1), tpr=tp / max(ones, 1))


def precision_recall_curve(labels: Any, scores: Any, *, points: int = 21, device: SPU | None = None) -> Statistic:
    """Precision and recall at thresholds from 0 to 1 of probabilities; revealed to all parties."""
    thresholds, (tp, every), ones, _ = _counted(labels, scores, points, device)
    precision = np.where(every > 0, tp / np.maximum(every, 1), 1.0)
    return Statistic(thresholds=thresholds, precision=precision, recall=tp / max(ones, 1))


def _counted(labels: Any, scores: Any, points: int, device: SPU | None) -> Any:
    machine = machine_of(labels, scores, device=device)
    y, s = groups(machine, labels, 2)[0], _probabilities(machine, scores)
    found = shown(machine, _above(points), y, s, what="counts at thresholds")
    above = np.rint(found)
    return np.linspace(0, 1, points), above, above[0, 0], above[1, 0]


def _probabilities(machine: Machine, scores: Any) -> Any:
    """Secret scores [rows]; of [rows, 2] those of class 1."""
    if isinstance(scores, SPUObject):
        return scores if scores.ndim == 1 else machine.run(_second, scores, what="scores")
    if isinstance(scores, Series):
        (owner,) = scores.parties
        scores = scores.at(owner)
    if not isinstance(scores, PYUObject):
        raise InputError("`scores` must be a frame's column, or an object of a PYU or an SPU.")
    shaped = PYU(scores.device.party)(lambda v: np.asarray(v, np.float64).reshape(len(v), -1)[:, -1:])(scores)
    return machine.run(_first, [b.local(_floats) for b in table_of(machine, shaped).blocks], what="scores")


def _floats(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


def _first(parts: list[jax.Array]) -> jax.Array:
    return parts[0][:, 0]


def _second(x: jax.Array) -> jax.Array:
    return x[:, -1]


@cache
def _above(points: int) -> Any:
    def run(y: jax.Array, s: jax.Array) -> jax.Array:
        at = (s[:, None] >= np.linspace(0, 1, points).astype(np.float32)).astype(jnp.float32)
        at = at.at[:, 0].set(1.0)
        out: jax.Array = spu.reveal(jnp.stack([y @ at, jnp.sum(at, axis=0)]))
        return out

    return run


def calibration_curve(labels: Any, scores: Any, *, n_bins: int = 10, device: SPU | None = None) -> Statistic:
    """Of bins of probabilities of equal width: rows, mean probability and share of ones; revealed to all parties."""
    machine = machine_of(labels, scores, device=device)
    y, s = groups(machine, labels, 2)[0], _probabilities(machine, scores)
    rows, ones, mean = shown(machine, _binned(n_bins), y, s, what="calibration")
    safe = np.maximum(rows, 1)
    return Statistic(rows=np.rint(rows).astype(np.int64), prob_true=ones / safe, prob_pred=mean / safe)


@cache
def _binned(count: int) -> Any:
    def run(y: jax.Array, s: jax.Array) -> jax.Array:
        inner = np.asarray(np.arange(1, count) / count, np.float32)
        at = (s[:, None] >= inner).astype(jnp.float32)
        ones = jnp.ones((s.shape[0], 1), s.dtype)
        hot = jnp.concatenate([ones, at], axis=1) - jnp.concatenate([at, 0 * ones], axis=1)
        out: jax.Array = spu.reveal(jnp.stack([jnp.sum(hot, axis=0), y @ hot, s @ hot]))
        return out

    return run


def lift_curve(labels: Any, scores: Any, *, n_bins: int = 10, device: SPU | None = None) -> Statistic:
    """Of bins of equally many rows, highest scores first: the share of ones beside that of all rows; revealed.

    Returns:
        lift, and gain, the share of all ones in the bins so far: float64 [n_bins].
    """
    machine = machine_of(labels, scores, device=device)
    rows = rows_in(labels)
    y, s = groups(machine, labels, 2)[0], _probabilities(machine, scores)
    ones = shown(machine, _ranked(n_bins), y, s, what="ones by rank")
    ends = np.arange(1, n_bins + 1) * rows // n_bins
    sizes = np.diff(np.concatenate([[0], ends]))
    return Statistic(lift=ones / sizes / (ones.sum() / rows), gain=np.cumsum(ones) / ones.sum())


@cache
def _ranked(count: int) -> Any:
    def run(y: jax.Array, s: jax.Array) -> jax.Array:
        rows = y.shape[0]
        _, ordered = jax.lax.sort((-s, y), num_keys=1, is_stable=False)
        ends = np.arange(1, count + 1) * rows // count
        total = jnp.cumsum(ordered)[ends - 1]
        out: jax.Array = spu.reveal(jnp.diff(total, prepend=jnp.zeros(1)))
        return out

    return run
