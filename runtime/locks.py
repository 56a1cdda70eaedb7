"""Locks of files that several processes write to: a lock is awaited for a limited time, which users can set."""

from __future__ import annotations

import fcntl
import os
import time

from spuvm.runtime.errors import ConfigError

VARIABLE = "SPUVM_LOCK_SECONDS"
DEFAULT_SECONDS = 60.0
POLL = 0.01


def lock(file: int) -> None:
    """Have an open file alone, until it is closed.

    Raises:
        TimeoutError: if another process does not let go of it within the limit; its text says what to do.
        ConfigError: for a limit that is none.
        OSError: if it cannot be locked.
    """
    limit = limit_seconds()
    end = time.monotonic() + limit
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"it has been held by another process for {limit:g} s: end that process, or give more time in "
                    f"{VARIABLE}"
                ) from None
        time.sleep(POLL)


def limit_seconds() -> float:
    """Of any wait for another process of this machine. ConfigError if what the user set is none."""
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text or DEFAULT_SECONDS)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"{VARIABLE} must be a number of seconds, 0 or more, got {text!r}.")
    return limit
