"""The population stability index: whether a column is distributed as it was."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.common.labels import Labels, labels_of
from spuvm.ml.common.predictors import to_unit
from spuvm.ml.statistics.columns import machine_of, rows_in

HALF = 0.5  # added to each count, so that no bin is without rows


def psi(expected: Any, actual: Any, *, n_bins: int = 10, device: SPU | None = None) -> float:
    """Sum of (a - e) ln(a / e) over bins with equally many of the expected rows; one number is revealed.

    Args:
        expected, actual: columns, perhaps of two parties: `frame["score"]`, objects of a PYU or an SPU.
    """
    machine = machine_of(expected, actual, device=device)
    one, other = (labels_of(machine, None, c, "numbers", rows_in(c)) for c in (expected, actual))
    found = machine.run(_stability(n_bins), *_parts(one), *_parts(other), what="population stability index")
    return float(spu.reveal(found))


def _parts(column: Labels) -> tuple[Any, Any]:
    return column.values, column.unit


@cache
def _stability(count: int) -> Any:
    def run(e: jax.Array, unit: Any, a: jax.Array, own: Any) -> jax.Array:
        edges = jnp.quantile(e, jnp.asarray(np.arange(1, count) / count, jnp.float32))
        first, second = (_shares(x, edges, count) for x in (e, to_unit(a, own, unit)))
        out: jax.Array = spu.reveal(jnp.sum((second - first) * (jnp.log(second) - jnp.log(first))))
        return out

    return run


def _shares(x: jax.Array, edges: jax.Array, count: int) -> jax.Array:
    above = jnp.sum(x[:, None] > edges, axis=0).astype(jnp.float32)
    rows = x.shape[0]
    at_least = jnp.concatenate([jnp.full(1, float(rows)), above, jnp.zeros(1)])
    return (at_least[:-1] - at_least[1:] + HALF) / (rows + count * HALF)
