"""What a component's code is, as a digest: a node runs anew when it, or a function that it calls, has changed."""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from spuvm.runtime import sources

OURS = "spuvm"
BUILT_IN = "spuvm.flow.parts."


def of_function(function: Callable[..., Any]) -> str:
    """SHA-256 of the source of a function and of all functions of its package that it calls by name."""
    digest = hashlib.sha256()
    seen: set[int] = set()
    _add(function, function.__module__.partition(".")[0], digest, seen)
    return digest.hexdigest()


def _add(x: Any, package: str, digest: Any, seen: set[int]) -> None:
    x = inspect.unwrap(x) if callable(x) else x
    if id(x) in seen:
        return
    seen.add(id(x))
    if isinstance(x, FunctionType) and x.__module__.partition(".")[0] == package:
        digest.update(_text(x).encode())
        cells = inspect.getclosurevars(x)
        for name, value in sorted({**cells.globals, **cells.nonlocals}.items()):
            digest.update(name.encode())
            _add(value, package, digest, seen)
        for value in (x.__defaults__ or (), x.__kwdefaults__ or {}):
            digest.update(repr(value).encode())
    elif isinstance(x, ModuleType):
        digest.update(f"module {x.__name__}".encode())
    elif isinstance(x, type):
        digest.update(_class_text(x).encode() if x.__module__.partition(".")[0] == package else repr(x).encode())
    elif isinstance(x, int | float | str | bytes | bool | tuple | frozenset | type(None)):
        digest.update(repr(x).encode())
    else:
        digest.update(f"{type(x).__module__}.{type(x).__qualname__}".encode())


def _text(function: FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt
        return _code_text(function.__code__)


def _class_text(x: type) -> str:
    try:
        return textwrap.dedent(inspect.getsource(x))
    except (OSError, TypeError):
        return x.__qualname__


def _code_text(code: CodeType) -> str:
    inner = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"


@lru_cache(maxsize=1)
def of_package() -> str:
    """SHA-256 of this package's version and of all of its sources, and of JAX's versions."""
    folders = [d for d in sorted(sources.PACKAGE.iterdir()) if d.is_dir() and not d.name.startswith(("_", "."))]
    digest = sources.digest_of(*[Path(d) for d in folders])
    files = b"".join(f.read_bytes() for f in sorted(sources.PACKAGE.glob("*.py")))
    return hashlib.sha256(f"{version(OURS)} {digest}".encode() + files).hexdigest()
