"""Differentially private linear models: stated ranges in place of the rows' own, clipped rows, noise in every step.

The gradient of row i is slope_i x_i, whose slope is clipped to [-1, 1] and whose x_i (the intercept's 1 included) to a
Euclidean norm of `clip` by a weight that the row gets once: where a row is longer it counts for less. A step adds up
all rows and adds Gaussian noise (Song, Chaudhuri, Sarwate, GlobalSIP 2013; Abadi and others, CCS 2016, without
samples); the clipping and the noise are the machine's, so nobody's numbers can be longer than they say. What follows
from the noisy sums (steps, penalties, coefficients, predictions of other rows' labels) costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.data import Column
from spuvm.devices import PYU
from spuvm.dp.budget import Budget
from spuvm.dp.ledgers import check_budgets, spend_all
from spuvm.dp.mechanisms import gaussian_of
from spuvm.dp.spending import Spent, total
from spuvm.ml.common.by_column import ByColumn, Known
from spuvm.ml.common.standard import refuse_categories
from spuvm.ml.common.table import Block, Table, refuse_missing
from spuvm.ml.linear.irls import ridge_of
from spuvm.ml.linear.least_squares import lasso_of
from spuvm.ml.linear.proximal import shrink
from spuvm.ml.machine import Inside, Machine
from spuvm.runtime.errors import ConfigError, InputError

Range = tuple[float, float]
ROUNDED = 1.01  # times `clip`: what the machine's roots and roundings may leave
MOST_RATIO = 1e6


@dataclass(frozen=True)
class Private:
    """How training is private: neighbours differ by one row, which is there or not.

        model = SGDClassifier(loss="log_loss", dp=spuvm.ml.Private(epsilon=1, bounds={"age": (18, 90), ...}))

    Attributes:
        epsilon, delta: what one training costs; the noise follows from them and the number of steps.
        bounds: the range of every feature by its name, or one for all of them, stated without a look at the rows:
            cells outside count as its ends.
        label: of a regression, the range of the labels. Residuals count as half of its length at most.
        clip: the largest norm of a row in units of the ranges, where a cell is within 1 of 0. Rows that are longer
            count for less; a larger one needs more noise.
        budget: the ledger that training is spent in before it begins, or one for each party.
    """

    epsilon: float
    bounds: Range | Mapping[str, Range]
    delta: float = 1e-6
    label: Range | None = None
    clip: float = 1.0
    budget: Budget | Mapping[str, Budget] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (_number(self.epsilon) and self.epsilon > 0) or not (_number(self.delta) and 0 < self.delta < 1):
            raise ConfigError(
                f"`epsilon` must be above 0 and `delta` between 0 and 1, got {self.epsilon!r} and {self.delta!r}."
            )
        if not (_number(self.clip) and 0.1 <= self.clip <= 100):
            raise ConfigError(f"`clip` must be a number from 0.1 to 100, got {self.clip!r}.")
        named = self.bounds if isinstance(self.bounds, Mapping) else {"every feature": self.bounds}
        for name, ends in {**named, **({} if self.label is None else {"the label": self.label})}.items():
            _check_range(name, ends)
        check_budgets("budget", self.budget)

    def noise(self, steps: int) -> float:
        """Sigma by the sensitivity, of each of so many steps."""
        return ratio_of(float(self.epsilon), float(self.delta), steps)

    def spent(self, steps: int) -> list[Spent]:
        return [Spent("gaussian", self.noise(steps), steps)]

    def range_of(self, column: Column) -> Range:
        """InputError for a column whose range is not stated."""
        if not isinstance(self.bounds, Mapping):
            return self.bounds
        if column.name in self.bounds:
            return self.bounds[column.name]
        if column.type == "bool":
            return 0.0, 1.0
        raise InputError(f"{column.where} has no range in `bounds` of `dp`: state what its cells can be, (low, high).")

    def said(self, steps: int, when: str = "") -> str:
        """For people; `when`: noise is added, if not in each step."""
        if when:
            return (
                f"differentially private: epsilon {self.epsilon:g}, delta {self.delta:g} for one row; rows clipped to "
                f"norm {self.clip:g}, noise of {self.noise(steps):.4g} times the sensitivity {when}"
            )
        return (
            f"differentially private: epsilon {self.epsilon:g}, delta {self.delta:g} for one row; rows clipped to "
            f"norm {self.clip:g}, noise of {self.noise(steps):.4g} times that in each of {steps} steps"
        )


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _check_range(name: str, ends: Any) -> None:
    if not (isinstance(ends, tuple | list) and len(ends) == 2 and all(map(_number, ends)) and ends[0] < ends[1]):
        raise ConfigError(f"the range of {name} must be (low, high), both finite and low below high, got {ends!r}.")


@cache
def ratio_of(epsilon: float, delta: float, steps: int) -> float:
    """The least noise, by the sensitivity, of which so many Gaussian mechanisms cost this at most."""
    low, high = 1e-3, 1.0
    while total([Spent("gaussian", high, steps)], delta) > epsilon:
        low, high = high, 2 * high
        if high > MOST_RATIO:
            raise ConfigError(f"epsilon {epsilon:g} with delta {delta:g} is too little for {steps} steps.")
    while high > low * (1 + 1e-4):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if total([Spent("gaussian", middle, steps)], delta) <= epsilon else (middle, high)
    return high


def unit_of(ends: Range) -> tuple[float, int]:
    """Mean, in units, and power of two of a range: what lies in it is within 1 of 0."""
    power = math.ceil(math.log2((ends[1] - ends[0]) / 2))
    return (ends[0] + ends[1]) / 2 * 2.0**-power, power


# What is known before ------------------------------------------------------------------------------------------


def prepared(private: Private, table: Table, data: Any) -> tuple[ByColumn, Table, dict[str, np.ndarray]]:
    """Units by stated ranges, the table's rows in a form that depends on each row alone, and the ranges in units:
    low and high, float32 [n].

    Raises:
        ConfigError: inside of a jitted function, where no ledger can be asked.
        InputError: for a table that a transformer made, whose numbers depend on all rows.
    """
    if isinstance(table.machine, Inside):
        raise ConfigError("`dp` inside of a jitted function: no ledger can be asked there. Call `fit` outside.")
    if isinstance(data, Table):
        raise InputError(
            "with `dp`, `X` must be a frame or arrays: what a transformer learned of all rows is not private. `bounds` "
            "scales features."
        )
    refuse_categories(table)
    ranges = [private.range_of(c) for c in table.columns]
    blocks = tuple(_known(private, table, b) for b in table.blocks)
    mean, power = (np.array(x) for x in zip(*map(unit_of, ranges)))
    low, high = (np.array(ends) * 2.0**-power - mean for ends in zip(*ranges))
    edges = {"low": low.astype(np.float32), "high": high.astype(np.float32)}
    known = ByColumn(table.machine, table.kind, tuple(k for k, _ in blocks))
    return known, replace(table, blocks=tuple(b for _, b in blocks)), edges


def _known(private: Private, table: Table, block: Block) -> tuple[Known, Block]:
    units = [unit_of(private.range_of(c)) for c in block.columns]
    mean, power = np.array([m for m, _ in units]), np.array([p for _, p in units], np.int32)
    if block.owner is not None:
        state: Any = PYU(block.owner)(lambda: {"mean": mean, "power": power})()
        return Known(block.columns, block.owner, state, None, block.categories), block
    if block.power is None:
        state = _public(table, (mean * 2.0**power).astype(np.float32), power)
        return Known(block.columns, None, state), block
    assert table.frame is not None
    frame = table.frame
    parts = [table.machine.share(PYU(p)(_scaled(block.columns, power, p))(frame.at(p))) for p in frame.parties]
    value = table.machine.run(_stacked, parts, what="table")
    known = _public(table, power=power, mean=power)["power"]
    state = _public(table, mean.astype(np.float32), np.zeros_like(power))
    return Known(block.columns, None, state, known), replace(block, value=value, power=known)


def _public(table: Table, mean: np.ndarray, power: np.ndarray) -> Any:
    """Units that all know, as the machine holds them."""
    return table.machine.spu(lambda: {"mean": jnp.asarray(mean), "power": jnp.asarray(power)})()


def _scaled(columns: tuple[Column, ...], power: np.ndarray, party: str) -> Callable[[np.ndarray], np.ndarray]:
    def scale(x: np.ndarray) -> np.ndarray:
        refuse_missing(x, columns, party)
        return np.clip(x * 2.0 ** -power.astype(float), -(2.0**20), 2.0**20).astype(np.float32)

    return scale


def _stacked(parts: list[jax.Array]) -> jax.Array:
    return jnp.concatenate(parts)


# Training --------------------------------------------------------------------------------------------------------


def spend(private: Private, machine: Machine, steps: int, label: str) -> None:
    """In every party's ledger, before anything is computed."""
    spend_all(private.budget, machine.members, private.spent(steps), label)


