"""The five benchmarks: what each computes of a stream, and how its result is checked against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from generate import EDGES, STATIONS, WARM, WEIGHTS

import spuvm as spu

Truth = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """`run(stream)` gives revealed values; `check(values, truth, rows)` is their largest error, at most `limit`."""

    kind: str  # of the data
    run: Callable[[spu.Stream], Any]
    check: Callable[[Any, Truth, int], float]
    limit: float
    what: str


def columns(folder: Path, rows_per_block: int) -> spu.Stream:
    sources = {"x": f"{folder}/alice.parquet:x@alice", "y": f"{folder}/bob.parquet:y@bob"}
    return spu.stream(sources | {"z": f"{folder}/carol.parquet:z@carol"}, rows_per_block=rows_per_block)


def features(folder: Path, rows_per_block: int) -> spu.Stream:
    mine = {p: ",".join(f"{p[0]}{i}" for i in range(5)) for p in ("alice", "bob")}
    sources = {p[0]: f"{folder}/{p}.parquet:{mine[p]}@{p}" for p in mine}
    return spu.stream(sources, rows_per_block=rows_per_block)


def stations(folder: Path, rows_per_block: int) -> spu.Stream:
    parts = [{n: f"{folder}/{p}.parquet:{n}@{p}" for n in ("station", "t")} for p in ("alice", "bob", "carol")]
    return spu.stream(parts, rows_per_block=rows_per_block // 3)


STREAMS: dict[str, Callable[[Path, int], spu.Stream]] = {
    "columns": columns,
    "features": features,
    "stations": stations,
}


def add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def folded(function: Callable[..., Any], init: Any) -> Callable[[spu.Stream], Any]:
    return lambda stream: spu.reveal(stream.fold(function, init, add))


# (a) ------------------------------------------------------------------------------------------------------


def moments(t: Any, x: Any, y: Any, z: Any) -> Any:
    """Sums, and sums of products of every two columns: what mean, variance and covariance are made of."""
    pairs = ((x, x), (x, y), (x, z), (y, y), (y, z), (z, z))
    sums = tuple(jnp.sum(c) for c in (x, y, z))
    return add(t, (sums, tuple(jnp.sum(a * b) for a, b in pairs)))


MOMENTS = ((0.0,) * 3, (0.0,) * 6)
UPPER = np.triu_indices(3)


def covariance(sums: Any, products: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(sums, float) / rows
    return mean, (np.asarray(products, float) / rows) - mean[UPPER[0]] * mean[UPPER[1]]


def check_moments(values: Any, truth: Truth, rows: int) -> float:
    sums, products = values
    found = covariance(sums, products, rows)
    want = covariance(truth["sums"], np.asarray(truth["products"])[UPPER], rows)
    return max(float(np.abs(f - w).max()) for f, w in zip(found, want))


# (b) ------------------------------------------------------------------------------------------------------


def product(t: Any, x: Any, y: Any, z: Any) -> Any:
    """x y of every row; the sum of z times that keeps it from being computed as a sum of products."""
    return t + jnp.sum((x * y) * z)


def comparison(t: Any, x: Any, y: Any) -> Any:
    return t + jnp.sum(x < y, dtype=jnp.int32)


def select(t: Any, x: Any, y: Any, z: Any) -> Any:
    return t + jnp.sum(jnp.where(x < y, x, z))


def per_row(name: str) -> Callable[[Any, Truth, int], float]:
    return lambda value, truth, rows: abs(float(value) - truth[name]) / rows


# (c) ------------------------------------------------------------------------------------------------------


def score(t: Any, a: Any, b: Any) -> Any:
    """The expected number of positives of a logistic regression with a public model."""
    w = WEIGHTS.astype(np.float32)
    return t + jnp.sum(jax.nn.sigmoid(a @ w[:5] + b @ w[5:] - 0.5))


# (d) ------------------------------------------------------------------------------------------------------


def by_station(stream: spu.Stream) -> Any:
    grouped = stream.filter(lambda t: t > WARM).group_by("station", STATIONS)
    return spu.reveal(grouped.agg(count="count", total=("t", "sum"), low=("t", "min"), high=("t", "max")))


def check_stations(values: Any, truth: Truth, rows: int) -> float:
    if not np.array_equal(values["count"], truth["count"]):
        return float("inf")
    mean = np.abs(values["total"] - np.asarray(truth["total"])) / np.maximum(truth["count"], 1)
    ends = [np.abs(values[n] - np.asarray(truth[n])).max() for n in ("low", "high")]
    return float(max(mean.max(), *ends))


# (e) ------------------------------------------------------------------------------------------------------


def below(t: Any, x: Any, y: Any) -> Any:
    """How many sums are below each edge: the cumulative histogram, from which quantiles are read."""
    s = x + y
    return t + jnp.stack([jnp.sum(s < e, dtype=jnp.int32) for e in EDGES])


def check_below(value: Any, truth: Truth, rows: int) -> float:
    """Of a sum next to an edge, rounding to fixed point may decide: the share of rows that differ."""
    return float(np.abs(np.asarray(value, np.int64) - np.asarray(truth["below"])).max()) / rows


MOMENTS_OF_ALL = folded(moments, MOMENTS)
NO_ROWS = np.zeros(len(EDGES), np.int32)
TASKS: dict[str, Task] = {
    "moments": Task("columns", MOMENTS_OF_ALL, check_moments, 1e-5, "(a) mean, variance, covariance"),
    "product": Task("columns", folded(product, 0.0), per_row("xyz"), 1e-4, "(b) product of every row"),
    "comparison": Task("columns", folded(comparison, np.int32(0)), per_row("less"), 1e-5, "(b) comparison"),
    "select": Task("columns", folded(select, 0.0), per_row("selected"), 1e-4, "(b) comparison and select"),
    "scoring": Task("features", folded(score, 0.0), per_row("risk"), 1e-3, "(c) logistic scores of ten features"),
    "stations": Task("stations", by_station, check_stations, 1e-4, "(d) filter, 400 groups: sum, count, min, max"),
    "histogram": Task("columns", folded(below, NO_ROWS), check_below, 1e-5, "(e) histogram, quantiles of x + y"),
}
