"""Columns of tables on disk, read a block of rows at a time: Parquet, Arrow, CSV and .npy.

A source is what `spuvm run` takes as an input, `file[:columns]@party`; the file may be a pattern
such as `part-*.parquet`, whose files follow one another by name. Rows are read in order, and
skipping ahead is cheap where the format allows it; memory is bounded by the rows asked for.
"""

from __future__ import annotations

import glob
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.data.tables import Table, check_header, column_array, pyarrow_module, select
from spuvm.runtime.errors import InputError, SpuError

FORMATS = (".parquet", ".arrow", ".feather", ".csv", ".npy")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
SOURCE = re.compile(
    rf"(?:(?P<before>{NAME}):)?(?P<path>.+?(?:{'|'.join(map(re.escape, FORMATS))}))(?::(?P<columns>.+?))?"
    rf"(?:@(?P<after>{NAME}))?",
    re.IGNORECASE,
)
CSV_BYTES = 1 << 20  # of a file that are parsed at once

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
    """One file of a source: how many rows, their columns, and how to read on from any row.

    `batches(row)` gives the first row of what it yields, at or before `row`, and an iterator of
    tuples of arrays.
    """

    path: Path
    rows: int
    dtypes: tuple[np.dtype, ...]
    names: tuple[str, ...]
    batches: Callable[[int], tuple[int, Iterator[Arrays]]]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What files of one source have in common: types, or, of text, whether these are numbers."""
        text = self.path.suffix.lower() == ".csv"
        return tuple("number" if text and d.kind in "if" else d.name for d in self.dtypes)

    def fingerprint(self) -> dict[str, Any]:
        """What a run remembers of the file, to recognise it."""
        status = self.path.stat()
        return {
            "path": str(self.path.absolute()),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "rows": self.rows,
            "columns": {n: str(d) for n, d in zip(self.names, self.dtypes)},
        }


class Rows:
    """An opened source: `read` gives any rows, cheapest in order."""

    def __init__(self, source: Source, name: str, batch: int) -> None:
        self.source, self.name = source, name
        self.files = [_open(path, source.columns, batch) for path in _paths(source.path)]
        first = self.files[0]
        for file in self.files[1:]:
            if (file.names, file.kinds) != (first.names, first.kinds):
                raise InputError(
                    f"source `{name}`: {file.path} has columns {_columns(file)}, {first.path} has {_columns(first)}: "
                    "the files of a source must have the same columns and types."
                )
        self.rows = sum(file.rows for file in self.files)
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
        names = self.files[0].names
        cure = "Let JAX use 64 bits: `--x64`, or the variable JAX_ENABLE_X64=1."
        table = Table(Path(self.source.path), names, tuple(whole), start + 1, cure)
        return table.array(dtype, (stop - start, *self.width), self.name)

    def _seek(self, row: int) -> None:
        self._left = None
        self._ahead = self._from(row)

    def _from(self, row: int) -> Iterator[Arrays]:
        """All rows from `row` on, in pieces; files are opened when their turn comes."""
        for file in self.files:
            if row >= file.rows:
                row -= file.rows
                continue
            first, batches = file.batches(row)
            given = first
            for arrays in batches:
                count = len(arrays[0])
                skip = min(max(row - given, 0), count)
                given += count
                if skip < count:
                    yield tuple(a[skip:] for a in arrays)
            if given != file.rows:
                raise InputError(f"{file.path} ended after {given:,} of {file.rows:,} rows: it was changed or cut off.")
            row = 0

    def _take(self, count: int) -> Iterator[Arrays]:
        while count:
            arrays = self._left if self._left is not None else next(self._ahead)
            self._left = None
            if len(arrays[0]) > count:
                self._left = tuple(a[count:] for a in arrays)
                arrays = tuple(a[:count] for a in arrays)
            count -= len(arrays[0])
            yield arrays


def digest(arrays: Sequence[np.ndarray], key: bytes) -> bytes:
    """32 bytes that tell nothing about the arrays to who does not know the key, and change when they do."""
    mac = hmac.new(key, digestmod="sha256")
    for array in arrays:
        mac.update(f"{array.dtype} {array.shape}".encode())
        mac.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return mac.digest()


def _columns(file: File) -> str:
    return ", ".join(f"{n} {d}" for n, d in zip(file.names, file.dtypes)) or str(file.dtypes[0])


def _paths(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    found = [Path(p) for p in sorted(glob.glob(pattern))]
    if not found:
        raise InputError(f"{pattern}: there is no such file.")
    return found


def _open(path: Path, columns: tuple[str, ...], batch: int) -> File:
    arrow, _ = pyarrow_module("compute")
    opener = _OPENERS[path.suffix.lower()]
    try:
        return opener(path, columns, batch)
    except (OSError, arrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> InputError:
    text = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return InputError(f"{path} cannot be read: {text}.")


def _guarded(path: Path, batches: Iterator[Any], names: tuple[str, ...], row: int = 0) -> Iterator[Arrays]:
    """Record batches from a row on as arrays, with errors of the reader in our words."""
    arrow, _ = pyarrow_module("compute")
    while True:
        try:
            batch = next(batches, None)
        except (OSError, arrow.ArrowException) as error:
            raise _unreadable(path, error) from None
        if batch is None:
            return
        if batch.num_rows:
            yield tuple(
                column_array(
                    arrow.chunked_array([batch.column(batch.schema.get_field_index(n))]), _where(path, n), row + 1
                )
                for n in names
            )
            row += batch.num_rows


def _where(path: Path, name: str) -> str:
    return f"column `{name}` of {path}"


def _selected(path: Path, schema: Any, columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[np.dtype, ...]]:
    """Names and dtypes of the columns to read; columns that hold no numbers are refused."""
    arrow, _ = pyarrow_module("compute")
    names = select(path, schema.names, columns)
    empty = [column_array(arrow.chunked_array([], schema.field(n).type), _where(path, n)) for n in names]
    return names, tuple(a.dtype for a in empty)


# Formats --------------------------------------------------------------------------------------------


def _parquet(path: Path, columns: tuple[str, ...], batch: int) -> File:
    _, parquet = pyarrow_module("parquet")
    with parquet.ParquetFile(path) as file:
        names, dtypes = _selected(path, file.schema_arrow, columns)
        metadata = file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes)

    def batches(row: int) -> tuple[int, Iterator[Arrays]]:
        group = int(np.searchsorted(ends, row, side="right"))
        reader = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
        found = reader.iter_batches(batch, list(range(group, len(sizes))), list(names), use_threads=False)
        first = int(ends[group] - sizes[group])
        return first, _guarded(path, found, names, first)

    return File(path, int(metadata.num_rows), dtypes, names, batches)


def _ipc(path: Path, columns: tuple[str, ...], batch: int) -> File:
    arrow, ipc = pyarrow_module("ipc")
    file = ipc.open_file(arrow.memory_map(str(path)))
    names, dtypes = _selected(path, file.schema, columns)
    ends = np.cumsum([file.get_batch(i).num_rows for i in range(file.num_record_batches)], dtype=np.int64)

    def batches(row: int) -> tuple[int, Iterator[Arrays]]:
        first = int(np.searchsorted(ends, row, side="right"))
        found = (file.get_batch(i) for i in range(first, len(ends)))
        row = int(ends[first - 1]) if first else 0
        return row, _guarded(path, found, names, row)

    return File(path, int(ends[-1]) if len(ends) else 0, dtypes, names, batches)


def _csv(path: Path, columns: tuple[str, ...], batch: int) -> File:
    arrow, csv = pyarrow_module("csv")

    def open_(types: Mapping[str, Any] | None = None) -> Any:
        options = csv.ConvertOptions(include_columns=list(types or ()) or None, column_types=types)
        return csv.open_csv(path, csv.ReadOptions(use_threads=False, block_size=CSV_BYTES), convert_options=options)

    with open_() as reader:
        schema = reader.schema
    check_header(path, schema.names)
    names, dtypes = _selected(path, schema, columns)
    types = {n: schema.field(n).type for n in names}
    try:
        rows = _csv_rows(open_(types))
    except arrow.ArrowInvalid:  # fractions that come after whole numbers
        types = {n: arrow.float64() if arrow.types.is_integer(t) else t for n, t in types.items()}
        dtypes = tuple(np.dtype(np.float64) if d.kind in "iu" else d for d in dtypes)
        rows = _csv_rows(open_(types))
    return File(path, rows, dtypes, names, lambda row: (0, _guarded(path, iter(open_(types)), names)))


def _csv_rows(reader: Any) -> int:
    with reader:
        return sum(batch.num_rows for batch in reader)


def _npy(path: Path, columns: tuple[str, ...], batch: int) -> File:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _unreadable(path, error) from None
    if columns or array.dtype.names is not None or array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise InputError(f"{path}: a .npy file must be one array [rows] or [rows, columns] of numbers, without names.")
    matrix = array.reshape(array.shape[0], -1)

    def batches(row: int) -> tuple[int, Iterator[Arrays]]:
        starts = range(row, len(matrix), batch)
        return row, (tuple(matrix[s : s + batch, j] for j in range(matrix.shape[1])) for s in starts)

    names = tuple(str(j) for j in range(matrix.shape[1]))
    return File(path, len(matrix), (array.dtype,) * matrix.shape[1], names, batches)


_OPENERS: dict[str, Callable[[Path, tuple[str, ...], int], File]] = {
    ".parquet": _parquet,
    ".arrow": _ipc,
    ".feather": _ipc,
    ".csv": _csv,
    ".npy": _npy,
}
