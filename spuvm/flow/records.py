"""Records of runs, one line an event, at each party's disk: what ran or was taken from before, costs, reveals."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from spuvm.flow.checkpoints import refused_clearly
from spuvm.flow.recorder import Spent
from spuvm.runtime.errors import ConfigError, InputError

ENDED = ("done", "failed", "stopped")


@dataclass
class NodeRun:
    """How a node fared: "waiting", "running", "done", "cached" (taken from before), "not needed", "failed" or so.

    `made` is the mark of the attempt that made it, see `Checkpoints`.
    """

    key: str
    state: str = "waiting"
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    error: str = ""
    made: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        more = {"error": self.error} if self.error else {}
        return {"key": self.key, "state": self.state, "seconds": round(self.seconds, 4), **self.spent.as_dict(), **more}


@dataclass(frozen=True)
class Recorded:
    """A run as its record says.

    Attributes:
        head: name, flow, text, parties, versions, labels, when it began.
        nodes: the last that was said of each.
        state: "done", "failed", "stopped", or "running" if nothing says that it ended.
    """

    head: Mapping[str, Any]
    nodes: Mapping[str, NodeRun]
    state: str
    why: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> Mapping[str, Any]:
        """The flow's text, read."""
        body: Mapping[str, Any] = json.loads(self.head["text"])
        return body


def folder(state: Path) -> Path:
    """Where a party's records are, below its state."""
    return state / "runs"


def read(state: Path, name: str) -> Recorded:
    """A run by its name. InputError if there is none, or its record is damaged."""
    path = folder(state) / f"{name}.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        head = lines[0]
        nodes, last = {}, ("running", "", 0.0)
        for line in lines[1:]:
            if "node" in line:
                spent = Spent.of_dict(line)
                error = line.get("error", "")
                nodes[line["node"]] = NodeRun(line["key"], line["state"], line["seconds"], spent, error)
            elif "ended" in line:
                last = (line["ended"], line["why"], line["seconds"])
            elif "resumed" in line:
                last = ("running", "", 0.0)
        return Recorded(head, nodes, *last)
    except FileNotFoundError:
        known = ", ".join(names(state)[-10:])
        raise InputError(f"there is no run `{name}` in {folder(state)}: there are {known or 'none'}.") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise InputError(f"the record {path} is damaged: move it away.") from None


def names(state: Path) -> list[str]:
    """All runs, the oldest first."""
    found = list(folder(state).glob("*.jsonl"))
    return [p.stem for p in sorted(found, key=lambda p: p.stat().st_mtime_ns)]


def next_number(state: Path, flow: str) -> int:
    """Of the next run of a flow that is given no name."""
    taken = [n[len(flow) + 1 :] for n in names(state) if n.startswith(f"{flow}-")]
    return 1 + max((int(t) for t in taken if t.isdecimal()), default=0)


class Record:
    """The record of a run at one party, open for writing; held so that no other process writes it."""

    def __init__(self, state: Path, name: str, head: Mapping[str, Any], resume: bool) -> None:
        if not name or "/" in name or name.startswith(".") or not name.isprintable():
            raise ConfigError(f"a run's name must be a printable text without `/`, got {name!r:.60}.")
        self.path = folder(state) / f"{name}.jsonl"
        self.began = time.monotonic()
        with refused_clearly(state):
            folder(state).mkdir(parents=True, exist_ok=True, mode=0o700)
            there = self.path.exists() and self.path.stat().st_size > 0
            self.file: IO[str] = open(self.path, "a")  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise ConfigError(f"run `{name}` goes on in another process: wait for it, or give another name.") from None
        if there:
            self._again(state, name, head, resume)
        else:
            self._write({"run": name, "began": _now(), **head})

    def _again(self, state: Path, name: str, head: Mapping[str, Any], resume: bool) -> None:
        before = read(state, name)
        if not resume:
            how = "resume it" if before.state != "done" else "look at it by `spuvm flow show`"
            self.file.close()
            raise ConfigError(f"there is a run `{name}` already ({before.state}): {how}, or give another name.")
        if before.head["flow"] != head["flow"]:
            self.file.close()
            raise ConfigError(
                f"run `{name}` is of flow {before.head['flow'][:12]}, and this one is {head['flow'][:12]}: resume with "
                "the flow that it had (`spuvm flow diff` shows what changed), or start a new run; nodes that are the "
                "same are taken from before."
            )
        self._write({"resumed": _now()})

    def node(self, name: str, run: NodeRun) -> None:
        """Say how a node fares."""
        self._write({"node": name, **run.as_dict()})

    def end(self, state: str, why: str = "") -> None:
        """Say how the run ended."""
        self._write({"ended": state, "why": why, "at": _now(), "seconds": round(time.monotonic() - self.began, 3)})
        self.file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        with refused_clearly(self.path):
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(state: Path) -> dict[str, list[str]]:
    """By the hash of each flow that ran here, its runs."""
    out: dict[str, list[str]] = {}
    for name in names(state):
        out.setdefault(str(read(state, name).head["flow"]), []).append(name)
    return out
