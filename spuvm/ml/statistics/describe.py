"""What columns are like: counts, means, deviations, quantiles, missing cells; each owner says its own, as asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import SPU, fetch
from spuvm.ml.common import units
from spuvm.ml.common.joined import features_of
from spuvm.ml.common.table import Block, table_of
from spuvm.ml.machine import Machine
from spuvm.ml.statistics.columns import LEAST_ROWS, machine_of, shown
from spuvm.ml.statistics.private import MOMENTS, asked, moments
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import InputError

QUANTILES = (0.25, 0.5, 0.75)
ROWS = ("count", "missing", "mean", "std", *(f"{q:.0%}" for q in QUANTILES))


@dataclass(frozen=True)
class Description:
    """A table: float64 [rows, columns], with the names of both."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray

    def __getitem__(self, name: str) -> dict[str, float]:
        return dict(zip(self.rows, self.values[:, self.columns.index(name)].tolist()))

    def __repr__(self) -> str:
        lines = [["", *self.columns]] + [[r, *(f"{v:.6g}" for v in row)] for r, row in zip(self.rows, self.values)]
        widths = [max(map(len, cells)) for cells in zip(*lines)]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in lines)


def describe(
    data: Any, *, epsilon: float | None = None, bounds: Any = None, budget: Any = None, device: SPU | None = None
) -> Description:
    """Count, missing cells, mean, standard deviation (n - 1) and quartiles of each column, revealed to all parties.

    The least and the largest value are some row's own, and are not shown. Columns with fewer than `LEAST_ROWS` cells
    are refused.

    Args:
        epsilon: with noise: differential privacy for one row, of all columns together; without quartiles.
        bounds: then, the range of every column by its name, or one for all; cells outside count as its ends.
        budget: then, the `spu.dp.Budget` that it is spent in first, or one for each party.
    """
    private = asked(epsilon, bounds, budget)
    if private is not None:
        return Description(MOMENTS, *moments(data, private, device))
    machine = machine_of(data, device=device)
    if isinstance(data, SharedTable):
        return Description(ROWS, data.names, _joined(machine, data))
    table = table_of(machine, data, missing=True)
    parts = [_owned(b) if b.owner else _secret(machine, b) for b in table.blocks]
    return Description(ROWS, table.names, np.concatenate(parts, axis=1))


def _owned(block: Block) -> np.ndarray:
    return np.asarray(fetch(block.local(described)), np.float64)


def described(x: np.ndarray) -> np.ndarray:
    """The table of an owner's columns: float64 [rows, n]."""
    there = (~np.isnan(x)).sum(axis=0)
    if (there < LEAST_ROWS).any():
        raise InputError(f"a column has fewer than {LEAST_ROWS} cells: statistics that are shown need more.")
    moments = [np.nanmean(x, axis=0), np.nanstd(x, axis=0, ddof=1), *np.nanquantile(x, QUANTILES, axis=0)]
    return np.stack([there, len(x) - there, *moments]).astype(np.float64)


def _joined(machine: Machine, table: SharedTable) -> np.ndarray:
    """Of rows that are there, and cells; first how many these are, then what may be shown of them."""
    block = features_of(machine, table, table.names).blocks[0]
    flags = [table.present.get(n, table.valid) for n in table.names]
    counted, rows = shown(machine, _cells, table.valid, flags, what="description")
    if few := [n for n, count in zip(table.names, counted) if not count]:
        raise InputError(f"`{few[0]}` has fewer than {LEAST_ROWS} cells: statistics that are shown need more.")
    counts = tuple(int(n) for n in counted)
    parts = shown(machine, _of_some(counts), block.value, table.valid, flags, what="description")
    return np.concatenate([[counted, rows - counted], np.stack([units.number(m, e) for m, e in parts])])


def _cells(valid: Any, flags: Any) -> Any:
    """How many cells each column has, and how many rows there are; 0 of fewer than may be shown."""
    counted = jnp.stack([jnp.sum(f, dtype=jnp.int32) for f in (*(valid & f for f in flags), valid)])
    counted = jnp.where(counted < LEAST_ROWS, 0, counted)
    return spu.reveal((counted[:-1], counted[-1]))


@cache
def _of_some(counts: tuple[int, ...]) -> Any:
    """A function of columns whose first `counts` sorted cells are there."""

    def described(x: Any, valid: Any, flags: Any) -> Any:
        there = jnp.stack([valid & f for f in flags], axis=1)
        unit = units.secretly_learned(x, jnp.int32(0), 0.0, centred=True)
        z = jnp.where(there, units.secretly_applied(x, unit["mean"], unit["power"]), 0.0)
        size = np.array(counts, np.float32)
        middle = jnp.sum(z, axis=0) / size
        spread = jnp.sqrt(jnp.sum(jnp.where(there, (z - middle) ** 2, 0.0), axis=0) / (size - 1))
        absent, cells = (~there).T, x.T
        ordered = [jax.lax.sort((a, c), num_keys=2)[1] for a, c in zip(absent, cells)]
        quantiles = jnp.stack([_between(c, n) for c, n in zip(ordered, counts)], axis=1)
        zero = jnp.zeros(len(counts), jnp.int32)
        mean = unit["mean"] + units.times_power(middle, unit["power"])
        floats = [units.as_float(mean, zero), units.as_float(spread, unit["power"])]
        return spu.reveal(floats + [units.as_float(q, zero) for q in quantiles])

    return described


def _between(ordered: Any, count: int) -> Any:
    """The quantiles of the first `count` of sorted cells, linear between two."""
    at = np.asarray(QUANTILES) * (count - 1)
    low = np.floor(at).astype(int)
    part = (at - low).astype(np.float32)
    return ordered[low] * (1 - part) + ordered[np.minimum(low + 1, count - 1)] * part


def _secret(machine: Machine, block: Block) -> np.ndarray:
    rows = block.value.shape[0]
    if rows < LEAST_ROWS:
        raise InputError(f"there are {rows} rows: statistics that are shown need {LEAST_ROWS} or more.")
    power = np.zeros(len(block.columns), np.int32) if block.power is None else block.power
    parts = shown(machine, _moments, block.value, power, what="description")
    count = np.array([[rows] * len(block.columns), [0] * len(block.columns)], np.float64)
    return np.concatenate([count, np.stack([units.number(m, e) for m, e in parts])])


def _moments(x: Any, power: Any) -> Any:
    unit = units.secretly_learned(x, jnp.int32(0), 0.0, centred=True)
    z = units.secretly_applied(x, unit["mean"], unit["power"])
    spread = jnp.sqrt(jnp.mean(z * z, axis=0) * (x.shape[0] / (x.shape[0] - 1)))
    quantiles = jnp.quantile(x, jnp.asarray(QUANTILES), axis=0)
    floats = [units.as_float(unit["mean"], power), units.as_float(spread, unit["power"] + power)]
    floats += [units.as_float(q, power) for q in quantiles]
    return spu.reveal(floats)
