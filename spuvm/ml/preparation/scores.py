"""How much columns say of labels, on secrets: ANOVA, correlation, chi squared, mutual information.

A score is `value` 2^`power`, both secret; `order` rises with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.labels import labels_of
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.table import Table
from spuvm.ml.machine import Machine
from spuvm.ml.preparation.discretizer import _secret_bins, _secret_edges, bins, edges, one_hot
from spuvm.runtime.errors import DataError

Found = dict[str, Any]
FINE = 4.0  # residuals are computed times that: their squares are numbers of fixed point


@dataclass(frozen=True)
class Score:
    """How columns are scored.

    Attributes:
        of: the machine, what is known of the columns, a table that matches, labels, classes if they are known and
            bins -> value, power, order [n] and the number of classes.
        final: revealed numbers, rows and classes -> the score itself, where less was revealed.
        freedom: rows and classes -> degrees of freedom: one of chi squared, two of F.
        centred: whether columns are taken around their means.
    """

    of: Callable[[Machine, ByColumn, Table, Any, int | None, int], Found]
    final: Callable[[np.ndarray, int, int], np.ndarray]
    freedom: Callable[[int, int], tuple[int, ...]] | None = None
    centred: bool = True


def _classes(machine: Machine, table: Table, labels: Any, count: int | None) -> tuple[Any, int]:
    found = labels_of(machine, None, labels, "classes", table.rows, count, ordered=False)
    return found.values, found.classes


def _anova(machine: Machine, known: ByColumn, table: Table, labels: Any, count: int | None, bins: int) -> Found:
    y, classes = _classes(machine, table, labels, count)
    value = machine.run(_explained(classes), matrix(known, table), y, what="scores")
    return _plain(value, classes)


def _correlation(machine: Machine, known: ByColumn, table: Table, labels: Any, count: int | None, bins: int) -> Found:
    y = labels_of(machine, None, labels, "numbers", table.rows).values
    return _plain(machine.run(_squared_correlation, matrix(known, table), y, what="scores"), 2)


def _chi2(machine: Machine, known: ByColumn, table: Table, labels: Any, count: int | None, bins: int) -> Found:
    y, classes = _classes(machine, table, labels, count)
    checked = [replace(b, value=b.local(_refuse_negative)) if b.owner else b for b in table.blocks]
    table = replace(table, blocks=tuple(checked))
    power = scales(known)["power"]
    value, order = machine.run(_chi_squared(classes), matrix(known, table), y, power, what="scores")
    return {"value": value, "power": machine.run(_less, power, what="scores"), "order": order, "classes": classes}


def _information(machine: Machine, known: ByColumn, table: Table, labels: Any, count: int | None, bins: int) -> Found:
    y, classes = _classes(machine, table, labels, count)
    hot = _binned(table, bins)
    return _plain(machine.run(_mutual(classes, bins), hot, y, what="scores"), classes)


def _binned(table: Table, count: int) -> list[Any]:
    """Indicators of bins of equally many rows, of each block [rows, n count]."""
    known = learn(table, lambda x: {"edges": edges(x, count, True)}, _secret_edges(count, True), "bins")

    def hot(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
        return one_hot(bins(x, state["edges"]), count)

    made = known.apply(table, hot, _secret_bins(count, True), "bins")
    return [b.local(lambda x: x.astype(np.float32)) if b.owner else b.value for b in made.blocks]


def _plain(value: Any, classes: int) -> Found:
    return {"value": value, "power": 0, "order": value, "classes": classes}


def _refuse_negative(x: np.ndarray) -> np.ndarray:
    if (x < 0).any():
        raise DataError("a column has negative cells: chi squared is of counts and shares.")
    return x


# On secrets --------------------------------------------------------------------------------------------------


@cache
def _explained(classes: int) -> Any:
    def run(z: jax.Array, y: jax.Array) -> jax.Array:
        """The share of each column's variance between the classes' means: [n]. z [rows, n] is around its mean."""
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        share = jnp.mean(hot, axis=0)
        sums = hot.T @ z / z.shape[0]
        # A class without rows has the sum 0.
        between = jnp.sum(sums * sums / jnp.maximum(share, 0.5 / z.shape[0])[:, None], axis=0)
        total = jnp.mean(z * z, axis=0)
        return jnp.where(total > 2.0**-10, between / jnp.maximum(total, 2.0**-10), 0.0)

    return run


def _squared_correlation(z: jax.Array, y: jax.Array) -> jax.Array:
    """[n], of columns and labels around their means."""
    both, x, t = (jnp.mean(v, axis=0) for v in (z * y[:, None], z * z, y * y))
    return jnp.where(x > 2.0**-10, both * both / (jnp.maximum(x, 2.0**-10) * t), 0.0)


@cache
def _chi_squared(classes: int) -> Any:
    def run(z: jax.Array, y: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sums by class o, expected e = (share of the class) (sum): the sum of (o - e)^2 / e in units, times FINE^2."""
        rows = z.shape[0]
        hot = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        share, total = jnp.mean(hot, axis=0), jnp.maximum(jnp.mean(z, axis=0), 2.0**-12)
        off = hot.T @ z / rows - share[:, None] * total
        scale = jax.lax.rsqrt(jnp.maximum(share, 0.5 / rows))[:, None] * jax.lax.rsqrt(total)
        residual = off * (FINE * np.sqrt(rows)) * scale  # squares come last: they are small, or large
        parts = jnp.sum(residual * residual, axis=0)
        return parts, jnp.log(jnp.maximum(parts, 2.0**-14)) + power.astype(jnp.float32) * np.log(2)

    return run


def _less(power: jax.Array) -> jax.Array:
    return power - int(2 * np.log2(FINE))


@cache
def _mutual(classes: int, count: int) -> Any:
    def run(hot: list[jax.Array], y: jax.Array) -> jax.Array:
        """Entropies of bins and of classes less that of both, in nats: [n]."""
        h = jnp.concatenate([x.astype(jnp.float32) for x in hot], axis=1)
        labels = (y[:, None] == jnp.arange(classes)).astype(jnp.float32)
        joint = (h.T @ labels / h.shape[0]).reshape(-1, count, classes)
        alone, of_labels = jnp.sum(joint, axis=2), jnp.mean(labels, axis=0)
        both = jnp.sum(_entropy(joint), axis=(1, 2))
        return jnp.sum(_entropy(alone), axis=1) + jnp.sum(_entropy(of_labels)) - both

    return run


def _entropy(p: jax.Array) -> jax.Array:
    return -p * jnp.log(jnp.maximum(p, 2.0**-14))


# Of numbers that were revealed ---------------------------------------------------------------------------------


def _fisher(explained: np.ndarray, rows: int, classes: int) -> np.ndarray:
    """F of the share of the variance that is explained."""
    share = np.clip(explained, 0, 1 - 1e-12)
    out: np.ndarray = share / (1 - share) * ((rows - classes) / (classes - 1))
    return out


def _same(value: np.ndarray, rows: int, classes: int) -> np.ndarray:
    return value


SCORES: dict[str, Score] = {
    "f_classif": Score(_anova, _fisher, lambda rows, classes: (classes - 1, rows - classes)),
    "f_regression": Score(_correlation, _fisher, lambda rows, classes: (1, rows - 2)),
    "chi2": Score(_chi2, _same, lambda rows, classes: (classes - 1,), centred=False),
    "mutual_info_classif": Score(_information, _same),
}
