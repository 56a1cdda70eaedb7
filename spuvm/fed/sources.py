"""A party's data: arrays, tables, files, iterators, as batches of rows. Everything here runs at the party alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.data.tables import read
from spuvm.runtime.errors import DataError, InputError

CHUNK = 1024  # rows at a time when a model is evaluated


@dataclass(eq=False)
class Rows:
    """A pytree of arrays whose first axis are the rows."""

    arrays: Any
    rows: int
    size: int | None  # of a batch; None: all rows
    rng: np.random.Generator
    order: list[int] = field(default_factory=list)

    @property
    def a_round(self) -> int:
        """What the party weighs."""
        return self.rows

    def batch(self) -> Any:
        """The next rows of a pass in random order; a rest that fills no batch waits for the next pass."""
        if self.size is None or self.size >= self.rows:
            return self.arrays
        if len(self.order) < self.size:
            self.order = self.rng.permutation(self.rows).tolist()
        at, self.order = self.order[: self.size], self.order[self.size :]
        return jax.tree.map(lambda x: x[np.asarray(at)], self.arrays)

    def sampled(self, rate: float) -> tuple[Any, int]:
        """Each row with this probability, by itself, from the operating system's randomness: nobody can know which."""
        drawn = np.frombuffer(os.urandom(8 * self.rows), np.uint64)
        at = np.arange(self.rows) if rate == 1 else np.flatnonzero(drawn < np.uint64(int(rate * 2**64)))
        return jax.tree.map(lambda x: x[at], self.arrays), len(at)

    def chunks(self) -> Iterator[tuple[Any, int]]:
        for start in range(0, self.rows, CHUNK):
            some = jax.tree.map(lambda x, s=start: x[s : s + CHUNK], self.arrays)
            yield some, min(CHUNK, self.rows - start)


@dataclass(eq=False)
class Stream:
    """An iterator of batches, each a pytree of arrays: of data that no memory holds."""

    batches: Iterator[Any]
    steps: int
    first: Any = None
    rows: int = 0

    def __post_init__(self) -> None:
        self.first = self._next()
        self.rows = _rows(self.first)

    @property
    def a_round(self) -> int:
        return self.rows * self.steps

    def batch(self) -> Any:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        return self._next()

    def _next(self) -> Any:
        try:
            return _numeric(next(self.batches))
        except StopIteration:
            raise DataError("the iterator of this party's data has ended: give one that goes on, or arrays.") from None

    def sampled(self, rate: float) -> tuple[Any, int]:
        raise InputError("examples of an iterator cannot be sampled secretly: give arrays, a table or a file.")

    def chunks(self) -> Iterator[tuple[Any, int]]:
        raise InputError("a model cannot be evaluated on an iterator: give arrays, a table or a file as `eval_data`.")


Source = Rows | Stream


def source(data: Any, size: int | None, steps: int, rng: np.random.Generator) -> Source:
    """What a party gave: arrays, a pandas frame, an Arrow table, a file, an iterator, or a function that gives one.

    Tables are dictionaries of columns.

    Raises:
        DataError: for arrays of different lengths, without rows, with NaN, or of text.
    """
    if callable(data) and not hasattr(data, "__array__"):
        data = data()
    if isinstance(data, str | Path):
        table = read(data)
        data = dict(zip(table.names, table.columns, strict=True)) if table.names else table.columns[0]
    elif hasattr(data, "to_pydict") and hasattr(data, "column_names"):
        data = {name: data.column(name).to_numpy() for name in data.column_names}
    elif hasattr(data, "iloc") and hasattr(data, "columns"):
        data = {str(name): data[name].to_numpy() for name in data.columns}
    if hasattr(data, "__next__"):
        return Stream(data, steps)
    arrays = _numeric(data)
    return Rows(arrays, _rows(arrays), size, rng)


def _numeric(data: Any) -> Any:
    """Arrays of a pytree, in the widths that JAX has."""
    if data is None:
        raise InputError("`data` of this party is None: give its arrays, table, file or iterator.")
    return jax.tree.map(_array, data)


def _array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DataError(f"this party's data has an array of {array.dtype}: only numbers and bools can be trained on.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataError(f"this party's data has {count:,} numbers that are NaN or infinite: fill or drop them first.")
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _rows(arrays: Any) -> int:
    lengths = {x.shape[0] if x.ndim else None for x in jax.tree.leaves(arrays)}
    if len(lengths) != 1 or None in lengths:
        raise DataError(
            f"this party's arrays must have one first axis of rows in common, got lengths {sorted(map(str, lengths))}."
        )
    (rows,) = lengths
    if not rows:
        raise DataError("this party's data has no rows: leave the party out, or let it come later (`attend`).")
    return int(rows)


def parties_of(data: Any) -> tuple[str, ...]:
    """Who brings data; InputError if nobody does."""
    if not isinstance(data, Mapping) or not data or not all(isinstance(p, str) for p in data):
        raise InputError("`data` must be a dictionary of the parties' data by party: {'alice': ..., 'bob': ...}.")
    return tuple(data)
