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
from spuvm.shares import Folders, load_shares, save_shares
from spuvm.sql.catalog import Column, Part, Table
from spuvm.sql.sources import checked_values, quoted
from spuvm.sql.types import BOOL, DEFAULT_TEXT, FLOATING, LIMIT, Type, from_duckdb, integer, text, words_of

SETTINGS = ("source", "key", "types", "ranges", "lengths", "values")
NOBODY = ""  # the owner of shares
KIND = "spuvm table 1"  # what is saved
DECLARED = ("DATE", "TIMESTAMP", "BOOLEAN")


@dataclass(frozen=True, eq=False)
class SharedColumn:
    """A column of secrets [rows].

    Attributes:
        words: as `types` says: one array, of text one for each word.
        valid: bool, whether it is not NULL; None if nothing is.
        dictionary: at its owner, the texts that codes stand for, in order.
        values: of text, all that it may be, if all parties know.
    """

    name: str
    type: Type
    words: tuple[SPUObject, ...]
    valid: SPUObject | None = None
    dictionary: PYUObject | None = None
    values: tuple[str, ...] = ()


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

    def save(self, folders: Folders, name: str = "rows") -> None:
        """Write each party's shares to its own folder, as `spu.save_shares` does; `load_rows` reads them.

        Args:
            folders: by party; in a networked run a party needs its own alone.

        Raises:
            InputError: for text by codes, whose dictionary an owner has.
            SaveError: at all parties, if one cannot write.
        """
        coded = [c.name for c in self.columns if c.dictionary is not None]
        if coded:
            raise InputError(
                f"`{coded[0]}` is text by codes that an owner spells out: make rows of words first, "
                "`connect({}, shares={'t': rows}).share('select * from t')`."
            )
        columns = [
            {
                "name": c.name,
                "type": [c.type.kind, c.type.lo, c.type.hi, c.type.scale, c.type.words],
                "words": list(c.words),
                "valid": c.valid,
                "values": list(c.values),
            }
            for c in self.columns
        ]
        keys, listed = [sorted(k) for k in self.keys], list(self.listed)
        tree = {"rows": self.rows, "columns": columns, "there": self.there, "keys": keys, "listed": listed}
        save_shares({"kind": KIND, **tree}, folders, name)

    def arguments(self) -> dict[str, Any]:
        """Columns of one array each (DECIMAL as integers) and `valid`: what a function of the same SPU takes."""
        out: dict[str, Any] = {c.name: c.words[0] for c in self.columns if len(c.words) == 1}
        return out if self.there is None else {**out, "valid": self.there}


def shared_rows(source: Any, name: str, device: SPU) -> SharedRows:
    """What `connect` was given as a table of shares.

    Args:
        source: `SharedRows`; a `spuvm.psi` table with shared output; secrets [rows] by column; or {"source": any of
            these, "key": columns that are unique (nobody can check that), "types": {column: "DATE", "TIMESTAMP" or
            "BOOLEAN"} of its integers, "ranges": {column: (lowest, highest)}, "lengths": {column: bytes} of text,
            "values": {column: all texts that it may be}}.

    Raises:
        InputError: for anything else, and for secrets of another machine.
    """
    plain = not isinstance(source, Mapping) or (source and all(isinstance(x, SPUObject) for x in source.values()))
    settings: dict[str, Any] = {"source": source} if plain else dict(source)
    for key in settings:
        if key not in SETTINGS:
            raise InputError(f"shares `{name}` have `{key}`{nearest(key, SETTINGS)}: they take {', '.join(SETTINGS)}.")
    given = settings.get("source")
    if isinstance(given, SharedTable):
        out = _of_join(given, settings, name)
    elif isinstance(given, SharedRows):
        out = given
    elif isinstance(given, Mapping) and given and all(isinstance(x, SPUObject) for x in given.values()):
        out = _of_columns(given, settings, name)
    else:
        raise InputError(
            f"shares `{name}` are a `{type(given).__name__}`: give what `db.share(...)` or `spu.sql.load_rows(...)` "
            "gave, a joined table with output='shared', or secrets [rows] by column."
        )
    for column in out.columns:
        if any(w.vm.config != device.vm.config for w in column.words):
            raise InputError(f"shares `{name}` are secrets of another machine than the query's: use one SPU for both.")
    texts = checked_values(settings.get("values", {}), f"shares `{name}`")
    out = replace(
        out, columns=tuple(_valued(_ranged(c, settings.get("ranges", {}), name), texts, name) for c in out.columns)
    )
    for described in (settings.get(which, {}) for which in ("types", "ranges", "lengths", "values")):
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


def _valued(column: SharedColumn, texts: Mapping[str, Sequence[str]], name: str) -> SharedColumn:
    if column.name not in texts:
        return column
    if column.type.kind != "text" or column.type.dictionary is not None:
        raise InputError(f"`values` of shares `{name}`: `{column.name}` is {column.type}: give those of text in words.")
    words_of(texts[column.name], column.type.words)  # that they fit
    return replace(column, values=tuple(sorted(set(texts[column.name]))))


def _of_columns(given: Mapping[str, SPUObject], settings: Mapping[str, Any], name: str) -> SharedRows:
    """Secrets of a machine as a table, as `spu.secret` and programs give them."""
    columns = []
    for label, x in given.items():
        where = f"column `{label}` of shares `{name}`"
        if x.ndim != 1 or x.type.visibility != "secret" or x.valid is not None:
            raise InputError(f"{where} is {x!r}: it must be secret numbers or bools [rows], none NaN.")
        columns.append(SharedColumn(label, _type(x, settings.get("types", {}).get(label), where), (x,)))
    sizes = {c.words[0].shape[0] for c in columns}
    if len(sizes) > 1 or 0 in sizes:
        raise InputError(f"the columns of shares `{name}` must have one length, above zero: got {sorted(sizes)}.")
    return SharedRows(sizes.pop(), tuple(columns), None)


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


def load_rows(folders: Folders, device: SPU | None = None, name: str = "rows") -> SharedRows:
    """The table that `SharedRows.save` wrote, by all its parties.

    Args:
        device: the SPU; the one of all parties that `spu.init` named if not given.

    Raises:
        InputError: for a part that is missing, damaged, or holds something else; see `spu.load_shares`.
    """
    tree = load_shares(folders, device, name)
    if not isinstance(tree, dict) or tree.get("kind") != KIND:
        raise InputError(f"`{name}` holds other shares than a table's: read them by `spu.load_shares`.")
    columns = tuple(
        SharedColumn(c["name"], Type(*c["type"]), tuple(c["words"]), c["valid"], None, tuple(c["values"]))
        for c in tree["columns"]
    )
    return SharedRows(tree["rows"], columns, tree["there"], tuple(map(frozenset, tree["keys"])), tuple(tree["listed"]))


# What the planner and the machine ask -------------------------------------------------------------------------------


def table_of(name: str, rows: SharedRows) -> Table:
    """As the catalogue knows it."""
    columns = tuple(Column(c.name, "", c.type, c.valid is not None, False, c.values) for c in rows.columns)
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
