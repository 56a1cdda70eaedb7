"""Tags of one pass on their way to the helper: by bucket, in memory or in a file each."""

from __future__ import annotations

import os
import resource
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from spuvm.runtime.errors import InputError


class Scratch(Protocol):
    """What keeps a pass's tags, uint64[rows, 2] a bucket, in the order of the table's rows."""

    def add(self, bucket: int, tags: np.ndarray) -> None:
        """More rows of a bucket."""
        ...

    def take(self, bucket: int) -> np.ndarray:
        """All rows of a bucket; they may be gone then."""
        ...


class InMemory:
    """For tables whose tags memory holds."""

    def __init__(self) -> None:
        self._tags: dict[int, list[np.ndarray]] = {}

    def add(self, bucket: int, tags: np.ndarray) -> None:
        self._tags.setdefault(bucket, []).append(tags)

    def take(self, bucket: int) -> np.ndarray:
        pieces = self._tags.pop(bucket, [])
        return np.concatenate(pieces) if pieces else np.empty((0, 2), np.uint64)


class OnDisk:
    """Files of a folder of the run; `written` while the pass is being cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checks: dict[int, int] = {}  # CRC-32 of each file
        self._files: dict[int, Any] = {}

    def path(self, bucket: int) -> Path:
        return self.folder / f"tags-{bucket:06d}"

    @contextmanager
    def writing(self, buckets: Sequence[int]) -> Iterator[None]:
        """Keep the files of these buckets open."""
        _allow_files(len(buckets) + 64)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with ExitStack() as stack:
                for b in buckets:
                    descriptor = os.open(self.path(b), os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
                    self._files[b] = stack.enter_context(os.fdopen(descriptor, "wb", buffering=0))
                yield
        except OSError as error:
            raise full(self.folder, error) from None
        finally:
            self._files = {}

    def add(self, bucket: int, tags: np.ndarray) -> None:
        content = np.ascontiguousarray(tags).data.cast("B")
        self.checks[bucket] = zlib.crc32(content, self.checks.get(bucket, 0))
        self._files[bucket].write(content)

    def take(self, bucket: int) -> np.ndarray:
        """InputError if the file is not what was written."""
        path = self.path(bucket)
        try:
            content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
        if zlib.crc32(content.data) != self.checks.get(bucket, 0):
            again = f"pass-{self.folder.name.removeprefix('tags-')}.json"
            raise InputError(
                f"{path} is damaged: it is not what was written. Remove {self.folder.with_name(again)} and start the "
                "same command again: the pass is cut anew."
            )
        return content.view(np.uint64).reshape(-1, 2)

    def remove(self) -> None:
        """The pass is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _allow_files(count: int) -> None:
    """Raise this process's limit of open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))


def full(path: Path, error: OSError) -> InputError:
    """The error for a disk that takes no more."""
    return InputError(
        f"{path} cannot be written: {error.strerror or error}. What is finished is kept: make room, or give less "
        "`scratch`, and start the same command again."
    )


def check_room(folder: Path, needed: int) -> None:
    """InputError unless the disk of a folder has so many bytes left."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"the run needs {needed / 1e9:.1f} GB of scratch in {folder}, and the disk has {free / 1e9:.1f} GB: make "
            "room, give another `folder`, or less `scratch` (more passes over the file)."
        )
