"""The sources of the native library, and a digest that a library built from others does not carry.

`setup.py` runs this file by itself: it imports nothing of the package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

RUNTIME = Path(__file__).resolve().parent.parent
FOLDERS = tuple(RUNTIME / name / "native" for name in ("ring", "engine"))


def digest() -> str | None:
    """Hexadecimal SHA-256 of names and contents; None where the sources are not, as in a wheel."""
    files = sorted(f for folder in FOLDERS if folder.is_dir() for f in folder.iterdir() if f.suffix in {".cc", ".h"})
    if not files:
        return None
    found = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.name} {len(content)} ".encode() + content)
    return found.hexdigest()
