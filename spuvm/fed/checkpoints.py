"""Checkpoints of a training: at each party a file of what all know, and of what is the party's own.

A party may have been killed between two files, so each keeps its last two rounds, and all go on at the newest round
that every one has. A party that has no checkpoint at all starts its own part anew: so parties join and return.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.errors import InputError, SaveError

NAME = re.compile(r"round(\d+)\.npz")
KEPT = 2


def folder_of(checkpoint: str | Path | Mapping[str, str | Path], party: str) -> Path:
    """Where a party's files are; of one folder for all, a folder of the party's name in it."""
    if not isinstance(checkpoint, Mapping):
        return Path(checkpoint) / party
    if party not in checkpoint:
        raise InputError(f"`checkpoint` has no folder for {party}: give one for each party, or one path.")
    return Path(checkpoint[party])


def rounds(folder: Path) -> str:
    """The rounds that a party has, as text to tell the others."""
    found = (NAME.fullmatch(path.name) for path in folder.glob("round*.npz")) if folder.is_dir() else ()
    return ",".join(str(n) for n in sorted(int(m[1]) for m in found if m))


def write(folder: Path, number: int, public: Mapping[str, Any], own: Mapping[str, Any], facts: Any) -> None:
    """Appears whole or not at all. SaveError if it cannot be written."""
    arrays = {f"public/{k}": v for k, v in public.items()} | {f"own/{k}": v for k, v in own.items()}
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    body = buffer.getvalue()
    path = folder / f"round{number}.npz"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(temporary, "wb", opener=_private) as file:
            file.write(hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for old in sorted(folder.glob("round*.npz"), key=_number)[:-KEPT]:
            old.unlink()
    except OSError as error:
        raise SaveError(f"the checkpoint {path} cannot be written: {error.strerror or error}.") from None


def read(folder: Path, number: int) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What all know, what is the party's own, and facts; InputError for a file that is damaged."""
    path = folder / f"round{number}.npz"
    try:
        body = path.read_bytes()
        if hashlib.sha256(body[32:]).digest() != body[:32]:
            raise ValueError(path)
        with np.load(io.BytesIO(body[32:])) as found:
            arrays = {name: found[name] for name in found.files}
        facts = json.loads(arrays.pop("facts").tobytes())
    except (OSError, ValueError, KeyError):
        raise InputError(f"the checkpoint {path} is damaged: take it away, and training goes on from before.") from None
    split: dict[str, dict[str, Any]] = {"public": {}, "own": {}}
    for name, array in arrays.items():
        kind, _, key = name.partition("/")
        split[kind][key] = array
    return split["public"], split["own"], facts


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    return int(found[1]) if found else -1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
