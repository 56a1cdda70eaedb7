"""Where a run's time went: a listener at each party; out, a table by operation and source line, and a Perfetto trace.

Operations that run together, block after block, share their time evenly. While it listens, rounds of small arrays do
not take their short cut: the sum is a little more than an unobserved run's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm.compiler.cost import Cost
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import Round, Task

TOGETHER = 2e-5  # seconds: what ends so soon after another ran in the same pass over the blocks
WAITING = "waiting for peers"


@dataclass
class Span:
    """`start` in seconds of the system's clock, `seconds` long."""

    op: str
    line: str
    start: float
    seconds: float


@dataclass
class Profile:
    """A listener of one party's run."""

    party: str
    spans: list[Span] = field(default_factory=list)
    _waited: Callable[[], float] = field(default=lambda: 0.0)
    _offset: float = 0.0
    _group: list[Task] = field(default_factory=list)
    _began: float = 0.0
    _last: float = 0.0
    _idle: float = 0.0  # seconds waited until the group began

    def begin(self, waited: Callable[[], float]) -> None:
        """The run begins; `waited` says how many seconds it has waited for peers so far."""
        self._waited = waited
        self._offset = time.time() - time.perf_counter()
        self._began = self._last = time.perf_counter()
        self._idle = waited()

    def did_run(self, task: Task) -> None:
        now = time.perf_counter()
        if self._group and now - self._last > TOGETHER:
            self._close()
        self._group.append(task)
        self._last = now

    def did_exchange(self, round_: Round) -> None:
        self._last = time.perf_counter()
        self._close()

    def _close(self) -> None:
        """Account for the time since the last account: waiting first, then what ran."""
        idle = min(self._waited() - self._idle, self._last - self._began)
        if idle > 0:
            self.spans.append(Span(WAITING, "", self._began + self._offset, idle))
        each = (self._last - self._began - idle) / max(1, len(self._group))
        for i, task in enumerate(self._group):
            start = self._began + idle + i * each + self._offset
            self.spans.append(Span(task.op or "local", task.location, start, each))
        self._group, self._began, self._idle = [], self._last, self._waited()

    def events(self) -> list[dict[str, Any]]:
        """Of the trace event format, which Perfetto reads: microseconds."""
        return [
            {
                "name": s.op,
                "cat": "waiting" if s.op == WAITING else "computing",
                "ph": "X",
                "ts": 1e6 * s.start,
                "dur": 1e6 * s.seconds,
                "pid": self.party,
                "tid": self.party,
                "args": {"line": s.line},
            }
            for s in self.spans
        ]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"traceEvents": self.events(), "displayTimeUnit": "ms"}))


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a trace. InputError if it is none."""
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
        return events
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the trace {path} cannot be read: {error!s:.100}.") from None


def merged(traces: Sequence[Sequence[dict[str, Any]]]) -> str:
    """One trace, a track for each party, from 0."""
    events = [event for trace in traces for event in trace]
    first = min((e["ts"] for e in events), default=0.0)
    numbers = {name: i for i, name in enumerate(dict.fromkeys(e["pid"] for e in events), 1)}
    shown = [{**e, "ts": e["ts"] - first, "pid": 1, "tid": numbers[e["pid"]]} for e in events]
    names = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
        for name, number in numbers.items()
    ]
    return json.dumps({"traceEvents": [*names, *shown], "displayTimeUnit": "ms"})


def rows(events: Sequence[Mapping[str, Any]], cost: Cost, party: str) -> list[dict[str, Any]]:
    """By operation and source line, the longest first: times run, seconds, rounds alone and bytes as counted."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        key = (event["name"], event["args"]["line"])
        empty = {"operation": key[0], "line": key[1], "times": 0, "seconds": 0.0, "rounds": 0, "bytes": 0}
        row = found.setdefault(key, empty)
        row["times"] += 1
        row["seconds"] += event["dur"] / 1e6
    at = cost.parties.index(party)
    for counted in cost.rows:
        if (counted.op, counted.location) in found:
            row = found[counted.op, counted.location]
            row["rounds"], row["bytes"] = int(counted.rounds), int(counted.bytes[at])
    return sorted(found.values(), key=lambda row: -row["seconds"])