def row_weights(design: jax.Array, clip: float) -> jax.Array:
    """min(1, clip / |x|) of rows x [rows, n]."""
    square = jnp.sum(design * design, axis=1)
    return jnp.where(square > clip * clip, clip * lax.rsqrt(jnp.maximum(square, clip * clip)), 1.0)


@cache
def descend(
    slopes: Callable[[jax.Array, jax.Array], jax.Array],
    penalties: Range,
    intercept: bool,
    rate: float,
    steps: int,
    clip: float,
    ratio: float,
) -> Any:
    """A function of features, labels, powers and ranges that makes `steps` steps of all rows.

    Step t of T moves by rate (1 - t / T) times the noisy sum of clipped gradients, by the number of rows.
    """
    ridge_alpha, lasso_alpha = penalties

    def run(
        x: jax.Array, y: jax.Array, power: jax.Array, label_power: Any, low: jax.Array, high: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        rows = x.shape[0]
        ones = jnp.ones((rows, int(intercept)), x.dtype)
        design = jnp.concatenate([jnp.clip(x, low, high), ones], axis=1)
        bounded = design * row_weights(design, clip)[:, None]
        pad = (0, int(intercept))
        ridge = jnp.pad(ridge_of(ridge_alpha, power, None), pad)
        lasso = jnp.pad(lasso_of(lasso_alpha, power + label_power), pad)

        def step(w: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            slope = jnp.clip(slopes(design @ w, y), -1.0, 1.0)
            noisy = gaussian_of(bounded.T @ slope, ROUNDED * clip, ratio)
            by = rate * (1 - t / steps)
            w = w - by * (noisy / rows + ridge * w)
            return (shrink(w, lasso * by) if lasso_alpha else w), None

        start = jnp.zeros(design.shape[1], x.dtype)
        w, _ = lax.scan(step, start, jnp.arange(steps, dtype=jnp.float32))
        return w[: x.shape[1]], w[-1] if intercept else jnp.zeros(())

    return run
