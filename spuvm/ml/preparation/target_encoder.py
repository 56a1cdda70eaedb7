"""Categories as what labels are on average where they stand: secret, as it says something of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.devices import PYU, fetch
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.labels import features_of, labels_of
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Block, Table, table_of
from spuvm.ml.common.transformers import Transformer, named_labels
from spuvm.ml.machine import Machine
from spuvm.ml.preparation.encoders import _counts, _hot, _nothing, _secretly_hot, _values_of
from spuvm.runtime.errors import InputError


@dataclass(eq=False, kw_only=True, repr=False)
class TargetEncoder(Transformer):
    """Each category as the mean of its rows' labels, drawn towards the mean of all (D. Micci-Barreca, 2001).

    Owners keep which category a row has, the holder of labels the labels: sums, counts and the columns that come
    out are secret. How many categories a column has becomes public, as with `OneHotEncoder`. `fit_transform` encodes
    each row by the rows of the other folds, so that no label speaks for itself; `fit` then `transform` does not.

    Args:
        target_type: "binary" or "continuous".
        smooth: how many rows the mean of all labels counts for; "auto": the category's variance by that of all.
        cv: folds of `fit_transform`, drawn by the public generator `random_state`.
    """

    target_type: str = "binary"
    smooth: Any = "auto"
    cv: int = 5
    random_state: int = 0
    needs_labels: ClassVar[bool] = True
    checks: ClassVar[Mapping[str, Rule]] = {
        "target_type": rules.one_of("binary", "continuous"),
        "smooth": Rule(lambda x: x == "auto" or rules.NOT_NEGATIVE.holds(x), "'auto', or a number from 0"),
        "cv": rules.whole(2, 100),
        "random_state": rules.SEED,
    }

    def fit_transform(self, data: Any, y: Any = None, *, label: Any = None) -> Table:
        """Learn from rows, and encode each by the others' labels; see the class."""
        y = label if y is None else y
        self.fit(data, y)
        learned = self._fitted()
        table = self._known().match(table_of(learned.machine, features_of(data, y)))
        if table.rows < self.cv:
            raise InputError(f"`cv` is {self.cv}, but there are {table.rows} rows.")
        order = np.random.RandomState(self.random_state).permutation(table.rows)
        folds = (np.argsort(order)[:, None] % self.cv == np.arange(self.cv)).astype(np.int8)
        target, _ = self._target(learned.machine, table, named_labels(data, y))
        run = _crossed(self._sizes(), self.smooth)
        value = learned.machine.run(run, self._hot(table), target, folds, what="TargetEncoder")
        return self._made(table, value)

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        if labels is None:
            raise InputError("`label` is missing: categories are encoded by labels.")
        _accept(table)
        known = learn(table, _values_of, _nothing, "TargetEncoder", with_columns=True)
        counts: list[int] = []
        for block in known.blocks:
            if block.owner is None:
                counts += [len(c.categories or ()) for c in block.columns]
            else:
                counts += [int(n) for n in fetch(PYU(block.owner)(_counts)(block.state))]
        self.fitted = Fitted(machine, known, {}, {"counts": counts})
        target, unit = self._target(machine, table, labels)
        found = machine.run(_encodings(self._sizes(), self.smooth), self._hot(table), target, what="TargetEncoder")
        return Fitted(machine, known, {**found, "unit": unit}, {"counts": counts})

    def _target(self, machine: Machine, table: Table, labels: Any) -> tuple[Any, Any]:
        if self.target_type == "binary":
            return labels_of(machine, None, labels, "classes", table.rows, 2).values, {"mean": 0.0, "power": 0}
        found = labels_of(machine, None, labels, "numbers", table.rows)
        return found.values, dict(found.unit or {})

    def _transformed(self, table: Table) -> Table:
        a = self._fitted().arrays
        run = _encoded(self._sizes())
        value = self._fitted().machine.run(run, self._hot(table), a["encodings"], a["mean"], what="TargetEncoder")
        return self._made(table, value)

    def _made(self, table: Table, value: Any) -> Table:
        """Encodings of labels in units, [rows, n], as a table of numbers."""
        learned, known = self._fitted(), self._known()
        columns = tuple(replace(c, type="float", categories=None) for c in known.columns)
        unit = learned.arrays["unit"]
        value, power = learned.machine.run(_shifted, value, unit["mean"], unit["power"], what="TargetEncoder")
        return Table(learned.machine, table.rows, (Block(columns, value, power=power),), table.kind)

    def _hot(self, table: Table) -> list[Any]:
        """Indicators of categories: of each block [rows, its categories]."""
        out = []
        sizes = iter(self._sizes())
        for known, block in zip(self._known().blocks, table.blocks):
            counts = tuple(next(sizes) for _ in known.columns)
            if block.owner:
                out.append(PYU(block.owner)(_indicators)(block.value, known.state))
            else:
                run = _secretly_hot(counts, False)
                out.append(table.machine.run(run, block.value, known.state, what="TargetEncoder"))
        return out

    def _known(self) -> ByColumn:
        known = self._fitted().columns
        assert known is not None
        return known

    def _sizes(self) -> tuple[int, ...]:
        return tuple(self._fitted().facts["counts"])


