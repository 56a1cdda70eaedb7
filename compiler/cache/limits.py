"""How much the cache on disk may hold: what was not used for long goes first.

`SPUVM_CACHE_MB` is the limit in MB (2,048 if not set; 0: none) for all versions of spuvm together. Entries of other
versions that nobody used for `STALE_DAYS` go, whatever the limit. Reading an entry counts as use.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spuvm.runtime.errors import ConfigError

DEFAULT_MB = 2048
STALE_DAYS = 30
NAME = re.compile("[0-9a-f]{24}")
KEPT = 0.8  # of the limit, once it was passed
LOOKED = "looked"  # beside the versions' folders: when a process looked last at how much there is
PAUSE = 600.0  # seconds until the next does
_LOOKING = threading.Lock()


@dataclass(frozen=True)
class Entry:
    path: Path
    nbytes: int  # what it takes on disk
    used: float  # seconds since the epoch


def limit() -> int:
    """Bytes; 0 where there is none."""
    given = os.environ.get("SPUVM_CACHE_MB") or str(DEFAULT_MB)
    if not given.isdigit():
        raise ConfigError(f"`SPUVM_CACHE_MB` must be a number of megabytes, got {given!r}.")
    return int(given) << 20


def entries(folder: Path) -> Iterator[Entry]:
    """The files of one version's folder. Other processes may add and remove some meanwhile."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for item in found:
            with contextlib.suppress(OSError):
                if item.is_file(follow_symlinks=False):
                    status = item.stat(follow_symlinks=False)
                    yield Entry(Path(item.path), max(status.st_size, status.st_blocks * 512), status.st_mtime)


def due(root: Path) -> bool:
    """Whether nobody has looked for `PAUSE` seconds: then the caller does. Looking reads every entry's size."""
    mark = root / LOOKED
    with contextlib.suppress(OSError):
        if abs(time.time() - mark.stat().st_mtime) < PAUSE:
            return False
    with contextlib.suppress(OSError):
        mark.touch(mode=0o600)
    return True


def shrink_beside(folder: Path) -> None:
    """`shrink` beside the work: looking at what many versions left takes seconds. Not while another thread does."""
    threading.Thread(target=_alone, args=(folder,), name="shrink the cache", daemon=True).start()


def _alone(folder: Path) -> None:
    if _LOOKING.acquire(blocking=False):
        try:
            shrink(folder)
        finally:
            _LOOKING.release()


def shrink(folder: Path) -> None:
    """Remove other versions that are stale, and what was used longest ago of all while there is too much."""
    found: list[Entry] = []
    for version in versions(folder.parent):
        there = list(entries(version))
        if version != folder and max((e.used for e in there), default=0.0) < time.time() - STALE_DAYS * 86400:
            shutil.rmtree(version, ignore_errors=True)
        else:
            found += there
    total, most = sum(e.nbytes for e in found), limit()
    if not most or total <= most:
        return
    for entry in sorted(found, key=lambda e: e.used):
        if total <= KEPT * most:
            return
        with contextlib.suppress(OSError):  # another process removes, too
            entry.path.unlink(missing_ok=True)
        total -= entry.nbytes


def versions(root: Path) -> list[Path]:
    """The folders of all versions: named by digests, anything else beside them is not ours."""
    with contextlib.suppress(OSError):
        return [p for p in root.iterdir() if p.is_dir() and NAME.fullmatch(p.name)]
    return []
