"""Encoders of categories: as columns of 0 and 1, or as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.devices import PYU, fetch
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import Apply, Learn, learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table
from spuvm.ml.common.transformers import Columnwise
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import DataError, InputError

MOST = 1000  # categories of a column


@dataclass(eq=False, kw_only=True, repr=False)
class OneHotEncoder(Columnwise):
    """A column of 0 and 1 for each category, or value of a column of numbers.

    How many there are becomes public, as the number of columns; which they are stays with their owner, unless the
    frame's categories are public. Of secret columns the categories must be public.

    Args:
        drop: "first" leaves out the first one of each column (the least, or first in order).
        handle_unknown: "ignore" makes all columns 0 for a value that was not there; "error" refuses it.
    """

    drop: str | None = None
    handle_unknown: str = "error"
    checks: ClassVar[dict[str, Rule]] = {
        "drop": rules.one_of(None, "first"),
        "handle_unknown": rules.one_of("error", "ignore"),
    }

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        self._accept(table)
        known = learn(table, _values_of, _nothing, "OneHotEncoder", with_columns=True)
        learned = Fitted(machine, known, {})
        assert learned.columns is not None
        counts: dict[str, int] = {}
        for block in learned.columns.blocks:
            if block.owner is None:
                counts |= {c.name: len(c.categories or ()) for c in block.columns}
            else:
                said = fetch(PYU(block.owner)(_counts)(block.state))
                counts |= {c.name: int(n) for c, n in zip(block.columns, said)}
        learned.facts["counts"] = counts
        return learned

    def _accept(self, table: Table) -> None:
        for block in table.blocks:
            for column in block.columns if block.owner is None else ():
                if column.type != "category" or column.categories is None:
                    raise InputError(f"{column.where} is secret: its categories must be public to be encoded.")

    def _columns(self, column: Column) -> Sequence[Column]:
        count = self._fitted().facts["counts"][column.name]
        names = column.categories or tuple(map(str, range(count)))
        kept = names[1:] if self.drop else names
        return tuple(replace(column, name=f"{column.name}_{n}", type="float", categories=None) for n in kept)

    def _learn_here(self) -> Learn:
        return _values

    def _learn_secretly(self) -> Learn:
        return _nothing

    def _apply_here(self) -> Apply:
        drop, strict = bool(self.drop), self.handle_unknown == "error"
        return lambda x, state: _hot(x, state, drop, strict)

    def _apply_secretly(self) -> Apply:
        counts = tuple(self._fitted().facts["counts"].values())
        return _secretly_hot(counts, bool(self.drop))


def _values(x: np.ndarray) -> dict[str, np.ndarray]:
    """The values of each column, padded by NaN: float64 [n, most]."""
    return _padded([np.unique(c) for c in x.T])


def _values_of(x: np.ndarray, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Likewise; of a column whose categories are public, all of them."""
    public = [None if c.categories is None else np.arange(float(len(c.categories))) for c in columns]
    return _padded([np.unique(values) if known is None else known for values, known in zip(x.T, public)])


def _padded(distinct: list[np.ndarray]) -> dict[str, np.ndarray]:
    most = max(map(len, distinct))
    if most > MOST:
        raise DataError(f"a column has more than {MOST} different values: bin it (`KBinsDiscretizer`).")
    padded = [np.concatenate([d, np.full(most - len(d), np.nan)]) for d in distinct]
    return {"values": np.array(padded)}


def _counts(state: Mapping[str, np.ndarray]) -> np.ndarray:
    out: np.ndarray = (~np.isnan(state["values"])).sum(axis=1).astype(np.int64)
    return out


def _hot(x: np.ndarray, state: Mapping[str, np.ndarray], drop: bool, strict: bool) -> np.ndarray:
    out = []
    for column, values in zip(x.T, state["values"]):
        known = values[~np.isnan(values)]
        hot = column[:, None] == known
        if strict and not hot.any(axis=1).all():
            raise DataError("a column has a value that was not there in training: map it, or handle_unknown='ignore'.")
        out.append(hot[:, 1:] if drop else hot)
    return np.concatenate(out, axis=1).astype(np.float64)


def _nothing(x: jax.Array) -> dict[str, jax.Array]:
    return {"none": jnp.zeros(1)}


def _secretly_hot(counts: tuple[int, ...], drop: bool) -> Apply:
    if (counts, drop) not in _HOT:

        def hot(x: jax.Array, state: Mapping[str, jax.Array]) -> jax.Array:
            parts = [jnp.round(x[:, i])[:, None] == jnp.arange(int(drop), n) for i, n in enumerate(counts)]
            return jnp.concatenate(parts, axis=1).astype(jnp.float32)

        _HOT[counts, drop] = hot
    return _HOT[counts, drop]


_HOT: dict[tuple[tuple[int, ...], bool], Apply] = {}


@dataclass(eq=False, kw_only=True, repr=False)
class OrdinalEncoder(Columnwise):
    """Each value as its position among those of training, in order; categories as their codes."""

    def _accept(self, table: Table) -> None:
        for block in table.blocks:
            if block.owner is None:
                raise InputError(f"{block.columns[0].where} is secret: its values cannot be told apart here.")

    def _columns(self, column: Column) -> Sequence[Column]:
        return (replace(column, type="float", categories=None),)

    def _learn_here(self) -> Learn:
        return _values

    def _learn_secretly(self) -> Learn:
        return _nothing

    def _apply_here(self) -> Apply:
        return _positions

    def _apply_secretly(self) -> Apply:
        return _unchanged


def _positions(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    out = np.empty(x.shape)
    for i, values in enumerate(state["values"]):
        known = values[~np.isnan(values)]
        at = np.clip(np.searchsorted(known, x[:, i]), 0, len(known) - 1)
        if (known[at] != x[:, i]).any():
            raise DataError("a column has a value that was not there in training: map it, or train anew.")
        out[:, i] = at
    return out


def _unchanged(x: jax.Array, state: Any) -> jax.Array:
    return x
