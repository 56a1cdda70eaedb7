"""Bias by group: how often each group is chosen, and how often rightly; a group can be another party's column."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.statistics.columns import LEAST_ROWS, Statistic, groups, machine_of, shown
from spuvm.ml.statistics.curves import _codes
from spuvm.runtime.errors import InputError


def bias_report(
    labels: Any, predicted: Any, group: Any, *, n_groups: int | None = None, device: SPU | None = None
) -> Statistic:
    """Rates of decisions 0 and 1 by group; revealed to all parties if every group has `LEAST_ROWS` rows or more.

    Returns:
        rows, selection_rate, true_positive_rate, false_positive_rate: float64 [groups]; disparate_impact, the smallest
        selection rate by the largest; equal_opportunity, the largest difference of true positive rates.

    Raises:
        InputError: for a group with too few rows: that there is one is revealed, one bit.
    """
    machine = machine_of(labels, predicted, group, device=device)
    y, p = groups(machine, labels, 2)[0], _codes(machine, predicted)
    g, count = groups(machine, group, n_groups)
    counts = machine.run(_by_group(count), y, p, g, what="bias")
    if not bool(
        np.asarray(machine.reveal(machine.run(_enough, counts, what="bias"), "whether groups are large enough"))
    ):
        raise InputError(f"a group has fewer than {LEAST_ROWS} rows: join groups.")
    rows, chosen, ones, hits = shown(machine, _same, counts, what="rates by group")
    selection, true = chosen / rows, hits / np.maximum(ones, 1)
    return Statistic(
        rows=np.rint(rows),
        selection_rate=selection,
        true_positive_rate=true,
        false_positive_rate=(chosen - hits) / np.maximum(rows - ones, 1),
        disparate_impact=float(selection.min() / max(selection.max(), 1e-9)),
        equal_opportunity=float(true.max() - true.min()),
    )


@cache
def _by_group(count: int) -> Any:
    def run(y: jax.Array, p: jax.Array, g: jax.Array) -> jax.Array:
        hot = (g[:, None] == jnp.arange(count)).astype(jnp.float32)
        p = p.astype(jnp.float32)
        return jnp.stack([jnp.sum(hot, axis=0), p @ hot, y @ hot, (y * p) @ hot])

    return run


def _enough(counts: jax.Array) -> jax.Array:
    return jnp.all(counts[0] >= LEAST_ROWS)


def _same(counts: jax.Array) -> jax.Array:
    out: jax.Array = spu.reveal(counts)
    return out
