"""What all parties know of a frame: columns, their owners and types, and the number of rows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spuvm.runtime.errors import InputError

TYPES = ("float", "int", "bool", "category")
NUMBERS = ("float", "int")


@dataclass(frozen=True)
class Column:
    """A column as all parties know it.

    Attributes:
        name: of the column.
        party: its owner; None in a horizontal frame, where every party has some of its rows.
        type: "float", "int", "bool" or "category".
        missing: whether cells may be missing. Which ones are, and whether any, only the owner knows.
        categories: of a "category" column if they are public, else None: only the owner knows them.
    """

    name: str
    party: str | None
    type: str
    missing: bool = True
    categories: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The column as a dictionary that JSON can write."""
        categories = None if self.categories is None else list(self.categories)
        return {
            "name": self.name,
            "party": self.party,
            "type": self.type,
            "missing": self.missing,
            "categories": categories,
        }

    @classmethod
    def from_json(cls, x: Mapping[str, Any]) -> Column:
        """The inverse of `to_json`."""
        categories = None if x["categories"] is None else tuple(x["categories"])
        return cls(x["name"], x["party"], x["type"], x["missing"], categories)

    @property
    def where(self) -> str:
        """For messages: the column and its owner."""
        return f"column `{self.name}`" + (f" of {self.party}" if self.party else "")


@dataclass(frozen=True)
class Schema:
    """The public side of a frame.

    Attributes:
        columns: in order.
        rows: of a vertical frame, all parties' common number; of a horizontal one, their sum.
        rows_at: the number of rows that each party holds, by party.
    """

    columns: tuple[Column, ...]
    rows: int
    rows_at: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    def of(self, party: str) -> tuple[Column, ...]:
        """The columns that a party holds (some rows of)."""
        return tuple(c for c in self.columns if c.party in (None, party))

    def __getitem__(self, name: str) -> Column:
        """A column by its name.

        Raises:
            InputError: if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise InputError(f"there is no column `{name}`{nearest(name, self.names)}: {listed(self.names)}.")

    def select(self, names: Sequence[str]) -> Schema:
        """The columns named, in that order; unknown or repeated names are an InputError."""
        twice = {name for name in names if list(names).count(name) > 1}
        if twice:
            raise InputError(f"column `{min(twice)}` is named twice: name each column once.")
        return replace(self, columns=tuple(self[name] for name in names))

    def check(self, columns: Sequence[Column], of: str = "the model") -> None:
        """That this frame has these columns, with their owners and types, as prediction needs them.

        Raises:
            InputError: for a column that is absent, at another party, or of another type.
        """
        for want in columns:
            if want.name not in self.names:
                raise InputError(f"{of} needs {want.where}{nearest(want.name, self.names)}: {listed(self.names)}.")
            have = self[want.name]
            if have.party != want.party:
                raise InputError(f"{of} has {want.where}, here it is {_owner(have)}: bring it from where it was.")
            if have.type != want.type and not {have.type, want.type} <= set(NUMBERS):
                raise InputError(f"{of} has {want.where} as {want.type}, here it is {have.type}: convert it.")

    def __str__(self) -> str:
        lines = [("column", "party", "type", "missing", "categories")]
        for c in self.columns:
            known = "" if c.type != "category" else "private" if c.categories is None else f"{len(c.categories)} public"
            lines.append((c.name, c.party or "all", c.type, "possible" if c.missing else "none", known))
        widths = [max(map(len, cells)) for cells in zip(*lines)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([*table, f"{self.rows:,} rows"])


def _owner(column: Column) -> str:
    return f"at {column.party}" if column.party else "at all parties, each with some rows"


def listed(names: Sequence[str]) -> str:
    """For messages: what there is."""
    if not names:
        return "there are no columns"
    return "there are " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def nearest(name: str, known: Sequence[str]) -> str:
    """For messages: the known name that was probably meant."""
    found = difflib.get_close_matches(name, known, 1) or [k for k in known if k.lower() == name.lower()][:1]
    return f" (did you mean `{found[0]}`?)" if found else ""
