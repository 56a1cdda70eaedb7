"""No more bytes to one peer, in any stretch of t seconds, than its `rate` in the cluster file times t + `BURST`.

What has left is paid for at the rate, and at most `BURST` seconds of that may be ahead of the clock. Sessions that run
beside each other (the jobs of a service) share one account: a file of eight bytes, which holds the moment, by the
machine's own clock, at which all is paid. Where a session was stopped with that in its hands, the others count each for
itself after `HELD` seconds: a limit of bandwidth holds nobody up without a limit.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.parties import Cluster

BURST = 0.05  # seconds
PAUSE = 0.01  # seconds until one that may send nothing asks again
HELD = 1.0  # seconds for which another session has the account at most
MOMENT = struct.Struct("<d")


class Pace:
    """Of one peer. `rate` in bytes a second; `shared`: the file that sessions share, if they do."""

    def __init__(self, rate: float, shared: Path | None = None) -> None:
        self._rate = rate
        self._paid = 0.0
        self._file = None if shared is None else _opened(shared)
        self._refused: float | None = None  # since when another session has the account

    def through(self, send: Callable[[memoryview | bytes], int]) -> Callable[[memoryview | bytes], int]:
        """A socket's `send` that takes no more than may leave now; BlockingIOError if nothing may."""

        def paced(block: memoryview | bytes) -> int:
            most, sent = self._take(len(block)), 0
            if not most:
                raise BlockingIOError
            try:
                sent = send(memoryview(block)[:most])
                return sent
            finally:
                with suppress(BlockingIOError):  # then it is paid for in vain: a twentieth of a second at most
                    self._take(sent - most, give_back=True)

        return paced

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, most: int, give_back: bool = False) -> int:
        with self._account():
            now = time.monotonic()
            if not now <= self._paid <= now + 2 * BURST:  # nothing is owed, or it was before the machine started
                self._paid = now
            room = int((now + BURST - self._paid) * self._rate)
            taken = most if give_back else min(most, room)
            if not give_back and taken < min(most, self._rate * BURST / 2):  # crumbs cost a system call each
                taken = 0
            self._paid += taken / self._rate
            return taken

    @contextmanager
    def _account(self) -> Iterator[None]:
        """BlockingIOError if another session has it."""
        if self._file is None or not self._locked(self._file):
            yield
            return
        try:
            data = os.pread(self._file, MOMENT.size, 0)
            self._paid = MOMENT.unpack(data)[0] if len(data) == MOMENT.size else 0.0
            yield
            os.pwrite(self._file, MOMENT.pack(self._paid), 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _locked(self, file: int) -> bool:
        """Whether the account is in this session's hands; if not, it counts for itself. BlockingIOError: ask again."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refused = self._refused or time.monotonic()
            if time.monotonic() < self._refused + HELD:
                raise
            return False
        self._refused = None
        return True


def paces(cluster: Cluster) -> dict[int, Pace]:
    """By rank, of the parties that have a rate."""
    folder = cluster.shared_rates
    return {
        rank: Pace(party.rate, None if folder is None else folder / party.name)
        for rank, party in enumerate(cluster.parties)
        if party.rate is not None
    }


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"`shared_rates`: {path} cannot be written: {error.strerror}. Give another folder.") from None
