"""What a run keeps on disk so that another can go on where it ended: its folder.

    manifest.json     what runs on which data, written once, whole or not at all
    keys.json         what this run's masks are derived from; readable by its owner alone
    blocks-*.jsonl    a line for every finished block: its number, and size and SHA-256 of its file
    block-NNNNNN.npz  what the block gave: shares of the state or of the rows kept, or rows that this party may see
    filter-N/         the same of the pass up to a filter whose count is revealed

A block is finished here when its line is there; a line that was cut off does not count. Whatever
belongs to unfinished blocks is ignored and later replaced. A fold state is what this party holds
of its sharing: of a simulation, everything.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.engine.random import derive_key
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import Holders

FORMAT = 1
LOCK = "lock"
FILTERED = "filter-"
Arrays = Mapping[str, Any]  # NumPy arrays by name


class Keys:
    """The secrets of a run: one for each set of parties that draws masks together, and one of its own."""

    def __init__(self, run: str, own: bytes, shared: Mapping[Holders, bytes], party: int | None) -> None:
        self.run = run
        self.own = own  # for digests of this party's rows
        self.shared = dict(shared)
        self._party = party

    def streams(self, label: str) -> Any:
        """The stream keys of one execution, which `label` names: a function of the holders."""

        def key(holders: Holders) -> bytes:
            text = f"spuvm stream {self.run} {','.join(map(str, holders))} {label}"
            return derive_key(self.shared[() if self._party is None else holders], text)

        return key

    def following(self, fresh: Mapping[Holders, bytes]) -> Keys:
        """Of the pass that reads what this one kept: the same whenever it begins. `fresh` is for sets it lacks."""
        shared = {h: derive_key(self.shared.get(h, key), "spuvm stream next pass") for h, key in fresh.items()}
        return Keys(derive_key(bytes.fromhex(self.run), "spuvm stream next pass").hex(), self.own, shared, self._party)

    def to_json(self) -> dict[str, Any]:
        shared = {",".join(map(str, h)): k.hex() for h, k in self.shared.items()}
        return {"run": self.run, "own": self.own.hex(), "shared": shared}

    @classmethod
    def from_json(cls, body: Mapping[str, Any], party: int | None) -> Keys:
        shared = {tuple(int(r) for r in h.split(",") if r): bytes.fromhex(k) for h, k in body["shared"].items()}
        return cls(body["run"], bytes.fromhex(body["own"]), shared, party)


class Folder:
    """A run's folder; made by `create`, found again by `open`. `before` are those of passes that this one needs."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], keys: Keys) -> None:
        self.path, self.manifest, self.keys = path, manifest, keys
        self.before: Sequence[Folder] = ()

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any], keys: Keys) -> Folder:
        """Begin a run in an empty or new folder, or in one where no run began."""
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in [*path.glob("blocks-*.jsonl"), *path.glob("block-*.npz"), *path.glob(".*.tmp")]:
                left.unlink()
        except OSError as error:
            raise InputError(f"the run's folder {path} cannot be made: {error.strerror or error}.") from None
        write_whole(path / "keys.json", json.dumps(keys.to_json()).encode())
        write_whole(path / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
        return cls(path, manifest, keys)

    @classmethod
    def open(cls, path: Path, party: int | None) -> Folder | None:
        """The run that began here, or None. InputError for a folder that is not one of ours."""
        try:
            if not (path / "manifest.json").exists():
                strange = [p.name for p in path.iterdir() if not _ours(p.name)] if path.exists() else []
                if strange:
                    raise InputError(f"{path} holds other files ({strange[0]}, ...): give another folder for the run.")
                return None
            manifest = json.loads((path / "manifest.json").read_text())
            keys = Keys.from_json(json.loads((path / "keys.json").read_text()), party)
        except OSError as error:
            raise InputError(f"the run's folder {path} cannot be read: {error.strerror or error}.") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"the manifest in {path} is damaged: remove the folder to start anew.") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"the manifest in {path} is of another version: finish with that, or remove the folder.")
        return cls(path, manifest, keys)

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
        found: dict[int, dict[str, Any]] = {}
        for path in sorted(self.path.glob("blocks-*.jsonl")):
            for line in path.read_bytes().splitlines(keepends=True):
                with suppress(ValueError):
                    if line.endswith(b"\n"):
                        record = json.loads(line)
                        found[record["block"]] = record
        return found

    def _file(self, block: int) -> Path:
        return self.path / f"block-{block:06d}.npz"

    def store(self, block: int, arrays: Arrays, journal: str, noted: Mapping[str, Any] | None = None) -> None:
        """Keep what a block gave: the file first, whole, then its line in the journal, with what is noted there."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getbuffer()
        write_whole(self._file(block), content)
        record = {"block": block, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **(noted or {})}
        self._append(self.path / f"blocks-{journal}.jsonl", json.dumps(record).encode() + b"\n")

    def _append(self, path: Path, line: bytes) -> None:
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
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        os.truncate(path, start)
                    raise
        except OSError as error:
            raise _unwritable(path, error) from None

    def load(self, block: int, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What a finished block gave. InputError if its file is damaged."""
        path = self._file(block)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} of a finished block cannot be read: {error.strerror or error}.") from None
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise InputError(
                f"{path} is damaged: it is not what was written. Remove its line in blocks-*.jsonl to have "
                "this block computed again."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def drop(self, blocks: Iterable[int]) -> None:
        """Remove the files of blocks that nobody needs any more; their lines stay."""
        for block in blocks:
            with suppress(OSError):
                self._file(block).unlink()

    def remove(self) -> None:
        """Remove the run's files, and the folder if nothing else is in it; what the run began with goes last."""
        for path in sorted(self.path.iterdir()) if self.path.exists() else []:
            if _ours(path.name):
                with suppress(OSError):
                    path.unlink()
        for folder in self.before:
            folder.remove()
        with suppress(OSError):
            self.path.rmdir()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a run's folder to this process. InputError if another one has it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (path / LOCK).open("a")
    except OSError as error:
        raise InputError(f"the run's folder {path} cannot be made: {error.strerror or error}.") from None
    try:
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{path} is in use: another process runs the same stream just now.") from None
            for left in path.glob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            try:
                yield
            finally:
                with suppress(OSError):
                    if [p.name for p in path.iterdir()] == [LOCK]:
                        (path / LOCK).unlink()
    finally:
        for empty in (path, path.parent):
            with suppress(OSError):
                empty.rmdir()  # unless there is something in it


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


def write_whole(path: Path, content: Any) -> None:
    """Write a file that appears under its name whole or not at all, for its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written: {error.strerror or error}. All blocks finished so far are kept: make room and "
        "start the same command again."
    )
