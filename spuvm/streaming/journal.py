"""Journals: files of sealed lines, which are added to. A line that was cut off or damaged does not count."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spuvm.streaming.sealed import sealed, unsealed, unwritable


def append(path: Path, record: Mapping[str, Any], durable: bool = True) -> None:
    """Add a line. `durable`: it is on disk on return."""
    line = sealed(record)
    try:
        with path.open("ab+") as file:
            start = file.tell()
            if start:
                file.seek(start - 1)
                if file.read(1) != b"\n":  # cut off when the last run was killed
                    line = b"\n" + line
            try:
                file.write(line)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, start)
                raise
    except OSError as error:
        raise unwritable(path, error) from None


def records(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """The lines of all journals of that name."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_bytes().splitlines(keepends=True):
            with suppress(ValueError):
                yield unsealed(line)


class Blocks:
    """What the journals of a folder say of its blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def finished(self) -> dict[int, dict[str, Any]]:
        """The records of finished blocks by number: of each the latest attempt's, if it was not lost since."""
        found: dict[int, dict[str, Any]] = {}
        lost: dict[int, int] = {}
        for record in records(self._folder, "blocks-*.jsonl"):
            block, attempt = record["block"], record["attempt"]
            if record.get("lost"):
                lost[block] = max(attempt, lost.get(block, 0))
            elif attempt >= found.get(block, record)["attempt"]:
                found[block] = record
        return {block: r for block, r in found.items() if r["attempt"] > lost.get(block, 0)}

    def begun(self) -> Counter[int]:
        """How often each block was begun."""
        return Counter(record["block"] for record in records(self._folder, "begun-*.jsonl"))

    def attempt(self) -> int:
        """The last attempt that began, from 1; 0 if none did."""
        begun = (r["attempt"] for name in ("attempts", "blocks-*") for r in records(self._folder, f"{name}.jsonl"))
        return max(begun, default=0)
