"""`Stream.group_by`: sums, counts, least and greatest values for each of a public number of keys.

Two ways to the same numbers. Where all columns of a part belong to one party, that party
aggregates each block of its rows by itself, and the aggregates are what is shared: [keys] numbers a
block instead of all its rows. Where columns of several parties meet, everything is computed on
secrets: sums and counts by one-hot vectors of the key, at a cost per row that grows with the
square root of the number of keys; least and greatest by comparing every row with every key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime.errors import InputError
from spuvm.runtime.ring.encodings import encode
from spuvm.streaming.block import Columns, Step, through

GREATEST = 2.0**40  # of floats; what `min` gives for a key without rows, and minus that what `max` gives
AGGREGATES = ("sum", "count", "min", "max")


@dataclass(frozen=True)
class Wanted:
    """One result: `kind` of the values in `column` (a count has none)."""

    name: str
    kind: str
    column: str | None


def aggregate(name: str, what: Any) -> Wanted:
    """A result as `Grouped.agg` takes it. InputError for what is no aggregate."""
    if what == "count":
        return Wanted(name, "count", None)
    if not (isinstance(what, tuple) and len(what) == 2 and what[1] in ("sum", "min", "max")):
        raise InputError(f"`agg`: `{name}` must be 'count' or a column with 'sum', 'min' or 'max', got {what!r}.")
    return Wanted(name, what[1], what[0])


def limit(dtype: Any, kind: str) -> Any:
    """What no value of the dtype is beyond: the start of a minimum or maximum."""
    if np.dtype(dtype).kind == "f":
        return GREATEST if kind == "min" else -GREATEST
    info = np.iinfo(dtype)
    return info.max if kind == "min" else info.min


def _of_nothing(want: Wanted, keys: int, columns: Columns) -> np.ndarray:
    dtype = np.int32 if want.column is None else columns[want.column].dtype
    return np.full(keys, limit(dtype, want.kind) if want.kind in ("min", "max") else 0, dtype)


@dataclass(frozen=True)
class GroupBy:
    """What `Fold` is for functions: a state [keys] for each aggregate, combined over blocks."""

    key: str
    keys: int
    wanted: tuple[Wanted, ...]
    in_order = False
    init: Any = ()

    def __call__(self, pieces: Sequence[tuple[Columns, Any]], state: Any) -> Any:
        total = None
        for columns, mask in pieces:
            aggregated = set(columns) == {w.name for w in self.wanted} and mask is AGGREGATED
            mine = columns if aggregated else self.secretly(columns, mask)
            total = mine if total is None else self.combine(total, mine)
        return total

    def reads(self, columns: Sequence[str]) -> set[str]:
        """The key, and what is aggregated."""
        return {self.key, *(w.column for w in self.wanted if w.column)} & set(columns)

    def of_nothing(self, columns: Columns) -> Any:
        """The aggregates of no rows."""
        return {w.name: _of_nothing(w, self.keys, columns) for w in self.wanted}

    def combine(self, a: Any, b: Any) -> Any:
        """Of two states."""
        return {w.name: COMBINE[w.kind](a[w.name], b[w.name]) for w in self.wanted}

    # On secrets ---------------------------------------------------------------------------------------

    def secretly(self, columns: Columns, mask: Any) -> Any:
        """The aggregates of a block whose columns several parties hold."""
        key = columns[self._checked(columns)]
        return {w.name: self._secret_one(w, key, columns, mask) for w in self.wanted}

    def _secret_one(self, want: Wanted, key: Any, columns: Columns, mask: Any) -> Any:
        if want.column is None:
            ones = jnp.ones(key.shape, jnp.int32) if mask is None else mask.astype(jnp.int32)
            return jnp.zeros(self.keys, jnp.int32).at[key].add(ones, mode="drop")
        value = columns[want.column]
        if want.kind == "sum":
            kept = value if mask is None else jnp.where(mask, value, jnp.zeros_like(value))
            return jnp.zeros(self.keys, value.dtype).at[key].add(kept, mode="drop")
        beyond = jnp.asarray(limit(value.dtype, want.kind), value.dtype)
        reduce = jnp.min if want.kind == "min" else jnp.max

        def one(k: Any) -> Any:
            mine = key == k if mask is None else (key == k) & mask
            return reduce(jnp.where(mine, value, beyond))

        return lax.map(one, jnp.arange(self.keys, dtype=key.dtype))

    def _checked(self, columns: Columns) -> str:
        for name in [self.key, *(w.column for w in self.wanted if w.column)]:
            if name not in columns:
                raise InputError(f"`group_by`: there is no column `{name}`, the columns are {', '.join(columns)}.")
            if jnp.ndim(columns[name]) != 1:
                raise InputError(f"`group_by`: `{name}` has shape {jnp.shape(columns[name])}, it must be [rows].")
        if not jnp.issubdtype(columns[self.key].dtype, jnp.integer):
            raise InputError(f"`group_by`: the key `{self.key}` must hold integers, got {columns[self.key].dtype}.")
        return self.key

    # By the owner ---------------------------------------------------------------------------------------

    def columns(self, steps: Sequence[Step]) -> Callable[[Columns], tuple[Columns, Any]]:
        """The steps as one function of plain columns, which the owner runs: what is needed of them, and the mask."""

        def run(columns: Columns) -> tuple[Columns, Any]:
            out, mask = through(steps, columns)
            self._checked(out)
            needed = {self.key, *(w.column for w in self.wanted if w.column)}
            return {n: x for n, x in out.items() if n in needed}, mask

        return run

    def structs(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The aggregates' shapes and dtypes, from those of the columns."""
        struct: Any = jax.ShapeDtypeStruct
        return {w.name: struct((self.keys,), columns[w.column].dtype if w.column else np.int32) for w in self.wanted}


@dataclass(frozen=True)
class Aggregator:
    """What an owner does with a block of its rows; all a worker needs to know."""

    key: str
    keys: int
    wanted: tuple[Wanted, ...]

    def __call__(self, columns: Mapping[str, np.ndarray], mask: np.ndarray | None, frac: int) -> list[np.ndarray]:
        """The aggregates as ring elements uint64[keys], in the order of their names."""
        keep = slice(None) if mask is None else mask
        key = columns[self.key][keep]
        if len(key) and not (int(key.min()) >= 0 and int(key.max()) < self.keys):
            raise InputError(f"`group_by`: the key `{self.key}` has numbers beyond 0 to {self.keys - 1}.")
        return [self._one(w, key, columns, keep, frac) for w in sorted(self.wanted, key=lambda w: w.name)]

    def _one(
        self, want: Wanted, key: np.ndarray, columns: Mapping[str, np.ndarray], keep: Any, frac: int
    ) -> np.ndarray:
        if want.column is None:
            return np.bincount(key, minlength=self.keys).astype(np.uint64)
        values = encode(columns[want.column][keep], frac, want.column).view(np.int64)
        if want.kind == "sum":
            out = np.zeros(self.keys, np.int64)
        else:
            edge = np.asarray([limit(columns[want.column].dtype, want.kind)], columns[want.column].dtype)
            out = np.repeat(encode(edge, frac).view(np.int64), self.keys)
        INTO[want.kind].at(out, key, values)
        return out.view(np.uint64)


AGGREGATED = object()  # in place of a mask: these columns are aggregates already
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "sum": jnp.add,
    "count": jnp.add,
    "min": jnp.minimum,
    "max": jnp.maximum,
}
INTO: dict[str, Any] = {"sum": np.add, "min": np.minimum, "max": np.maximum}
