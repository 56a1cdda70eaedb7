"""How columns go together: correlations, variance inflation, tables of counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.common import distributions
from spuvm.ml.common.standard import matrix, standard
from spuvm.ml.common.table import table_of
from spuvm.ml.linear.solve import inverse
from spuvm.ml.statistics.columns import LEAST_ROWS, Statistic, groups, machine_of, named, rows_in, shown
from spuvm.ml.statistics.private import asked, correlations, counts
from spuvm.runtime.errors import ConfigError, InputError


@dataclass(frozen=True)
class Named:
    """Numbers by column.

    Attributes:
        names: of the columns.
        values: float64 [n] or [n, n].
    """

    names: tuple[str, ...]
    values: np.ndarray

    def __getitem__(self, name: str) -> Any:
        return self.values[self.names.index(name)]

    def __repr__(self) -> str:
        width = max(map(len, self.names))
        rows = np.atleast_2d(self.values.T).T
        return "\n".join(f"{n:{width}}  " + "  ".join(f"{v:9.4f}" for v in row) for n, row in zip(self.names, rows))


def corr(
    data: Any, *, epsilon: float | None = None, bounds: Any = None, budget: Any = None, device: SPU | None = None
) -> Named:
    """Pearson's correlations of all columns, revealed: float64 [n, n].

    Args:
        epsilon, bounds, budget: with noise; see `describe`.
    """
    private = asked(epsilon, bounds, budget)
    if private is not None:
        return Named(*correlations(data, private, device))
    z, names, machine = _standard(data, device)
    return Named(names, shown(machine, _correlations, z, what="correlations"))


def variance_inflation(data: Any, *, device: SPU | None = None) -> Named:
    """Variance inflation factors of all columns, revealed: float64 [n]; above 1,000 they are not told apart."""
    z, names, machine = _standard(data, device)
    return Named(names, shown(machine, _inflation, z, what="variance inflation"))


def _standard(data: Any, device: SPU | None) -> tuple[Any, tuple[str, ...], Any]:
    machine = machine_of(data, device=device)
    table = table_of(machine, data)
    if table.rows < LEAST_ROWS:
        raise InputError(f"there are {table.rows} rows: statistics that are shown need {LEAST_ROWS} or more.")
    return matrix(standard(table, 0.0, centred=True), table), table.names, machine


def _correlation(z: jax.Array) -> jax.Array:
    cov = z.T @ z / z.shape[0]
    scale = lax.rsqrt(jnp.maximum(jnp.diag(cov), 2.0**-12))
    return cov * scale[:, None] * scale


def _correlations(z: jax.Array) -> jax.Array:
    out: jax.Array = spu.reveal(_correlation(z))
    return out


def _inflation(z: jax.Array) -> jax.Array:
    out: jax.Array = spu.reveal(jnp.diag(inverse(_correlation(z))[0]))
    return out


def crosstab(
    data: Any,
    rows: Any,
    columns: Any,
    *,
    epsilon: float | None = None,
    levels: tuple[int, int] | None = None,
    budget: Any = None,
    device: SPU | None = None,
) -> np.ndarray:
    """Counts of rows by two columns of codes, perhaps of two parties, revealed: int64 [k, l].

    Args:
        epsilon: with noise, of all cells together. levels: then, how many codes both columns have.
        budget: then, the `spu.dp.Budget` that it is spent in first, or one for each party.
    """
    if epsilon is not None:
        return counts(data, rows, columns, levels, epsilon, budget, device)
    if budget is not None or levels is not None:
        raise ConfigError("`budget` and `levels` are of counts with noise: give `epsilon`, too.")
    out: np.ndarray = np.rint(_counted(data, rows, columns, device, _counts, "counts")[0]).astype(np.int64)
    return out


def chi2_contingency(
    data: Any, rows: Any, columns: Any, *, correction: bool = True, device: SPU | None = None
) -> Statistic:
    """Pearson's chi squared test of independence.

    Args:
        correction: of two by two groups, Yates': counts are half a row nearer to what is expected.

    Returns:
        statistic, dof, pvalue; the statistic is revealed, the counts are not.
    """
    found, k, m = _counted(data, rows, columns, device, partial(_chi2, corrected=correction), "chi squared")
    freedom = (k - 1) * (m - 1)
    return Statistic(statistic=float(found), dof=freedom, pvalue=float(distributions.chi2_above(found, freedom)))


def _counted(data: Any, rows: Any, columns: Any, device: Any, make: Any, what: str) -> tuple[Any, int, int]:
    a, b = named(data, rows), named(data, columns)
    machine = machine_of(a, b, device=device)
    if rows_in(a) != rows_in(b):
        raise InputError(f"the columns have {rows_in(a)} and {rows_in(b)} rows: bring the same rows.")
    (x, k), (y, m) = groups(machine, a), groups(machine, b)
    return shown(machine, make(k, m), x, y, what=what), k, m


def _joint(x: jax.Array, y: jax.Array, k: int, m: int) -> jax.Array:
    left, right = ((c[:, None] == jnp.arange(n)).astype(jnp.float32) for c, n in ((x, k), (y, m)))
    return left.T @ right


@cache
def _counts(k: int, m: int) -> Any:
    return lambda x, y: spu.reveal(_joint(x, y, k, m))


@cache
def _chi2(k: int, m: int, corrected: bool) -> Any:
    def run(x: jax.Array, y: jax.Array) -> jax.Array:
        """Sum of the squares of (o - r c) sqrt(n / (r c)), o, r and c shares of the n rows."""
        n = x.shape[0]
        o = _joint(x, y, k, m) / n
        r, c = jnp.sum(o, axis=1), jnp.sum(o, axis=0)
        left, right = (lax.rsqrt(jnp.maximum(s, 0.5 / n)) for s in (r, c))
        apart = o - r[:, None] * c
        if corrected and k == m == 2:
            apart = jnp.sign(apart) * jnp.maximum(jnp.abs(apart) - 0.5 / n, 0.0)
        residual = apart * left[:, None] * right * np.sqrt(n)
        out: jax.Array = spu.reveal(jnp.sum(residual * residual))
        return out

    return run
