"""Arrow's own file format (`.arrow`, `.feather` of version 2): batches as they lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.formats.table_file import TableFile, pyarrow_module, reading, select


def open_ipc(path: Path, columns: tuple[str, ...], text: frozenset[str] = frozenset()) -> TableFile:
    """See `spuvm.data.files.open_table`."""
    arrow, ipc = pyarrow_module("ipc")
    with reading(path, "Arrow"):
        file = ipc.open_file(arrow.memory_map(str(path)))
        names = select(path, file.schema.names, columns)
        ends = np.cumsum([file.get_batch(i).num_rows for i in range(file.num_record_batches)], dtype=np.int64)

    def batches(row: int, size: int) -> tuple[int, Iterator[Any]]:
        first = int(np.searchsorted(ends, row, side="right"))
        found = (file.get_batch(i).select(list(names)) for i in range(first, len(ends)))
        return int(ends[first - 1]) if first else 0, found

    chosen = arrow.schema([file.schema.field(n) for n in names])
    return TableFile(path, "Arrow", chosen, int(ends[-1]) if len(ends) else 0, batches)


@contextmanager
def ipc_writer(path: Path, schema: Any) -> Iterator[Any]:
    """What takes batches by `write`."""
    _, ipc = pyarrow_module("ipc")
    with ipc.new_file(str(path), schema) as writer:
        yield writer
