"""Tests of differences between groups: statistics are revealed, sums and counts behind them are not."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.devices import SPU
from spuvm.ml.common import distributions
from spuvm.ml.metrics import auc
from spuvm.ml.statistics.columns import Statistic, groups, machine_of, named, numbers, rows_in, shown, two_groups
from spuvm.runtime.errors import DataError

EXACT = 2000  # rows of which a distribution is counted


def ttest_ind(data: Any, column: Any, by: Any, *, equal_var: bool = True, device: SPU | None = None) -> Statistic:
    """Student's t test of a column between two groups 0 and 1, or Welch's; two-sided.

    Args:
        data: the frame, if columns are named; else None.
        column: of numbers; by: of 0 and 1, perhaps another party's.

    Returns:
        statistic (the mean of group 0 less that of 1), df, pvalue. Revealed: statistic, and df of Welch's.
    """
    x, by = named(data, column), named(data, by)
    machine, rows = machine_of(x, by, device=device), rows_in(x)
    found = shown(machine, _student if equal_var else _welch, numbers(machine, x), groups(machine, by, 2)[0], what="t")
    t, freedom = (float(found), rows - 2) if equal_var else (float(found[0]), float(found[1]))
    return Statistic(statistic=t, df=freedom, pvalue=float(distributions.t_two_sided(t, freedom)))


def _moments(x: jax.Array, g: jax.Array) -> Any:
    """Of both groups: shares of the rows, means, and variances."""
    out = []
    for member in (1 - g, g):
        share = jnp.mean(member)
        mean = jnp.mean(member * x) / share
        out.append((share, mean, jnp.mean(member * (x - mean) ** 2) / share))
    return out


def _student(x: jax.Array, g: jax.Array) -> jax.Array:
    (s0, m0, v0), (s1, m1, v1) = _moments(x, g)
    rows = x.shape[0]
    pooled = (s0 * v0 + s1 * v1) * (rows / (rows - 2))
    out: jax.Array = spu.reveal((m0 - m1) * np.sqrt(rows) * lax.rsqrt(pooled) * jnp.sqrt(s0 * s1))
    return out


def _welch(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = x.shape[0]
    parts = [(v / (s - 1 / rows), s) for s, _, v in _moments(x, g)]  # variances of the means, times rows
    (_, m0, _), (_, m1, _) = _moments(x, g)
    total = parts[0][0] + parts[1][0]
    shares = [(p / total, s) for p, s in parts]
    inverse = sum(w * w / (s - 1 / rows) for w, s in shares)
    return spu.reveal((m0 - m1) * np.sqrt(rows) * lax.rsqrt(total)), spu.reveal(rows / inverse)


def mannwhitneyu(data: Any, column: Any, by: Any, *, device: SPU | None = None) -> Statistic:
    """Mann and Whitney's test of a column between two groups 0 and 1, two-sided, by the normal limit with ties and
    the correction for continuity.

    Returns:
        auc (the share of pairs in which group 1 is larger, ties half), z, pvalue; the first two are revealed.
    """
    x, by = named(data, column), named(data, by)
    machine = machine_of(x, by, device=device)
    area, z = (
        float(v) for v in shown(machine, _mann_whitney, numbers(machine, x), groups(machine, by, 2)[0], what="U")
    )
    return Statistic(auc=area, z=z, pvalue=float(distributions.normal_two_sided(z)))


def _mann_whitney(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """z = (auc - 1/2) sqrt(12 n0 n1 / ((n + 1) c)), c = 1 - sum of (t^3 - t) over ties / (n^3 - n); auc - 1/2 is
    brought nearer to 0 by half a pair."""
    rows = x.shape[0]
    area = auc(g, x)
    share = jnp.mean(g)
    ties = tie_lengths(x).astype(jnp.float32) / rows  # of each row, as a share
    correction = 1 - jnp.mean(ties * ties - 1 / rows**2) * (rows**2 / (rows**2 - 1))
    scale = np.sqrt(12 * rows**2 / (rows + 1))
    pairs, above = share * (1 - share), area - 0.5
    half = jnp.minimum((0.5 / rows**2) / pairs, jnp.abs(above))
    z = (above - jnp.sign(above) * half) * jnp.sqrt(pairs) * lax.rsqrt(correction) * scale
    return spu.reveal(area), spu.reveal(z)


def tie_lengths(x: jax.Array) -> jax.Array:
    """How many rows have the value of each of the sorted rows: int32 [n]."""
    n = x.shape[0]
    if n <= 256:
        return jnp.sum(x[:, None] == x[None, :], axis=1, dtype=jnp.int32)
    values = jnp.sort(x)
    rises = values[:-1] < values[1:]
    edge = jnp.ones(1, bool)
    known = jnp.stack([jnp.concatenate([edge, rises]), jnp.concatenate([rises, edge])[::-1]])
    place = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (2, n))
    for step in (1 << i for i in range((n - 1).bit_length())):
        before = jnp.concatenate([place[:, :step], place[:, :-step]], axis=1)
        told = jnp.concatenate([known[:, :step], known[:, :-step]], axis=1)
        place, known = jnp.where(known, place, before), known | told
    return (n - 1 - place[1][::-1]) - place[0] + 1


def ks_2samp(data: Any, column: Any, by: Any, *, device: SPU | None = None) -> Statistic:
    """Kolmogorov and Smirnov's test of a column between two groups, 0 and 1 or two texts, two-sided: exact of up
    to 2,000 rows, of more by the limit.

    Returns:
        statistic (the largest distance of both distribution functions), pvalue. Revealed: the statistic, and the
        size of the smaller group.
    """
    x, by = named(data, column), named(data, by)
    machine = machine_of(x, by, device=device)
    found = shown(machine, _kolmogorov, numbers(machine, x), two_groups(machine, by), what="D")
    d, first, rows = float(found[0]), int(found[1]), rows_in(x)
    if not first:
        raise DataError("all rows are of one group: there is nothing to compare.")
    if rows <= EXACT:
        d, pvalue = distributions.kolmogorov_exact(d, first, rows - first)
        return Statistic(statistic=d, pvalue=pvalue)
    root = np.sqrt(first * (rows - first) / rows)  # a better limit is M. A. Stephens' (1970)
    return Statistic(statistic=d, pvalue=float(distributions.kolmogorov_above(d * (root + 0.12 + 0.11 / root))))


def _kolmogorov(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = x.shape[0]
    x, g = lax.sort((x, g), num_keys=1, is_stable=False)
    ones = jnp.cumsum(g) / rows
    share = jnp.mean(g)
    at = np.arange(1, rows + 1, dtype=np.float32) / rows
    gap = jnp.abs(ones - share * at) / (share * (1 - share))  # |F1 - F0|
    last = jnp.concatenate([x[:-1] < x[1:], jnp.ones(1, bool)])
    d = jnp.max(jnp.where(last, gap, 0.0))
    first = jnp.sum(g.astype(jnp.int32))
    return spu.reveal(d), spu.reveal(jnp.minimum(first, rows - first))


def f_oneway(data: Any, column: Any, by: Any, *, n_groups: int | None = None, device: SPU | None = None) -> Statistic:
    """Fisher's analysis of variance of a column between groups 0 to k - 1.

    Returns:
        statistic, pvalue; the statistic is revealed.
    """
    x, by = named(data, column), named(data, by)
    machine = machine_of(x, by, device=device)
    codes, count = groups(machine, by, n_groups)
    f = float(shown(machine, _fisher(count), numbers(machine, x), codes, what="F"))
    return Statistic(statistic=f, pvalue=float(distributions.f_above(f, count - 1, rows_in(x) - count)))


@cache
def _fisher(count: int) -> Any:
    def run(x: jax.Array, g: jax.Array) -> jax.Array:
        rows = x.shape[0]
        hot = (g[:, None] == jnp.arange(count)).astype(jnp.float32)
        shares = jnp.mean(hot, axis=0)
        means = jnp.mean(hot * x[:, None], axis=0) / jnp.maximum(shares, 1 / rows)
        total = jnp.mean(x)
        between = jnp.sum(shares * (means - total) ** 2) / (count - 1)
        within = jnp.mean((x - hot @ means) ** 2) / (rows - count) * rows
        out: jax.Array = spu.reveal((between * rows) / within)
        return out

    return run
