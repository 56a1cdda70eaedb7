"""An owner's file as a large run reads it: keys in batches, tags of them, and the rows that match written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.files import open_table, table_writer
from spuvm.data.formats.table_file import TableFile
from spuvm.data.part import pyarrow
from spuvm.data.schema import nearest
from spuvm.psi.bulk.folder import RunFolder, RunKeys
from spuvm.psi.bulk.layout import Layout
from spuvm.psi.bulk.scratch import InMemory, OnDisk, full
from spuvm.psi.keys import as_kind, canonical, kind_of, of_numbers
from spuvm.psi.tags import tags
from spuvm.runtime.errors import DataError, InputError

BATCH = 1 << 19  # rows


@dataclass(frozen=True, eq=False)
class Source:
    """A file, its key columns, and what they are."""

    file: TableFile
    key: tuple[str, ...]
    types: Mapping[str, str]
    kinds: tuple[str, ...]

    @classmethod
    def open(cls, path: str | Path, key: Sequence[str], types: Mapping[str, str]) -> Source:
        """InputError for a file that cannot be read, and for key columns that it has not, or of other types."""
        file = open_table(path, text=types)
        for name in key:
            if name not in file.names:
                raise InputError(f"{path} has no key column `{name}`{nearest(name, file.names)}.")
        if file.rows == 0:
            raise DataError(f"{path} has no rows.")
        kinds = [types.get(n) or kind_of(file.schema.field(n).type, f"key column `{n}` of {path}") for n in key]
        return cls(file, tuple(key), dict(types), tuple(kinds))

    @property
    def path(self) -> Path:
        return self.file.path

    def fingerprint(self) -> dict[str, Any]:
        """By which a run recognises the file."""
        status = self.path.stat()
        return {
            "path": str(self.path.absolute()),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "inode": status.st_ino,
            "rows": self.file.rows,
            "columns": {f.name: str(f.type) for f in self.file.schema},
        }

    def check(self, then: Mapping[str, Any]) -> None:
        """InputError if the file is not what it was when the run began."""
        try:
            now = self.fingerprint()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read any more: {error.strerror or error}.") from None
        if now != then:
            raise InputError(f"{self.path} was changed while the run was under way: start anew, with another folder.")

    def tags(self, keys: RunKeys) -> Iterator[np.ndarray]:
        """uint64[rows, 2] of batch after batch."""
        file = open_table(self.path, self.key, text=self.types)
        row = 0
        for batch in file.batches(size=BATCH):
            yield self.tags_of(batch, keys, row)
            row += batch.num_rows

    def tags_of(self, batch: Any, keys: RunKeys, row: int) -> np.ndarray:
        """Of a batch that begins at a row. A row without a key has a tag of its own, which no other owner's has."""
        where = {n: f"key column `{n}` of {self.path}" for n in self.key}
        columns = [batch.column(n) for n in self.key]
        columns = [as_kind(c, k, where[n]) if n in self.types else c for n, k, c in zip(self.key, self.kinds, columns)]
        found = canonical(columns, str(self.path))
        out = tags(found, keys.shared)
        if not found.present.all():
            rows = np.flatnonzero(~found.present)
            out[rows] = tags(of_numbers(rows + row), keys.own)
        return out


def cut(
    source: Source, folder: RunFolder, layout: Layout, number: int, scratch: InMemory | OnDisk, counts: list[int]
) -> Iterator[int]:
    """Put the tags of a pass into its buckets; yields the rows of each batch. `counts` becomes those of each bucket."""
    buckets = layout.of_pass(number)
    held = np.zeros(len(buckets), np.int64)
    with scratch.writing(buckets) if isinstance(scratch, OnDisk) else nullcontext():
        for found in source.tags(folder.keys):
            rows, where = len(found), bucket_of(found, layout)
            if layout.passes > 1:
                inside = (where >= buckets.start) & (where < buckets.stop)
                found, where = found[inside], where[inside]
            pieces, more = grouped(found, where - buckets.start, len(buckets))
            held += more
            try:
                for b, piece in zip(buckets, pieces):
                    if len(piece):
                        scratch.add(b, piece)
            except OSError as error:
                raise full(folder.path, error) from None
            yield rows
    source.check(_begun_with(folder))
    counts[:] = [int(n) for n in held]
    if isinstance(scratch, OnDisk):
        folder.keep_cut(number, counts, scratch.checks)


def _begun_with(folder: RunFolder) -> Mapping[str, Any]:
    """What the file was when the run began."""
    assert folder.run is not None
    file: Mapping[str, Any] = folder.run["manifest"]["file"]
    return file


def bucket_of(found: np.ndarray, layout: Layout) -> np.ndarray:
    """int64[rows]: the bucket of each tag."""
    if layout.bits == 0:
        return np.zeros(len(found), np.int64)
    return (found[:, 0] >> np.uint64(64 - layout.bits)).astype(np.int64)


def grouped(found: np.ndarray, where: np.ndarray, groups: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each group, in their order, and how many."""
    counts = np.bincount(where, minlength=groups)
    if groups == 1:
        return [found], counts
    ordered = found[np.argsort(where.astype(np.uint16), kind="stable")]
    return np.split(ordered, np.cumsum(counts)[:-1]), counts


def write_rows(
    source: Source, folder: RunFolder, layout: Layout, output: Path, force: bool, whole: Callable[[Path], None]
) -> Iterator[int]:
    """Write the rows that match, in the order of the file, as all columns of it; yields the rows read of each batch.

    `whole` is called with the file before it gets its name.
    """
    packed, starts = _bits(folder, layout)
    at = starts.copy()
    row = 0
    with table_writer(output, source.file.schema, force, whole) as writer:
        for batch in source.file.batches(size=BATCH):
            where = bucket_of(source.tags_of(batch, folder.keys, row), layout)
            order = np.argsort(where.astype(np.uint16), kind="stable")
            counts = np.bincount(where, minlength=layout.buckets)
            place = np.arange(len(where)) + (at - np.cumsum(counts) + counts)[where[order]]
            keep = np.empty(len(where), bool)
            keep[order] = (packed[place >> 3] >> (place & 7).astype(np.uint8)) & 1
            at += counts
            row += len(where)
            rows = batch.filter(arrow_bools(keep))
            if rows.num_rows:
                writer.write(rows)
            yield len(where)
        source.check(_begun_with(folder))  # or the output would be of two files


def written(folder: RunFolder, layout: Layout) -> int:
    """How many rows of the file match."""
    return sum(int(np.unpackbits(folder.bits(b)[1], count=folder.bits(b)[0]).sum()) for b in range(layout.buckets))


def arrow_bools(x: np.ndarray) -> Any:
    """As arrow's filters take them."""
    return pyarrow()[0].array(x)


def _bits(folder: RunFolder, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The bits of all buckets end to end, lowest first in a byte, and where each bucket's begin."""
    counts = [folder.bits(b)[0] for b in range(layout.buckets)]
    out = np.zeros(-(-sum(counts) // 8), np.uint8)
    left = np.zeros(0, np.uint8)
    at = 0
    for bucket in range(layout.buckets):
        count, bits = folder.bits(bucket)
        left = np.concatenate([left, np.unpackbits(bits, count=count)])
        whole = len(left) // 8
        out[at : at + whole] = np.packbits(left[: 8 * whole], bitorder="little")
        at, left = at + whole, left[8 * whole :]
    if len(left):
        out[at:] = np.packbits(left, bitorder="little")
    return out, np.cumsum([0, *counts[:-1]])
