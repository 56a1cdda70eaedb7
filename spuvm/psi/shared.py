"""A joined table that nobody sees: columns of secrets, with a public bound on its rows and a secret validity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spuvm.devices import PYUObject
from spuvm.objects import SPUObject, Tabular
from spuvm.runtime.errors import InputError
from spuvm.streaming.stream import ROWS_PER_BLOCK, Stream, stream
from spuvm.vm import VM


@dataclass(frozen=True, eq=False)
class SharedTable(Tabular):
    """Rows of several owners' tables side by side, as secrets of one machine.

    Attributes:
        rows: the public bound; rows beyond the result are not `valid`.
        columns: by name, secrets [rows]: bools, integers, floats; dates as days since 1970, times as microseconds,
            text as codes. 0 where there is no cell.
        valid: bool[rows], secret: whether the row is there at all.
        present: of columns whose cells may be missing (or all of an owner's that may have no match), bool[rows],
            secret: whether the cell is there.
        matched: bool[rows], secret, by owner: whether that owner has the row's key.
        categories: of text columns, at their owner, what the codes stand for, in order.
        learns: who learned what when the table was made.
    """

    vm: VM
    rows: int
    columns: Mapping[str, SPUObject]
    valid: SPUObject
    present: Mapping[str, SPUObject]
    matched: Mapping[str, SPUObject]
    categories: Mapping[str, PYUObject]
    learns: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns, in order."""
        return tuple(self.columns)

    def __getitem__(self, name: str) -> SPUObject:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"<shared table: at most {self.rows:,} rows, {len(self.columns)} columns of secrets>"

    def stream(self, *, rows_per_block: int = ROWS_PER_BLOCK, progress: bool | None = None) -> Stream:
        """The rows as a `spu.stream`, a block at a time: columns, `valid`, and of columns whose cells may be missing
        `NAME_present`. It is filtered by `valid`, so what follows gets a secret `mask` of the rows that are there.

        Raises:
            InputError: for a column that is called like one of those, or not as Python names are.
        """
        flags = {f"{n}_present": x for n, x in self.present.items()}
        columns = self._beside({**flags, "valid": self.valid})
        return stream(columns, rows_per_block=rows_per_block, progress=progress).filter(_is_there)

    def arguments(self, device: Any = None) -> dict[str, Any]:
        """Columns, and `valid`, by name: what a jitted function takes, as a function on its device does of the table
        itself. InputError if a column is called `valid`.
        """
        return self._beside({"valid": self.valid})

    def _beside(self, more: Mapping[str, SPUObject]) -> dict[str, Any]:
        taken = sorted(more.keys() & self.columns.keys())
        if taken:
            raise InputError(
                f"the table has a column `{taken[0]}`, which is what its rows and cells that are there are called: "
                "rename it at its owner, or leave it out with `drop`."
            )
        return {**self.columns, **more}


def _is_there(valid: Any) -> Any:
    return valid
