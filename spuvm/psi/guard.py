"""What an owner demands before its rows are matched: that others do not probe it, key by key or again and again.

Who matches a table of one row with another's learns whether that row is there; who changes its table a little each time
learns of each change. Neither breaks a protocol, so owners set limits, each for itself.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.locks import lock
from spuvm.streaming.sealed import sealed, unsealed

DAY = 86400.0


@dataclass(frozen=True)
class Guard:
    """An owner's limits.

    Attributes:
        least_rows: that any other owner must bring.
        most_runs: how often the same owners may match with this one within `days`; it is written down in `ledger`, a
            file of this owner's, before anything is computed, so that a run that fails counts as well.
    """

    least_rows: int = 0
    most_runs: int | None = None
    days: float = 30.0
    ledger: str | Path | None = None

    def __post_init__(self) -> None:
        if self.most_runs is not None and self.ledger is None:
            raise ConfigError("`most_runs` needs a `ledger`: the file in which runs are written down.")

    def admit(self, me: str, rows: Mapping[str, int]) -> None:
        """Let the owners of tables of so many rows match with this one. InputError if a limit forbids it."""
        others = sorted(p for p in rows if p != me)
        for party in others:
            if rows[party] < self.least_rows:
                raise InputError(
                    f"{me} matches with tables of {self.least_rows:,} rows or more, {party} brings {rows[party]:,}: "
                    "few rows would tell too much of each."
                )
        if self.ledger is not None:
            self._note(me, others, rows)

    def _note(self, me: str, others: Sequence[str], rows: Mapping[str, int]) -> None:
        try:
            descriptor = os.open(self.ledger or "", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                lock(file.fileno())
                past = [_run(line, n) for n, line in enumerate(file.read().splitlines(keepends=True), 1)]
                now = time.time()
                known = [run for run in past if run["with"] == others and run["time"] > now - self.days * DAY]
                if self.most_runs is not None and len(known) >= self.most_runs:
                    raise InputError(
                        f"{me} has matched {len(known)} times with {' and '.join(others)} within {self.days:g} days, "
                        "and allows no more: wait, or ask for another limit."
                    )
                _append(file.fileno(), sealed({"time": now, "with": others, "rows": dict(rows)}))
        except (OSError, ValueError) as error:
            raise InputError(f"the ledger {self.ledger} cannot be used: {error}.") from None


def _append(file: int, line: bytes) -> None:
    """On disk when this returns, or not at all. OSError."""
    before = os.fstat(file).st_size
    try:
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise


def _run(line: bytes, number: int) -> dict[str, Any]:
    """A run as it was written down, by an earlier version without a checksum. ValueError for anything else."""
    try:
        plain = json.loads(line)
        return dict(plain) if plain.keys() == {"time", "with", "rows"} else unsealed(line)
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(
            f"line {number} is damaged; take it away, or the file, if more runs than it tells are no harm"
        ) from None
