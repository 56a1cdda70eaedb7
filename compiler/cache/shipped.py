"""Plans and bytecode of usual kernels that came with the package, so that a first call with an empty cache finds them.

They lie in `kernels.zip` beside this file: `make release` puts it into the wheel, `python release/kernels.py` into a
source tree. Never machine code; of one version of spuvm's sources, of JAX and of jaxlib, which the archive names. One
of others, or damaged, is as good as none.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from spuvm.runtime.sources import code_digest

FILE = Path(__file__).with_name("kernels.zip")
KINDS = (".plan", ".code")
# What `zipfile` raises of an archive that cannot be read, encrypted or of another method included.
DAMAGED = (BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def there() -> bool:
    """Whether there is an archive of this version."""
    return _archive(FILE) is not None


def read(name: str) -> bytes | None:
    """What came with the package under this name."""
    archive = _archive(FILE) if name.endswith(KINDS) else None
    if archive is None:
        return None
    try:
        return archive.read(name)
    except (KeyError, *DAMAGED):
        return None


@lru_cache(maxsize=1)
def _archive(file: Path) -> ZipFile | None:
    try:
        archive = ZipFile(io.BytesIO(file.read_bytes()))
    except DAMAGED:
        return None
    return archive if archive.comment == code_digest().encode() else None


def write(file: Path, entries: Mapping[str, bytes]) -> None:
    """An archive for these very sources."""
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(entries.items()):
            assert name.endswith(KINDS), name
            archive.writestr(name, content)
        archive.comment = code_digest().encode()
