"""Weight of evidence: bins as the logarithm of how much more likely they make a label, and what they are worth (IV)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.labels import labels_of
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.transformers import Transformer
from spuvm.ml.machine import Machine
from spuvm.ml.preparation.discretizer import _secret_bins, _secret_edges, bins, edges, one_hot
from spuvm.runtime.errors import InputError

HALF = 0.5  # added to each count, so that no bin is without rows of either class


@dataclass(eq=False, kw_only=True, repr=False)
class WOEEncoder(Transformer):
    """Columns as weights of evidence ln((share of the 1s in the bin) / (share of the 0s)).

    Owners bin their columns, and nobody learns the counts of anybody's labels: weights stay secret, and so do the
    columns that `transform` gives. `iv()` and `table()` reveal information values and weights on request.

    Args:
        n_bins: of a column of numbers; a category is a bin of its own, those from `n_bins` on share the last one.
        strategy: "quantile" or "uniform".
    """

    n_bins: int = 10
    strategy: str = "quantile"
    needs_labels: ClassVar[bool] = True
    checks: ClassVar[dict[str, Rule]] = {
        "n_bins": rules.whole(2, 1000),
        "strategy": rules.one_of("quantile", "uniform"),
    }

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        if labels is None:
            raise InputError("`label` is missing: weights of evidence need labels 0 and 1.")
        n, quantile = self.n_bins, self.strategy == "quantile"

        def edges_here(x: np.ndarray, columns: Sequence[Column]) -> dict[str, np.ndarray]:
            return {"edges": np.stack([_column_edges(x[:, i], c, n, quantile) for i, c in enumerate(columns)])}

        known = learn(table, edges_here, _secret_edges(n, quantile), "WOEEncoder", with_columns=True)
        y = labels_of(machine, None, labels, "classes", table.rows, 2).values
        hot = self._bins(known, known.match(table))
        found = machine.run(_weights(self.n_bins), hot, y, what="WOEEncoder")
        return Fitted(machine, known, found)

    def _bins(self, known: ByColumn, table: Table) -> list[Any]:
        """Indicators of bins: of each block [rows, n n_bins]."""
        n = self.n_bins
        made = known.apply(table, lambda x, s: _hot_here(x, s, n), _secret_bins(n, True), "WOEEncoder")
        return [b.local(lambda x: x.astype(np.float32)) if b.owner else b.value for b in made.blocks]

    def _transformed(self, table: Table) -> Table:
        learned = self._fitted()
        assert learned.columns is not None
        hot = self._bins(learned.columns, table)
        value = learned.machine.run(_encoded(self.n_bins), hot, learned.arrays["woe"], what="WOEEncoder")
        columns = tuple(replace(c, type="float", categories=None) for c in learned.columns.columns)
        return Table(learned.machine, table.rows, (Block(columns, value),), table.kind)

    def iv(self) -> dict[str, float]:
        """The information value of each column, revealed to all parties."""
        learned = self._fitted()
        shown = learned.machine.reveal(learned.arrays["iv"], "information values")
        assert learned.columns is not None
        return {c.name: float(v) for c, v in zip(learned.columns.columns, np.asarray(shown))}

    def table(self) -> dict[str, np.ndarray]:
        """The weights of each column's bins, revealed to all parties."""
        learned = self._fitted()
        shown = np.asarray(learned.machine.reveal(learned.arrays["woe"], "weights of evidence"), np.float64)
        assert learned.columns is not None
        return {c.name: row for c, row in zip(learned.columns.columns, shown.reshape(-1, self.n_bins))}


def _column_edges(x: np.ndarray, column: Column, count: int, quantile: bool) -> np.ndarray:
    """Inner edges of a column; codes of categories are bins of their own, the last one for the rest."""
    if column.type in ("category", "bool"):
        return np.arange(1.0, count)
    inner: np.ndarray = edges(x[:, None], count, quantile)[0]
    return inner


def _hot_here(x: np.ndarray, state: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    return one_hot(bins(x, state["edges"]), count)


@cache
def _weights(count: int) -> Any:
    def weigh(hot: Sequence[jax.Array], y: jax.Array) -> dict[str, jax.Array]:
        """Of bins [rows, n count]: `woe` [n count], `iv` [n]."""
        rows = y.shape[0]
        total = jnp.mean(y)
        ones = jnp.concatenate([h.astype(jnp.float32).T @ y for h in hot]) + HALF
        both = jnp.concatenate([jnp.sum(h.astype(jnp.float32), axis=0) for h in hot]) + 2 * HALF
        zeros = both - ones
        # Shares of counts: logarithms of counts and of the classes' totals, each of numbers that fit.
        logs = jnp.log(ones / rows) - jnp.log(zeros / rows)
        odds = jnp.log(total) - jnp.log(1 - total)
        woe = logs - odds
        part = (ones / rows) / total - (zeros / rows) / (1 - total)
        return {"woe": woe, "iv": jnp.sum((part * woe).reshape(-1, count), axis=1)}

    return weigh


@cache
def _encoded(count: int) -> Any:
    def encode(hot: Sequence[jax.Array], woe: jax.Array) -> jax.Array:
        whole = jnp.concatenate([h.astype(jnp.float32) for h in hot], axis=1)
        return jnp.sum((whole * woe).reshape(whole.shape[0], -1, count), axis=2)

    return encode
