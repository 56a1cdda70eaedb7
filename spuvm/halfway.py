"""Saves that were ended between the parties' moves: some have the new part in its place, others beside it.

Nobody moves its part before all have written theirs, so the newer parts are whole, everywhere. When they are loaded,
parties say which saves they have parts of, in place and beside it, and those who lag behind move theirs.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST = 16  # parts beside their place that a party looks at


@dataclass(frozen=True)
class Found:
    """The save that the part in its place is of, if there is one, and by save the files beside it."""

    placed: str | None = None
    beside: dict[str, Path] = field(default_factory=dict)

    def said(self) -> bytes:
        return json.dumps([self.placed, list(self.beside)]).encode()


def beside(path: Path) -> str:
    """How the files begin that are written before they get the name of a part."""
    return f".{path.name}."


def found(path: Path, save_of: Callable[[Path, bool], str | None]) -> Found:
    """What is at a part's place and beside it; `save_of` a file, of which all is checked or not, None: it is no part.

    What another process is writing just now is not looked at.
    """
    saves = {save: file for file in _left(path)[:MOST] if (save := save_of(file, True)) is not None}
    return Found(save_of(path, False), saves)


def to_complete(said: Sequence[bytes]) -> str | None:
    """The save that some have in place, and all others beside it. Who has neither says so, and holds no part."""
    parties = [p for p in map(_read, said) if p != (None, ())]
    placed = {save for save, _ in parties if save is not None}
    whole = [save for save in sorted(placed) if all(save == here or save in more for here, more in parties)]
    return whole[0] if whole and len({here for here, _ in parties}) > 1 else None


def remove_left(path: Path) -> None:
    """Remove what earlier saves left beside a part: all parties have a newer one in place."""
    for file in _left(path):
        with suppress(OSError):
            file.unlink()


def _left(path: Path) -> list[Path]:
    """The files beside a part's place that no process is writing."""
    with suppress(OSError):
        return [x for x in sorted(path.parent.iterdir()) if x.name.startswith(beside(path)) and _is_left(x)]
    return []


def _is_left(file: Path) -> bool:
    """Whether it is a file, no link, that no process is writing."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def _read(said: bytes) -> tuple[str | None, tuple[str, ...]]:
    """What a party says; nothing, if it is malformed."""
    placed: Any
    try:
        placed, more = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        return None, ()
    if not isinstance(placed, str | None) or not isinstance(more, list) or not all(isinstance(x, str) for x in more):
        return None, ()
    return placed, tuple(more)
