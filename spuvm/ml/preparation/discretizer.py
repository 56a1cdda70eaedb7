"""Binning of columns of numbers: edges at their owner, or secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import Apply, Learn
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import refuse_categories
from spuvm.ml.common.table import Table
from spuvm.ml.common.transformers import Columnwise


@dataclass(eq=False, kw_only=True, repr=False)
class KBinsDiscretizer(Columnwise):
    """Numbers as the bins that they are in, 0 to n_bins - 1, or as a column of 0 and 1 for each bin.

    Where the edges lie stays with the owner. If a column has fewer values than bins, some bins stay empty: their number
    says nothing.

    Args:
        encode: "ordinal" or "onehot".
        strategy: "quantile" (bins of equally many rows) or "uniform" (of equal width).
    """

    n_bins: int = field(default=5, kw_only=False)
    encode: str = "ordinal"
    strategy: str = "quantile"
    checks: ClassVar[dict[str, Rule]] = {
        "n_bins": rules.whole(2, 1000),
        "encode": rules.one_of("ordinal", "onehot"),
        "strategy": rules.one_of("quantile", "uniform"),
    }

    def _accept(self, table: Table) -> None:
        refuse_categories(table)

    def _columns(self, column: Column) -> Sequence[Column]:
        if self.encode == "ordinal":
            return (replace(column, type="float"),)
        return tuple(replace(column, name=f"{column.name}_{i}", type="float") for i in range(self.n_bins))

    def _learn_here(self) -> Learn:
        n, quantile = self.n_bins, self.strategy == "quantile"
        return lambda x: {"edges": edges(x, n, quantile)}

    def _learn_secretly(self) -> Learn:
        return _secret_edges(self.n_bins, self.strategy == "quantile")

    def _apply_here(self) -> Apply:
        n, hot = self.n_bins, self.encode == "onehot"

        def apply(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
            found = bins(x, state["edges"])
            return one_hot(found, n) if hot else found

        return apply

    def _apply_secretly(self) -> Apply:
        return _secret_bins(self.n_bins, self.encode == "onehot")


def edges(x: np.ndarray, count: int, quantile: bool) -> np.ndarray:
    """The inner edges of the bins of each column: float64 [n, count - 1]; a number at an edge is above it."""
    if quantile:
        inner: np.ndarray = np.quantile(x, np.arange(1, count) / count, axis=0).T
        return inner
    low, high = x.min(axis=0), x.max(axis=0)
    out: np.ndarray = low[:, None] + (high - low)[:, None] * np.arange(1, count) / count
    return out


def bins(x: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Bins of [rows, n] as numbers."""
    out: np.ndarray = (x[:, :, None] >= inner).sum(axis=2).astype(np.float64)
    return out


def one_hot(found: np.ndarray, count: int) -> np.ndarray:
    """Bins [rows, n] -> [rows, n count]."""
    hot: np.ndarray = (found[:, :, None] == np.arange(count)).astype(np.float64)
    return hot.reshape(len(found), -1)


@cache
def _secret_edges(count: int, quantile: bool) -> Learn:
    def learn(x: jax.Array) -> dict[str, jax.Array]:
        steps = np.arange(1, count) / count
        if quantile:
            return {"edges": jnp.quantile(x, jnp.asarray(steps, jnp.float32), axis=0).T}
        low, high = jnp.min(x, axis=0), jnp.max(x, axis=0)
        return {"edges": low[:, None] + (high - low)[:, None] * np.asarray(steps, np.float32)}

    return learn


@cache
def _secret_bins(count: int, hot: bool) -> Apply:
    def apply(x: jax.Array, state: Mapping[str, Any]) -> jax.Array:
        at = (x[:, :, None] >= state["edges"]).astype(jnp.float32)  # [rows, n, count - 1], falling along the last
        if not hot:
            return jnp.sum(at, axis=2)
        ones = jnp.ones((*at.shape[:2], 1), at.dtype)
        steps = jnp.concatenate([ones, at], axis=2) - jnp.concatenate([at, 0 * ones], axis=2)
        return steps.reshape(x.shape[0], -1)

    return apply
