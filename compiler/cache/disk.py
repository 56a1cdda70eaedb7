"""The cache of compiled pieces on disk, so that a second process compiles nothing.

It lies in `$SPUVM_CACHE_DIR`, or `spuvm` in the user's cache folder; `SPUVM_CACHE=0` turns it off.
It holds at most so much, see `limits`; `spuvm cache` shows and clears it. Entries belong to one version of
spuvm's sources, of JAX, and of the processor. Loading a compiled piece runs code, so a folder that others
may write to is not used. An entry begins with the SHA-256 of the rest: one that is damaged, empty or of
another form is not there, and is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
from functools import lru_cache
from itertools import count
from pathlib import Path

from spuvm.compiler.cache import shipped
from spuvm.compiler.cache.limits import due, shrink
from spuvm.runtime.ring import native
from spuvm.runtime.sources import code_digest

DIGEST_BYTES = 32
CHECKED = 500  # writes of a process between two looks at how much there is
_writes = count()


@lru_cache(maxsize=1)
def folder() -> Path | None:
    """Where entries of this version go; None if there is no safe place."""
    if os.environ.get("SPUVM_CACHE") == "0":
        return None
    base = os.environ.get("SPUVM_CACHE_DIR")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spuvm"
    try:
        path = root / _version()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for p in (root, path):
            status = p.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return None
    except OSError:
        return None
    return path


def _version() -> str:
    digest = hashlib.sha256()
    digest.update(code_digest().encode())
    for file in _native():
        digest.update(file.read_bytes())
    digest.update(f"{platform.machine()} {_processor()}".encode())
    digest.update(os.environ.get("XLA_FLAGS", "").encode())
    return digest.hexdigest()[:24]


def _native() -> list[Path]:
    library = native.library()
    return [] if library is None else [Path(library._name)]


def _processor() -> str:
    """What distinguishes processors on which the same machine code may not run."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


def there(name: str) -> bool:
    """Whether there is such an entry, whole or not."""
    path = folder()
    return path is not None and (path / name).exists()


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(name: str) -> bytes | None:
    """The entry, if it is there and as it was written, under this name; else what came with the package."""
    path = folder()
    if path is None:
        return None
    try:
        stored = (path / name).read_bytes()
        os.utime(path / name)  # it was used: see `limits`
    except OSError:
        return shipped.read(name)
    content = stored[DIGEST_BYTES:]
    return content if stored[:DIGEST_BYTES] == _seal(name, content) else shipped.read(name)


def _seal(name: str, content: bytes) -> bytes:
    """Of an entry under its name: whole, but under another's, it is as good as damaged."""
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def write(name: str, content: bytes) -> None:
    """Store an entry, whole or not at all; a full disk is no error here."""
    path = folder()
    if path is None:
        return
    written = next(_writes)
    if (written and written % CHECKED == 0) or (not written and due(path.parent)):
        shrink(path)
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_seal(name, content))
                file.write(content)
            os.replace(temporary, path / name)
        except OSError:
            os.unlink(temporary)
