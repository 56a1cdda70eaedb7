"""What one owner brings to a join: its table, its keys in canonical form, and its other columns as words.

Nothing here is sent anywhere; messages name files, columns and rows, never a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.data.files import open_table
from spuvm.data.part import pyarrow
from spuvm.data.schema import nearest
from spuvm.psi.keys import Fixed, Keys, Text, as_kind, canonical, kind_of, look_alikes, normal
from spuvm.psi.raw import RawColumn, described, encoded
from spuvm.psi.tags import PUBLIC_KEY, order, starts_of_groups, tags
from spuvm.runtime.errors import DataError, InputError
from spuvm.runtime.ring.elements import RING_DTYPE, words
from spuvm.runtime.ring.encodings import encode

DUPLICATES = ("refuse", "first", "none")


@dataclass(frozen=True)
class Wanted:
    """What is asked of an owner's table.

    Attributes:
        key: its key columns, in the order that all parties have agreed on.
        columns: the others that are used; all if None.
        drop: to be left out; types: of key columns, where the file does not say it (see `keys`).
        missing: whether cells may be missing.
        raw: whether columns are to be shown to somebody exactly (`raw.py`), rather than computed with.
        duplicates: "refuse" a key that is there twice, keep its "first" row, or let "none" of its rows match; "any"
            where a join allows it.
        normal: of text key columns, what is done to it before it is compared (`keys.NORMAL`).
    """

    key: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    types: Mapping[str, str] | None = None
    missing: bool = True
    duplicates: str = "refuse"
    raw: bool = False
    normal: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """An owner's rows.

    Attributes:
        where: for messages.
        arrow: a `pyarrow.Table` of all its columns.
        keys: of the same rows.
        kinds: of the key columns.
        unique: whether no key is there twice (rows without one do not count).
        notes: for the owner alone.
    """

    where: str
    arrow: Any
    keys: Keys
    kinds: tuple[str, ...]
    unique: bool
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return self.keys.rows

    def announced(self, wanted: Wanted) -> dict[str, Any]:
        """What all parties learn: rows, kinds of keys, whether they repeat, and the other columns' names and types."""
        form = self._raw if wanted.raw else self._typed
        columns, keys = [form(n) for n in self.columns(wanted)], [form(n) for n in wanted.key]
        return {
            "rows": self.rows,
            "kinds": self.kinds,
            "unique": self.unique,
            "columns": columns,
            "keys": keys,
            "dropped": [n for n in wanted.drop if n in self.arrow.column_names],
        }

    def _typed(self, name: str) -> list[Any]:
        return [name, _dtype(self.arrow[name].type, bool(jax.config.jax_enable_x64)), None]  # type: ignore[attr-defined]

    def _raw(self, name: str) -> list[Any]:
        raw = described(name, self.arrow[name], f"column `{name}` of {self.where}")
        return [name, "raw", [raw.type_text, raw.words]]

    def columns(self, wanted: Wanted) -> list[str]:
        """The columns used, without the key's."""
        names = [n for n in self.arrow.column_names if n not in wanted.key and n not in wanted.drop]
        return names if wanted.columns is None else [n for n in names if n in wanted.columns]


def load(source: Any, party: str, wanted: Wanted) -> Table:
    """Read an owner's table and bring its keys into canonical form.

    Args:
        source: a path, a `pyarrow.Table` or what turns into one, a pandas frame, or arrays by column.

    Raises:
        InputError: for what cannot be read, and columns that are absent or of a type that makes no key.
        DataError: for a table without rows, and a key that is there twice where that is refused.
    """
    table, where = read(source, party, wanted)
    table = _without_views(table)
    for name in wanted.key:
        if name not in table.column_names:
            raise InputError(f"{where} has no key column `{name}`{nearest(name, table.column_names)}.")
    for name in wanted.columns or ():
        if name not in table.column_names:
            raise InputError(f"{where} has no column `{name}`{nearest(name, table.column_names)}.")
    if table.num_rows == 0:
        raise DataError(f"{where} has no rows.")
    types = wanted.types or {}
    inside = {n: f"key column `{n}` of {where}" for n in wanted.key}
    columns = [as_kind(table[n], types[n], inside[n]) if n in types else table[n] for n in wanted.key]
    kinds = tuple(kind_of(c.type, inside[n]) for n, c in zip(wanted.key, columns))
    compared = [normal(c, (wanted.normal or {}).get(n, ()), inside[n]) for n, c in zip(wanted.key, columns)]
    keys = canonical(compared, where)
    for n, c in zip(wanted.key, columns):
        table = table.set_column(table.column_names.index(n), n, c)
    first, unique = first_rows(keys)
    if not unique and wanted.duplicates == "refuse":
        raise DataError(
            f"{where} has {keys.rows - int(first.sum()):,} rows whose key ({', '.join(wanted.key)}) is there already: "
            "keep one row for each, or say duplicates='first'."
        )
    if not unique and wanted.duplicates == "none":
        keys, unique = Keys(keys.columns, keys.present & ~_repeated(keys)), True
    if not unique and wanted.duplicates == "first":
        table, keys, unique = table.filter(first), kept(keys, first), True
    return Table(where, table, keys, kinds, unique, _notes(compared, wanted.key, where, keys))


