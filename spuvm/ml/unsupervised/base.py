"""Estimators that learn from rows alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from spuvm.ml.common.estimator import Estimator, Fitted
from spuvm.ml.common.labels import features_of
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Table, table_of
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import InputError


@dataclass(eq=False, kw_only=True, repr=False)
class Unsupervised(Estimator):
    """Learns from features; distances and directions are those of the numbers as they are."""

    least_rows: ClassVar[int] = 2

    def fit(self, data: Any, y: Any = None, *, label: Any = None) -> Self:
        """Learn from rows; a column named as label is left out.

        Raises:
            InputError: for data that cannot be used, or too few rows.
        """
        y = label if y is None else y
        machine = self._machine(data)
        table = table_of(machine, features_of(data, y))
        least = max(self.least_rows, self._needed())
        if table.rows < least:
            raise InputError(f"there are {table.rows} rows: {self!r} needs {least} or more.")
        self.fitted = self._learn(machine, table)
        return self

    def _needed(self) -> int:
        """Rows that the parameters ask for."""
        return 2

    @abstractmethod
    def _learn(self, machine: Machine, table: Table) -> Fitted:
        """What is learned."""

    def _prepared(self, table: Table) -> tuple[Any, Any, dict[str, Any]]:
        """Units of the columns, features in them, and the units' scales."""
        known = standard(table, 0.0, centred=True)
        return known, matrix(known, known.match(table)), scales(known)

    def _given_to(self, result: Any, to: str | None) -> Any:
        return result if to is None else self._fitted().machine.to(result, to, "prediction")

    def fit_predict(self, data: Any) -> Any:
        """`fit`, then `predict` of the same rows."""
        self.fit(data)
        return self.predict(data)  # type: ignore[attr-defined]
