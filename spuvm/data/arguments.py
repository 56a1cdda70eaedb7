"""Columns as a function on an SPU takes them: of a vertical frame its owners' arrays, of a horizontal one secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.data.part import Part
from spuvm.data.schema import Column
from spuvm.devices import PYU, SPU, PYUObject


def columns_on(
    device: SPU, columns: tuple[Column, ...], rows_at: Mapping[str, int], parts: Mapping[str, PYUObject]
) -> dict[str, Any]:
    """Arrays [rows] by name. Of a column that several hold, the rows are those of the parties in turn."""
    held = {c.name: [_cells(c, p, parts[p]) for p in rows_at if c.party in (None, p)] for c in columns}
    if all(c.party is not None for c in columns):
        return {name: cells for name, (cells,) in held.items()}
    return dict(device(_in_turn)(held))


def _cells(column: Column, party: str, part: PYUObject) -> PYUObject:
    x = PYU(party)(_array)(part, column)
    x.missing = column.missing
    return x


def _array(part: Part, column: Column) -> np.ndarray:
    """Bools and codes as such where no cell is missing; else all are floats, NaN where one is."""
    dtypes = {"bool": np.bool_, "category": np.int32}
    return part.columns[column.name].astype(np.float64 if column.missing else dtypes.get(column.type, np.float64))


def _in_turn(held: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: jnp.concatenate(cells) for name, cells in held.items()}