def first_rows(keys: Keys) -> tuple[np.ndarray, bool]:
    """Of each row, whether no row before it has its key (or it has none); and whether that is so of all."""
    found = tags(keys, PUBLIC_KEY)
    by = order(found)
    new = starts_of_groups(found[by])
    if new.all():
        return np.ones(keys.rows, bool), True
    first = np.zeros(keys.rows, bool)
    first[by] = new
    return first, False


def _repeated(keys: Keys) -> np.ndarray:
    """bool[rows]: whether another row has the same key."""
    found = tags(keys, PUBLIC_KEY)
    by = order(found)
    new = starts_of_groups(found[by])
    out = np.empty(len(by), bool)
    out[by] = ~(new & np.append(new[1:], True))
    return out


def kept(keys: Keys, rows: np.ndarray) -> Keys:
    """The keys of some rows: positions, or bools."""
    columns = tuple(
        Fixed(c.words[rows]) if isinstance(c, Fixed) else Text(c.data, c.starts[rows], c.lengths[rows])
        for c in keys.columns
    )
    return Keys(columns, keys.present[rows])


def _notes(columns: Sequence[Any], names: Sequence[str], where: str, keys: Keys) -> tuple[str, ...]:
    notes = [
        f"key column `{name}` of {where}: {count:,} cells have {what}, which {_TREATED[what]}"
        for name, column in zip(names, columns)
        for what, count in look_alikes(column).items()
    ]
    gone = keys.rows - int(keys.present.sum())
    if gone:
        notes.append(f"{where}: {gone:,} rows have no key and match nothing")
    return tuple(notes)


_TREATED = {"blanks at an end": "count: 'x ' is not 'x'", "composed characters": "are compared in NFC"}


def _without_views(table: Any) -> Any:
    """Text and bytes as arrow has always had them: many of its functions lack the newer kinds."""
    arrow, _ = pyarrow()
    known = {arrow.string_view(): arrow.large_string(), arrow.binary_view(): arrow.large_binary()}
    for i, f in enumerate(table.schema):
        if f.type in known:
            table = table.set_column(i, f.name, table[i].cast(known[f.type]))
    return table


def read(source: Any, party: str, wanted: Wanted) -> tuple[Any, str]:
    """Any source as an arrow table, and its name for messages."""
    arrow, _ = pyarrow()
    if source is None:
        raise InputError(f"the table of {party} is None: where {party} runs, give its path or table.")
    if isinstance(source, str | Path):
        path = Path(source)
        file = open_table(path, text=wanted.types or ())
        if not file.named:
            raise InputError(f"{source} has no named columns: save a structured array, or use Parquet.")
        return file.read(), str(source)
    where = f"the table of {party}"
    try:
        if hasattr(source, "columns") and hasattr(source, "iloc"):
            if any(k in source.index.names for k in wanted.key if k not in source.columns):
                source = source.reset_index()
            return arrow.Table.from_pandas(source, preserve_index=False), where
        return arrow.table(source if not isinstance(source, Mapping) else dict(source)), where
    except (TypeError, ValueError, arrow.ArrowException):
        raise InputError(
            f"{where} is a `{type(source).__name__}` that makes no table: give a path, a pandas frame, an arrow table, "
            "or arrays by name."
        ) from None


