"""Statistics with noise: of columns within stated ranges, spent in every party's ledger before anything is shown.

Neighbours differ by one row, which is there or not. Every function here is one use of a budget, of `epsilon` in all,
pure (no delta), and what it shows is what its mechanisms put out; the rest is arithmetic on that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm import dp
from spuvm.devices import SPU
from spuvm.dp.ledgers import spend_all
from spuvm.dp.spending import Spent
from spuvm.ml.common.labels import labels_of, numbers_within
from spuvm.ml.common.standard import matrix
from spuvm.ml.common.table import Block, Table, table_of
from spuvm.ml.linear.private import Private, prepared, unit_of
from spuvm.ml.machine import Inside, Machine
from spuvm.ml.statistics.columns import machine_of, named, rows_in
from spuvm.runtime.errors import ConfigError, InputError

ROUNDED = 1.001  # times a sensitivity: what roundings may add to a cell or a product
MOMENTS = ("count", "missing", "mean", "std")


def asked(epsilon: float | None, bounds: Any, budget: Any) -> Private | None:
    """What `epsilon`, `bounds` and `budget` of a statistic ask for; None if it is to be exact.

    Raises:
        ConfigError: for what is no epsilon, range or budget, and for a budget that nothing would be spent in.
    """
    if epsilon is None:
        if budget is not None or bounds is not None:
            raise ConfigError("`budget` and `bounds` are of statistics with noise: give `epsilon`, too.")
        return None
    if bounds is None:
        raise ConfigError("`epsilon` needs `bounds`: a range for every column by its name, (low, high).")
    return Private(epsilon, bounds, budget=budget)


def shown_privately(
    machine: Machine, function: Callable[..., Any], args: Sequence[Any], epsilon: float, budget: Any, what: str
) -> Any:
    """Spend epsilon, run the function, whose mechanisms are to cost that, and show what it makes."""
    if isinstance(machine, Inside):
        raise ConfigError("`epsilon` inside of a jitted function: no ledger can be asked there. Call this outside.")
    spend_all(budget, machine.members, [Spent("laplace", 1 / epsilon)], what)
    found = machine.reveal(machine.run(function, *args, what=what), what)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found)


# Moments -------------------------------------------------------------------------------------------------------


def moments(data: Any, private: Private, device: SPU | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and float64 [4, columns]: the rows of `MOMENTS`. Each has a third of epsilon, all columns share it."""
    machine = machine_of(data, device=device)
    table = table_of(machine, data, missing=True)
    known, table, edges = prepared(private, table, data)
    there = [_there(machine, b) for b in table.blocks]
    whole = Table(machine, table.rows, tuple(map(_filled, table.blocks)), table.kind)
    z = matrix(known, known.match(whole))
    args = z, there, edges["low"], edges["high"]
    count, total, squares = shown_privately(
        machine, _sums(private.epsilon), args, private.epsilon, private.budget, "description with noise"
    )
    ranges = np.array([private.range_of(c) for c in table.columns], float)
    mean, power = (np.array(x) for x in zip(*(unit_of((low, high)) for low, high in ranges)))
    rows = np.maximum(count, 1)
    middle = np.clip(total / rows, -1, 1)
    spread = np.sqrt(np.clip(squares / rows - middle**2, 0, 1) * rows / np.maximum(rows - 1, 1))
    values = np.clip((middle + mean) * 2.0**power, ranges[:, 0], ranges[:, 1])
    return table.names, np.stack([count, table.rows - count, values, spread * 2.0**power])


def _there(machine: Machine, block: Block) -> Any:
    if block.owner is not None:
        return machine.share(block.local(lambda x: ~np.isnan(x)))
    return np.ones(block.value.shape, np.bool_)


def _filled(block: Block) -> Block:
    return block if block.owner is None else replace(block, value=block.local(np.nan_to_num))


@cache
def _sums(epsilon: float) -> Callable[..., Any]:
    def run(z: jax.Array, there: list[jax.Array], low: jax.Array, high: jax.Array) -> Any:
        columns = z.shape[1]
        here = jnp.concatenate(there, axis=1)
        z = jnp.where(here, jnp.clip(z, low, high), 0.0)  # within 1 of 0, in each of a row's columns
        sums = jnp.sum(here.astype(jnp.int32), axis=0), jnp.sum(z, axis=0), jnp.sum(z * z, axis=0)
        return [dp.laplace(s, ROUNDED * columns, epsilon / 3) for s in sums]

    return run


# Counts --------------------------------------------------------------------------------------------------------


