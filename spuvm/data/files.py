"""The formats of tables on disk by their endings: opening one to read, and making one, in batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from spuvm.data.formats.csv import csv_writer, open_csv
from spuvm.data.formats.ipc import ipc_writer, open_ipc
from spuvm.data.formats.npy import npy_writer, open_npy
from spuvm.data.formats.parquet import open_parquet, parquet_writer
from spuvm.data.formats.table_file import TableFile, pyarrow_module
from spuvm.data.schema import nearest
from spuvm.data.targets import check_target, replacing
from spuvm.runtime.errors import InputError


class Format(NamedTuple):
    """How files of a format are read and written."""

    open: Callable[[Path, tuple[str, ...], frozenset[str]], TableFile]
    writer: Callable[[Path, Any], AbstractContextManager[Any]]


FORMATS = {
    ".csv": Format(open_csv, csv_writer),
    ".parquet": Format(open_parquet, parquet_writer),
    ".arrow": Format(open_ipc, ipc_writer),
    ".feather": Format(open_ipc, ipc_writer),
    ".npy": Format(open_npy, npy_writer),
}


def open_table(path: str | Path, columns: Sequence[str] = (), text: Collection[str] = ()) -> TableFile:
    """Open a file, whose rows are then read by `batches` or `read`.

    Args:
        columns: to read, in this order; all if none are named; all but `x` for `-x`.
        text: columns that are taken as text where a file has no types (CSV): "007" stays what it is.

    Raises:
        InputError: for a file that is missing or cannot be read, and for columns that it does not have.
    """
    path = checked(path)
    return FORMATS[path.suffix.lower()].open(path, tuple(columns), frozenset(text))


def checked(path: str | Path) -> Path:
    """The path of a file that is there, and of a known format."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: the name must end in one of {', '.join(FORMATS)}.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file{nearest(path.name, _siblings(path))}.")
    return path


@contextmanager
def table_writer(
    path: str | Path, schema: Any, force: bool = False, whole: Callable[[Path], None] = lambda _: None
) -> Iterator[Any]:
    """What takes `pyarrow` batches or tables of the schema by `write`; the file appears when the block ends.

    `whole` is called with the file when all is in it, before it appears.

    Raises:
        InputError: for a file that exists (unless `force`), or that cannot be written.
    """
    path = Path(path)
    check_target(path, force, tuple(FORMATS))
    arrow, _ = pyarrow_module("types")
    with replacing(path, force) as temporary:
        try:
            with FORMATS[path.suffix.lower()].writer(temporary, schema) as writer:
                yield writer
            whole(temporary)
        except arrow.ArrowException as error:
            raise InputError(f"{path} cannot be written: {error}.") from None


def _siblings(path: Path) -> list[str]:
    with suppress(OSError):
        return [p.name for p in path.parent.iterdir() if p.suffix.lower() in FORMATS]
    return []
