"""What an owner keeps of a large run, so that it goes on after a kill: its folder.

    run.json          what is matched with whom, on which data, and the run's key; readable by its owner alone
    pass-N.json       that all tags of a pass are cut into buckets, and how many there are of each
    tags-N/           these tags, until the pass is over
    worker-N*.json    jobs of workers, while they run
    bits-NNNNNN.npz   of a finished bucket: which of its rows match, in the order of the file's rows

A bucket's file appears whole or not at all; what is read back is checked. The run's key makes tags that never leave
the owner: those that the helper gets are these, encrypted under a key of the session, so that it cannot tell two
attempts of a bucket from two buckets.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spuvm.runtime.errors import InputError
from spuvm.streaming.held import LOCK
from spuvm.streaming.sealed import read_arrays, sealed, unsealed, write_arrays, write_whole

FORMAT = 2


class RunKeys(NamedTuple):
    """`shared` by the owners, for tags of keys; `own`, for those of rows without one."""

    shared: bytes
    own: bytes


class RunFolder:
    """An owner's folder; `run` is what `run.json` says, None before the run began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: dict[str, Any] | None = None
        try:
            if (path / "run.json").exists():
                self.run = unsealed((path / "run.json").read_bytes())
            elif path.exists() and (strange := [p.name for p in path.iterdir() if not _ours(p.name)]):
                raise InputError(f"{path} holds other files ({strange[0]}, ...): give another folder for the run.")
        except OSError as error:
            raise InputError(f"the run's folder {path} cannot be read: {error.strerror or error}.") from None
        except ValueError:
            raise InputError(f"{path}/run.json is damaged: remove the folder to start anew.") from None
        if self.run is not None and self.run.get("format") != FORMAT:
            raise InputError(f"{path} is of another version: finish with that, or remove the folder.")

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Refuse to go on with other data or another question. InputError says what differs."""
        assert self.run is not None
        for name, now in manifest.items():
            if json.loads(json.dumps(now)) != self.run["manifest"].get(name):
                raise InputError(
                    f"{self.path} belongs to another run: {_WHAT.get(name, name)} differ. Nothing was changed. Give "
                    "another folder, or remove this one, at every party, to start anew."
                )

    def begin(self, run: str, key: bytes, manifest: Mapping[str, Any]) -> None:
        """Begin a run in a new folder, or in one where none began."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise InputError(f"the run's folder {self.path} cannot be made: {error.strerror or error}.") from None
        keys = {"shared": key.hex(), "own": secrets.token_hex(16)}
        self.run = {"format": FORMAT, "run": run, "keys": keys, "manifest": manifest}
        write_whole(self.path / "run.json", sealed(self.run))

    @property
    def keys(self) -> RunKeys:
        """Of the run's tags."""
        assert self.run is not None
        return RunKeys(*(bytes.fromhex(self.run["keys"][name]) for name in ("shared", "own")))

    def finished(self) -> set[int]:
        """Numbers of the buckets whose bits are here."""
        return {int(p.name[5:11]) for p in self.path.glob("bits-*.npz")}

    def keep(self, bucket: int, bits: np.ndarray) -> None:
        """Store a bucket's bits, bool[rows]."""
        write_arrays(self.path / f"bits-{bucket:06d}.npz", count=len(bits), bits=np.packbits(bits))

    def bits(self, bucket: int) -> tuple[int, np.ndarray]:
        """How many rows a finished bucket has, and its bits, packed."""
        stored = read_arrays(self.path / f"bits-{bucket:06d}.npz")
        return int(stored["count"]), stored["bits"]

    def cut(self, number: int) -> tuple[list[int], dict[int, int]] | None:
        """The rows of each bucket of a pass, and check sums of their files, if all its tags are in buckets."""
        with suppress(OSError, ValueError):
            stored = unsealed((self.path / f"pass-{number}.json").read_bytes())
            return stored["rows"], {int(b): check for b, check in stored["checks"].items()}
        return None

    def keep_cut(self, number: int, rows: list[int], checks: Mapping[int, int]) -> None:
        """That all tags of a pass are in buckets, of so many rows, whose files have these check sums."""
        body = {"rows": rows, "checks": {str(b): check for b, check in checks.items()}}
        write_whole(self.path / f"pass-{number}.json", sealed(body))

    def remove(self) -> None:
        """All of the run; what it began with goes last."""
        for path in sorted(self.path.iterdir(), key=lambda p: p.name == "run.json") if self.path.exists() else []:
            if _ours(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


_WHAT = {
    "owners": "the owners",
    "rows": "the numbers of rows",
    "file": "the files (size, time of change, columns)",
    "key": "the key columns",
    "layout": "the buckets",
}


def _ours(name: str) -> bool:
    return (
        name in (LOCK, "run.json") or name.startswith(("pass-", "tags-", "bits-", "worker-")) or name.endswith(".tmp")
    )
