"""Rows for training and for tests: drawn by public seeds, the same at all parties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spuvm.data import Frame, Series
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.ml.common.table import Table
from spuvm.objects import SPUObject
from spuvm.runtime.errors import ConfigError, InputError

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class KFold:
    """`n_splits` parts of the rows, each a test once.

    Args:
        shuffle: whether rows are shuffled first, by `random_state`; else they stay in order.
    """

    n_splits: int = 5
    shuffle: bool = False
    random_state: int = 0

    def split(self, data: Any, y: Any = None, groups: Any = None) -> Iterator[Pair]:
        """Positions of training and test rows."""
        rows = rows_of(data)
        if not 2 <= self.n_splits <= rows:
            raise ConfigError(f"`n_splits` of {self.n_splits} does not fit {rows} rows: 2 to {rows} do.")
        order = np.random.RandomState(self.random_state).permutation(rows) if self.shuffle else np.arange(rows)
        for part in np.array_split(order, self.n_splits):
            yield _both(rows, part)

    def get_n_splits(self) -> int:
        """How many."""
        return self.n_splits


@dataclass(frozen=True)
class GroupKFold:
    """Parts that no group is cut by; groups are public numbers, one a row."""

    n_splits: int = 5

    def split(self, data: Any, y: Any = None, groups: Any = None) -> Iterator[Pair]:
        """Positions of training and test rows; the largest groups are dealt out first."""
        if groups is None:
            raise InputError("`groups` are missing: GroupKFold needs a public group for each row.")
        names, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        if len(names) < self.n_splits:
            raise ConfigError(f"`n_splits` of {self.n_splits} is more than the {len(names)} groups.")
        load, part = np.zeros(self.n_splits), np.zeros(len(names), np.int64)
        for i in np.argsort(-sizes, kind="stable"):
            part[i] = np.argmin(load)
            load[part[i]] += sizes[i]
        for k in range(self.n_splits):
            yield _both(len(group), np.flatnonzero(part[group] == k))

    def get_n_splits(self) -> int:
        """How many."""
        return self.n_splits


@dataclass(frozen=True)
class StratifiedKFold:
    """Parts with the same shares of each class, as the holder of the labels deals the rows out.

    All parties learn the part of each row, which depends on the labels: the rows of a class are dealt out in turn, in
    an order that only the holder knows. It tells that of a class's rows no part has two more than another.
    """

    n_splits: int = 5

    def split(self, data: Any, y: Any = None, groups: Any = None) -> Iterator[Pair]:
        """Positions of training and test rows."""
        part = _dealt(data, y, self.n_splits)
        for k in range(self.n_splits):
            yield _both(len(part), np.flatnonzero(part == k))

    def get_n_splits(self) -> int:
        """How many."""
        return self.n_splits


def train_test_split(*data: Any, test_size: float | int = 0.25, random_state: int = 0) -> list[Any]:
    """Of each of the data, rows for training and rows for a test."""
    if not data:
        raise InputError("there is nothing to split.")
    rows = rows_of(data[0])
    count = int(test_size) if isinstance(test_size, int) else int(np.ceil(test_size * rows))
    if not 0 < count < rows:
        raise InputError(f"`test_size` of {test_size} leaves {count} of {rows} rows for the test: both need some.")
    order = np.random.RandomState(random_state).permutation(rows)
    train, test = np.sort(order[count:]), np.sort(order[:count])
    return [take(x, at) for x in data for at in (train, test)]


def rows_of(data: Any) -> int:
    """How many rows data has."""
    if isinstance(data, Frame | Table | Series):
        return data.rows
    if isinstance(data, PYUObject):
        return int(fetch(PYU(data.device.party)(lambda x: np.int64(np.shape(x)[0]))(data)))
    if isinstance(data, list | tuple) and data and isinstance(data[0], PYUObject | SPUObject):
        return rows_of(data[0])
    return int(np.shape(data)[0]) if not isinstance(data, SPUObject | jax.core.Tracer) else int(data.shape[0])


def take(data: Any, at: np.ndarray) -> Any:
    """The rows at these public positions, in whatever form."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, Frame | Table):
        return data.take(at)
    if isinstance(data, Series):
        return data.frame.take(at)[data.name]
    if isinstance(data, PYUObject):
        return PYU(data.device.party)(lambda x: np.asarray(x)[at])(data)
    if isinstance(data, list | tuple) and data and isinstance(data[0], PYUObject | SPUObject):
        return [take(x, at) for x in data]
    return data[at] if isinstance(data, SPUObject | jax.core.Tracer) else np.asarray(data)[at]


def _both(rows: int, test: np.ndarray) -> Pair:
    mask = np.zeros(rows, bool)
    mask[test] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _dealt(data: Any, y: Any, parts: int) -> np.ndarray:
    column = data[y] if isinstance(y, str) and isinstance(data, Frame) else y
    if isinstance(column, Series) and len(column.parties) == 1:
        column = column.at(column.parties[0])
    if isinstance(column, PYUObject):
        return np.asarray(fetch(PYU(column.device.party)(lambda v: deal(v, parts))(column)))
    if column is None or isinstance(column, SPUObject | Series):
        raise InputError("StratifiedKFold needs labels that one party holds: use KFold.")
    return deal(np.asarray(column), parts)


def deal(labels: np.ndarray, parts: int) -> np.ndarray:
    """The part of each row, int64 [rows]: the rows of each class are dealt out in a secret order."""
    generator = np.random.default_rng()
    part = np.empty(len(labels), np.int64)
    start = 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < parts:
            raise InputError(f"a class has fewer rows than `n_splits` = {parts}: use fewer.")
        part[generator.permutation(rows)] = (np.arange(len(rows)) + start) % parts
        start += len(rows)
    return part
