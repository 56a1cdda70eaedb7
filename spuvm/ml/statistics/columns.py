"""Columns for statistics: of frames and tables by name, or objects of a PYU or an SPU; shared in units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import spuvm as spu
from spuvm.data import Frame, Series
from spuvm.devices import SPU, PYUObject
from spuvm.ml.common.labels import labels_of
from spuvm.ml.common.table import Table
from spuvm.ml.composition.splits import rows_of
from spuvm.ml.machine import Inside, Machine, default_device, is_inside
from spuvm.objects import SPUObject
from spuvm.runtime.errors import InputError

LEAST_ROWS = 10  # behind a number that is shown: fewer rows are refused


class Statistic(dict[str, Any]):
    """Named numbers, also as attributes: `result.pvalue`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"there is no `{name}`: there are {', '.join(self)}.")

    def __repr__(self) -> str:
        return ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.items())


def machine_of(*columns: Any, device: SPU | None = None) -> Machine:
    """Where statistics of these columns are computed."""
    return Inside() if is_inside(*columns) else Machine(device or default_device())


def named(data: Any, name: Any) -> Any:
    """A column: by its name in a frame or table, or itself."""
    if isinstance(name, str):
        if isinstance(data, Frame):
            return data[name]
        if isinstance(data, Table):
            return data.column(name)
        raise InputError(f"`{name}` names a column, but the data is no frame.")
    return name


def rows_in(column: Any) -> int:
    """How many rows a column has, and that they are enough."""
    if isinstance(column, Series):
        rows = column.rows
    elif isinstance(column, PYUObject):
        rows = rows_of(column)
    else:
        rows = int(column.shape[0]) if isinstance(column, SPUObject) else int(np.shape(column)[0])
    if rows < LEAST_ROWS:
        raise InputError(f"there are {rows} rows: statistics that are shown need {LEAST_ROWS} or more.")
    return rows


def numbers(machine: Machine, column: Any) -> Any:
    """A column of numbers in units, secret: mean 0 and spread about 1."""
    return labels_of(machine, None, column, "numbers", rows_in(column)).values


def groups(machine: Machine, column: Any, count: int | None = None) -> tuple[Any, int]:
    """A column of codes 0 to k - 1, secret, and k. Text has the order of its categories; of 2, 1 must be said."""
    found = labels_of(machine, None, column, "classes", rows_in(column), count, ordered=count == 2, gaps=True)
    _as_many(found.classes, count)
    return found.values, found.classes


def two_groups(machine: Machine, column: Any) -> Any:
    """A column of two groups as secret 0 and 1; of two texts whichever, for what does not depend on it."""
    rows = rows_in(column)
    if isinstance(column, Series) and column.column.type == "category" and len(column.parties) == 1:
        column = column.at(column.parties[0])
    found = labels_of(machine, None, column, "classes", rows, 2, ordered=False)
    _as_many(found.classes, 2)
    return found.values


def _as_many(classes: int, count: int | None) -> None:
    if count is not None and classes > count:
        raise InputError(f"a column has {classes} categories where {count} are asked for: leave the other rows out.")


def shown(machine: Machine, function: Callable[..., Any], *args: Any, what: str) -> Any:
    """What a function reveals, as numbers; inside a jitted function as it is."""
    out = machine.run(function, *args, what=what)
    if isinstance(machine, Inside):
        return out
    return jax.tree.map(lambda x: np.asarray(spu.reveal(x), np.float64), out)
