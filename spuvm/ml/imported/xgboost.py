"""Secure inference with a model of XGBoost that one party trained: the model is its secret, the rows are others'."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Frame
from spuvm.data.schema import nearest
from spuvm.devices import PYU, SPU, PYUObject, fetch
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import Classifier, Given, Predictor, Regressor
from spuvm.ml.frames import as_frame
from spuvm.ml.horizontal import sortable
from spuvm.ml.imported.xgboost_file import read
from spuvm.ml.machine import Machine, default_device
from spuvm.ml.tree import siblings
from spuvm.runtime.errors import ConfigError, InputError

ELEMENTS = 1 << 20  # comparisons at once
ARRAYS = ("choose", "defaults", "edges", "leaves", "base")


@dataclass(frozen=True, eq=False)
class Keys:
    """Rows as the trees see them: secret, in the order of the model's features.

    Attributes:
        values: int32 [rows, features], sorted as the floats are; missing: int8 [rows, features]; or None without.
    """

    rows: int
    values: Any
    missing: Any


@dataclass(eq=False, kw_only=True, repr=False)
class _Imported(Predictor):
    """Trees of one party's file, shared: features, edges and leaves of every node are secret, and so is what rows do.

    Public are the objective, the number of trees, the depth of the deepest, and the features' names.
    """

    def fit(self, *args: Any, **more: Any) -> Any:
        """An imported model is trained already."""
        raise ConfigError("an imported model cannot be trained further: train `spuvm.ml.Sgb`, or import another.")

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        raise AssertionError("`fit` refuses")

    def _table(self, data: Any, what: str = "prediction") -> Any:
        learned, named = self._fitted(), isinstance(getattr(data, "frame", data), Frame)
        data, _, _ = as_frame(data)
        return _keys(learned.machine, data, _matched(data, learned.facts["features"], named))

    def _sums(self, keys: Keys) -> Any:
        """What the trees add up to, in units: secret [rows, K]."""
        learned = self._fitted()
        facts, arrays = learned.facts, learned.arrays
        run = sums(facts["trees"], facts["depth"], keys.missing is not None)
        operands = {k: arrays[k] for k in ARRAYS}
        step = max(1, ELEMENTS // (facts["trees"] << facts["depth"]))
        if keys.rows <= step:
            return learned.machine.run(run, keys.values, keys.missing, operands, what="prediction")
        parts = []
        for start in range(0, keys.rows, step):
            at = np.arange(start, min(start + step, keys.rows))
            both = keys.values, keys.missing
            some = [None if x is None else learned.machine.run(_rows, x, at, what="rows") for x in both]
            parts.append(learned.machine.run(run, *some, operands, what="prediction"))
        return learned.machine.run(_below, parts, what="prediction")


@dataclass(eq=False, kw_only=True, repr=False)
class XgboostClassifier(_Imported, Classifier):
    """Classes by trees that were imported; see `load_xgboost`."""

    def _margins(self, table: Any) -> Any:
        return self._sums(table)


@dataclass(eq=False, kw_only=True, repr=False)
class XgboostRegressor(_Imported, Regressor):
    """Numbers by trees that were imported; see `load_xgboost`."""

    def _values(self, table: Any) -> Any:
        return self._fitted().machine.run(_only, self._sums(table), what="prediction")


def load_xgboost(
    path: str | Path, party: str, *, features: Sequence[str] | None = None, device: SPU | None = None
) -> Any:
    """A model that XGBoost wrote, `save_model("model.json")`, for rows of others: its splits and weights stay secret.

        model = load_xgboost("risk.json", party="bank")     # the bank alone reads the file
        risk = model.predict_proba(customers, to="clinic")

    Rows go where XGBoost sends them: float32 is compared exactly, and missing cells take the model's default sides.
    Sums of weights are in fixed point.

    Args:
        path: the file; other parties need none.
        party: who has it.
        features: the columns that the model's features are, in its order, where it has no names, or others.
        device: the SPU to compute on; of all parties if not given.

    Returns:
        `XgboostClassifier` or `XgboostRegressor`, to predict, score, and save in shares.

    Raises:
        InputError: for a file that is no such model, found by its party, or features of another number.
    """
    return imported(read, (XgboostClassifier, XgboostRegressor), path, party, features, device)


def imported(
    read: Callable[[Any], dict[str, Any]],
    kinds: tuple[type[XgboostClassifier], type[XgboostRegressor]],
    path: str | Path,
    party: str,
    features: Sequence[str] | None,
    device: SPU | None,
) -> Any:
    """A model whose file its party reads with `read`, for classes or numbers."""
    machine = Machine(device or default_device())
    owner = PYU(party)
    both = owner(read)(path)
    facts = json.loads(bytes(fetch(owner(_facts)(both))).decode())
    names = list(features) if features is not None else facts["features"]
    if len(names) != len(facts["features"]):
        raise InputError(f"`features` names {len(names)} columns, the model has {len(facts['features'])} features.")
    if len(set(names)) < len(names) and any(names):
        raise InputError("`features` names a column twice.")
    arrays = machine.share(owner(_shareable)(both))
    made: XgboostClassifier | XgboostRegressor = kinds[0 if facts["classes"] else 1](device=device)
    arrays["unit"] = {"mean": 0.0, "power": arrays.pop("power")}
    made.fitted = Fitted(machine, None, arrays, {**facts, "features": names, "label": None})
    return made


def _facts(both: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(both["facts"]).encode(), np.uint8)


def _shareable(both: dict[str, Any]) -> dict[str, Any]:
    leaves = (both["leaves"] * both["unit"]).astype(np.float32)
    return {k: both[k] for k in ("choose", "defaults", "edges", "base", "power")} | {"leaves": leaves}


# Rows --------------------------------------------------------------------------------------------------------


def _matched(data: Frame, names: Sequence[str], named: bool) -> list[str]:
    """The frame's columns that the features are; of arrays, whose columns have no names, all in their order.

    Raises:
        InputError: for columns that are absent, or of categories.
    """
    have = list(data.columns)
    if not named:
        if len(have) != len(names):
            raise InputError(f"there are {len(have)} columns, the model has {len(names)} features.")
        names = have
    elif not all(names):
        raise InputError("the model has no names of features: say which columns they are, `features` of `load_...`.")
    for name in names:
        if name not in have:
            raise InputError(f"feature `{name}` of the model is missing{nearest(name, have)}.")
        if data.schema[name].type == "category":
            raise InputError(f"{data.schema[name].where} has categories: the model splits numbers.")
    return list(names)


def _keys(machine: Machine, data: Frame, names: Sequence[str]) -> Keys:
    if data.kind == "horizontal":
        held, together = [(p, list(names)) for p in data.parties], _below
    else:
        owners = dict.fromkeys(str(data.schema[n].party) for n in names)
        held, together = [(o, [n for n in names if data.schema[n].party == o]) for o in owners], _beside
    missing = any(data.schema[n].missing for n in names)
    parts = [_encoded(data, party, some, missing) for party, some in held]
    order = [n for _, some in held for n in some] if together is _beside else list(names)
    at = np.array([order.index(n) for n in names])
    shared = [machine.share(p) for p in parts]
    values, gone = (
        machine.run(together, [s[k] for s in shared], what="rows") if k == "values" or missing else None
        for k in ("values", "missing")
    )
    if not np.array_equal(at, np.arange(len(at))):
        values, gone = (x if x is None else machine.run(_columns, x, at, what="rows") for x in (values, gone))
    return Keys(data.rows, values, gone)


def _encoded(data: Frame, party: str, names: Sequence[str], missing: bool) -> PYUObject:
    """At their party: keys of its cells, and perhaps which are missing."""

    def encode(*columns: np.ndarray) -> dict[str, np.ndarray]:
        x = np.stack([np.asarray(c, np.float64) for c in columns], axis=1)
        keys = {"values": sortable(x)}
        return keys | {"missing": np.isnan(x).astype(np.int8)} if missing else keys

    return PYU(party)(encode)(*(data[n].at(party) for n in names))


def _below(parts: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(list(parts))


def _beside(parts: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(list(parts), axis=1)


def _rows(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[at]


def _columns(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[:, at]


def _only(x: jax.Array) -> jax.Array:
    return x[:, 0]


# On the machine -----------------------------------------------------------------------------------------------


@cache
def sums(trees: int, depth: int, missing: bool) -> Callable[..., jax.Array]:
    """A function of keys [rows, features] and a model's arrays that sums the weights of each row's leaves: [rows, K].

    1. A product with 0 and 1 picks each node's feature: exact, and nobody sees which.
    2. One comparison a row and node says whether the row goes left; a missing cell is above all edges, and goes left
       where a second product says so.
    3. Down the levels products say at which node a row is; the last one with the leaves' weights.
    """

    def run(keys: jax.Array, gone: Any, model: dict[str, Any]) -> jax.Array:
        member = jnp.ones((keys.shape[0], trees, 1), jnp.float32)
        for level in range(depth):
            picked = jnp.matmul(keys, model["choose"][level].astype(jnp.int32))
            left = picked < model["edges"][level]
            if missing:
                default = jnp.matmul(gone.astype(jnp.int32), model["defaults"][level].astype(jnp.int32))
                left = left | (default > 0)
            goes = member * left.reshape(keys.shape[0], trees, -1)
            member = siblings(goes, member - goes)
        weights = jnp.einsum("rtn,tn->rt", member, model["leaves"])
        outputs = model["base"].shape[0]
        total: jax.Array = jnp.sum(weights.reshape(keys.shape[0], -1, outputs), axis=1) + model["base"]
        return total

    return run
