"""What one party holds of a frame: read, checked and encoded where it lies. Nothing here is sent anywhere.

Cells become numbers: floats, integers and bools as they are, text and dictionaries as the position of
their category; a missing cell (null, NaN, empty text) is NaN. Messages name files, columns and rows,
never a value.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.files import open_table
from spuvm.data.formats.table_file import INSTALL
from spuvm.data.schema import Column, nearest
from spuvm.runtime.errors import DataError, InputError

EXACT = 1 << 53  # integers beyond it are not exact as float64
NUMBER_AS_TEXT = r"^\s*[-+]?(\d[\d.,' ]*[.,]\d+|\d+[.,]|[.,]\d+|\d+)([eE][-+]?\d+)?\s*%?\s*$"
PUBLIC = "public"  # in place of a list of categories: the owner says which there are


@dataclass(frozen=True)
class Request:
    """What the user asks of all parties' tables alike; see `vertical`."""

    key: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categories: Mapping[str, str | Sequence[str]] | None = None
    missing: bool | tuple[str, ...] = True

    def wants(self, name: str) -> bool:
        chosen = self.columns is None or name in self.columns
        return chosen and name not in self.drop and name not in self.key

    def allows_missing(self, name: str) -> bool:
        return self.missing if isinstance(self.missing, bool) else name in self.missing

    def stated(self, name: str) -> str | Sequence[str] | None:
        return (self.categories or {}).get(name)


@dataclass(frozen=True, eq=False)
class Part:
    """A party's rows and columns.

    Attributes:
        where: for messages: the file, or what kind of table it was.
        keys: the key columns, a `pyarrow.Table`.
        types: "float", "int", "bool" or "category", by column.
        columns: float64[rows] by column; NaN where missing.
        categories: of the category columns, their categories in the order of their codes.
        dropped: columns that the table has and the user left out.
    """

    where: str
    rows: int
    keys: Any
    types: Mapping[str, str]
    columns: Mapping[str, np.ndarray]
    categories: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()

    def matrix(self, names: Sequence[str]) -> np.ndarray:
        """float64[rows, columns] of the columns named."""
        return np.stack([self.columns[n] for n in names], axis=1) if names else np.empty((self.rows, 0))

    def take(self, rows: np.ndarray) -> Part:
        """The rows at these positions, in their order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, rows=len(rows), keys=self.keys.take(rows), columns=columns)

    def key_values(self) -> dict[str, np.ndarray]:
        """The key columns as arrays [rows]."""
        return {name: self.keys[name].to_numpy(zero_copy_only=False) for name in self.keys.column_names}

    def announced(self, request: Request) -> dict[str, Any]:
        """What everybody may know: rows, names, types, and categories that the user makes public."""
        shown = {n: list(self.categories[n]) if request.stated(n) else None for n in self.categories}
        columns = [[n, t, shown.get(n)] for n, t in self.types.items()]
        return {"rows": self.rows, "columns": columns, "dropped": self.dropped}

    def recoded(self, name: str, categories: Sequence[str], known_to: str) -> Part:
        """The same cells, coded by another list of categories, which must hold all that occur."""
        position = {c: i for i, c in enumerate(categories)}
        new = np.array([*(position.get(c, -1) for c in self.categories[name]), np.nan])
        old = self.columns[name]
        codes = new[np.where(np.isnan(old), len(self.categories[name]), old).astype(np.int64)]
        _refuse(codes == -1, f"{self._where(name)} has a category that {known_to} does not know")
        return replace(
            self,
            columns={**self.columns, name: codes},
            categories={**self.categories, name: tuple(categories)},
        )

    def binary(self, name: str, positive: str) -> Part:
        """A column of two categories as bools: whether a cell is `positive`."""
        known = self.categories[name]
        if positive not in known or len(known) > 2:
            raise DataError(
                f"{self._where(name)} has {len(known)} categories: `positive` must be one of two, and is "
                f"{'one' if positive in known else 'none'} of them."
            )
        codes = self.columns[name]
        column = np.where(np.isnan(codes), np.nan, codes == known.index(positive))
        return replace(
            self,
            types={**self.types, name: "bool"},
            columns={**self.columns, name: column},
            categories={n: c for n, c in self.categories.items() if n != name},
        )

    def conform(self, wanted: Sequence[Column], categories: Mapping[str, Sequence[str]]) -> Part:
        """This party's columns as a model knows them: its categories, and no cell missing that it has not allowed."""
        part = self
        for column in wanted:
            if not column.missing:
                _no_missing(self.columns[column.name], self._where(column.name))
            if column.type == "category":
                part = part.recoded(column.name, categories[column.name], "the model")
        return part

    def digest(self) -> bytes:
        """SHA-256 of the key columns, row by row in order; integers and their decimal text count as equal."""
        arrow, _ = pyarrow()
        found = hashlib.sha256()
        for column in self.keys.columns:
            if arrow.types.is_timestamp(column.type):  # all units have one text
                column = column.cast(arrow.timestamp("us", column.type.tz), safe=False)
            text = column.cast(arrow.large_string()).combine_chunks()
            text = arrow.concat_arrays(text.chunks) if isinstance(text, arrow.ChunkedArray) else text
            _, offsets, data = text.buffers()
            at = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
            found.update((at - at[0]).astype("<i8").tobytes())
            found.update(b"" if data is None else memoryview(data)[at[0] : at[-1]])
        return found.digest()

    def _where(self, name: str) -> str:
        return f"column `{name}` of {self.where}"


