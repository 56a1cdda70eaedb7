"""Settings of a process that are on or off: variables of its environment that hold 1 or 0."""

from __future__ import annotations

import os

from spuvm.runtime.errors import ConfigError


def switch(variable: str) -> bool:
    """Whether it is on, as it is where nothing is set. ConfigError for anything but 0 and 1."""
    given = os.environ.get(variable, "")
    if given not in ("", "0", "1"):
        raise ConfigError(f"`{variable}` must be 1 (on, as without it) or 0 (off), got {given!r}.")
    return given != "0"
