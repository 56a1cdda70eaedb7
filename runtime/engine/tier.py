"""What runs stages: the vector engine where it can, XLA where it cannot or is asked for.

`SPUVM_ENGINE` is `native` (the default: the engine, and XLA for stages with an operation that the engine lacks),
`llvm` (the same, but machine code of a stage's loops is made before it first runs on wide arrays, not once it has
earned that) or `xla` (every stage by XLA, the twin that defines the bits). `use` changes it for this process. Where a
device is asked for (`device`) every stage runs there, by XLA.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from spuvm.runtime.engine import device, interpreter
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.ring import native
from spuvm.runtime.settings import switch

TIERS = ("native", "llvm", "xla")
_wanted: str | None = None


def current() -> str:
    """What stages that are loaded from now on run by; without an engine, and on a device that is named, `xla`."""
    if device.wanted() is not None:
        return "xla"
    wanted = _wanted or checked(os.environ.get("SPUVM_ENGINE") or "native", "SPUVM_ENGINE")
    return wanted if wanted == "xla" or _available() else "xla"


def checked(name: str, where: str) -> str:
    if name not in TIERS:
        raise ConfigError(f"`{where}` must be one of {', '.join(TIERS)}, got {name!r}.")
    return name


@contextmanager
def use(name: str) -> Iterator[None]:
    """Within the block stages are loaded for this tier. Programs that were prepared before keep theirs."""
    global _wanted
    before, _wanted = _wanted, checked(name, "engine")
    try:
        yield
    finally:
        _wanted = before


@cache
def _available() -> bool:
    """Whether there is an engine; that there is none is said once, here or where its library was refused."""
    if interpreter.library() is not None:
        return True
    if switch("SPUVM_NATIVE") and not native.warned:
        logging.getLogger(__name__).warning(
            "spuvm runs without its vector engine, every stage by XLA: the native library is not there, or of older "
            "source. With a C++ compiler at hand, install spuvm again."
        )
    return False
