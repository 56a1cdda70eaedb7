"""What a process keeps in memory of what can be made again: what was used last, at most so many.

`SPUVM_STAGES_IN_MEMORY` is the limit for stages that were compiled by XLA (512 if not set), which take megabytes each.
Bytecode takes kilobytes, and stays.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import TypeVar

from spuvm.runtime.errors import ConfigError

DEFAULT = 512

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def limit() -> int:
    given = os.environ.get("SPUVM_STAGES_IN_MEMORY") or str(DEFAULT)
    if not given.isdigit() or int(given) < 1:
        raise ConfigError(f"`SPUVM_STAGES_IN_MEMORY` must be a number of stages, at least 1, got {given!r}.")
    return int(given)


class Recent(OrderedDict[K, V]):
    """A dict of at most `limit()` entries; what was neither kept nor used for longest goes first."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def use(self, key: K) -> V | None:
        """The entry, if it is there."""
        with self._lock:
            found = self.get(key)
            if found is not None:
                self.move_to_end(key)
            return found

    def keep(self, key: K, value: V) -> V:
        """Set an entry, and let go of the oldest if there are too many."""
        most = limit()
        with self._lock:
            self[key] = value
            self.move_to_end(key)
            while len(self) > most:
                self.popitem(last=False)
        return value
