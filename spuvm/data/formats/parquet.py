"""Parquet: row groups let a reader begin anywhere; checksums of pages, where they were written, are checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.formats.table_file import TableFile, pyarrow_module, reading, select

BUFFER_BYTES = 1 << 20


def open_parquet(path: Path, columns: tuple[str, ...], text: frozenset[str] = frozenset()) -> TableFile:
    """See `spuvm.data.files.open_table`."""
    arrow, parquet = pyarrow_module("parquet")
    with reading(path, "Parquet"), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = select(path, schema.names, columns)
        metadata = file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes)

    def batches(row: int, size: int) -> tuple[int, Iterator[Any]]:
        group = int(np.searchsorted(ends, row, side="right"))
        if group == len(sizes):
            return row, iter(())
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True)
        found = file.iter_batches(size, list(range(group, len(sizes))), list(names), use_threads=False)
        return int(ends[group] - sizes[group]), (b.select(list(names)) for b in found)

    chosen = arrow.schema([schema.field(n) for n in names])
    return TableFile(path, "Parquet", chosen, int(metadata.num_rows), batches)


@contextmanager
def parquet_writer(path: Path, schema: Any) -> Iterator[Any]:
    """What takes batches by `write`; each becomes a row group."""
    _, parquet = pyarrow_module("parquet")
    with parquet.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        yield writer
