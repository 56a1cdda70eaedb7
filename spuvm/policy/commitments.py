"""Commitments to files: SHA-256 over 256 random bits and the file, so that who has the record cannot test guesses.

Who is shown the random bits (the salt) and the file, can check that it is the one: for a salt that was drawn at random,
another file with the same hash would be a collision. Without the salt the hash says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from spuvm.runtime.errors import DataError

SALT_BYTES = 32
PIECE = 1 << 20


def commit(files: Mapping[str, Path], salts: Path, stop: Callable[[], bool] = lambda: False) -> dict[str, str]:
    """A commitment to each file, as hex digits. Salts are in the file `salts`, made here if it is not there.

    Raises:
        InterruptedError: once `stop` says so.
        DataError: if the salts are damaged.
    """
    known = _read(salts) if salts.exists() else {}
    new = {name: secrets.token_hex(SALT_BYTES) for name in files if name not in known}
    if new:
        known |= new
        temporary = salts.with_name(f".{salts.name}.new")  # whoever is killed here leaves the old ones, or the new ones
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(known, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, salts)
    return {name: _digest(known[name], path, stop) for name, path in files.items()}


def opens(commitment: str, path: Path, salts: Path, name: str) -> bool:
    """Whether a file is the one that was committed to under this name.

    Raises:
        DataError: if the salts cannot be read, or have none of this name.
    """
    known = _read(salts)
    if name not in known:
        raise DataError(f"{salts} has no salt of `{name:.64}`: it has {', '.join(known) or 'none'}.")
    return hmac.compare_digest(commitment, _digest(known[name], path))


def _digest(salt: str, path: Path, stop: Callable[[], bool] = lambda: False) -> str:
    digest = hashlib.sha256(bytes.fromhex(salt))
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            if stop():
                raise InterruptedError(f"{path} was not read to its end")
    return digest.hexdigest()


def _read(salts: Path) -> dict[str, str]:
    try:
        known = json.loads(salts.read_text())
        if not all(len(bytes.fromhex(salt)) == SALT_BYTES for salt in known.values()):
            raise ValueError("salts of another size")
    except (OSError, ValueError, TypeError, AttributeError):
        raise DataError(f"the salts {salts} cannot be read, or are damaged.") from None
    return {str(name): salt for name, salt in known.items()}
