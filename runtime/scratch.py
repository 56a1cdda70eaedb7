"""Folders that live as long as their process: who was killed leaves his to the next process that makes one.

Keys made for one run, randomness, blocks of rows: nothing that should outlive who made it. Each folder is in the
system's folder for temporary files, open to this user alone, and holds a lock while its process lives. A folder is
removed by another process only if it is this user's, was made on this machine, and its lock can be had; what is in it
is removed through the open folder, so no link and no folder that takes its name leads elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from spuvm.runtime.errors import ConfigError

LOCK = "held"
TRIES = 10
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Scratch:
    """A new folder at `path`; gone when it is closed, with this object, or with its process.

    Raises:
        ConfigError: if none can be made.
    """

    def __init__(self) -> None:
        sweep()
        try:
            self.path, lock = _made()
        except OSError as error:
            raise ConfigError(
                f"no temporary folder can be made: {error.strerror or error}. Make room, or name a folder in TMPDIR."
            ) from None
        self._close = weakref.finalize(self, _removed, self.path, lock, os.getpid())

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def sweep() -> None:
    """Remove what processes of this user have left that are no more."""
    with suppress(OSError):
        base = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(base):
                if name.startswith(_prefix()):
                    with suppress(OSError):
                        _sweep(base, name)
        finally:
            os.close(base)


def _prefix() -> str:
    """Of folders made on this machine: another that sees the same disk may not see their locks."""
    return f"spuvm-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def _made() -> tuple[Path, int]:
    """A folder, and its lock, which is held."""
    for _ in range(TRIES):
        path = Path(tempfile.mkdtemp(prefix=_prefix()))  # mode 0700
        try:
            lock = os.open(path / LOCK, FILE | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:  # taken for one that was left: it was empty
            continue
        if _held(lock) and _is_there(path / LOCK, lock):
            return path, lock
        os.close(lock)
    raise ConfigError(f"no temporary folder stays in {tempfile.gettempdir()}: name another in TMPDIR.")


def _held(lock: int) -> bool:
    """Whether this process has the lock now; a file system without locks has none that could be taken either."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_there(path: Path, lock: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(lock))
    return False


def _sweep(base: int, name: str) -> None:
    """Remove a folder of a folder if its process is gone. OSError: leave it."""
    folder = os.open(name, FOLDER, dir_fd=base)
    try:
        if os.fstat(folder).st_uid != os.getuid():
            return
        with suppress(FileNotFoundError):  # its process ended before it had a lock: it is empty
            lock = os.open(LOCK, FILE, dir_fd=folder)
            try:
                _empty(folder, lock)
            finally:
                os.close(lock)
        os.rmdir(name, dir_fd=base)
    finally:
        os.close(folder)


def _empty(folder: int, lock: int) -> None:
    """Remove what is in an open folder, if its lock is free."""
    is_ours = os.fstat(lock)
    if not stat.S_ISREG(is_ours.st_mode) or is_ours.st_uid != os.getuid():
        raise PermissionError(LOCK)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _clear(folder)


def _clear(folder: int) -> None:
    """Remove what is in an open folder, its lock last: what stays, if one is killed meanwhile, the next removes."""
    for entry in os.listdir(folder):
        if entry == LOCK:
            continue
        if stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(entry, ignore_errors=True, dir_fd=folder)
        else:
            os.unlink(entry, dir_fd=folder)
    if os.listdir(folder) == [LOCK]:
        os.unlink(LOCK, dir_fd=folder)


def _removed(path: Path, lock: int, owner: int) -> None:
    """Remove a folder of one's own, and let go of its lock; in a copy of its process (fork) the latter alone."""
    try:
        if os.getpid() == owner:
            with suppress(OSError):  # what another process writes there just now stays
                folder = os.open(path, FOLDER)
                try:
                    _clear(folder)
                finally:
                    os.close(folder)
                os.rmdir(path)
    finally:
        os.close(lock)
