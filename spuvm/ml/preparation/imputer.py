"""Missing cells, filled at their owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import Apply, Learn
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.transformers import Columnwise
from spuvm.runtime.errors import DataError


@dataclass(eq=False, kw_only=True, repr=False)
class SimpleImputer(Columnwise):
    """Missing cells filled with a number that their owner finds: which cells they are, nobody else learns.

    Of secret columns no cell can be missing: parties with other rows fill theirs before they bring them.

    Args:
        strategy: "mean", "median", "most_frequent", or "constant".
        fill_value: of "constant".
    """

    strategy: str = "mean"
    fill_value: float = 0.0
    takes_missing: ClassVar[bool] = True
    checks: ClassVar[dict[str, Rule]] = {
        "strategy": rules.one_of("mean", "median", "most_frequent", "constant"),
        "fill_value": rules.between(-1e9, 1e9),
    }

    def _keeps_power(self) -> bool:
        return True

    def _columns(self, column: Column) -> Sequence[Column]:
        return (replace(column, missing=False),)

    def _learn_here(self) -> Learn:
        strategy, value = self.strategy, float(self.fill_value)
        return lambda x: {"fill": np.array([_fill(c, strategy, value) for c in x.T])}

    def _learn_secretly(self) -> Learn:
        return _nothing

    def _apply_here(self) -> Apply:
        return _filled

    def _apply_secretly(self) -> Apply:
        return _unchanged


def _fill(column: np.ndarray, strategy: str, value: float) -> float:
    there = column[~np.isnan(column)]
    if strategy == "constant":
        return value
    if not len(there):
        raise DataError("a column has no cell that is not missing: leave it out, or fill with a constant.")
    if strategy == "most_frequent":
        values, counts = np.unique(there, return_counts=True)
        return float(values[np.argmax(counts)])
    return float(np.median(there) if strategy == "median" else np.mean(there))


def _filled(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.where(np.isnan(x), state["fill"], x)


def _nothing(x: jax.Array) -> dict[str, jax.Array]:
    return {"none": jnp.zeros(1)}


def _unchanged(x: jax.Array, state: Mapping[str, jax.Array]) -> jax.Array:
    return x