def load(source: Any, party: str, request: Request) -> Part:
    """Read and encode a party's table.

    Args:
        source: a path (.parquet, .csv, .npy), a pandas frame, a `pyarrow.Table` or what turns into one,
            or a mapping of arrays by column.

    Raises:
        InputError: for what cannot be read, has no rows, lacks a key column or repeats a key, and for
            columns that are neither numbers nor text, infinite, or missing where that is not allowed.
    """
    table, where = _table(source, party, request.key)
    table = _plain_text(table)
    twice = {name for name in table.column_names if table.column_names.count(name) > 1}
    if twice:
        raise InputError(f"{where} has two columns `{min(twice)}`: give them different names.")
    if table.num_rows == 0:
        raise InputError(f"{where} has no rows.")
    keys = _keys(table, request.key, where)
    types, columns, categories = {}, {}, {}
    for name in filter(request.wants, table.column_names):
        inside = f"column `{name}` of {where}"
        stated = request.stated(name)
        text = stated is not None or _is_text(table[name].type)
        types[name] = "category" if text else _number_type(table[name].type, name, inside)
        if text:
            columns[name], categories[name] = _coded(table[name], stated, inside)
        else:
            columns[name] = _numbers(table[name], types[name], inside)
        if not request.allows_missing(name):
            _no_missing(columns[name], inside)
    dropped = tuple(name for name in request.drop if name in table.column_names)
    return Part(where, table.num_rows, keys, types, columns, categories, dropped)


# Tables --------------------------------------------------------------------------------------------------


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and its compute functions, imported when the first table is read."""
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError:
        raise InputError(f"frames need packages that are missing: {INSTALL}.") from None
    return pyarrow, pyarrow.compute


def _table(source: Any, party: str, key: Sequence[str]) -> tuple[Any, str]:
    """Any source as an arrow table, and its name for messages."""
    arrow, _ = pyarrow()
    if isinstance(source, str | Path):
        file = open_table(source)
        if not file.named:
            raise InputError(f"{source} has no named columns: save a structured array, or use Parquet.")
        return file.read(), str(source)
    where = f"the table of {party}"
    if source is None:
        raise InputError(f"{where} is None: where {party} runs, give its path or table.")
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        if any(k in source.index.names for k in key if k not in source.columns):
            source = source.reset_index()
        source = {name: source[name] for name in _unique(source.columns, where)}
    if isinstance(source, Mapping):
        return _of_arrays(source, where), where
    try:
        return arrow.table(source), where
    except (TypeError, arrow.ArrowException):
        raise InputError(
            f"{where} is a `{type(source).__name__}`: give a path, a pandas frame, an arrow table, or arrays by name."
        ) from None


def _plain_text(table: Any) -> Any:
    """Views of text as text: Polars hands them over, and few functions take them."""
    arrow, _ = pyarrow()
    kinds = [arrow.large_string() if f.type == arrow.string_view() else f.type for f in table.schema]
    return table.cast(arrow.schema([f.with_type(k) for f, k in zip(table.schema, kinds)]))


def _unique(names: Any, where: str) -> list[str]:
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{where} has a column whose name is a `{type(name).__name__}`: name columns by text.")
        if list(names).count(name) > 1:
            raise InputError(f"{where} has two columns `{name}`: give them different names.")
    return list(names)


def _of_arrays(columns: Mapping[str, Any], where: str) -> Any:
    arrow, _ = pyarrow()
    out = {}
    for name in _unique(columns, where):
        try:
            out[name] = arrow.array(columns[name], from_pandas=True)
        except (TypeError, OverflowError, arrow.ArrowException):  # its own message shows a value
            raise InputError(f"column `{name}` of {where} mixes types, or is none of numbers and text.") from None
    lengths = {len(column) for column in out.values()}
    if len(lengths) > 1:
        raise InputError(f"{where} has columns of different lengths: {sorted(lengths)} rows.")
    return arrow.table(out)


def _keys(table: Any, names: Sequence[str], where: str) -> Any:
    """The key columns, checked: integers, text or dates, none missing, no row's twice."""
    arrow, _ = pyarrow()
    kinds = arrow.types
    for name in names:
        if name not in table.column_names:
            raise InputError(f"{where} has no key column `{name}`{nearest(name, table.column_names)}.")
        kind = table[name].type
        if kinds.is_dictionary(kind):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind.value_type))
            kind = kind.value_type
        if not (kinds.is_integer(kind) or _is_text(kind) or kinds.is_date(kind) or kinds.is_timestamp(kind)):
            raise InputError(f"key column `{name}` of {where} holds {kind}: keys are integers, text or dates.")
        if table[name].null_count:
            raise DataError(f"key column `{name}` of {where} has {table[name].null_count} cells missing: fill them.")
    keys = table.select(list(names))
    if names and keys.group_by(list(names)).aggregate([]).num_rows < table.num_rows:
        raise DataError(f"{where} has rows with the same key ({', '.join(names)}): keep one row for each.")
    return keys


