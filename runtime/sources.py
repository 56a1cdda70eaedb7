"""The package's own sources: which files they are, and a digest that changes with any of them.

What is kept on disk (compiled stages, programs, keys of a stream's masks) belongs to one version of these files, of
JAX and of jaxlib. Source lines in messages are the user's where they are in none of them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parent.parent  # spuvm/: the folders below it may be links
FOLDERS = {name: PACKAGE / name for name in ("compiler", "runtime")}


def sources(folder: Path) -> list[Path]:
    """The Python files in a folder and in all folders below, in an order that is the same everywhere."""
    root = folder.resolve()
    return sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())


def digest_of(*folders: Path) -> str:
    """SHA-256 of names and content of all sources in the folders, and of JAX's and jaxlib's versions."""
    digest = hashlib.sha256()

    def add(content: bytes) -> None:
        digest.update(b"%d " % len(content) + content)

    for folder in folders:
        for file in sources(folder):
            add(file.relative_to(folder.resolve()).as_posix().encode())
            add(file.read_bytes())
    for package in ("jax", "jaxlib"):
        add(version(package).encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Of all that decides what a function compiles to, and which masks a program draws."""
    return digest_of(*FOLDERS.values())
