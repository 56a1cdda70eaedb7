"""Components whose results carry noise: what they say of any one row is bounded (differential privacy)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm import dp
from spuvm.flow.components import component
from spuvm.flow.kinds import Number, Rows
from spuvm.flow.places import Places
from spuvm.ml.common.rules import between
from spuvm.ml.machine import default_device
from spuvm.runtime.errors import InputError

WHAT = {"sum": dp.sum, "mean": dp.mean}


@component
def private_statistic(
    data: Rows,
    *,
    column: Annotated[str, "of numbers, of one owner"],
    what: Annotated[Literal["sum", "mean"], "what is revealed"] = "mean",
    low: Annotated[float, "cells below count as this"],
    high: Annotated[float, "cells above count as this"],
    epsilon: Annotated[float, between(1e-6, 100), "what this use spends"],
    budget: Annotated[float, between(1e-6, 1e6), "what may be spent on the owner's tables in all"] = 10.0,
    places: Places,
) -> Number:
    """The sum or mean of a column with noise drawn in the machine; the owner's ledger is charged before it is shown."""
    series = data[column]
    if len(series.parties) != 1:
        raise InputError(f"`column` `{column}` is at several parties: a private statistic is of one owner's.")
    (owner,) = series.parties
    values = spu.PYU(owner)(lambda x: np.asarray(x, np.float32))(series.at(owner))

    def noisy(x: Any) -> Any:
        return spu.reveal(WHAT[what](jnp.asarray(x), low, high, epsilon))

    label = f"{what} of {column}"
    shape = np.zeros(data.rows, np.float32)
    spu.PYU(owner)(lambda: _charge(places, owner, budget, noisy, shape, label))()
    return float(spu.reveal(default_device()(noisy)(values)))


def _charge(places: Places, owner: str, budget: float, function: Any, shape: Any, label: str) -> None:
    from spuvm.dp.spending import spending

    folder = places.folder(owner)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = dp.Budget(budget, path=folder / "privacy.budget")
    ledger.spend(spending(function, shape), label)
