"""Work on large files beside the service's loop: in daemon threads, which hold up neither the loop nor its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from spuvm.data import files
from spuvm.runtime.errors import SpuError


def beside(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """What the function gives or raises, called in a thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    future.add_done_callback(lambda f: f.cancelled() or f.exception())  # told, if nobody waits any more

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result, wrong = None, None
        try:
            result = function(*arguments)
        except BaseException as error:
            wrong = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, wrong)

    threading.Thread(target=work, name="spuvm files", daemon=True).start()
    return future


class Rows:
    """How many rows files have. CSV must be read through for that, so each is counted once while it stays as it is."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[object, int | SpuError]] = {}
        self._turn = asyncio.Lock()

    def knows(self, path: Path) -> bool:
        """Whether `of` answers at once."""
        return path in self._known and self._known[path][0] == _state(path)

    def of(self, path: Path) -> int:
        """Rows of a file. SpuError if it cannot be read, told once: what is put right need not change the file."""
        if not self.knows(path):
            self._count(path)
        found = self._known[path][1]
        if isinstance(found, SpuError):
            del self._known[path]
            raise found
        return found

    async def count(self, paths: Iterable[Path]) -> None:
        """Count what is not known, one file after the other."""
        for path in paths:
            async with self._turn:
                if not self.knows(path):
                    await beside(self._count, path)

    def _count(self, path: Path) -> None:
        state = _state(path)
        try:
            found: int | SpuError = files.open_table(path).rows
        except SpuError as error:
            found = error
        self._known[path] = state, found


def _state(path: Path) -> object:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
