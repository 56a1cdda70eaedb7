"""What is kept apart from a ledger: its newest entry, under its identity, and which ledger lies at which path.

In `SPUVM_STATE_DIR`, or the user's state folder. A copy has the identity of the ledger that it was made from, so both
together never have more uses than one; and at a path where a ledger was, another is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import DataError
from spuvm.runtime.locks import lock

KINDS = [int, float, str, str, str]  # of an entry: number, time, label, spent, hash


def at_path(path: Path) -> str:
    """The identity that a ledger without one of its own has: that of its place."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:32]


def known_at(path: Path) -> str | None:
    """The identity of the ledger that lies at this path, if there was one."""
    text = _read(_folder() / f"{at_path(path)}.place")
    return text.strip() if text else None


def settle(path: Path, identity: str) -> None:
    """From now on the ledger at this path is this one."""
    _write(_folder() / f"{at_path(path)}.place", identity)


def newest(identity: str) -> tuple[int, list[Any], bool]:
    """How many entries there have been, the last one, and whether the ledger is known to have it."""
    path = _folder() / f"{identity}.json"
    text = _read(path)
    if text is None:
        return 0, [], True
    try:
        entry, done = json.loads(text)
        if [type(x) for x in entry] != KINDS:
            raise ValueError(entry)
        return entry[0], entry, bool(done)
    except (ValueError, TypeError):
        raise DataError(f"{path} is damaged: it is no newest entry of a ledger.") from None


def expect(identity: str, entry: Sequence[Any], done: bool) -> None:
    """On disk when this returns."""
    _write(_folder() / f"{identity}.json", json.dumps([entry, done]))


@contextmanager
def alone(identity: str) -> Iterator[None]:
    """One at a time, also of the copies of a ledger. DataError if another does not let go."""
    path = _folder() / f"{identity}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        _lock(file, path)
        yield
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> None:
    try:
        lock(file)
    except TimeoutError as error:
        raise DataError(f"nothing is spent and nothing shown: {path} is needed, and {error}.") from None
    except OSError as error:
        raise _unwritten(path, error) from None


def _folder() -> Path:
    base = os.environ.get("SPUVM_STATE_DIR") or os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "spuvm" / "budgets"


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}, which is kept apart from a ledger, cannot be read: {error}.") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritten(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}, which is kept apart from a ledger, cannot be written ({error.strerror or error}): nothing is spent "
        "and nothing shown. Give a folder in SPUVM_STATE_DIR that this user may write."
    )