def counts(
    data: Any, rows: Any, columns: Any, levels: Any, epsilon: float, budget: Any, device: SPU | None
) -> np.ndarray:
    """Counts by two columns of codes, int64 [k, l]: each row is in one cell, so epsilon is for all of them."""
    private = Private(epsilon, (0, 1), budget=budget)
    if not _two_levels(levels):
        raise ConfigError(f"`epsilon` needs `levels`: how many codes both columns have, known before, got {levels!r}.")
    a, b = named(data, rows), named(data, columns)
    machine = machine_of(a, b, device=device)
    if rows_in(a) != rows_in(b):
        raise InputError(f"the columns have {rows_in(a)} and {rows_in(b)} rows: bring the same rows.")
    x, y = (labels_of(machine, None, c, "classes", rows_in(c), n, ordered=False) for c, n in zip((a, b), levels))
    args = x.values, y.values
    found = shown_privately(
        machine, _cells(x.classes, y.classes, epsilon), args, epsilon, private.budget, "counts with noise"
    )
    return np.asarray(np.rint(found), np.int64)


def _two_levels(levels: Any) -> bool:
    return isinstance(levels, tuple | list) and len(levels) == 2 and all(type(n) is int and n > 1 for n in levels)


@cache
def _cells(k: int, m: int, epsilon: float) -> Callable[..., Any]:
    def run(x: jax.Array, y: jax.Array) -> jax.Array:
        left, right = ((c[:, None] == jnp.arange(n)).astype(jnp.int32) for c, n in ((x, k), (y, m)))
        noisy: jax.Array = dp.laplace(left.T @ right, 1, epsilon)
        return noisy

    return run


def histogram(
    data: Any, column: Any, edges: Any, *, epsilon: float, budget: Any = None, device: SPU | None = None
) -> np.ndarray:
    """How many cells lie in each bin [edge, next edge), with noise, revealed: int64 [bins]. Others are not counted.

    Args:
        edges: public, increasing.
        epsilon: for all bins together, as a row is in one.
        budget: the ledger that it is spent in, or one for each party.
    """
    private = Private(epsilon, (0, 1), budget=budget)
    ends = np.asarray(edges, np.float64)
    if ends.ndim != 1 or len(ends) < 2 or not np.isfinite(ends).all() or not (np.diff(ends) > 0).all():
        raise InputError("`edges` must be two or more finite numbers, each larger than the one before.")
    chosen = named(data, column)
    machine = machine_of(chosen, device=device)
    span = float(ends[-1] - ends[0])
    wide = float(ends[0] - span), float(ends[-1] + span)
    mean, power = unit_of(wide)
    values = numbers_within(machine, None, chosen, rows_in(chosen), wide, (mean, power)).values
    inside = tuple((ends * 2.0**-power - mean).astype(np.float32).tolist())
    found = shown_privately(machine, _bins(inside, epsilon), (values,), epsilon, private.budget, "histogram with noise")
    return np.asarray(np.rint(found), np.int64)


@cache
def _bins(edges: tuple[float, ...], epsilon: float) -> Callable[[jax.Array], Any]:
    return lambda x: dp.histogram(x, np.asarray(edges, np.float32), epsilon)


# Correlations ---------------------------------------------------------------------------------------------------


def correlations(data: Any, private: Private, device: SPU | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names, and Pearson's correlations of noisy sums of columns and their products: float64 [n, n]."""
    machine = machine_of(data, device=device)
    table = table_of(machine, data)
    known, table, edges = prepared(private, table, data)
    z, n = matrix(known, known.match(table)), len(table.columns)
    args = z, edges["low"], edges["high"]
    total, upper = shown_privately(
        machine, _products(n, private.epsilon), args, private.epsilon, private.budget, "correlations with noise"
    )
    products = np.zeros((n, n))
    products[np.triu_indices(n)] = upper
    products += np.triu(products, 1).T
    mean = total / table.rows
    covariance = products / table.rows - np.outer(mean, mean)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1 / table.rows))
    out = np.clip(covariance / np.outer(scale, scale), -1, 1)
    np.fill_diagonal(out, 1.0)
    return table.names, out


@cache
def _products(n: int, epsilon: float) -> Callable[..., Any]:
    """Sums of n columns and of n (n + 1) / 2 products, each within 1 of 0: epsilon in proportion to their numbers."""
    pairs = n * (n + 1) // 2
    at = np.triu_indices(n)

    def run(z: jax.Array, low: jax.Array, high: jax.Array) -> Any:
        z = jnp.clip(z, low, high)
        both = (z.T @ z)[at]
        share = n / (n + pairs)
        total = dp.laplace(jnp.sum(z, axis=0), ROUNDED * n, share * epsilon)
        return total, dp.laplace(both, ROUNDED * pairs, (1 - share) * epsilon)

    return run