# Columns as words -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Words:
    """Columns of an owner as they enter a sharing.

    Attributes:
        numbers: ring elements [columns, rows] of all but the bools.
        bits: uint8[ceil(bits / 8), rows]: bit i of byte j is bool number 8 j + i.
        categories: the texts that a column's codes stand for, by column.
    """

    numbers: np.ndarray
    bits: np.ndarray
    categories: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Field:
    """A column as all parties know it.

    Attributes:
        name: of the column at its owner; shown: what it is called in the joined table.
        dtype: "bool", "int32", "int64", "float32", "float64"; "category" for codes of text; "raw" for words.
        raw: how a column of words travels.
    """

    name: str
    shown: str
    dtype: str
    raw: RawColumn | None = None

    @property
    def numbers(self) -> list[str]:
        """The names of its columns of numbers."""
        if self.raw is not None:
            return [f"{self.shown}\0{i}" for i in range(self.raw.words)]
        return [] if self.is_bool else [self.shown]

    @property
    def is_bool(self) -> bool:
        return self.dtype == "bool"

    @property
    def jax_dtype(self) -> np.dtype:
        return np.dtype({"category": "int32", "raw": "int64"}.get(self.dtype, self.dtype))


def _dtype(type_: Any, x64: bool) -> str | None:
    """Of an arrow type; None of one that has none."""
    arrow, _ = pyarrow()
    t = arrow.types
    if t.is_boolean(type_):
        return "bool"
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_) or t.is_dictionary(type_):
        return "category"
    if t.is_floating(type_) or t.is_decimal(type_) or t.is_null(type_):
        return "float64" if x64 else "float32"
    if t.is_timestamp(type_):
        return "int64"
    if t.is_integer(type_) or t.is_date(type_):
        return "int64" if x64 else "int32"
    return None


def as_words(table: Table, fields: Sequence[Field], missing: bool, frac: int, ring_bits: int) -> Words:
    """The columns of `fields`, then, if cells may be missing, of each whether it is there, then a bit that is set.

    A missing cell is 0. Raises DataError for numbers that do not fit, and, unless `missing`, for missing cells.
    """
    numbers: list[np.ndarray] = []
    bools: list[np.ndarray] = []
    present: list[np.ndarray] = []
    categories: dict[str, tuple[str, ...]] = {}
    for field in fields:
        column = table.arrow[field.name]
        where = f"column `{field.name}` of {table.where}"
        if field.raw is not None:
            cells, valid = encoded(column, field.raw)
            numbers += list(words(cells.view(np.int64), ring_bits))
            present.append(valid)
            continue
        valid = column.is_valid().to_numpy()
        cells, texts = _cells(column, field, where)
        if cells.dtype.kind == "f":
            valid = valid & ~np.isnan(cells)
            cells = np.where(valid, cells, 0)
        if not missing and not valid.all():
            raise DataError(f"{where} has {int((~valid).sum())} cells missing, and none may be: fill them.")
        if texts is not None:
            categories[field.shown] = texts
        present.append(valid)
        (bools if field.is_bool else numbers).append(encode(cells, frac, field.name, ring_bits))
    bits = [*bools, *(present if missing else ()), np.ones(table.rows, bool)]
    matrix = np.stack(numbers) if numbers else np.empty((0, table.rows), RING_DTYPE[ring_bits])
    return Words(matrix, np.packbits(np.stack(bits).astype(bool), axis=0, bitorder="little"), categories)


def _cells(column: Any, field: Field, where: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Cells as an array, 0 or NaN where missing; of text the codes, and what they stand for."""
    arrow, compute = pyarrow()
    t = arrow.types
    if field.dtype == "category":
        text = column.cast(arrow.large_string())
        known = sorted(x for x in compute.unique(text).to_pylist() if x is not None)
        codes = compute.index_in(text, value_set=arrow.array(known, arrow.large_string()))
        return compute.fill_null(codes, 0).to_numpy(), tuple(known)
    if t.is_date(column.type):
        column = column.cast(arrow.date32()).cast(arrow.int32())
    if t.is_timestamp(column.type):
        column = column.cast(arrow.timestamp("us"), safe=False).cast(arrow.int64())
    if field.dtype.startswith("float"):
        return column.cast(arrow.float64()).to_numpy().astype(np.float64), None
    cells = compute.fill_null(column, False if field.is_bool else 0).to_numpy()
    if not field.is_bool and len(cells):
        limits = np.iinfo(field.dtype)
        if int(cells.min()) < limits.min or int(cells.max()) > limits.max:
            raise DataError(f"{where} has integers that {field.dtype} cannot hold: use x64, or `drop` it.")
    return cells, None
