"""Principal components, and the truncated singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.units import as_float
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.space import common, number
from spuvm.runtime.errors import ConfigError


@dataclass(eq=False, kw_only=True, repr=False)
class PCA(Unsupervised):
    """Directions of the largest variance, by the eigenvectors of the covariance.

    Nothing is revealed. Signs are such that the entries of a component add up to 0 or more.

    Args:
        n_components: how many; all if not given.
    """

    n_components: int | None = field(default=None, kw_only=False)
    checks: ClassVar[dict[str, Rule]] = {"n_components": rules.optional(rules.COUNT)}
    centred: ClassVar[bool] = True

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        count = len(table.columns) if self.n_components is None else self.n_components
        if count > len(table.columns):
            raise ConfigError(f"`n_components` is {count}, but there are {len(table.columns)} columns.")
        known = standard(table, 0.0, centred=self.centred)
        operands = matrix(known, known.match(table)), scales(known)["power"]
        found = machine.run(decomposed(count), *operands, what="training")
        return Fitted(machine, known, found, {"rows": table.rows, "components": count})

    def transform(self, data: Any) -> Table:
        """Rows by the components, a secret table."""
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays["components"]
        value, power = learned.machine.run(_projected, *operands, what="prediction")
        name = type(self).__name__.lower()
        columns = tuple(Column(f"{name}{i}", None, "float", False) for i in range(learned.facts["components"]))
        return Table(learned.machine, table.rows, (Block(columns, value, power=power),), table.kind)

    def fit_transform(self, data: Any, y: Any = None) -> Table:
        """`fit`, then `transform` of the same rows."""
        return self.fit(data, y).transform(data)

    @property
    def components_(self) -> np.ndarray:
        """The directions float64 [components, n], revealed to all parties."""
        learned = self._fitted()
        return np.asarray(learned.machine.reveal(learned.arrays["components"], "components"), np.float64)

    @property
    def explained_variance_(self) -> np.ndarray:
        """Variances float64 [components], revealed to all parties."""
        learned = self._fitted()
        found = number(learned.machine.reveal(learned.arrays["variance"], "explained variance"))
        return found * (learned.facts["rows"] / (learned.facts["rows"] - 1) if self.centred else 1)

    @property
    def explained_variance_ratio_(self) -> np.ndarray:
        """Shares of the variance float64 [components], revealed to all parties."""
        learned = self._fitted()
        return np.asarray(learned.machine.reveal(learned.arrays["ratio"], "share of the variance"), np.float64)


@dataclass(eq=False, kw_only=True, repr=False)
class TruncatedSVD(PCA):
    """The first singular vectors of the numbers as they are, without means taken off."""

    n_components: int | None = field(default=2, kw_only=False)
    centred: ClassVar[bool] = False

    @property
    def singular_values_(self) -> np.ndarray:
        """Float64 [components], revealed to all parties."""
        out: np.ndarray = np.sqrt(np.maximum(self.explained_variance_, 0) * self._fitted().facts["rows"])
        return out


@cache
def decomposed(count: int) -> Any:
    """A function of features and powers: components [count, n], variances as floats, and their shares."""

    def run(z: jax.Array, power: jax.Array) -> dict[str, Any]:
        x, unit = common(z, power)
        cov = x.T @ x / x.shape[0]
        values, vectors = jnp.linalg.eigh(cov)
        best, kept = values[::-1][:count], vectors[:, ::-1][:, :count].T
        sign = jnp.where(jnp.sum(kept, axis=1, keepdims=True) < 0, -1.0, 1.0)
        return {
            "components": kept * sign,
            "variance": as_float(best, 2 * unit + jnp.zeros(count, jnp.int32)),
            "ratio": best / jnp.trace(cov),
        }

    return run


def _projected(z: jax.Array, power: jax.Array, components: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, unit = common(z, power)
    return x @ components.T, unit + jnp.zeros(components.shape[0], jnp.int32)
