"""What a query gave, at the party that it is for: as Arrow, pandas, Python rows, a file or a table of text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.formats.table_file import pyarrow_module
from spuvm.data.targets import check_target, replacing
from spuvm.runtime.errors import DataError, VisibilityError
from spuvm.runtime.legible import legible
from spuvm.sql.types import EPOCH, Type, text_of


@dataclass(frozen=True)
class Label:
    """A column of a result."""

    name: str
    type: Type


@dataclass(frozen=True, eq=False)
class Result:
    """The rows of a query.

    Attributes:
        to: the party that they are for.
        labels: the columns' names and types, which all parties know.
        reveals: what the query showed to whom, in words.
        values: by column, its cells; None at every other party.
    """

    to: str
    labels: tuple[Label, ...]
    reveals: tuple[str, ...]
    values: tuple[list[Any], ...] | None
    seconds: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    def rows(self) -> list[tuple[Any, ...]]:
        """The rows as tuples of Python values; NULL is None.

        Raises:
            VisibilityError: at every other party than `to`.
        """
        return list(zip(*self._known())) if self.labels else []

    def arrow(self) -> Any:
        """A `pyarrow.Table`."""
        arrow, _ = pyarrow_module("types")
        arrays = [arrow.array(v, _arrow_type(arrow, label.type)) for v, label in zip(self._known(), self.labels)]
        return arrow.Table.from_arrays(arrays, names=list(self.columns))

    def pandas(self) -> Any:
        """A `pandas.DataFrame`."""
        return self.arrow().to_pandas()

    def to_parquet(self, path: str | Path, force: bool = False) -> None:
        """Write a Parquet file.

        Raises:
            InputError: if it is there already, and not `force`.
        """
        check_target(path, force, (".parquet",))
        _, parquet = pyarrow_module("parquet")
        with replacing(path, force) as temporary:
            parquet.write_table(self.arrow(), temporary)

    def __len__(self) -> int:
        return len(self._known()[0]) if self.labels else 0

    def __str__(self) -> str:
        if self.values is None:
            return f"<Result for {self.to}: {', '.join(self.columns)}>"
        return table(self.columns, self.rows())

    def _known(self) -> tuple[list[Any], ...]:
        if self.values is None:
            raise VisibilityError(f"the rows of this query are at {self.to} alone.")
        return self.values


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], most: int = 50) -> str:
    """Rows as text, numbers to the right; the first `most`."""
    columns, cells = [legible(c) for c in columns], [[_shown(v) for v in row] for row in rows[:most]]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    right = [all(isinstance(r[i], int | float | Decimal) or r[i] is None for r in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        return "  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right)).rstrip()

    lines = [line(columns), "  ".join("-" * w for w in widths), *map(line, cells)]
    more = f", the first {most} shown" if len(rows) > most else ""
    return "\n".join([*lines, f"({len(rows)} row{'s' * (len(rows) != 1)}{more})"])


def decoded(type_: Type, words: Sequence[np.ndarray], valid: np.ndarray | None) -> list[Any]:
    """Cells as Python values."""
    if type_.kind == "text":
        values: list[Any] = list(text_of(np.stack(words, -1)))
    else:
        values = [_value(type_, v) for v in words[0].tolist()]
    return values if valid is None else [v if ok else None for v, ok in zip(values, valid)]


def _value(type_: Type, value: Any) -> Any:
    match type_.kind:
        case "decimal":
            return Decimal(value).scaleb(-type_.scale)
        case "date" | "timestamp":
            unit, start = ("days", EPOCH) if type_.kind == "date" else ("microseconds", dt.datetime(1970, 1, 1))
            try:
                return start + dt.timedelta(**{unit: value})
            except OverflowError:
                raise DataError(f"a {type_.kind} of the result is before year 1 or after 9999: filter it.") from None
        case "null":
            return None
    return value


def _arrow_type(arrow: Any, type_: Type) -> Any:
    kinds: Mapping[str, Any] = {
        "bool": arrow.bool_(),
        "int": arrow.int64(),
        "date": arrow.date32(),
        "timestamp": arrow.timestamp("us"),
        "float": arrow.float64(),
        "text": arrow.string(),
        "null": arrow.null(),
    }
    return arrow.decimal128(38, type_.scale) if type_.kind == "decimal" else kinds[type_.kind]


def _shown(cell: Any) -> str:
    """A cell; texts are of others, and move no terminal."""
    return "NULL" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else legible(str(cell))
