"""Tables that nobody owns: rows as secrets of the machine, which queries give (`Database.share`) and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spuvm.data.schema import nearest
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.objects import SPUObject
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import DataError, InputError
from spuvm.sql.catalog import Column, Part, Table
from spuvm.sql.sources import quoted
from spuvm.sql.types import BOOL, DEFAULT_TEXT, FLOATING, LIMIT, Type, from_duckdb, integer, text, words_of

SETTINGS = ("source", "key", "types", "ranges", "lengths")
NOBODY = ""  # the owner of shares
DECLARED = ("DATE", "TIMESTAMP", "BOOLEAN")


@dataclass(frozen=True, eq=False)
class SharedColumn:
    """A column of secrets [rows].

    Attributes:
        words: as `types` says: one array, of text one for each word.
        valid: bool, whether it is not NULL; None if nothing is.
        dictionary: at its owner, the texts that codes stand for, in order.
    """

    name: str
    type: Type
    words: tuple[SPUObject, ...]
    valid: SPUObject | None = None
    dictionary: PYUObject | None = None


@dataclass(frozen=True, eq=False)
class SharedRows:
    """A table of secrets.

    Attributes:
        rows: the public bound.
        there: bool[rows], secret: which rows are there; None if all are.
        keys: sets of columns that have no values twice.
        listed: expressions that were computed when the table was shared, by their text: columns that queries find
            where they say the same, and not by name.
    """

    rows: int
    columns: tuple[SharedColumn, ...]
    there: SPUObject | None
    keys: tuple[frozenset[str], ...] = ()
    listed: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.name not in self.listed)

    def __getitem__(self, name: str) -> SharedColumn:
        for column in self.columns:
            if column.name == name:
                return column
        raise InputError(f"there is no column `{name}`{nearest(name, self.names)}: there are {', '.join(self.names)}.")

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        more = f"; {', '.join(self.listed)}" if self.listed else ""
        return f"<shared rows: at most {self.rows:,} of {', '.join(self.names)}{more}>"

    def arguments(self) -> dict[str, Any]:
        """Columns of one array each (DECIMAL as integers) and `valid`: what a function of the same SPU takes."""
        out: dict[str, Any] = {c.name: c.words[0] for c in self.columns if len(c.words) == 1}
        return out if self.there is None else {**out, "valid": self.there}


def shared_rows(source: Any, name: str, device: SPU) -> SharedRows:
    """What `connect` was given as a table of shares.

    Args:
        source: `SharedRows`; a `spuvm.psi` table with shared output; or {"source": either, "key": columns that are
            unique (nobody can check that), "types": {column: "DATE", "TIMESTAMP" or "BOOLEAN"} of its integers,
            "ranges": {column: (lowest, highest)}, "lengths": {column: bytes} of text}.

    Raises:
        InputError: for anything else, and for secrets of another machine.
    """
    settings: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {"source": source}
    for key in settings:
        if key not in SETTINGS:
            raise InputError(f"shares `{name}` have `{key}`{nearest(key, SETTINGS)}: they take {', '.join(SETTINGS)}.")
    given = settings.get("source")
    if isinstance(given, SharedTable):
        out = _of_join(given, settings, name)
    elif isinstance(given, SharedRows):
        out = given
    else:
        raise InputError(
            f"shares `{name}` are a `{type(given).__name__}`: give what `db.share(...)` gave, or a joined table with "
            "output='shared'."
        )
    for column in out.columns:
        if any(w.vm.config != device.vm.config for w in column.words):
            raise InputError(f"shares `{name}` are secrets of another machine than the query's: use one SPU for both.")
    out = replace(out, columns=tuple(_ranged(c, settings.get("ranges", {}), name) for c in out.columns))
    for described in (settings.get(which, {}) for which in ("types", "ranges", "lengths")):
        for listed in described:
            out[listed]
    said = settings.get("key")
    if said is None:
        return out
    unique: frozenset[str] = frozenset((said,) if isinstance(said, str) else said)
    for named in unique:
        out[named]
    return replace(out, keys=(*out.keys, unique))


def _ranged(column: SharedColumn, ranges: Mapping[str, Sequence[int]], name: str) -> SharedColumn:
    if column.name not in ranges:
        return column
    try:
        lo, hi = map(int, ranges[column.name])
    except (TypeError, ValueError):
        lo, hi = 1, 0
    if lo > hi or column.type.kind not in ("int", "decimal", "date", "timestamp"):
        raise InputError(f"`ranges` of shares `{name}`: `{column.name}` needs (lowest, highest) of whole numbers.")
    return replace(column, type=column.type.within(max(lo, column.type.lo), min(hi, column.type.hi)))


def _of_join(table: SharedTable, settings: Mapping[str, Any], name: str) -> SharedRows:
    columns = []
    for label, words in table.columns.items():
        dictionary = table.categories.get(label)
        if dictionary is None:
            type_ = _type(words, settings.get("types", {}).get(label), f"column `{label}` of shares `{name}`")
        else:
            length = int(settings.get("lengths", {}).get(label, DEFAULT_TEXT))
            type_ = replace(text(length), lo=0, hi=table.rows - 1, dictionary=f"{name}.{label}")
        columns.append(SharedColumn(label, type_, (words,), table.present.get(label), dictionary))
    return SharedRows(table.rows, tuple(columns), table.valid)


def _type(words: SPUObject, declared: str | None, where: str) -> Type:
    kind = np.dtype(words.dtype)
    if declared is not None:
        if declared.upper() not in DECLARED or kind.kind not in "iub":
            raise InputError(f"{where} is {kind}: `types` takes {', '.join(DECLARED)} of integers, got {declared!r}.")
        return from_duckdb(declared, where)
    if kind.kind == "b":
        return BOOL
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return integer(max(limits.min, -LIMIT), min(int(limits.max), LIMIT))
    if kind.kind == "f":
        return FLOATING
    raise InputError(f"{where} is {kind}, which SQL here does not take.")


# What the planner and the machine ask -------------------------------------------------------------------------------


def table_of(name: str, rows: SharedRows) -> Table:
    """As the catalogue knows it."""
    columns = tuple(Column(c.name, "", c.type, c.valid is not None, False) for c in rows.columns)
    return Table(name.lower(), columns, (Part(NOBODY, rows.rows),), rows.keys, rows.listed)


def held(rows: SharedRows, items: Mapping[str, str], spelled: set[str]) -> Any:
    """The scan's columns for the machine: a tree as `scanning.scanned` gives it.

    Args:
        items: by field, its column, quoted.
        spelled: dictionaries whose words are needed.
    """
    found = {field: next(c for c in rows.columns if quoted(c.name) == column) for field, column in items.items()}
    dictionaries = {
        c.type.dictionary: _spelling(c, rows.rows)
        for c in found.values()
        if c.type.dictionary is not None and c.type.dictionary in spelled
    }
    return {
        "words": {field: list(c.words) for field, c in found.items()},
        "valid": {field: c.valid for field, c in found.items() if c.valid is not None},
        "there": rows.there,
        "dictionaries": dictionaries,
    }


def _spelling(column: SharedColumn, bound: int) -> PYUObject:
    """At the owner of the texts, their words, filled up to the bound."""
    assert column.dictionary is not None
    count, name = column.type.words, column.name

    def spelled(texts: Sequence[str]) -> list[np.ndarray]:
        if len(texts) > bound:
            raise DataError(
                f"text column `{name}` has more different texts than the table of shares has rows, {bound:,}."
            )
        out = np.zeros((bound, count), np.int64)
        if texts:
            out[: len(texts)] = words_of(texts, count)
        return [out[:, k].copy() for k in range(count)]

    return PYU(column.dictionary.device.party)(spelled)(column.dictionary)
