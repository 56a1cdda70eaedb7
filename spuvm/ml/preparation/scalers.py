"""Scalers: of columns at their owners in NumPy, of secret columns on the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import rules, units
from spuvm.ml.common.by_column import Apply, Learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, refuse_categories, scales, standard
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.transformers import Columnwise, Transformer
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError

State = Mapping[str, Any]


@dataclass(eq=False, kw_only=True, repr=False)
class _Scaler(Columnwise):
    """(x - shift) times factor; of secret columns (x - shift) 2^-power times factor."""

    def _accept(self, table: Table) -> None:
        refuse_categories(table)

    def _apply_here(self) -> Apply:
        return _scaled

    def _apply_secretly(self) -> Apply:
        return _secretly_scaled


def _scaled(x: np.ndarray, state: State) -> np.ndarray:
    out: np.ndarray = (x - state["shift"]) * state["factor"]
    return out


def _secretly_scaled(x: jax.Array, state: State) -> jax.Array:
    out: jax.Array = units.times_power(x - state["shift"], -state["power"]) * state["factor"]
    return out


def _inverse(x: np.ndarray) -> np.ndarray:
    """1 / x, and 1 where x is 0: a constant column stays as it is."""
    out: np.ndarray = 1 / np.where(x > 0, x, 1.0)
    return out


@dataclass(eq=False, kw_only=True, repr=False)
class StandardScaler(_Scaler):
    """Mean 0 and standard deviation 1."""

    with_mean: bool = True
    with_std: bool = True
    checks: ClassVar[dict[str, Rule]] = {"with_mean": rules.FLAG, "with_std": rules.FLAG}

    def _keeps_power(self) -> bool:
        return not self.with_std

    def _learn_here(self) -> Learn:
        return partial(_standard, centred=self.with_mean, scaled=self.with_std)

    def _learn_secretly(self) -> Learn:
        return _secretly_standard(self.with_mean, self.with_std)


def _standard(x: np.ndarray, centred: bool, scaled: bool) -> dict[str, np.ndarray]:
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread <= 1e-12 * np.abs(x).max(axis=0), 0.0, spread)
    ones = np.ones(x.shape[1])
    return {"shift": mean if centred else 0 * ones, "factor": _inverse(spread) if scaled else ones}


@cache
def _secretly_standard(centred: bool, scaled: bool) -> Learn:
    def learn(x: jax.Array) -> dict[str, jax.Array]:
        unit = units.secretly_learned(x, jnp.int32(0), 0.0, centred=True)
        z = units.secretly_applied(x, unit["mean"], unit["power"])
        none, ones = jnp.zeros(x.shape[1], jnp.float32), jnp.ones(x.shape[1], jnp.float32)
        square = jnp.mean(z * z, axis=0)
        factor = jnp.where(square > 2.0**-10, jax.lax.rsqrt(jnp.maximum(square, 2.0**-10)), 1.0) if scaled else ones
        power = unit["power"] if scaled else jnp.zeros(x.shape[1], jnp.int32)
        return {"shift": unit["mean"] if centred else none, "factor": factor, "power": power}

    return learn


@dataclass(eq=False, kw_only=True, repr=False)
class MinMaxScaler(_Scaler):
    """From 0 to 1, or the `feature_range`."""

    feature_range: tuple[float, float] = field(default=(0.0, 1.0), kw_only=False)

    def _check(self) -> None:
        super()._check()
        low, high = self.feature_range
        if not low < high:
            raise ConfigError(f"`feature_range` of MinMaxScaler must rise, got {self.feature_range}.")

    def _learn_here(self) -> Learn:
        return partial(_min_max, low=self.feature_range[0], high=self.feature_range[1])

    def _learn_secretly(self) -> Learn:
        return _secretly_min_max(*self.feature_range)


def _min_max(x: np.ndarray, low: float, high: float) -> dict[str, np.ndarray]:
    factor = (high - low) * _inverse(np.ptp(x, axis=0))
    return {"shift": x.min(axis=0) - low / factor, "factor": factor}


@cache
def _secretly_min_max(low: float, high: float) -> Learn:
    def learn(x: jax.Array) -> dict[str, jax.Array]:
        least, most = jnp.min(x, axis=0), jnp.max(x, axis=0)
        power = units.magnitude(most - least)
        width = units.times_power(most - least, -power)  # from 1/2 to 1
        factor = (high - low) / jnp.where(width > 0.25, width, 1.0)
        shift = least - units.times_power(width, power) * (low / (high - low)) if low else least
        return {"shift": shift, "factor": factor, "power": power}

    return learn


@dataclass(eq=False, kw_only=True, repr=False)
class MaxAbsScaler(_Scaler):
    """Divided by the largest magnitude."""

    def _learn_here(self) -> Learn:
        return _max_abs

    def _learn_secretly(self) -> Learn:
        return _secretly_max_abs


def _max_abs(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"shift": np.zeros(x.shape[1]), "factor": _inverse(np.abs(x).max(axis=0))}


def _secretly_max_abs(x: jax.Array) -> dict[str, jax.Array]:
    most = jnp.max(jnp.abs(x), axis=0)
    power = units.magnitude(most)
    width = units.times_power(most, -power)
    factor = 1 / jnp.where(width > 0.25, width, 1.0)
    return {"shift": jnp.zeros(x.shape[1], jnp.float32), "factor": factor, "power": power}


@dataclass(eq=False, kw_only=True, repr=False)
class RobustScaler(_Scaler):
    """Median 0 and distance of the quartiles 1."""

    def _learn_here(self) -> Learn:
        return _robust

    def _learn_secretly(self) -> Learn:
        return _secretly_robust


def _robust(x: np.ndarray) -> dict[str, np.ndarray]:
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    return {"shift": middle, "factor": _inverse(high - low)}


def _secretly_robust(x: jax.Array) -> dict[str, jax.Array]:
    low, middle, high = jnp.quantile(x, jnp.array([0.25, 0.5, 0.75]), axis=0)
    power = units.magnitude(high - low)
    width = units.times_power(high - low, -power)
    return {"shift": middle, "factor": 1 / jnp.where(width > 0.25, width, 1.0), "power": power}


@dataclass(eq=False, kw_only=True, repr=False)
class Normalizer(Transformer):
    """Every row divided by its Euclidean norm: of several owners' columns the result is secret."""

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        return Fitted(machine, standard(table, 0.0, centred=False), {})

    def _transformed(self, table: Table) -> Table:
        learned = self._fitted()
        assert learned.columns is not None
        z, power = matrix(learned.columns, table), scales(learned.columns)["power"]
        value = learned.machine.run(_normal, z, power, what="Normalizer")
        columns = tuple(c for b in learned.columns.blocks for c in b.columns)
        return Table(learned.machine, table.rows, (Block(columns, value),), table.kind)


def _normal(z: jax.Array, power: jax.Array) -> jax.Array:
    x = units.times_power(z, power - jnp.max(power))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=1, keepdims=True), 2.0**-16))
