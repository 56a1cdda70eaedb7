"""Horizontal frames: every party holds some rows, so edges, bins and the labels' mean are computed on secrets.

A float becomes the int32 that sorts as it does (`sortable`): ranks and comparisons are then exact,
whatever the feature's scale. The edges are those that one party with all the rows would find
(`binning.find_edges`), and stay secret. Bools and categories need no edges: their parties make the indicators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column, Frame
from spuvm.data.schema import NUMBERS
from spuvm.devices import PYU
from spuvm.ml.binning import Edges, goes_left, public_edges
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.objectives import LEAST_SHARE, OBJECTIVES, by_class, checked, penalty_of, threshold_of, weights_of
from spuvm.ml.parameters import ONE_HOLDER, Parameters
from spuvm.ml.partition import Bins, Labels, Ranges
from spuvm.runtime.errors import ConfigError, DataError

EVERYONE = "all parties"  # in place of the features' owner
LAST = np.int32(2**31 - 1)  # sorts behind all floats: missing cells, and edges that all rows pass


def sortable(x: np.ndarray) -> np.ndarray:
    """Floats as int32 of the same order; NaN as `LAST`."""
    bits = (np.asarray(x).astype(np.float32) + np.float32(0)).view(np.int32)  # + 0: there is one zero
    return np.where(np.isnan(x), LAST, np.where(bits < 0, bits ^ LAST, bits)).astype(np.int32)


def sorted_floats(keys: np.ndarray) -> np.ndarray:
    """The inverse of `sortable`; `LAST` is infinite."""
    keys = np.asarray(keys, np.int32)
    floats = np.where(keys < 0, keys ^ LAST, keys).astype(np.int32).view(np.float32)
    return np.where(keys == LAST, np.float32(np.inf), floats).astype(np.float32)


def check_no_owner(parameters: Parameters, data: str) -> None:
    """Of data whose columns no party has alone: ConfigError for what needs one that has."""
    if parameters.objective in ONE_HOLDER:
        raise ConfigError(
            f"`objective` {parameters.objective!r} needs labels that one party holds: a vertical frame, "
            "`spuvm.data.vertical(files, key=..., match='inner')`."
        )
    if parameters.reveal_splits_to_owner:
        raise ConfigError(f"`reveal_splits_to_owner`: no feature of {data} has an owner: leave it out.")


# Bins ---------------------------------------------------------------------------------------------------------


class HorizontalBins(Bins):
    """Secret edges.

    Attributes:
        edges: of each numeric feature, int32 [max_bin - 1] in the order of `sortable`.
    """

    kind = "horizontal"

    def __init__(self, machine: Machine, layout: Layout, edges: Sequence[Any]) -> None:
        super().__init__(machine, layout)
        self.edges = list(edges)

    @staticmethod
    def layout_of(features: Frame, parameters: Parameters) -> Layout:
        check_no_owner(parameters, "a horizontal frame")
        return Layout((EVERYONE,), (features.schema.columns,), parameters.max_bin)

    @classmethod
    def find(cls, machine: Machine, features: Frame, layout: Layout, ranges: Ranges | None = None) -> HorizontalBins:
        columns = [c for c in layout.all_features if numeric(c)]
        if not columns:
            return cls(machine, layout, [])
        keys = of_all(machine, features, sortable, [c.name for c in columns])
        missing = tuple(c.missing for c in columns)
        return cls(machine, layout, machine.run(edges_of(layout.max_bin, missing), keys, what="bins"))

    def conformed(self, data: Frame) -> Frame:
        known = {c.name: c.categories for c in self.layout.all_features if c.type == "category"}
        return data.conform(self.layout.all_features, {p: PYU(p)(lambda: known)() for p in data.parties})

    def matrices(self, data: Frame) -> list[Any]:
        """One secret matrix of all rows, in the order of the parties."""
        features = self.layout.all_features
        names = [c.name for c in features if numeric(c)]
        keys = of_all(self.machine, data, sortable, names) if names else []
        below = [self.machine.run(smaller, k, e, what="bins") for k, e in zip(keys, self.edges)]
        known = of_all(self.machine, data, lambda x: known_columns(x, features), data.columns)
        return [self.machine.run(matrix_of(self.layout), below, known, what="bins")]

    def reveal(self) -> Mapping[str, Edges]:
        shown = iter(self.machine.reveal(self.edges, "edges") if self.edges else ())
        return {
            EVERYONE: [sorted_floats(next(shown)) if numeric(c) else public_edges(c) for c in self.layout.all_features]
        }

    def to_store(self) -> Any:
        return self.edges

    @classmethod
    def stored(cls, machine: Machine, layout: Layout, values: Any) -> HorizontalBins:
        return cls(machine, layout, values)


def numeric(column: Column) -> bool:
    """Whether the column's edges depend on the data."""
    return column.type in NUMBERS


