"""Frames: a table that several parties hold together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spuvm.context import agree
from spuvm.data.advice import Advised, Unvalued
from spuvm.data.arguments import columns_on
from spuvm.data.part import Part
from spuvm.data.schema import Column, Schema
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.objects import Tabular
from spuvm.runtime.errors import InputError


@dataclass(frozen=True, eq=False)
class Frame(Advised, Tabular):
    """A table of several parties; made by `vertical` and `horizontal`.

    A function on an SPU takes it as a dictionary of arrays [rows], `device(lambda t: t["age"].mean())(frame)`: floats,
    NaN where a cell is missing; of columns that cannot miss any (`missing=False`), bools and categories' codes as such.

    Attributes:
        kind: "vertical": each party has some columns of all rows; "horizontal": some rows of all columns.
        schema: what all parties know of it.
        key: the names of the key columns.
        parts: each party's `Part`, by party, at that party.
    """

    kind: str
    schema: Schema
    key: tuple[str, ...]
    parts: Mapping[str, PYUObject]

    # What everybody knows

    @property
    def parties(self) -> tuple[str, ...]:
        """All parties that brought a table, also those of which only the key is left."""
        return tuple(self.parts)

    @property
    def rows(self) -> int:
        return self.schema.rows

    @property
    def columns(self) -> tuple[str, ...]:
        return self.schema.names

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, len(self.columns)

    def columns_of(self, party: str) -> tuple[str, ...]:
        """Names of a party's columns, in the order of `at(party)`."""
        return tuple(c.name for c in self.schema.of(self._party(party)))

    def __len__(self) -> int:
        return self.rows

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __repr__(self) -> str:
        shares = [f"{p} ({len(self.columns_of(p))})" for p in self.parties]
        if self.kind == "horizontal":
            shares = [f"{p} ({self.schema.rows_at[p]:,} rows)" for p in self.parties]
        return f"<{self.kind} frame: {self.rows:,} rows, {len(self.columns)} columns at {', '.join(shares)}>"

    # What only its owner has

    def at(self, party: str) -> PYUObject:
        """The party's rows and columns, at that party: float64[rows_at[party], len(columns_of(party))].

        Bools are 0 and 1, categories their code (their position in `categories(party)`), missing cells NaN.
        """
        names = self.columns_of(party)
        return self._run(party, lambda part: part.matrix(names))

    def categories(self, party: str) -> PYUObject:
        """At the party: the categories of its category columns, in the order of their codes, by column."""
        names = [c.name for c in self.schema.of(self._party(party)) if c.type == "category"]
        return self._run(party, lambda part: {name: part.categories[name] for name in names})

    def keys(self, party: str) -> PYUObject:
        """At the party: its key columns, arrays [rows_at[party]] by name."""
        return self._run(party, Part.key_values)

    # On a device, where nobody sees it

    def arguments(self, device: SPU) -> dict[str, Any]:
        """What a function on the device gets: columns of a vertical frame are their owners', else secret."""
        return columns_on(device, self.schema.columns, self.schema.rows_at, self.parts)

    def to(self, device: SPU) -> dict[str, Any]:
        """Its columns as secrets of the device: SPUObjects [rows] by name."""
        return dict(_taken(device, self))

    # Other frames

    def __getitem__(self, names: str | Sequence[str]) -> Any:
        """`frame["a"]` is a column, a Series; `frame[["a", "b"]]` a frame of these columns.

        Raises:
            InputError: for a column that does not exist, or is named twice.
        """
        if isinstance(names, str):
            return Series(self[[names]])
        return replace(self, schema=self.schema.select(names))

    def drop(self, *names: str | Sequence[str], columns: str | Sequence[str] = ()) -> Frame:
        """All columns but these: names, or lists of names; `columns` is as in pandas."""
        gone = [n for name in (*names, columns) for n in ([name] if isinstance(name, str) else name)]
        self.schema.select(list(dict.fromkeys(gone)))
        return replace(self, schema=self.schema.select([n for n in self.columns if n not in gone]))

    def binary(self, name: str, *, positive: str) -> Frame:
        """This frame with a text column of two values as bools: true where a cell is `positive`.

        Raises:
            InputError: for a column that is no text. Its holder finds whether `positive` is one of two categories.
        """
        column = self.schema[name]
        if column.type != "category":
            raise InputError(f"{column.where} is {column.type}, not text: it needs no `positive`.")
        holders = self.parties if column.party is None else (column.party,)
        parts = {**self.parts, **{p: self._run(p, lambda part: part.binary(name, positive)) for p in holders}}
        bools = replace(column, type="bool", categories=None)
        columns = tuple(bools if c.name == name else c for c in self.schema.columns)
        return replace(self, schema=replace(self.schema, columns=columns), parts=parts)

    def take(self, rows: Any) -> Frame:
        """The rows at these positions (public, integers [n] or bools [rows]), at all parties.

        Of a horizontal frame they count through the parties' rows in the order of `parties`; each party
        keeps its own.

        Raises:
            InputError: for positions that are none, or repeated, or if no row is left.
            PeerMismatchError: if the parties' scripts do not give the same.
        """
        chosen = _positions(rows, self.rows)
        agree("rows of a frame", hashlib.sha256(chosen.astype("<i8").tobytes()).digest())
        mine, start = dict.fromkeys(self.parties, chosen), 0
        if self.kind == "horizontal":
            for party, count in self.schema.rows_at.items():
                mine[party] = chosen[(chosen >= start) & (chosen < start + count)] - start
                start += count
        parts = {p: self._run(p, lambda part, p=p: part.take(mine[p])) for p in self.parties}
        schema = replace(self.schema, rows=len(chosen), rows_at={p: len(mine[p]) for p in self.parties})
        return replace(self, schema=schema, parts=parts)

    def split(self, test_size: float | int = 0.25, seed: int = 0) -> tuple[Frame, Frame]:
        """Training and test rows, drawn at random with a public seed; both keep the order of the rows.

        Args:
            test_size: a fraction of the rows (rounded up), or their number.
            seed: 0 to 2^32 - 1. The same seed, size and number of rows give the same rows, always.

        Raises:
            InputError: if one of the two would be empty.
        """
        whole = isinstance(test_size, int)
        count = int(test_size) if whole else int(np.ceil(test_size * self.rows))
        if not 0 < count < self.rows:
            raise InputError(
                f"`test_size` of {test_size} leaves {count} of {self.rows} rows for the test: both need some."
            )
        # RandomState, as its numbers are the same in every version of NumPy.
        order = np.random.RandomState(seed).permutation(self.rows)
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

    def conform(self, columns: Sequence[Column], categories: Mapping[str, PYUObject] | None = None) -> Frame:
        """These columns in their order, checked and coded as when a model was trained on them.

        Args:
            columns: of the schema at that time. A column without missing cells then has none now.
            categories: what `categories(party)` was then, by party; needed of parties with category columns.

        Raises:
            InputError: for columns that are absent, elsewhere, of another type, or with missing cells or
                categories that were not there; the last two are found by their owner.
        """
        self.schema.check(columns)
        schema = replace(self.schema, columns=tuple(columns))
        parts = dict(self.parts)
        for party in self.parties:
            known = (categories or {}).get(party)
            wanted = schema.of(party)
            if known is None and any(c.type == "category" for c in wanted):
                raise InputError(f"`categories` of {party} are missing: give what `categories({party!r})` was.")
            run = PYU(party)(lambda part, known, wanted=wanted: part.conform(wanted, known or {}))
            parts[party] = run(self.parts[party], known)
        return replace(self, schema=schema, parts=parts)

    def _run(self, party: str, fn: Any) -> PYUObject:
        return PYU(party)(fn)(self.parts[self._party(party)])

    def _party(self, party: str) -> str:
        if party not in self.parts:
            raise InputError(f"`{party}` has no part in this frame: its parties are {', '.join(self.parties)}.")
        return party


