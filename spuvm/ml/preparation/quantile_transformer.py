"""Columns as their ranks among the rows of training, from 0 to 1, or as a normal number of that rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from spuvm.ml.common import rules, units
from spuvm.ml.common.by_column import Apply, Learn
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import refuse_categories
from spuvm.ml.common.table import Table
from spuvm.ml.common.transformers import Columnwise
from spuvm.runtime.errors import ConfigError, InputError

NEAR = 1e-7  # to 0 and 1, where a normal number would be infinite: scikit-learn's
STEEP = 64.0  # on secrets: what lies closer than a spread by this many ranks is one step


@dataclass(eq=False, kw_only=True, repr=False)
class QuantileTransformer(Columnwise):
    """Ranks, between the quantiles of training on straight lines; owners keep their quantiles.

    Of secret columns quantiles and ranks are secret; they cost a comparison a cell and quantile, so take fewer of them
    there, and "uniform".

    Args:
        n_quantiles: at most as many as rows.
        output_distribution: "uniform" or "normal" (at owners).
    """

    n_quantiles: int = 1000
    output_distribution: str = "uniform"
    checks: ClassVar[Mapping[str, Rule]] = {
        "n_quantiles": rules.whole(2, 100_000),
        "output_distribution": rules.one_of("uniform", "normal"),
    }

    def _accept(self, table: Table) -> None:
        refuse_categories(table)
        if self.output_distribution == "normal" and any(b.owner is None for b in table.blocks):
            raise ConfigError("`output_distribution` 'normal' is of columns that somebody owns: take 'uniform'.")
        if table.rows < 2:
            raise InputError(f"there are {table.rows} rows: quantiles need 2 or more.")

    def _learn_here(self) -> Learn:
        return partial(_quantiles, most=self.n_quantiles)

    def _learn_secretly(self) -> Learn:
        return _secret_quantiles(self.n_quantiles)

    def _apply_here(self) -> Apply:
        return partial(_ranked, normal=self.output_distribution == "normal")

    def _apply_secretly(self) -> Apply:
        return _secretly_ranked


def _quantiles(x: np.ndarray, most: int) -> dict[str, np.ndarray]:
    found = np.quantile(x, np.linspace(0, 1, min(most, len(x))), axis=0)
    return {"quantiles": np.maximum.accumulate(found, axis=0)}


def _ranked(x: np.ndarray, state: Mapping[str, np.ndarray], normal: bool) -> np.ndarray:
    """The mean of the lowest and the highest rank that equal quantiles have."""
    q = state["quantiles"]
    ranks = np.linspace(0, 1, len(q))
    both = [
        0.5 * (np.interp(c, known, ranks) - np.interp(-c, -known[::-1], -ranks[::-1])) for c, known in zip(x.T, q.T)
    ]
    out = np.stack(both, axis=1)
    out = np.where(x <= q[0], 0.0, np.where(x >= q[-1], 1.0, out))
    if not normal:
        return out
    with jax.enable_x64(True):
        found: np.ndarray = np.asarray(special.ndtri(np.clip(out, NEAR, 1 - NEAR)), np.float64)
    return found


@cache
def _secret_quantiles(most: int) -> Learn:
    def learn(x: jax.Array) -> dict[str, jax.Array]:
        count = min(most, x.shape[0])
        steps = jnp.asarray(np.linspace(0, 1, count), jnp.float32)
        found = jnp.quantile(x, steps, axis=0)
        power = units.magnitude(jnp.maximum(found[-1] - found[0], 2.0**-14))
        low = found[0]
        at = units.times_power(found - low, -power)
        width = at[1:] - at[:-1]
        inverse = 1 / jnp.maximum(width, 1 / (STEEP * (count - 1)))
        return {"low": low, "power": power, "at": at, "inverse": inverse}

    return learn


def _secretly_ranked(x: jax.Array, state: Mapping[str, Any]) -> jax.Array:
    """The share of the intervals between quantiles that lie below, the one that it is in by its part."""
    z = units.times_power(x - state["low"], -state["power"])
    part = (z[:, None, :] - state["at"][:-1]) * state["inverse"]
    return jnp.mean(jnp.clip(part, 0.0, 1.0), axis=1)
