"""A run's folder, kept to one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from spuvm.runtime.errors import InputError

LOCK = "lock"
TRIES = 100  # to make a folder in one that other parties of this machine may be removing


@contextmanager
def held(path: Path, what: str, *, within: Path | None = None) -> Iterator[None]:
    """Keep the folder of a run (`what`: a stream, a join) to this process; it goes if nothing is left in it.

    So does `within`, the folder of all parties' folders.

    Raises:
        InputError: another process has it, or it cannot be made.
    """
    try:
        file = _opened(path)
    except OSError as error:
        raise InputError(f"the run's folder {path} cannot be made: {error.strerror or error}.") from None
    try:
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{path} is in use: another process runs the same {what} just now.") from None
            for left in path.glob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            try:
                yield
            finally:
                with suppress(OSError):
                    if [p.name for p in path.iterdir()] == [LOCK]:
                        (path / LOCK).unlink()
    finally:
        for empty in (path, within):
            with suppress(OSError):
                if empty is not None:
                    empty.rmdir()  # unless there is something in it


def _opened(path: Path) -> TextIO:
    """The lock in a folder that is there or is made now."""
    for _ in range(TRIES):
        with suppress(FileNotFoundError, FileExistsError):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            return (path / LOCK).open("a")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return (path / LOCK).open("a")
