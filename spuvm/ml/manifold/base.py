"""What embeddings have in common: all rows meet all rows, and their places stay secret until they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.data import Column
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.table import Block, Table
from spuvm.ml.machine import Machine
from spuvm.ml.others.svm import FLAT
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.kmeans import squared_distances
from spuvm.runtime.errors import InputError

FAR = 2.0**16  # beyond all distances of rows that are spread out


@dataclass(eq=False, kw_only=True, repr=False)
class Embedding(Unsupervised):
    """Places of the rows of training in few dimensions.

    Distances are those of the numbers as they are. Costs grow with the square of the rows, of some with the cube.

    Args:
        n_components: how many dimensions.
    """

    n_components: int = field(default=2, kw_only=False)
    most_rows: ClassVar[int] = 1000

    def _needed(self) -> int:
        return self.n_components + 3

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        if table.rows > self.most_rows:
            raise InputError(
                f"there are {table.rows} rows: {type(self).__name__} compares all pairs of them, and takes "
                f"{self.most_rows} at most. Use fewer."
            )
        known, z, scale = self._prepared(table)
        arrays = self._embedded(machine, z, scale["power"])
        return Fitted(machine, known, arrays, {"rows": table.rows, "kind": table.kind})

    @abstractmethod
    def _embedded(self, machine: Machine, z: Any, power: Any) -> dict[str, Any]:
        """At least `embedding`, secret [rows, components], of features in units [rows, n] and their powers."""

    def fit_transform(self, data: Any, y: Any = None, *, to: str | None = None) -> Any:
        """`fit`, and the rows' places: a secret table; or an array float32 [rows, components] at the party `to`."""
        self.fit(data, y)
        return self._placed(self._fitted().arrays["embedding"], to)

    @property
    def embedding_(self) -> np.ndarray:
        """The rows' places float64 [rows, components], revealed to all parties."""
        learned = self._fitted()
        return np.asarray(learned.machine.reveal(learned.arrays["embedding"], "embedding"), np.float64)

    def _placed(self, value: Any, to: str | None) -> Any:
        learned = self._fitted()
        if to is not None:
            return self._given_to(value, to)
        name = type(self).__name__.lower()
        columns = tuple(Column(f"{name}{i}", None, "float", False) for i in range(self.n_components))
        return Table(learned.machine, value.shape[0], (Block(columns, value),), learned.facts["kind"])


def spread_out(x: jax.Array) -> jax.Array:
    """Rows [n, d] in a unit that makes all cells' variance, by column, 1: distances keep their proportions."""
    return x * lax.rsqrt(jnp.maximum(jnp.mean(jnp.sum(x * x, axis=1)), FLAT))


def gaps_of(x: jax.Array) -> jax.Array:
    """Squared distances of all pairs of rows, [n, n]; 0 of a row to itself."""
    gaps = jax.nn.relu(jnp.sum(x * x, axis=1)[:, None] + squared_distances(x, x))
    return gaps * (1 - jnp.eye(x.shape[0], dtype=x.dtype))


def neighbours(gaps: jax.Array, count: int) -> jax.Array:
    """1 where a column is among the `count` nearest others of a row, or as near as the last: float [n, n]."""
    n = gaps.shape[0]
    others = gaps + jnp.eye(n, dtype=gaps.dtype) * FAR
    last = -lax.top_k(-others, count)[0][:, -1:]
    return (others <= last).astype(gaps.dtype)
