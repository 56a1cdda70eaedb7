"""Arrays as frames, for learners that bin columns where they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import spuvm as spu
from spuvm import context as contexts
from spuvm.data import Frame, Series
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.ml.common.labels import as_column
from spuvm.ml.common.table import column_names, dense
from spuvm.ml.joined import as_joined
from spuvm.ml.machine import default_device
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import InputError

Names = tuple[str, ...]  # of columns side by side
KEY, LABEL, WEIGHT = "spuvm row", "spuvm label", "spuvm weight"  # names of columns that arrays do not have


def as_frame_or_joined(data: Any, label: Any = None, weight: Any = None) -> tuple[Any, Any, Any]:
    """As `as_frame`; a joined table as `Joined`."""
    if isinstance(data, SharedTable):
        return as_joined(data, label, weight), label, weight
    return as_frame(data, label, weight)


def as_frame(data: Any, label: Any = None, weight: Any = None) -> tuple[Frame, Any, Any]:
    """A frame, and the names of its columns of labels and weights.

    Args:
        data: a frame; objects of PYUs [rows, n], side by side; or in a simulation an array, the first party's.
        label, weight: names of the frame's columns, or arrays [rows] likewise; None if there are none.

    Raises:
        InputError: for secret values: bins are made where columns are known.
    """
    if isinstance(data, SharedTable):
        raise InputError(
            "this takes no joined table, which is known to nobody: bring the rows together with "
            "`spuvm.data.vertical(files, key=..., match='inner')`, or train `Sgb` or a linear model on the table."
        )
    if isinstance(label, Series):
        data, label = (data if label.name in data.columns else _with(data, label)), label.name
    if isinstance(data, Frame):
        return data, label, weight
    frame = getattr(data, "frame", None)
    if isinstance(frame, Frame):  # a table that no transformer has been at
        return frame, label, weight
    parts: dict[str, dict[Names, Any]] = {}
    pieces = list(data) if _several(data) else [data]
    start = 0
    for piece in pieces:
        start += _add(parts, piece, start)
    for name, column in ((LABEL, label), (WEIGHT, weight)):
        if isinstance(column, str):
            raise InputError(f"{column!r} names a column, but the data is no frame: give the numbers as an array.")
        if column is not None:
            _add_column(parts, column, name)
    sources = {p: _table(p, columns) for p, columns in parts.items()}
    made = spu.data.vertical(sources, KEY)
    return made, None if label is None else LABEL, None if weight is None else WEIGHT


def _with(data: Frame, label: Series) -> Frame:
    raise InputError(f"the labels `{label.name}` are no column of the frame: give it with them, and their name.")


def _several(data: Any) -> bool:
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(x, PYUObject) for x in data)


def _add(parts: dict[str, dict[Names, Any]], x: Any, start: int) -> int:
    """Put the columns of an array among its party's; how many there are."""
    named = column_names(x)
    owner, value = _placed(x, _matrix)
    count = int(fetch(PYU(owner)(lambda v: np.int64(v.shape[1]))(value)))
    parts.setdefault(owner, {})[named or tuple(f"x{start + i}" for i in range(count))] = value
    return count


def _add_column(parts: dict[str, dict[Names, Any]], x: Any, name: str) -> None:
    """Put labels or weights among their party's columns."""
    owner, value = _placed(x, as_column)
    parts.setdefault(owner, {})[(name,)] = value


def _placed(x: Any, form: Callable[[Any], Any]) -> tuple[str, PYUObject]:
    """An array in this form at the party that has it, or else at the first: that party, and what it has."""
    if isinstance(x, PYUObject):
        return x.device.party, PYU(x.device.party)(form)(x)
    value, owner = form(_given(x)), _first_party()
    return owner, PYU(owner)(lambda: value)()


def _first_party() -> str:
    default_device()  # there are parties
    context = contexts.current()
    if context is None or context.party is not None:
        raise InputError("plain arrays have no owner in a networked run: create them with `PYU`, or use a frame.")
    return context.parties[0]


def _given(x: Any) -> Any:
    """An array, or a pandas frame's cells; columns of objects are numbers, or text of categories."""
    if hasattr(x, "to_numpy"):
        return x.to_numpy()
    if hasattr(x, "toarray"):
        return dense(x, "X")
    if not isinstance(x, np.ndarray | list | tuple):
        raise InputError(
            f"`data` must be a frame (`spuvm.data`) or arrays, got a `{type(x).__name__}`: columns are binned "
            "where they are known."
        )
    return x


def _matrix(x: Any) -> np.ndarray:
    """Cells [rows, n].

    Raises:
        InputError: for another number of axes, nothing at all, sparse matrices and complex numbers.
    """
    matrix = np.asarray(dense(x, "X"))
    if matrix.ndim != 2:
        raise InputError(f"`X` must have rows and columns, got shape {matrix.shape}: reshape it to [rows, n].")
    if 0 in matrix.shape:
        raise InputError(f"`X` has shape {matrix.shape}: there is nothing to compute with.")
    return matrix


def _table(owner: str, columns: dict[Names, Any]) -> Any:
    names = list(columns)

    def table(*values: Any) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for some, value in zip(names, values):
            out |= dict(zip(some, value[:, None].T if value.ndim == 1 else value.T))
        return out | {KEY: np.arange(len(values[0]))}

    return PYU(owner)(table)(*columns.values())
