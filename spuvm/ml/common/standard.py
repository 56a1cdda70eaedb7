"""Features in units: what owners and secrets give a learner that wants columns of mean 0 and spread 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.devices import PYU
from spuvm.ml.common import units
from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.table import Table, secret
from spuvm.runtime.errors import InputError

GRID = 4096.0  # steps of a unit


def standard(table: Table, least: float, centred: bool) -> ByColumn:
    """The units of a table's columns; see `units.learned`.

    Raises:
        InputError: for a column of categories, whose codes are no quantities.
    """
    refuse_categories(table)
    at_owner = partial(units.learned, least=least, centred=centred)
    return learn(table, at_owner, _secretly(least, centred), "units", with_power=True)


def refuse_categories(table: Table) -> None:
    """InputError if a column's numbers are codes."""
    for column in table.columns:
        if column.type == "category":
            raise InputError(f"{column.where} has categories: encode it first (`OneHotEncoder`, `WOEEncoder`).")


def matrix(known: ByColumn, table: Table, what: str = "units") -> Any:
    """A matching table in units, one secret array [rows, n]."""
    return secret(known.apply(table, _applied, _secretly_applied, what), what)


def grid(known: ByColumn, table: Table, what: str = "prediction") -> list[Any]:
    """A matching table's blocks in units times `GRID`: owners' as whole numbers, whose products are exact."""
    made = known.apply(table, _on_grid, _secretly_on_grid, what)
    return [b.local(_whole) if b.owner else b.value for b in made.blocks]


def scales(known: ByColumn) -> dict[str, Any]:
    """Of all columns, secret: mean float [n] in units, power int32 [n]."""
    parts = []
    for block in known.blocks:
        if block.owner:
            parts.append(known.machine.share(PYU(block.owner)(_shareable)(block.state)))
        else:
            power = block.power if block.power is not None else np.zeros(len(block.columns), np.int32)
            parts.append(known.machine.run(_of_secrets, block.state, power, what="units"))
    out: dict[str, Any] = known.machine.run(_all, parts, what="units")
    return out


def _applied(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    return units.applied(x, state["mean"], state["power"])


def _secretly_applied(x: jax.Array, state: Mapping[str, jax.Array]) -> jax.Array:
    return units.secretly_applied(x, state["mean"], state["power"])


@cache
def _secretly(least: float, centred: bool) -> Callable[[jax.Array, jax.Array], dict[str, jax.Array]]:
    return partial(units.secretly_learned, least=least, centred=centred)


def _on_grid(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    out: np.ndarray = np.rint(units.applied(x, state["mean"], state["power"]).astype(np.float64) * GRID)
    return out


def _secretly_on_grid(x: jax.Array, state: Mapping[str, jax.Array]) -> jax.Array:
    return _secretly_applied(x, state) * GRID


def _whole(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int32)


def _shareable(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"mean": np.asarray(state["mean"], np.float32), "power": np.asarray(state["power"], np.int32)}


def _of_secrets(state: Mapping[str, jax.Array], power: jax.Array) -> dict[str, jax.Array]:
    return {"mean": units.times_power(state["mean"], -state["power"]), "power": state["power"] + power}


def _all(parts: list[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    return {k: jnp.concatenate([p[k] for p in parts]) for k in ("mean", "power")}
