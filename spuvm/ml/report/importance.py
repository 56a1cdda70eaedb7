"""Permutation importance: how much worse a model scores when one column's cells change places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.data import Frame
from spuvm.devices import PYU
from spuvm.ml.common.labels import columns_of, features_of
from spuvm.ml.common.table import Table, table_of
from spuvm.runtime.errors import ConfigError, InputError


@dataclass(frozen=True)
class Importance:
    """By feature, in order.

    Attributes:
        names: of the features.
        importances: float64 [features, repeats]: the score less that with the column's cells in another order.
        baseline: the score as it is.
    """

    names: tuple[str, ...]
    importances: np.ndarray
    baseline: float

    @property
    def importances_mean(self) -> np.ndarray:
        """float64 [features]."""
        out: np.ndarray = self.importances.mean(axis=1)
        return out

    @property
    def importances_std(self) -> np.ndarray:
        """float64 [features]."""
        out: np.ndarray = self.importances.std(axis=1)
        return out

    def __str__(self) -> str:
        width = max(map(len, self.names))
        pairs = zip(self.names, self.importances_mean, self.importances_std)
        return "\n".join(f"{n:{width}}  {m:8.4f} +- {s:.4f}" for n, m, s in sorted(pairs, key=lambda p: -p[1]))


def permutation_importance(
    model: Any, data: Any, y: Any = None, *, label: Any = None, n_repeats: int = 5, random_state: int = 0
) -> Importance:
    """How much the model's score falls when a column says nothing any more (L. Breiman, Machine Learning 45, 2001).

    Revealed to all parties: the model's score, once as it is and for each column and repeat. Orders are drawn by a
    public generator; owners change the places of their cells themselves. Where several parties have rows, each changes
    those of its own rows.

    Args:
        model: any that was trained and has a `score`.
        data: rows, as the model was trained on: held out ones, better.
        y, label: labels, as of `score`.

    Raises:
        ConfigError: for a model without a score; InputError: for data that its score cannot use.
    """
    if not hasattr(model, "score"):
        raise ConfigError(f"a {type(model).__name__} has no score: importance is of models that predict labels.")
    if not 1 <= n_repeats <= 1000:
        raise InputError(f"`n_repeats` must be 1 to 1000, got {n_repeats!r}.")
    y = label if y is None else y
    if not isinstance(data, Frame | Table):
        data = table_of(model._fitted().machine, data)
    label_name = y if isinstance(y, str) else label_of(model)
    names = tuple(c.name for c in columns_of(features_of(data, y)) if c.name != label_name)
    if not names:
        raise InputError("the data has no columns but the label: there are no features.")
    generator = np.random.RandomState(random_state)
    baseline = float(model.score(data, y))
    found = [[baseline - _score(model, data, y, name, generator) for _ in range(n_repeats)] for name in names]
    return Importance(names, np.array(found), baseline)


def _score(model: Any, data: Frame | Table, y: Any, name: str, generator: np.random.RandomState) -> float:
    changed = (
        _frame_without(data, name, generator) if isinstance(data, Frame) else _table_without(data, name, generator)
    )
    return float(model.score(changed, y))


def label_of(model: Any) -> str | None:
    """The column that the model was trained to predict, if it had a name."""
    model = getattr(model, "pipeline", None) or model
    named = getattr(model, "label", None)
    if isinstance(named, str):
        return named
    inner = getattr(model, "inner", None) or model
    known = getattr(inner, "model", None)
    if known is not None:
        return str(known.label.name)
    found = model._fitted().facts.get("label")
    return None if found is None else str(found)


def _frame_without(data: Any, name: str, generator: np.random.RandomState) -> Frame:
    holders = data[name].parties
    parts = dict(data.parts)
    for party in holders:
        order = generator.permutation(data.schema.rows_at[party])

        def moved(part: Any, order: np.ndarray = order) -> Any:
            return replace(part, columns={**part.columns, name: part.columns[name][order]})

        parts[party] = PYU(party)(moved)(data.parts[party])
    out: Frame = replace(data, parts=parts)
    return out


def _table_without(data: Any, name: str, generator: np.random.RandomState) -> Table:
    order, out = generator.permutation(data.rows), []
    for block in data.blocks:
        if name in block.names:
            at = block.names.index(name)
            if block.owner:
                block = replace(block, value=block.local(_moved, order, at))
            else:
                moved = data.machine.run(_secretly_moved, block.value, order, _only(len(block.names), at), what="rows")
                block = replace(block, value=moved)
        out.append(block)
    made: Table = replace(data, blocks=tuple(out), frame=None)
    return made


def _moved(x: np.ndarray, order: np.ndarray, at: int) -> np.ndarray:
    out: np.ndarray = np.where(np.arange(x.shape[1]) == at, x[order], x)
    return out


def _only(count: int, at: int) -> np.ndarray:
    out: np.ndarray = np.arange(count) == at
    return out


def _secretly_moved(x: Any, order: Any, column: Any) -> Any:
    return jnp.where(column, x[order], x)
