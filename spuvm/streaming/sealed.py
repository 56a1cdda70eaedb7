"""What is read back from disk says if it was damaged: JSON and arrays with their SHA-256; files are whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.errors import InputError

CHECK = "check"
DIGEST_BYTES = 32


def sealed(body: Mapping[str, Any]) -> bytes:
    """One line of JSON that `unsealed` takes."""
    return json.dumps({**body, CHECK: _digest(json.loads(json.dumps(body)))}).encode() + b"\n"


def unsealed(content: bytes) -> dict[str, Any]:
    """The inverse of `sealed`. ValueError for anything that it did not give, whole."""
    if not content.endswith(b"\n"):
        raise ValueError("cut off")
    body = json.loads(content)
    if not isinstance(body, dict) or body.pop(CHECK, None) != _digest(body):
        raise ValueError("damaged")
    return body


def read_sealed(path: Path) -> dict[str, Any]:
    """A file of one line that `sealed` gave. InputError if it cannot be read or is damaged."""
    try:
        return unsealed(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise InputError(f"{path} is damaged: it is not what was written. Remove the folder to start anew.") from None


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a file of arrays that `read_arrays` takes: an .npz with its own SHA-256 behind it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    write_whole(path, buffer.getbuffer())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The inverse of `write_arrays`. InputError if the file cannot be read or is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    body, check = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != check:
        raise InputError(f"{path} is damaged: it is not what was written. Remove it: what it holds is made anew.")
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        return dict(stored)


def write_whole(path: Path, content: Any) -> None:
    """Write a file that appears under its name whole or not at all, for its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file of a run that could not be written."""
    return InputError(
        f"{path} cannot be written: {error.strerror or error}. All blocks finished so far are kept: make room and "
        "start the same command again."
    )


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
