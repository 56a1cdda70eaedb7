"""Arrays as frames, for learners that bin columns where they are known."""

from __future__ import annotations

from typing import Any

import numpy as np

import spuvm as spu
from spuvm import context as contexts
from spuvm.data import Frame, Series
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.ml.machine import default_device
from spuvm.runtime.errors import InputError

KEY, LABEL, WEIGHT = "spuvm row", "spuvm label", "spuvm weight"  # names of columns that arrays do not have


def as_frame(data: Any, label: Any = None, weight: Any = None) -> tuple[Frame, Any, Any]:
    """A frame, and the names of its columns of labels and weights.

    Args:
        data: a frame; objects of PYUs [rows, n], side by side; or in a simulation an array, the first party's.
        label, weight: names of the frame's columns, or arrays [rows] likewise; None if there are none.

    Raises:
        InputError: for secret values: bins are made where columns are known.
    """
    if isinstance(label, Series):
        data, label = (data if label.name in data.columns else _with(data, label)), label.name
    if isinstance(data, Frame):
        return data, label, weight
    frame = getattr(data, "frame", None)
    if isinstance(frame, Frame):  # a table that no transformer has been at
        return frame, label, weight
    parts: dict[str, dict[str, Any]] = {}
    pieces = list(data) if _several(data) else [data]
    start = 0
    for piece in pieces:
        start += _add(parts, piece, start)
    for name, column in ((LABEL, label), (WEIGHT, weight)):
        if column is not None and not isinstance(column, str):
            _add(parts, column, start, name)
    sources = {p: _table(p, columns) for p, columns in parts.items()}
    made = spu.data.vertical(sources, KEY)
    return made, None if label is None else LABEL, None if weight is None else WEIGHT


def _with(data: Frame, label: Series) -> Frame:
    raise InputError(f"the labels `{label.name}` are no column of the frame: give it with them, and their name.")


def _several(data: Any) -> bool:
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(x, PYUObject) for x in data)


def _add(parts: dict[str, dict[str, Any]], x: Any, start: int, name: str | None = None) -> int:
    """Put the columns of an array among its party's; how many there are."""
    if isinstance(x, PYUObject):
        owner, value = x.device.party, x
    else:
        array = _numbers(x)
        default_device()  # there are parties
        context = contexts.current()
        if context is None or context.party is not None:
            raise InputError("plain arrays have no owner in a networked run: create them with `PYU`, or use a frame.")
        owner = context.parties[0]
        value = PYU(owner)(lambda: array)()
    count = 1 if name else int(fetch(PYU(owner)(lambda v: np.int64(np.shape(v)[1]))(value)))
    names = (name,) if name else tuple(f"x{start + i}" for i in range(count))
    parts.setdefault(owner, {})[",".join(names)] = value
    return count


def _numbers(x: Any) -> np.ndarray:
    if hasattr(x, "to_numpy"):
        x = x.to_numpy()
    if not isinstance(x, np.ndarray | list | tuple):
        raise InputError(
            f"`data` must be a frame (`spuvm.data`) or arrays, got a `{type(x).__name__}`: columns are binned "
            "where they are known."
        )
    return np.asarray(x)


def _table(owner: str, columns: dict[str, Any]) -> Any:
    names = list(columns)

    def table(*values: Any) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for name, value in zip(names, values):
            array = np.asarray(value)
            matrix = array[:, None] if array.ndim == 1 else array
            out |= dict(zip(name.split(","), matrix.T))
        return out | {KEY: np.arange(len(next(iter(out.values()))))}

    return PYU(owner)(table)(*columns.values())