@dataclass(frozen=True, eq=False)
class Series(Unvalued, Tabular):
    """One column: `frame["name"]`. A function on an SPU takes it as an array [rows], see `Frame`.

    Attributes:
        frame: the frame of this one column.
    """

    frame: Frame

    @property
    def column(self) -> Column:
        return self.frame.schema.columns[0]

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def rows(self) -> int:
        return self.frame.rows

    @property
    def parties(self) -> tuple[str, ...]:
        """Who holds cells of it: the owner; of a horizontal frame, all."""
        return self.frame.parties if self.column.party is None else (self.column.party,)

    def at(self, party: str) -> PYUObject:
        """The party's cells, at that party: float64[rows_at[party]]; see `Frame.at`."""
        if party not in self.parties:
            raise InputError(f"`{party}` has no cells of `{self.name}`: {', '.join(self.parties)} has.")
        name = self.name
        return PYU(party)(lambda part: part.columns[name])(self.frame.parts[party])

    def arguments(self, device: SPU) -> Any:
        """What a function on the device gets."""
        return self.frame.arguments(device)[self.name]

    def to(self, device: SPU) -> Any:
        """Its cells as a secret of the device: an SPUObject [rows]."""
        return _taken(device, self)

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"<column `{self.name}` of {self.rows:,} rows at {', '.join(self.parties)}>"


def _taken(device: Any, table: Tabular) -> Any:
    if not isinstance(device, SPU):
        raise InputError(f"a table goes to an SPU, not to {device!r}; `frame.at(party)` is one party's part.")
    return device.take(table)


def _positions(rows: Any, count: int) -> np.ndarray:
    chosen = np.asarray(rows)
    if chosen.dtype == bool and chosen.shape == (count,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or chosen.size == 0:
        raise InputError(f"`rows` must be positions: integers [n], or bools [{count}], some of them true.")
    if chosen.min() < 0 or chosen.max() >= count:
        raise InputError(f"`rows` must be positions from 0 to {count - 1}.")
    if len(np.unique(chosen)) < len(chosen):
        raise InputError("`rows` names a row twice: name each row once.")
    return chosen.astype(np.int64)
