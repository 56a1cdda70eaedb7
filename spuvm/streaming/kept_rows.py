"""The rows that a filter with a revealed count kept: shares in that pass's folder, read on a block at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.errors import InputError
from spuvm.streaming.folder import Folder

ROWS = "rows"  # in a block's record: how many it kept


@dataclass(frozen=True)
class Kept:
    """Where they are; `counts` is of the rows that each block kept, `columns` says which result each column was."""

    path: Path
    counts: tuple[int, ...]
    columns: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path.absolute()), "counts": list(self.counts), "columns": dict(self.columns)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | None) -> Kept | None:
        return None if body is None else cls(Path(body["path"]), tuple(body["counts"]), body["columns"])


class KeptRows:
    """This party's components of them."""

    def __init__(self, kept: Kept) -> None:
        folder = Folder.open(kept.path)
        if folder is None:
            raise InputError(f"{kept.path} has lost its rows: start the same command again.")
        self._kept, self._folder, self._records = kept, folder, folder.finished()
        self._ends = np.cumsum(kept.counts)
        self._last: tuple[int, Mapping[str, np.ndarray]] = (-1, {})

    def read(self, start: int, stop: int) -> dict[str, Sequence[np.ndarray | None]]:
        """By column, the components of rows `start` to `stop`: None for those that others hold."""
        pieces: list[Mapping[str, np.ndarray]] = []
        for block in range(int(np.searchsorted(self._ends, start, "right")), len(self._ends)):
            first = int(self._ends[block]) - self._kept.counts[block]
            if first >= stop:
                break
            low, high = max(start - first, 0), min(stop - first, self._kept.counts[block])
            if low < high:
                pieces.append({name: x[low:high] for name, x in self._load(block).items()})
        return {n: self._whole(pieces, i) for n, i in self._kept.columns.items()}

    def _load(self, block: int) -> Mapping[str, np.ndarray]:
        if self._last[0] != block:
            self._last = block, self._folder.load(block, self._records[block])
        return self._last[1]

    @staticmethod
    def _whole(pieces: Sequence[Mapping[str, np.ndarray]], index: int) -> list[np.ndarray | None]:
        held = {int(name.partition(".")[2]) for name in pieces[0] if name.partition(".")[0] == str(index)}
        return [
            np.concatenate([p[f"{index}.{c}"] for p in pieces]) if c in held else None
            for c in range(max(held, default=-1) + 1)
        ]