# Columns -------------------------------------------------------------------------------------------------


def _is_text(kind: Any) -> bool:
    kinds = pyarrow()[0].types
    return any(test(kind) for test in (kinds.is_string, kinds.is_large_string, kinds.is_dictionary))


def _number_type(kind: Any, name: str, where: str) -> str:
    kinds = pyarrow()[0].types
    for type_, tests in {
        "bool": (kinds.is_boolean,),
        "int": (kinds.is_integer,),
        "float": (kinds.is_floating, kinds.is_decimal, kinds.is_null),
    }.items():
        if any(test(kind) for test in tests):
            return type_
    raise InputError(f"{where} holds {kind}, neither numbers nor text: convert it, or leave it out: drop=['{name}'].")


def _numbers(column: Any, type_: str, where: str) -> np.ndarray:
    """float64[rows], NaN where missing."""
    arrow, compute = pyarrow()
    if type_ == "int" or arrow.types.is_decimal(column.type):
        wide = compute.greater(compute.abs(column.cast(arrow.decimal128(20)) if type_ == "int" else column), EXACT)
        _refuse(wide.to_numpy(zero_copy_only=False) == True, f"{where} has an integer beyond 2^53: make it text")  # noqa: E712
    numbers: np.ndarray = column.cast(arrow.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    _refuse(np.isinf(numbers), f"{where} has an infinite number: replace it, or make the cell missing")
    return numbers


def _coded(column: Any, stated: str | Sequence[str] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes float64[rows], NaN where missing, and the categories: as stated, else those there are, sorted.

    A dictionary that is ordered (a pandas `Categorical(ordered=True)`) keeps its own order.
    """
    arrow, compute = pyarrow()
    kinds, given, order = arrow.types, column.type, None
    kind = given
    if kinds.is_dictionary(kind):
        if kind.ordered:
            order = column.unify_dictionaries().chunk(0).dictionary.cast(arrow.large_string()).to_pylist()
        column, kind = column.cast(kind.value_type), kind.value_type
    if not (_is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)):
        raise InputError(f"{where} holds {kind}, which makes no categories: convert it to text or integers.")
    text = column.cast(arrow.large_string())
    text = compute.if_else(compute.equal(text, ""), None, text)
    if stated is None and not kinds.is_dictionary(given):
        _no_numbers_as_text(text, where)
    if not isinstance(stated, str) and stated is not None:
        order = [str(c) for c in stated]
    elif order is None:
        order = sorted(c for c in compute.unique(text).to_pylist() if c is not None)
    codes = compute.index_in(text, value_set=arrow.array(order, arrow.large_string()))
    unknown = compute.and_(compute.is_null(codes), compute.is_valid(text)).to_numpy()
    _refuse(unknown, f"{where} has a category that `categories` does not name")
    return codes.cast(arrow.float64()).to_numpy(zero_copy_only=False).astype(np.float64), tuple(order)


def _no_numbers_as_text(text: Any, where: str) -> None:
    """Refuse text all of whose cells are numbers with a comma, a point or a sign: they would become categories."""
    _, compute = pyarrow()
    cells = text.drop_null()
    numbers = compute.all(compute.match_substring_regex(cells, NUMBER_AS_TEXT), min_count=1).as_py()
    if numbers and compute.any(compute.match_substring_regex(cells, "[.,]")).as_py():  # digits alone may be codes
        raise DataError(
            f"{where} holds numbers that are written as text (decimal commas, for one): convert them to numbers. If "
            "they are codes, say so: state `categories`, or bring a categorical column."
        )


def _no_missing(column: np.ndarray, where: str) -> None:
    gone = np.isnan(column)
    if gone.any():
        _refuse(gone, f"{where} has {int(gone.sum())} of {gone.size} cells missing, and none may be: fill them")


def _refuse(bad: np.ndarray, message: str) -> None:
    if bad.any():
        raise DataError(f"{message} (the first in row {int(np.flatnonzero(bad)[0]) + 1}).")
