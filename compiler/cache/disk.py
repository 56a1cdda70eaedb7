"""The cache of compiled pieces on disk, so that a second process compiles nothing.

It lies in `$SPUVM_CACHE_DIR`, or `spuvm` in the user's cache folder; `SPUVM_CACHE=0` turns it off.
It holds at most so much, see `limits`; `spuvm cache` shows and clears it. Entries belong to one version of
spuvm's sources, of JAX, and of the processor. Loading a compiled piece runs code, so a folder that others
may write to is not used. An entry begins with the SHA-256 of the rest: one that is damaged, empty or of
another form is not there, and is replaced. Where nothing can be kept, that is said once, and all is compiled anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import stat
import tempfile
from functools import lru_cache
from itertools import count
from pathlib import Path

from spuvm.compiler.cache import shipped
from spuvm.compiler.cache.limits import due, limit, shrink_beside
from spuvm.runtime.ring import native
from spuvm.runtime.settings import switch
from spuvm.runtime.sources import code_digest

DIGEST_BYTES = 32
CHECKED = 500  # writes of a process between two looks at how much there is
warned = False  # whether it was said that nothing is kept
_writes = count()


@lru_cache(maxsize=1)
def folder() -> Path | None:
    """Where entries of this version go; None if there is no safe place, or none is wanted.

    Raises ConfigError for settings that mean nothing.
    """
    if not wanted():
        return None
    limit()
    try:
        return place()
    except OSError as error:
        _said(str(error))
        return None


def wanted() -> bool:
    """Whether the user has not turned the cache off."""
    return switch("SPUVM_CACHE")


def place() -> Path:
    """The folder, made if it is not there; OSError, which says why, if it cannot be or is not this user's alone."""
    root = _root()
    path = root / _version()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for p in (root, path):
        status = p.stat()
        if status.st_uid != os.getuid():
            raise OSError(f"{p} belongs to another user")
        if status.st_mode & 0o022:
            raise OSError(f"others may write to {p}, and what lies there is run (chmod go-w)")
    return path


def _root() -> Path:
    base = os.environ.get("SPUVM_CACHE_DIR")
    if base:
        return Path(base)
    try:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise OSError(error) from None
    if not usual.is_absolute():
        raise OSError("the user has no home")
    return usual / "spuvm"


def _said(why: str) -> None:
    """Once, for whatever reason came first."""
    global warned
    if warned:
        return
    warned = True
    logging.getLogger(__name__).warning(
        "spuvm keeps nothing on disk, so that each process compiles anew: %s. Name a folder of your own in "
        "SPUVM_CACHE_DIR, or set SPUVM_CACHE=0 to do without.",
        why,
    )


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
        stored = _content(path / name)
    except OSError:
        return shipped.read(name)
    with contextlib.suppress(OSError):  # of a disk that can be read only
        os.utime(path / name)  # it was used: see `limits`
    content = stored[DIGEST_BYTES:]
    return content if stored[:DIGEST_BYTES] == _seal(name, content) else shipped.read(name)


def _content(path: Path) -> bytes:
    """OSError for what is no file: a pipe would be waited for, a link may lead anywhere."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        return file.read()


def _seal(name: str, content: bytes) -> bytes:
    """Of an entry under its name: whole, but under another's, it is as good as damaged."""
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def write(name: str, content: bytes) -> None:
    """Store an entry, whole or not at all; a full disk is said once, and is no error here."""
    path = folder()
    if path is None:
        return
    written = next(_writes)
    if (written and written % CHECKED == 0) or (not written and due(path.parent)):
        shrink_beside(path)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)  # another process may have cleared it
        _replace(path / name, _seal(name, content) + content)
    except OSError as error:
        _said(str(error))


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
