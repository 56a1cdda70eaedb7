"""A table on disk: its schema is known when it is opened, its rows come in batches."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError

INSTALL = "install them with `pip install 'spuvm[cli]'`"
ROWS = 1 << 16  # of a batch, if nothing else is asked for
VALUES = re.compile(r"(got \d+|invalid value|invalid UTF8 data):?.*")  # in readers' messages: cells follow


@dataclass(frozen=True)
class TableFile:
    """One file, opened by `spuvm.data.files.open_table`.

    Attributes:
        format: in words, for messages.
        schema: a `pyarrow.Schema` of the columns chosen, in their order.
        rows: how many there are.
        start: `start(row, size)` gives the first row of what it yields, at or before `row`, and batches.
        typed: whether the file says the types; else they were found in its cells.
        named: whether the columns have names of their own.
    """

    path: Path
    format: str
    schema: Any
    rows: int
    start: Callable[[int, int], tuple[int, Iterator[Any]]]
    typed: bool = True
    named: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    def batches(self, row: int = 0, size: int = ROWS) -> Iterator[Any]:
        """`pyarrow.RecordBatch`es of all rows from `row` on, each of about `size` rows, none empty.

        Raises:
            InputError: for a file that is damaged, or was changed since it was opened.
        """
        with reading(self.path, self.format):
            given, found = self.start(row, size)
        while True:
            with reading(self.path, self.format):
                batch = next(found, None)
            if batch is None:
                break
            skip = min(max(row - given, 0), batch.num_rows)
            given += batch.num_rows
            if skip < batch.num_rows:
                yield batch.slice(skip)
        if given != self.rows:
            raise InputError(f"{self.path} ended after {given:,} of {self.rows:,} rows: it was changed or cut off.")

    def read(self) -> Any:
        """All rows, as a `pyarrow.Table`."""
        arrow, _ = pyarrow_module("types")
        return arrow.Table.from_batches(list(self.batches()), self.schema)


@contextmanager
def reading(path: Path, format_: str) -> Iterator[None]:
    """A reader's errors as ours, without the cells that they may show."""
    arrow, _ = pyarrow_module("types")
    try:
        yield
    except arrow.ArrowException as error:
        raise InputError(f"{path} cannot be read as {format_}: {first_line(error)}.") from None
    except OSError as error:  # pyarrow raises it for damaged files, too
        raise InputError(f"{path} cannot be read: {first_line(error)}.") from None


def pyarrow_module(module: str) -> tuple[Any, Any]:
    """pyarrow and one of its modules, imported when the first table is read."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module(f"pyarrow.{module}")
    except ImportError:
        raise InputError(f"tables need packages that are missing: {INSTALL}.") from None


def first_line(error: BaseException) -> str:
    """What a library says of an error, without the values of cells."""
    text = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0]
    return VALUES.sub(r"\1", text).rstrip(".") or type(error).__name__


# Columns -----------------------------------------------------------------------------------------------


def check_header(path: Path, header: Sequence[str]) -> None:
    """Refuse the first line of a CSV file if it has numbers instead of names."""
    if header and all(is_number(name) for name in header):
        raise InputError(f"{path}: its first line holds numbers: put the names of the columns there.")


def select(path: Path, header: Sequence[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    """The names to read: those asked for, all if none are, all but `x` for `-x`. InputError for any other."""
    twice = {name for name in header if list(header).count(name) > 1}
    if twice:
        raise InputError(f"{path} has two columns `{min(twice)}`: give them different names.")
    dropped = [c[1:] for c in columns if c.startswith("-") and c not in header]
    for name in [*dropped, *(c for c in columns if c[1:] not in dropped)]:
        if name not in header:
            shown = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
            raise InputError(f"{path} has no column `{name}`{nearest(name, header)}: it has {shown}.")
    if not dropped:
        return columns or tuple(header)
    if len(dropped) < len(columns):
        raise InputError(f"{path}: name the columns to use, or with `-` those to leave out, not both.")
    left = tuple(name for name in header if name not in dropped)
    if not left:
        raise InputError(f"{path}: no column is left.")
    return left


def is_number(text: Any) -> bool:
    """Whether Python reads it as one."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True
