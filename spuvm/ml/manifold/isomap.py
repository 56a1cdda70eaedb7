"""Isomap: distances along a graph of neighbours, kept in few dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.units import times_power
from spuvm.ml.machine import Machine
from spuvm.ml.manifold.base import FAR, Embedding, gaps_of, neighbours
from spuvm.ml.manifold.eigen import leading, turned
from spuvm.ml.others.svm import FLAT
from spuvm.ml.unsupervised.kmeans import squared_distances
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import InputError

FINER = 8.0  # units in the rows' spread: short ways beside long ones have digits, too
ROUNDED = 2.0**-13  # of a squared distance: a row that was in training is no way from itself
SCALE = 64.0  # of the largest eigenvalue, likewise
APART = 2.0**13  # longer than any way, in an eighth of the rows' spread


@dataclass(eq=False, kw_only=True, repr=False)
class Isomap(Embedding):
    """J. Tenenbaum, V. de Silva, J. Langford, Science 290 (2000): classical scaling of the shortest ways.

    Shown is one bit, whether the graph is connected: of one that is not there are no distances, and `fit` ends with an
    error. The shortest ways take a step for each row, in which all pairs are compared (Floyd and Warshall's).

    Args:
        n_neighbors: of each row.
        max_iter: steps of subspace iteration; all are made.
    """

    n_neighbors: int = 5
    max_iter: int = 16
    checks: ClassVar[dict[str, Rule]] = {
        "n_components": rules.whole(1, 20),
        "n_neighbors": rules.whole(1, 1000),
        "max_iter": rules.COUNT,
    }
    most_rows: ClassVar[int] = 500

    def _embedded(self, machine: Machine, z: Any, power: Any) -> dict[str, Any]:
        rows = z.shape[0]
        if self.n_neighbors >= rows:
            raise InputError(f"there are {rows} rows for {self.n_neighbors} neighbours of each: use fewer.")
        ways: dict[str, Any] = machine.run(_ways(self.n_neighbors), z, power, what="training")
        if not bool(machine.reveal(ways.pop("connected"), "whether the graph is connected")):
            raise InputError(
                f"the graph of {self.n_neighbors} neighbours is in several pieces, between which there is no way: use "
                "more `n_neighbors`."
            )
        found: dict[str, Any] = machine.run(_scaled(self.n_components, self.max_iter), ways, what="training")
        return ways | found

    def transform(self, data: Any, to: str | None = None) -> Any:
        """Places of other rows, by their nearest of training: a secret table; or an array at the party `to`.

        A component that spreads less than a tenth of the first is not exact here, as fixed point is not: bring columns
        to one scale first.
        """
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays
        return self._placed(learned.machine.run(_elsewhere(self.n_neighbors), *operands, what="prediction"), to)


@cache
def _ways(near: int) -> Any:
    """A function of features and powers: rows in a part of their spread, `scale`, lengths of ways [n, n]."""

    def run(z: jax.Array, power: jax.Array) -> dict[str, jax.Array]:
        x, unit = common(z, power)
        spread = jnp.maximum(jnp.mean(jnp.sum(x * x, axis=1)), FLAT)
        inverse = lax.rsqrt(spread) * FINER
        x = x * inverse
        gaps = gaps_of(x)
        edge = neighbours(gaps, near)
        edge = jnp.maximum(edge, edge.T)
        length = jnp.where(edge > 0.5, jnp.sqrt(gaps), APART) * (1 - jnp.eye(x.shape[0], dtype=x.dtype))

        def through(k: jax.Array, length: jax.Array) -> jax.Array:
            return jnp.minimum(length, length[k][:, None] + length[k][None])

        length = lax.fori_loop(0, x.shape[0], through, length)
        return {
            "rows": x,
            "inverse": inverse,
            "scale": spread * inverse * FINER**-2,
            "unit": unit,
            "length": length,
            "connected": jnp.max(length[0]) < APART,
        }

    return run


@cache
def _scaled(count: int, steps: int) -> Any:
    """A function of ways: vectors times roots of eigenvalues of -1/2 times the centred squares of lengths."""

    def run(ways: dict[str, jax.Array]) -> dict[str, jax.Array]:
        squares = ways["length"] * ways["length"]
        middle = jnp.mean(squares, axis=0)
        centred = (middle[:, None] + middle - jnp.mean(middle) - squares) * (0.5 / squares.shape[0])
        trace = jnp.trace(centred)
        values, vectors = leading(centred * (SCALE / trace), count, steps, squarings=0, largest=SCALE)
        vectors = turned(vectors)
        root = jnp.sqrt(jnp.maximum(values * (trace / SCALE), FLAT) * squares.shape[0])
        return {
            "embedding": _full(vectors * root, ways),
            "directions": vectors * (0.5 / root),
            "middle": middle,
        }

    return run


def _full(x: jax.Array, ways: dict[str, jax.Array]) -> jax.Array:
    """From units of the spread to those of the columns."""
    return times_power(x * ways["scale"], ways["unit"])


@cache
def _elsewhere(near: int) -> Any:
    """Of other rows: the shortest way to each of training begins with one of the nearest."""

    def run(z: jax.Array, power: jax.Array, ways: dict[str, jax.Array]) -> jax.Array:
        x = common(z, power)[0] * ways["inverse"]
        gaps = jax.nn.relu(jnp.sum(x * x, axis=1)[:, None] + squared_distances(x, ways["rows"]))
        last = -lax.top_k(-gaps, near)[0][:, -1:]
        first = jnp.where(gaps <= last, jnp.sqrt(jax.nn.relu(gaps - ROUNDED)), FAR)
        length = jnp.min(first[:, :, None] + ways["length"][None], axis=1)
        return _full((ways["middle"] - length * length) @ ways["directions"], ways)

    return run
