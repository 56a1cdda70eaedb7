"""What finished nodes gave, at one party's disk under a name that covers code, inputs and parameters.

A checkpoint appears whole or not at all: its files are written in a folder beside its place and moved there, and last
of all the JSON file that says what all parties know of it, with the digests of its files. Each making of a node has a
name that all parties drew together, and files of its own: of two runs that make the same node at once, whichever is
written last counts, and what one party has of one and another party of the other is never taken for the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import InputError, SaveError

FORMAT = 1
MADE = re.compile(r"(?:[0-9a-f]{16})?")


@dataclass(frozen=True)
class Checkpoints:
    """Of one party."""

    folder: Path

    def path(self, key: str, made: str) -> Path:
        """The folder of a node's files, of the making of this name; before version 0.2 makings had none."""
        return self.folder / key[:2] / (f"{key[2:]}.{made}" if made else key[2:])

    def _head(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.json"

    def __contains__(self, key: object) -> bool:
        """Whether it is there, and all its files with the sizes that they had."""
        return self._known(str(key)) is not None

    def _known(self, key: str) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self._head(key).read_text())
            if known["format"] != FORMAT or known["key"] != key:
                return None
            if not MADE.fullmatch(known.setdefault("made", "")):
                return None
            folder = self.path(key, known["made"])
            sizes = [(folder / n).stat().st_size == size for n, (size, _) in known["files"].items()]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known if all(sizes) else None

    def made(self, key: str) -> str | None:
        """The name of its making; None if it is not there."""
        known = self._known(key)
        return None if known is None else str(known["made"])

    def known(self, key: str) -> dict[str, Any]:
        """What all parties know of a node's outputs, and what it cost.

        Raises:
            InputError: if it is gone, or its files are not what was written.
        """
        known = self._known(key)
        if known is not None:
            folder = self.path(key, known["made"])
            if all(_sha(folder / n) == sha for n, (_, sha) in known["files"].items()):
                return known
        raise InputError(f"the checkpoint {self._head(key)} is damaged: delete it, then run the flow again.")

    @contextmanager
    def writing(self, key: str, made: str) -> Iterator[Path]:
        """A folder for a node's files, which takes its place when the body ends; then `put` makes it count."""
        temporary = self.folder / f".{key[:16]}.{secrets.token_hex(4)}.tmp"
        try:
            with refused_clearly(self.folder):
                temporary.mkdir(parents=True, mode=0o700)
                yield temporary
                target = self.path(key, made)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if target.exists():
                    shutil.rmtree(target)
                os.rename(temporary, target)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)

    def put(self, key: str, made: str, body: Mapping[str, Any]) -> None:
        """Say what a node gave; its files are in their place. Those of a making before are removed."""
        head, folder, before = self._head(key), self.path(key, made), self.made(key)
        found = sorted(folder.iterdir()) if folder.is_dir() else ()
        files = {f.name: (f.stat().st_size, _sha(f)) for f in found}
        temporary = head.with_name(f".{head.name}.{secrets.token_hex(4)}.tmp")
        with refused_clearly(self.folder):
            try:
                self._write(temporary, {"format": FORMAT, "key": key, "made": made, "files": files, **body})
                os.replace(temporary, head)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        if before not in (None, made):
            shutil.rmtree(self.path(key, before), ignore_errors=True)

    def _write(self, path: Path, body: Mapping[str, Any]) -> None:
        try:
            path.write_text(json.dumps(body))
        except FileNotFoundError:  # the first of its folder
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(json.dumps(body))


@contextmanager
def refused_clearly(folder: Path) -> Iterator[None]:
    """A disk that takes nothing more is a SaveError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SaveError(f"the disk of {folder} is full: free some space.") from None
        raise SaveError(f"{folder} cannot be written: {error.strerror or error}.") from None


def _sha(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