def of_all(machine: Machine, frame: Frame, encode: Callable[[np.ndarray], Any], names: Sequence[str]) -> list[Any]:
    """What `encode` makes of each party's rows, [rows_at, n], as n secret columns of all rows."""
    some = frame[list(names)]
    parts = [machine.share(PYU(party)(encode)(some.at(party))) for party in frame.parties]
    out: list[Any] = machine.run(columns_of_all, parts, what="bins")
    return out


def columns_of_all(parts: Sequence[jax.Array]) -> list[jax.Array]:
    """[rows_at, n] of each party -> n columns [rows]."""
    whole = jnp.concatenate(parts)
    return [whole[:, i] for i in range(whole.shape[1])]


@cache
def edges_of(
    max_bin: int, missing: tuple[bool, ...], last: Any = LAST
) -> Callable[[Sequence[jax.Array]], list[jax.Array]]:
    """A function of columns [rows] that finds the edges of each, [max_bin - 1].

    `missing`: whether cells of the column may be, which are `last`; how many are, is secret.
    """

    def find(keys: Sequence[jax.Array]) -> list[jax.Array]:
        rows = keys[0].shape[0]
        values = jnp.sort(jnp.stack(keys), axis=-1)
        new = jnp.pad(values[:, 1:] != values[:, :-1], ((0, 0), (1, 0)), constant_values=True) & (values != last)
        least = jnp.sort(jnp.where(new, values, last), axis=-1)[:, 1:max_bin]
        few = jnp.sum(new, axis=-1, dtype=jnp.int32) <= max_bin
        out: list[jax.Array] = []
        for i, some_missing in enumerate(missing):
            if some_missing:
                count = jnp.sum(values[i] != last, dtype=jnp.int32)
                quantiles = values[i][ranks(count, max_bin)]
            else:
                quantiles = values[i][np.arange(1, max_bin) * rows // max_bin]
            out.append(jnp.where(few[i], least[i], quantiles))
        return out

    return find


def ranks(count: jax.Array, max_bin: int) -> jax.Array:
    """i count // max_bin for i from 1 to max_bin - 1, of counts whose products need not fit."""
    i = jnp.arange(1, max_bin, dtype=jnp.int32)
    return count // max_bin * i + count % max_bin * i // max_bin


def smaller(keys: jax.Array, edges: jax.Array) -> jax.Array:
    """Whether each row is left of each edge: [rows, edges]."""
    return (keys[:, None] < edges).astype(jnp.float32)


def known_columns(x: np.ndarray, features: Sequence[Column]) -> np.ndarray:
    """Columns of the matrix that need no secret: of bools and categories, then of missing cells. int8 [rows, n]."""
    blocks = [goes_left(x[:, i], c, public_edges(c)) for i, c in enumerate(features) if not numeric(c)]
    blocks += [np.isnan(x[:, i])[:, None] for i, c in enumerate(features) if c.missing]
    return np.concatenate([np.zeros((len(x), 0), bool), *blocks], axis=1).astype(np.int8)


@cache
def matrix_of(layout: Layout) -> Callable[..., jax.Array]:
    """A function of what `smaller` and `known_columns` found that puts them in the order of the layout."""

    def matrix(below: Sequence[jax.Array], known: Sequence[jax.Array]) -> jax.Array:
        numbers, rest = iter(below), iter(known)
        blocks = []
        for column, count in zip(layout.all_features, layout.splits(layout.all_features)):
            some = [next(rest) for _ in range(0 if numeric(column) else count)]
            blocks.append(next(numbers) if numeric(column) else jnp.stack(some, axis=1).astype(jnp.float32))
        blocks += [flag[:, None].astype(jnp.float32) for flag in rest]
        return jnp.concatenate(blocks, axis=1)

    return matrix


# Labels -------------------------------------------------------------------------------------------------------

# Labels y of a regression are shared as y 2^(12 - e), with an exponent e of at least 12 for which |y| <= 2^e: the
# exponent is the party's own and secret as well. A power of two between 2^-36 and 2^12 is the product of two numbers
# that fixed point holds, the halves.
BITS = 12
LARGEST = 28  # labels are below 2^LARGEST
POWERS = range(-36, BITS + 1)
UNITS = range(-BITS, LARGEST + 2)  # exponents of the unit that labels are divided by


class HorizontalLabels(Labels):
    """Labels of all parties, each of its own rows."""

    def __init__(
        self,
        machine: Machine,
        parameters: Parameters,
        data: Frame,
        label: str,
        weight: str | None,
        exponent: int,
        known: Any = None,
    ) -> None:
        self.machine, self.parameters, self.label = machine, parameters, label
        parts = [machine.share(x) for x in encoded(parameters, data, label, weight).values()]
        self.prepared = machine.run(prepare(parameters, exponent), parts, what="labels")

    def of(self, frame: Frame, groups: Any = None) -> Any:
        return in_units(self.machine, self.parameters, frame, self.label, (self.prepared["up"], self.prepared["down"]))

    @staticmethod
    def check(data: Frame, label: Column, weight: str | None) -> None:
        pass

    @staticmethod
    def to_score(machine: Machine, parameters: Parameters, data: Frame, label: str, unit: Any) -> Mapping[str, Any]:
        one = {"shrink": np.ones(3, np.float32), "up": np.int32(1), "down": np.float32(1)}
        return {"labels": in_units(machine, parameters, data, label, unit), **one}


def encoded(parameters: Parameters, data: Frame, label: str, weight: str | None = None) -> dict[str, Any]:
    """By party, at the party, what `encode` makes of its labels."""
    y, w = data[label], None if weight is None else data[weight]
    where = {p: f"{y.column.where} at {p}" for p in data.parties}
    return {p: PYU(p)(encode)(y.at(p), None if w is None else w.at(p), parameters, where[p]) for p in data.parties}


def encode(labels: np.ndarray, weights: np.ndarray | None, parameters: Parameters, where: str) -> dict[str, Any]:
    """A party's labels as they are shared.

    Returns:
        target: float32 [rows, K]; weight: float32 [rows, 1], if given; for a regression the int32 `exponent`,
        and `base`, the base score in the target's units.
    """
    y = checked(labels, parameters, where, all_rows=False)
    target = OBJECTIVES[parameters.objective].target(y, parameters)
    out: dict[str, Any] = {}
    if regression(parameters):
        base = parameters.base_score or 0.0
        largest = float(np.abs(np.append(y, base)).max())
        if largest >= 2.0**LARGEST:
            raise DataError(f"{where}: labels are beyond {2**LARGEST:,}: divide them.")
        exponent = max(BITS, int(np.ceil(np.log2(largest + 1e-30))))
        target = target * 2.0 ** (BITS - exponent)
        out = {"exponent": np.int32(exponent), "base": np.float32(base * 2.0 ** (BITS - exponent))}
    out["target"] = target.astype(np.float32)
    weights = by_class(y, weights, parameters)
    if weights is not None:
        out["weight"] = weights_of(weights)[:, None].astype(np.float32)
    return out


def regression(parameters: Parameters) -> bool:
    return parameters.objective == "reg:squarederror"


@cache
def prepare(parameters: Parameters, exponent: int) -> Callable[..., dict[str, jax.Array]]:
    """A function of all parties' `encode` that makes what `objectives.prepare` makes at one holder."""

    def join(parts: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
        out = {"weight": jnp.concatenate([p["weight"] for p in parts])} if "weight" in parts[0] else {}
        if not regression(parameters):
            target = jnp.concatenate([p["target"] for p in parts])
            table = {k: jnp.asarray(v[0]) for k, v in tables(parameters, exponent, range(1)).items()}
            return out | table | {"target": target, "base": base_of(parameters, mean(target, out.get("weight")))}
        largest, targets = common(parts)
        target = jnp.concatenate(targets)
        base = mean(target, out.get("weight"))
        if parameters.base_score is not None:
            base = scaled(parts[0]["base"], parts[0]["exponent"] - largest)[None]
        distance = jnp.max(jnp.abs(target - base))
        bits = jnp.sum(distance > 2.0 ** np.arange(-BITS, BITS + 1), dtype=jnp.int32)  # the unit is 2^(bits - BITS)
        inverse = jnp.asarray(2.0 ** -np.arange(-BITS, BITS + 2.0), jnp.float32)[bits]
        unit = bits + largest - BITS  # its exponent above the least of `UNITS`
        table = {k: jnp.asarray(v)[unit] for k, v in tables(parameters, exponent, UNITS).items()}
        return out | table | {"target": target * inverse, "base": base * inverse}

    return join


def common(parts: Sequence[Mapping[str, jax.Array]]) -> tuple[jax.Array, list[jax.Array]]:
    """The largest exponent of all parties, and their targets with that exponent."""
    largest = jnp.max(jnp.stack([p["exponent"] for p in parts]))
    return largest, [scaled(p["target"], p["exponent"] - largest) for p in parts]


def scaled(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """x 2^exponent of a secret exponent; one outside of `POWERS` counts as the nearest there."""
    at = jnp.clip(exponent - POWERS[0], 0, len(POWERS) - 1)
    halves = [(p // 2, p - p // 2) for p in POWERS]
    first, second = (jnp.asarray(2.0 ** np.array(h, np.float32), jnp.float32)[at] for h in zip(*halves))
    return x * first * second


def mean(target: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Of each column: [K]."""
    if weight is None:
        return jnp.mean(target, axis=0)
    return jnp.mean(target * weight, axis=0) / jnp.mean(weight)


def base_of(parameters: Parameters, share: jax.Array) -> jax.Array:
    """The margins [K] before the first tree, of the classes' shares [K]; as `objectives` has them."""
    given = parameters.base_score
    if parameters.objective.endswith(":squared"):
        return share
    if parameters.multiclass:
        if given is not None:
            return jnp.full(parameters.outputs, given, jnp.float32)
        logs = jnp.log(jnp.maximum(share, LEAST_SHARE))
        return logs - jnp.mean(logs)
    if given is not None:
        return jnp.full(1, np.log(given / (1 - given)), jnp.float32)
    share = jnp.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
    return jnp.log(share) - jnp.log(1 - share)


def tables(parameters: Parameters, exponent: int, units: range) -> dict[str, np.ndarray]:
    """`threshold`, `alpha`, `up` and `down` of `objectives.prepare`, by the exponent of the unit."""
    unit = 2.0 ** np.array(units)
    alpha = {"alpha": penalty_of(parameters, unit)} if parameters.reg_alpha else {}
    return alpha | {
        "threshold": threshold_of(parameters, unit, exponent),
        "up": np.maximum(unit, 1).astype(np.int32),
        "down": np.minimum(unit, 1).astype(np.float32),
    }


def in_units(machine: Machine, parameters: Parameters, frame: Frame, label: str, unit: tuple[Any, Any]) -> Any:
    """The labels of other rows divided by the secret unit (up, down): [rows]."""
    parts = [machine.share(x) for x in encoded(parameters, frame, label).values()]
    return machine.run(divided if regression(parameters) else classes, parts, *unit, what="labels")


def divided(parts: Sequence[Mapping[str, jax.Array]], up: jax.Array, down: jax.Array) -> jax.Array:
    """Targets divided by up * down, a power of two of `UNITS`: [rows]."""
    steps = 2.0 ** np.arange(1, LARGEST + 2)
    exponent = jnp.sum(up >= steps.astype(np.int64), dtype=jnp.int32)
    exponent = exponent - jnp.sum(down <= 1 / steps[:BITS], dtype=jnp.int32)
    return jnp.concatenate([scaled(p["target"], p["exponent"] - BITS - exponent) for p in parts])[:, 0]


def classes(parts: Sequence[Mapping[str, jax.Array]], up: jax.Array, down: jax.Array) -> jax.Array:
    """The labels, from targets with a column for each class, or one of 0 and 1: [rows]."""
    target = jnp.concatenate([p["target"] for p in parts])
    return target @ jnp.arange(target.shape[1], dtype=target.dtype) if target.shape[1] > 1 else target[:, 0]
