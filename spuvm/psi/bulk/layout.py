"""How the tags of a large run are cut: buckets by leading bits, and passes over ranges of buckets, as disks allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BUCKET_ROWS = 1 << 20  # about so many rows of the largest table in one bucket
TAG_BYTES = 16
IN_MEMORY = 16  # buckets whose tags an owner keeps in memory, in place of on disk
SCRATCH_BYTES = 12 << 30  # of one owner, at most, where a run does not say otherwise


@dataclass(frozen=True)
class Layout:
    """Public: it follows from the numbers of rows.

    Attributes:
        bits: leading bits of a tag that are its bucket's number.
        passes: each over as many buckets; the tags of one pass are on disk at a time.
        on_disk: whether tags go through files at all.
    """

    bits: int
    passes: int
    on_disk: bool

    @property
    def buckets(self) -> int:
        return 1 << self.bits

    def of_pass(self, number: int) -> range:
        """The buckets of a pass."""
        each = self.buckets // self.passes
        return range(number * each, (number + 1) * each)

    def peak(self, rows: int) -> int:
        """Bytes on an owner's disk at once, beside its table and the output."""
        return rows * TAG_BYTES // self.passes if self.on_disk else 0


def layout_of(
    rows: Sequence[int], scratch: int = SCRATCH_BYTES, bucket_rows: int = BUCKET_ROWS, files: bool = False
) -> Layout:
    """The layout for tables of so many rows, with at most so many bytes of tags on each owner's disk. `files`: tags go
    through files, whatever memory holds."""
    largest = max(rows)
    bits = max(0, -(-largest // bucket_rows) - 1).bit_length()
    on_disk = files or largest > IN_MEMORY * bucket_rows
    passes = 1
    while on_disk and largest * TAG_BYTES > scratch * passes and passes < 1 << bits:
        passes *= 2
    return Layout(bits, passes, on_disk)
