"""Compiling without the collector of cycles: what it makes is kept, and to look through it takes a tenth of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_within = 0  # how many blocks there are at present, of all threads
_was_on = False


@contextmanager
def uncollected() -> Iterator[None]:
    """No cycles are collected while the block runs; afterwards they are again, if they were before."""
    global _within, _was_on
    with _LOCK:
        if not _within:
            _was_on = gc.isenabled()
            gc.disable()
        _within += 1
    try:
        yield
    finally:
        with _LOCK:
            _within -= 1
            if not _within and _was_on:
                gc.enable()
