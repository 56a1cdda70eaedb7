"""Estimators that turn tables into tables: what they learn stays with the columns' owners, or secret."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from spuvm.data import Column, Frame
from spuvm.ml.common.by_column import Apply, Learn, learn
from spuvm.ml.common.estimator import Estimator, Fitted
from spuvm.ml.common.labels import features_of
from spuvm.ml.common.table import Table, table_of
from spuvm.ml.machine import Machine


@dataclass(eq=False, kw_only=True, repr=False)
class Transformer(Estimator):
    """Learns from a table, with or without labels, and transforms tables like it."""

    needs_labels: ClassVar[bool] = False
    takes_missing: ClassVar[bool] = False

    def fit(self, data: Any, y: Any = None, *, label: Any = None) -> Self:
        """Learn from rows; labels are not needed by most, and their column is left out.

        Args:
            data: a frame, a table, arrays, objects of PYUs or of an SPU; see `common.table`.
            y, label: the name of the frame's column of labels, or an array.

        Raises:
            InputError: for data that cannot be used.
        """
        y = label if y is None else y
        machine = self._machine(data, y)
        table = table_of(machine, features_of(data, y), missing=self.takes_missing)
        self.fitted = self._learned(machine, table, named_labels(data, y))
        return self

    def transform(self, data: Any) -> Table:
        """Rows with the columns of training, transformed."""
        learned = self._fitted()
        assert learned.columns is not None
        table = learned.columns.match(table_of(learned.machine, data, missing=self.takes_missing))
        return self._transformed(table)

    def fit_transform(self, data: Any, y: Any = None, *, label: Any = None) -> Table:
        """`fit`, then `transform` of the same rows."""
        y = label if y is None else y
        return self.fit(data, y).transform(features_of(data, y))

    def get_feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns that `transform` gives."""
        known = self._fitted().columns
        assert known is not None
        return tuple(c.name for k in known.columns for c in self._columns(k))

    @abstractmethod
    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        """What is learned of a table and, where they are needed, labels."""

    @abstractmethod
    def _transformed(self, table: Table) -> Table:
        """A table that matches, transformed."""

    def _columns(self, column: Column) -> Sequence[Column]:
        """What becomes of a column."""
        return (column,)


@dataclass(eq=False, kw_only=True, repr=False)
class Columnwise(Transformer):
    """Learns and transforms column by column: in NumPy at their owners, by JAX functions on secrets."""

    def _keeps_power(self) -> bool:
        """Whether results on secrets are in the units of the operands."""
        return False

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        self._accept(table)
        return Fitted(machine, learn(table, self._learn_here(), self._learn_secretly(), type(self).__name__), {})

    def _transformed(self, table: Table) -> Table:
        known = self._fitted().columns
        assert known is not None
        here, secretly = self._apply_here(), self._apply_secretly()
        return known.apply(table, here, secretly, type(self).__name__, self._columns, self._keeps_power())

    def _accept(self, table: Table) -> None:
        """InputError for columns that cannot be learned from."""

    @abstractmethod
    def _learn_here(self) -> Learn:
        """NumPy: columns float64 [rows, n] -> arrays by name."""

    @abstractmethod
    def _learn_secretly(self) -> Learn:
        """JAX: the same of secret columns; one function for equal parameters, so that it is compiled once."""

    @abstractmethod
    def _apply_here(self) -> Apply:
        """NumPy: columns and what was learned -> columns."""

    @abstractmethod
    def _apply_secretly(self) -> Apply:
        """JAX: the same of secret columns."""


def named_labels(data: Any, y: Any) -> Any:
    """Labels that do not need the frame any more: its column, if they are named."""
    if not isinstance(y, str):
        return y
    if isinstance(data, Frame):
        return data[y]
    if isinstance(data, Table):
        return data.column(y)
    return y