def _accept(table: Table) -> None:
    for block in table.blocks:
        for column in block.columns if block.owner is None else ():
            if column.type != "category" or column.categories is None:
                raise InputError(f"{column.where} is secret: its categories must be public to be encoded.")


def _indicators(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    return _hot(x, state, False, False).astype(np.float32)


def _together(hot: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([h.astype(jnp.float32) for h in hot], axis=1)


def _means(hot: jax.Array, y: jax.Array, member: jax.Array, smooth: Any) -> tuple[jax.Array, jax.Array]:
    """Encodings [C] of the rows that are members (1, else 0: [rows]), and their mean label [].

    Counts and sums are shares of all rows. With "auto" the mean of the category weighs v n / (v n + s), v being the
    variance of all labels, s that of the category's, n its rows: scikit-learn's empirical Bayes.
    """
    rows = y.shape[0]
    size = jnp.mean(member)
    mean = jnp.mean(y * member) / size
    off = (y - mean) * member
    count, total = hot.T @ member / rows, hot.T @ off / rows
    there = count > 0.5 / rows
    share = jnp.maximum(count, 0.5 / rows)
    own = jnp.where(there, total / share, 0.0)
    if smooth != "auto":
        return mean + total / (share + float(smooth) / rows), mean
    inside = jnp.maximum(hot.T @ (off * off) / rows / share - own * own, 0.0)
    spread = jnp.mean(off * off) / size
    weight = spread / (spread + inside / (share * rows))
    return mean + own * jnp.where(there, weight, 0.0), mean


@cache
def _encodings(sizes: tuple[int, ...], smooth: Any) -> Any:
    def run(hot: Sequence[jax.Array], y: jax.Array) -> dict[str, jax.Array]:
        encodings, mean = _means(_together(hot), y, jnp.ones_like(y), smooth)
        return {"encodings": encodings, "mean": mean}

    return run


@cache
def _encoded(sizes: tuple[int, ...]) -> Any:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    choose = (owner[:, None] == np.arange(len(sizes))).astype(np.float32)

    def run(hot: Sequence[jax.Array], encodings: jax.Array, mean: jax.Array) -> jax.Array:
        """A value that was not there in training is the mean of all."""
        out: jax.Array = _together(hot) @ ((encodings - mean)[:, None] * choose) + mean
        return out

    return run


@cache
def _crossed(sizes: tuple[int, ...], smooth: Any) -> Any:
    apply = _encoded(sizes)

    def run(hot: Sequence[jax.Array], y: jax.Array, folds: jax.Array) -> jax.Array:
        out = jnp.zeros((y.shape[0], len(sizes)), jnp.float32)
        for k in range(folds.shape[1]):
            inside = folds[:, k].astype(jnp.float32)
            out += inside[:, None] * apply(hot, *_means(_together(hot), y, 1 - inside, smooth))
        return out

    return run


def _shifted(value: jax.Array, mean: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
    return value + mean, jnp.broadcast_to(jnp.asarray(power, jnp.int32), value.shape[1:])
