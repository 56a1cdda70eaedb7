"""Joined tables that nobody sees: cells, labels and which rows are there are secret; edges and bins are found on them.

A row counts where it is there and has a label: others have weight 0, and no edge comes from them. A feature's cell that
is missing goes to the side that the split has learned, as in other frames. Nobody learns how many rows count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Column
from spuvm.data.schema import Schema, nearest
from spuvm.ml.binning import Edges, public_edges
from spuvm.ml.common.joined import check_column
from spuvm.ml.horizontal import (
    BITS,
    EVERYONE,
    LARGEST,
    UNITS,
    base_of,
    check_no_owner,
    edges_of,
    matrix_of,
    numeric,
    regression,
    scaled,
    smaller,
    tables,
)
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.parameters import Parameters
from spuvm.ml.partition import Bins, Labels, Ranges
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import DataError, InputError

FAR = np.float32(2.0**40)  # sorts behind all cells: missing ones, and edges that all rows pass
TYPES = {"b": "bool", "i": "int", "u": "int", "f": "float"}


@dataclass(frozen=True, eq=False)
class Joined:
    """A joined table in the place of a frame.

    Attributes:
        names: of the columns that are used.
        counting: bool[rows], secret: rows that training counts; None where all are predicted.
    """

    table: SharedTable
    names: tuple[str, ...]
    counting: Any = None
    kind = "joined"

    @property
    def rows(self) -> int:
        return self.table.rows

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def schema(self) -> Schema:
        """All columns of the table, whichever are used."""
        columns = tuple(
            Column(n, None, TYPES[np.dtype(self.table[n].dtype).kind], n in self.table.present)
            for n in self.table.names
            if n not in self.table.categories
        )
        return Schema(columns, self.rows, {})

    def drop(self, *names: Any) -> Joined:
        """Without some columns."""
        gone = {n for x in names for n in ([x] if isinstance(x, str) else x)}
        return Joined(self.table, tuple(n for n in self.names if n not in gone), self.counting)


def as_joined(data: SharedTable, label: Any, weight: Any) -> Joined:
    """The table, if its labels can be used.

    Raises:
        InputError: for weights, and labels that are not there, or text.
    """
    if weight is not None:
        raise InputError("`sample_weight` with a joined table is not supported: leave it out.")
    if label is not None:
        if not isinstance(label, str):
            raise InputError("`label` must be the name of a column of the joined table.")
        if label not in data:
            raise InputError(f"the joined table has no column `{label}`{nearest(label, data.names)}.")
        check_column(data, label)
    return Joined(data, data.names)


def counting_of(machine: Machine, data: Joined, label: str) -> Joined:
    """The table with the rows that training counts."""
    flags = [data.table.present[label]] if label in data.table.present else []
    return Joined(data.table, data.names, machine.run(_all, data.table.valid, flags, what="labels"))


def _all(valid: jax.Array, flags: Sequence[jax.Array]) -> jax.Array:
    for flag in flags:
        valid = valid & flag
    return valid


# Bins ---------------------------------------------------------------------------------------------------------


class JoinedBins(Bins):
    """Secret edges of secret cells.

    Attributes:
        edges: of each numeric feature, float32 [max_bin - 1], ascending.
    """

    kind = "joined"

    def __init__(self, machine: Machine, layout: Layout, edges: Sequence[Any]) -> None:
        super().__init__(machine, layout)
        self.edges = list(edges)

    @staticmethod
    def layout_of(features: Any, parameters: Parameters) -> Layout:
        check_no_owner(parameters, "a joined table")
        for name in features.names:
            check_column(features.table, name)
        return Layout((EVERYONE,), (tuple(features.schema[n] for n in features.names),), parameters.max_bin)

    @classmethod
    def find(cls, machine: Machine, features: Any, layout: Layout, ranges: Ranges | None = None) -> JoinedBins:
        keys = keys_of(machine, features, layout, features.counting)
        if not keys:
            return cls(machine, layout, [])
        # Rows that do not count are as missing cells: how many there are is secret.
        found = edges_of(layout.max_bin, (True,) * len(keys), FAR)
        return cls(machine, layout, machine.run(found, keys, what="bins"))

    def conformed(self, data: Any) -> Joined:
        names = tuple(c.name for c in self.layout.all_features)
        for name in names:
            if name in data.table.categories:
                check_column(data.table, name)
        data.schema.check(self.layout.all_features)
        known = {c.name for c in self.layout.all_features if c.missing}
        for name in names:
            if name in data.table.present and name not in known:
                raise InputError(
                    f"cells of `{name}` may be missing in this table, which they could not in training: join as then."
                )
        return Joined(data.table, names, data.counting)

    def matrices(self, data: Any) -> list[Any]:
        """One secret matrix."""
        keys = keys_of(self.machine, data, self.layout, None)
        below = [self.machine.run(smaller, k, e, what="bins") for k, e in zip(keys, self.edges)]
        cells = [data.table[c.name] for c in self.layout.all_features if not numeric(c)]
        flags = [_present(data, c) for c in self.layout.all_features if not numeric(c)]
        known = self.machine.run(_lefts, cells, flags, what="bins")
        gone = [data.table.present.get(c.name, data.table.valid) for c in self.layout.all_features if c.missing]
        real = [c.name in data.table.present for c in self.layout.all_features if c.missing]
        known = [*known, *self.machine.run(_absent(tuple(real)), gone, what="bins")]
        return [self.machine.run(matrix_of(self.layout), below, known, what="bins")]

    def reveal(self) -> Mapping[str, Edges]:
        shown = iter(self.machine.reveal(self.edges, "edges") if self.edges else ())
        ends = [_infinite(next(shown)) if numeric(c) else public_edges(c) for c in self.layout.all_features]
        return {EVERYONE: ends}

    def to_store(self) -> Any:
        return self.edges

    @classmethod
    def stored(cls, machine: Machine, layout: Layout, values: Any) -> JoinedBins:
        return cls(machine, layout, values)


def keys_of(machine: Machine, data: Any, layout: Layout, counting: Any) -> list[Any]:
    """Of each numeric feature the cells [rows] as they sort; missing ones, and rows that do not count, as `FAR`."""
    columns = [c for c in layout.all_features if numeric(c)]
    if not columns:
        return []
    cells = [data.table[c.name] for c in columns]
    flags = [[f for f in (counting, *_present(data, c)) if f is not None] for c in columns]
    out: list[Any] = machine.run(_keys, cells, flags, what="bins")
    return out


def _present(data: Any, column: Column) -> list[Any]:
    return [data.table.present[column.name]] if column.name in data.table.present else []


def _keys(cells: Sequence[jax.Array], flags: Sequence[Sequence[jax.Array]]) -> list[jax.Array]:
    numbers = [x.astype(jnp.float32) for x in cells]
    return [jnp.where(_all(some[0], some[1:]), x, FAR) if some else x for x, some in zip(numbers, flags)]


def _lefts(cells: Sequence[jax.Array], flags: Sequence[Sequence[jax.Array]]) -> list[jax.Array]:
    """Of bools: false goes left; a missing cell does not."""
    return [_all(~x, some).astype(jnp.int8) for x, some in zip(cells, flags)]


@cache
def _absent(real: tuple[bool, ...]) -> Callable[..., list[jax.Array]]:
    """A function of presence that gives absence; nothing is absent where cells are not `real`ly optional."""
    return lambda flags: [(~f if r else f & ~f).astype(jnp.int8) for f, r in zip(flags, real)]


def _infinite(edges: Any) -> np.ndarray:
    edges = np.asarray(edges, np.float32)
    return np.where(edges >= FAR, np.float32(np.inf), edges)


# Labels -------------------------------------------------------------------------------------------------------


class JoinedLabels(Labels):
    """Labels that nobody sees. Whether the rows that count have labels that the objective takes is revealed."""

    def __init__(
        self,
        machine: Machine,
        parameters: Parameters,
        data: Any,
        label: str,
        weight: str | None,
        exponent: int,
        known: Any = None,
    ) -> None:
        y = data.table[label]
        fits = machine.run(fitting(parameters), y, data.counting, what="labels", shows="whether labels can be used")
        if not bool(np.asarray(spu.reveal(fits))):
            raise DataError(
                f"`label` {label!r} of the joined table: {_wanted(parameters)}, and at least one row has one."
            )
        self.prepared = machine.run(prepare(parameters, exponent), y, data.counting, what="labels")

    def of(self, frame: Any, groups: Any = None) -> Any:
        raise not_scored()

    @staticmethod
    def check(data: Any, label: Column, weight: str | None) -> None:
        pass

    @staticmethod
    def to_score(machine: Machine, parameters: Parameters, data: Any, label: str, unit: Any) -> Mapping[str, Any]:
        raise not_scored()


def not_scored() -> InputError:
    """The error of whoever scores a joined table."""
    return InputError(
        "scores of a joined table would count rows that are not there: `predict`, and compare where `table.valid`."
    )


def _wanted(parameters: Parameters) -> str:
    if regression(parameters):
        return f"labels are below {2**LARGEST:,}"
    return "labels are 0 and 1" if parameters.outputs == 1 else f"labels are whole, from 0 to {parameters.outputs - 1}"


@cache
def fitting(parameters: Parameters) -> Callable[..., jax.Array]:
    """A function of labels and the rows that count that tells all parties whether they can be used."""

    def fits(y: jax.Array, counting: jax.Array) -> jax.Array:
        x = y.astype(jnp.float32)
        if regression(parameters):
            good = jnp.abs(x) < 2.0**LARGEST
        else:
            classes = jnp.arange(max(2, parameters.outputs), dtype=jnp.float32)
            good = jnp.any(x[:, None] == classes, axis=1)
        shown: jax.Array = spu.reveal(jnp.all(good | ~counting) & jnp.any(counting))
        return shown

    return fits


@cache
def prepare(parameters: Parameters, exponent: int) -> Callable[..., dict[str, jax.Array]]:
    """A function of labels and the rows that count that makes what `objectives.prepare` makes at one holder."""

    def made(y: jax.Array, counting: jax.Array) -> dict[str, jax.Array]:
        x = jnp.where(counting, y.astype(jnp.float32), 0.0)
        out: dict[str, jax.Array] = {"counting": counting[:, None]}
        weight = counting[:, None].astype(jnp.float32)
        if parameters.scale_pos_weight != 1:
            weight = jnp.where((x == 1)[:, None], weight * parameters.scale_pos_weight, weight)
            out["weight"] = weight
        if not regression(parameters):
            k = parameters.outputs
            target = x[:, None] if k == 1 else (x[:, None] == jnp.arange(k, dtype=jnp.float32)).astype(jnp.float32)
            table = {n: jnp.asarray(v[0]) for n, v in tables(parameters, exponent, range(1)).items()}
            return out | table | {"target": target, "base": base_of(parameters, _mean(target, weight))}
        given = parameters.base_score
        top = jnp.maximum(jnp.max(jnp.abs(x)), abs(given or 0.0))
        largest = BITS + jnp.sum(top > 2.0 ** np.arange(BITS, LARGEST), dtype=jnp.int32)
        target = scaled(x, BITS - largest)[:, None]
        base = _mean(target, weight) if given is None else scaled(jnp.full(1, given, jnp.float32), BITS - largest)
        distance = jnp.max(jnp.where(counting[:, None], jnp.abs(target - base), 0.0))
        bits = jnp.sum(distance > 2.0 ** np.arange(-BITS, BITS + 1), dtype=jnp.int32)
        inverse = jnp.asarray(2.0 ** -np.arange(-BITS, BITS + 2.0), jnp.float32)[bits]
        unit = bits + largest - BITS
        table = {n: jnp.asarray(v)[unit] for n, v in tables(parameters, exponent, UNITS).items()}
        return out | table | {"target": target * inverse, "base": base * inverse}

    return made


def _mean(target: jax.Array, weight: jax.Array) -> jax.Array:
    """Of each column of the rows that count, however few of all: [K]."""
    return jnp.sum(target * weight, axis=0) / jnp.sum(weight)
