"""Columns of tables on disk, read a block of rows at a time.

A source is what `spuvm run` takes as an input, `file[:columns]@party`; the file may be a pattern
such as `part-*.parquet`, whose files follow one another by name. Rows are read in order, and
skipping ahead is cheap where the format allows it; memory is bounded by the rows asked for.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.data.files import FORMATS, open_table
from spuvm.data.formats.table_file import TableFile, pyarrow_module
from spuvm.data.numbers import column_array
from spuvm.data.tables import Table
from spuvm.runtime.errors import InputError, SpuError

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
SOURCE = re.compile(
    rf"(?:(?P<before>{NAME}):)?(?P<path>.+?(?:{'|'.join(map(re.escape, FORMATS))}))(?::(?P<columns>.+?))?"
    rf"(?:@(?P<after>{NAME}))?",
    re.IGNORECASE,
)

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Source:
    """Columns of one party's files. Several columns are one argument of shape [rows, columns]."""

    path: str
    columns: tuple[str, ...]
    party: str

    @classmethod
    def parse(cls, text: str, name: str) -> Source:
        """Read `file[:columns]@party`, or `party:file[:columns]`.

        Raises InputError for anything else.
        """
        match = SOURCE.fullmatch(text.strip())
        party = match and (match["after"] or match["before"])
        if match is None or party is None or (match["after"] and match["before"]):
            raise InputError(
                f"source `{name}` is {text!r}: write it like 'data.parquet:age,bmi@alice'; "
                f"files end in {', '.join(FORMATS)}."
            )
        columns = tuple(c.strip() for c in match["columns"].split(",")) if match["columns"] else ()
        return cls(match["path"], columns, party)


@dataclass(frozen=True)
class File:
    """One file of a source, all of whose columns hold numbers."""

    table: TableFile
    batch: int  # rows read at once

    @cached_property
    def dtypes(self) -> tuple[np.dtype, ...]:
        """Of the columns; those that hold no numbers are refused."""
        arrow, _ = pyarrow_module("types")
        return tuple(
            column_array(arrow.chunked_array([], f.type), self._where(f.name)).dtype for f in self.table.schema
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What files of one source have in common: types, or, of text, whether these are numbers."""
        return tuple("number" if not self.table.typed and d.kind in "if" else d.name for d in self.dtypes)

    def arrays(self, row: int) -> Iterator[Arrays]:
        """All rows from `row` on, in pieces."""
        arrow, _ = pyarrow_module("types")
        for batch in self.table.batches(row, self.batch):
            yield tuple(
                column_array(arrow.chunked_array([batch.column(j)]), self._where(n), row + 1)
                for j, n in enumerate(self.table.names)
            )
            row += batch.num_rows

    def fingerprint(self) -> dict[str, Any]:
        """What a run remembers of the file, to recognise it."""
        status = self.table.path.stat()
        return {
            "path": str(self.table.path.absolute()),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "rows": self.table.rows,
            "columns": {n: str(d) for n, d in zip(self.table.names, self.dtypes)},
        }

    def _where(self, name: str) -> str:
        return f"column `{name}` of {self.table.path}"

    def __str__(self) -> str:
        if not self.table.named:
            return str(self.dtypes[0])
        return ", ".join(f"{n} {d}" for n, d in zip(self.table.names, self.dtypes))


class Rows:
    """An opened source: `read` gives any rows, cheapest in order."""

    def __init__(self, source: Source, name: str, batch: int) -> None:
        self.source, self.name = source, name
        self.files = [File(open_table(path, source.columns), batch) for path in _paths(source.path)]
        first = self.files[0]
        for file in self.files[1:]:
            if (file.table.names, file.kinds) != (first.table.names, first.kinds):
                raise InputError(
                    f"source `{name}`: {file.table.path} has columns {file}, {first.table.path} has {first}: "
                    "the files of a source must have the same columns and types."
                )
        self.rows = sum(file.table.rows for file in self.files)
        if self.rows == 0:
            raise InputError(f"source `{name}`: {source.path} has no rows.")
        self._at = 0
        self._ahead = self._from(0)
        self._left: Arrays | None = None

    @property
    def width(self) -> tuple[int, ...]:
        """The shape of an element: () of one named column, (n,) of several."""
        count = len(self.files[0].dtypes)
        return () if count == 1 and len(self.source.columns) <= 1 else (count,)

    @property
    def dtype(self) -> np.dtype:
        """bool, int32 or float32; with x64 in JAX int64 or float64."""
        x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        kinds = {d.kind for file in self.files for d in file.dtypes}
        if kinds == {"b"}:
            return np.dtype(np.bool_)
        if "f" in kinds:
            return np.dtype(np.float64 if x64 else np.float32)
        return np.dtype(np.int64 if x64 else np.int32)

    def read(self, start: int, stop: int, dtype: Any) -> np.ndarray:
        """Rows `start` to `stop` as one array [rows] or [rows, columns].

        Raises InputError for damaged files, empty cells, and numbers that `dtype` does not hold.
        """
        try:
            if start != self._at:
                self._seek(start)
            pieces = list(self._take(stop - start))
        except SpuError as error:
            raise type(error)(f"{error} (In the part of `{self.name}` from row {start + 1} on.)") from None
        self._at = stop
        whole = [np.concatenate(c) if len(c) > 1 else c[0] for c in zip(*pieces)]
        table = self.files[0].table
        cure = "Let JAX use 64 bits: `--x64`, or the variable JAX_ENABLE_X64=1."
        names = table.names if table.named else ()
        found = Table(Path(self.source.path), names, tuple(whole), start + 1, cure)
        return found.array(dtype, (stop - start, *self.width), self.name)

    def _seek(self, row: int) -> None:
        self._left = None
        self._ahead = self._from(row)

    def _from(self, row: int) -> Iterator[Arrays]:
        """All rows from `row` on, in pieces; files are opened when their turn comes."""
        for file in self.files:
            if row < file.table.rows:
                yield from file.arrays(row)
            row = max(row - file.table.rows, 0)

    def _take(self, count: int) -> Iterator[Arrays]:
        while count:
            arrays = self._left if self._left is not None else next(self._ahead)
            self._left = None
            if len(arrays[0]) > count:
                self._left = tuple(a[count:] for a in arrays)
                arrays = tuple(a[:count] for a in arrays)
            count -= len(arrays[0])
            yield arrays


def _paths(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    found = [Path(p) for p in sorted(glob.glob(pattern))]
    if not found:
        raise InputError(f"{pattern}: there is no such file.")
    return found
