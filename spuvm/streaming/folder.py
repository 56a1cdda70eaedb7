"""What a run keeps on disk so that another can go on where it ended: its folder.

    manifest.json     what runs on which data, and the run's number; written once, whole or not at all
    attempts.jsonl    a line for every time that the parties met to go on with it, and when all of it was done here
    begun-*.jsonl     a line for every block that was begun, whether it came to an end or not
    blocks-*.jsonl    a line for every finished block: its attempt, and size and SHA-256 of its file
    block-NNNNNN.npz  what the block gave: shares of the state or of the rows kept, or rows that this party may see
    filter-N/         the same of the pass up to a filter whose count is revealed

A block is finished here when its line is there; a line that was cut off or damaged does not count. Whatever
belongs to unfinished blocks is ignored and later replaced. No keys are kept: masks are those of the session
in which a block is computed, so that no two computations have masks in common. A fold state is what this party
holds of its sharing: of a simulation, everything.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.errors import InputError
from spuvm.streaming import journal
from spuvm.streaming.held import LOCK
from spuvm.streaming.journal import Blocks
from spuvm.streaming.sealed import read_sealed, sealed, write_whole

FORMAT = 2
FILTERED = "filter-"
MANIFEST = "manifest.json"
ATTEMPTS = "attempts.jsonl"
Arrays = Mapping[str, Any]  # NumPy arrays by name


class Folder:
    """A run's folder; made by `create`, found again by `open`. `before` are those of passes that this one needs."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.before: Sequence[Folder] = ()
        self.blocks = Blocks(path)
        self.attempt = self.blocks.attempt()

    @property
    def run(self) -> str:
        """The run's number, the same at all parties."""
        return str(self.manifest["run"])

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any], run: str) -> Folder:
        """Begin a run in an empty or new folder, or in one where no run began."""
        body = {**manifest, "run": run}
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in [*path.glob("*.jsonl"), *path.glob("block-*.npz"), *path.glob(".*.tmp")]:
                left.unlink()
        except OSError as error:
            raise InputError(f"the run's folder {path} cannot be made: {error.strerror or error}.") from None
        write_whole(path / MANIFEST, sealed(body))
        return cls(path, body)

    @classmethod
    def open(cls, path: Path) -> Folder | None:
        """The run that began here, or None. InputError for a folder that is not one of ours, and a damaged one."""
        try:
            if not (path / MANIFEST).exists():
                strange = [p.name for p in path.iterdir() if not _ours(p.name)] if path.exists() else []
                if strange:
                    raise InputError(f"{path} holds other files ({strange[0]}, ...): give another folder for the run.")
                return None
        except OSError as error:
            raise InputError(f"the run's folder {path} cannot be read: {error.strerror or error}.") from None
        manifest = read_sealed(path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise InputError(f"the manifest in {path} is of another version: finish with that, or remove the folder.")
        return cls(path, manifest)

    def begin(self, attempt: int) -> None:
        """Note that the parties go on with the run, for the `attempt`th time."""
        journal.append(self.path / ATTEMPTS, {"attempt": attempt})
        self.attempt = attempt

    def end(self) -> None:
        """Note that all is done here: if another party's folder is gone, the run came to its end."""
        for folder in (self, *self.before):
            journal.append(folder.path / ATTEMPTS, {"attempt": folder.attempt, "ended": True})

    @property
    def ended(self) -> bool:
        """Whether all was done here in the last attempt."""
        said = journal.records(self.path, ATTEMPTS)
        return any(r.get("ended") and r["attempt"] == self.attempt for r in said)

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Refuse to go on with another program, other data, or other code: InputError says what differs."""
        for key, now in manifest.items():
            then = self.manifest.get(key)
            if key != "run" and json.loads(json.dumps(now)) != then:
                raise InputError(
                    f"{self.path} belongs to another run: {_WHAT.get(key, key)} differ{_detail(then, now)}. Nothing "
                    "was changed. Give another folder, or remove this one, at every party, to start anew."
                )

    def finished(self) -> dict[int, dict[str, Any]]:
        """The records of the finished blocks, by number."""
        return self.blocks.finished()

    def _file(self, block: int) -> Path:
        return self.path / f"block-{block:06d}.npz"

    def begin_block(self, block: int, name: str) -> None:
        """Note that a block is begun, in the journal `name`."""
        journal.append(self.path / f"begun-{name}.jsonl", {"block": block, "attempt": self.attempt}, durable=False)

    def store(self, block: int, arrays: Arrays, name: str, noted: Mapping[str, Any] | None = None) -> None:
        """Keep what a block gave: the file first, whole, then its line in the journal, with what is noted there."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getbuffer()
        write_whole(self._file(block), content)
        digest = hashlib.sha256(content).hexdigest()
        record = {"block": block, "attempt": self.attempt, "bytes": len(content), "sha256": digest, **(noted or {})}
        journal.append(self.path / f"blocks-{name}.jsonl", record)

    def load(self, block: int, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What a finished block gave. InputError if its file is damaged: it will be computed again."""
        path = self._file(block)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} of a finished block cannot be read: {error.strerror or error}.") from None
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            journal.append(self.path / "blocks-0.jsonl", {"block": block, "attempt": record["attempt"], "lost": True})
            raise InputError(
                f"{path} is damaged: it is not what was written. Start the same command again, at every party, to "
                "have this block computed anew."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def drop(self, blocks: Iterable[int]) -> None:
        """Remove the files of blocks that nobody needs any more; their lines stay."""
        for block in blocks:
            with suppress(OSError):
                self._file(block).unlink()

    def remove(self) -> None:
        """Remove the run's files, those last that say that it began and ended, and the folder if it is empty then."""
        last = (ATTEMPTS, MANIFEST)
        for path in sorted(self.path.iterdir(), key=lambda p: (p.name in last, p.name)) if self.path.exists() else []:
            if _ours(path.name):
                with suppress(OSError):
                    path.unlink()
        for folder in self.before:
            folder.remove()
        with suppress(OSError):
            self.path.rmdir()


@dataclass
class Folders:
    """Folders of several passes, one after another; kept until all are done."""

    path: Path
    made: int = 0
    done: list[Folder] = field(default_factory=list)

    def next(self) -> Path:
        """The folder of the next pass: 0, 1, ..."""
        self.made += 1
        return self.path / str(self.made - 1)

    def remove(self) -> None:
        """Forget all passes that are done."""
        for folder in self.done:
            folder.remove()
            with suppress(OSError):
                folder.path.parent.rmdir()
        with suppress(OSError):
            self.path.rmdir()


_WHAT = {
    "program": "the programs (function, shapes, configuration)",
    "code": "the versions of spuvm",
    "sources": "the files",
    "rows": "the numbers of rows",
    "rows_per_block": "the rows of a block",
    "config": "the configurations",
    "party": "the parties",
    "output": "the outputs",
}


def _detail(then: Any, now: Any) -> str:
    """Both, if they are short; of nested descriptions the first entry that differs."""
    now, trail = json.loads(json.dumps(now)), ""
    while True:
        then, now = (dict(enumerate(x)) if isinstance(x, list) else x for x in (then, now))
        if not (isinstance(then, dict) and isinstance(now, dict)):
            return f" ({trail}{_short(then)} then, {_short(now)} now)"
        key = next(k for k in {**then, **now} if then.get(k) != now.get(k))
        trail += f"{key}: " if isinstance(key, str) else ""
        then, now = then.get(key), now.get(key)


def _short(x: Any) -> str:
    text = str(x)
    return text if len(text) <= 80 else text[:16] + "..."


def _ours(name: str) -> bool:
    return name == LOCK or name.startswith(FILTERED) or name.endswith((".tmp", ".jsonl", ".npz", ".json", ".spux"))
