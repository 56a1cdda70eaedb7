"""What a program takes in seconds over links of a given delay and width: in, a program; out, seconds and where they go.

    seconds = computing + rounds x (delay + handling of a round) + bytes of the busiest party x (8 / width + encryption)

Computing is measured: one party's part runs by itself, on zeros, over a link that carries nothing, the slowest counts.
What a round and a byte cost here beside that is measured once per machine, between two processes over TLS, and kept in
the cache. It is exact where the program's rounds are: of a loop on revealed values one trip is counted, of branches the
longest, of sorts by opened comparisons the example that `cost` counts. Parties that share one machine also share its
cores: what all of them need of these is measured, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.compiler.cache import disk
from spuvm.runtime.engine.random import new_key
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Kind, Link
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.machine.components import Component, taken, whole
from spuvm.runtime.machine.executor import Executor, Streams, load, store
from spuvm.runtime.machine.program import BlockProgram, CondStep, LoopStep, PartyProgram, RankStep, WhileStep
from spuvm.runtime.protocols.ranking import ranking
from spuvm.runtime.scratch import Scratch

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
FORM = re.compile(r"([0-9.]+)(us|ms|s),([0-9.]+)(kbit|Mbit|Gbit)")
ROUNDS, BYTES = 400, 64 << 20
PAIR = ("one", "other")
_OTHER = "import sys; from spuvm.compiler.seconds import other; other(sys.argv[1])"


@dataclass(frozen=True)
class Speed:
    """A link: `delay` in seconds of a message one way, `width` in bits a second each way."""

    delay: float
    width: float

    @classmethod
    def parse(cls, text: str) -> Speed:
        """Of `25ms,100Mbit`."""
        match = FORM.fullmatch(text.replace(" ", ""))
        try:
            found = match and cls(float(match[1]) * UNITS[match[2]], float(match[3]) * UNITS[match[4]])
        except ValueError:
            found = None
        if not found or found.width <= 0 or found.delay > 60:
            raise InputError(f"a link is like '25ms,100Mbit': the delay one way, and the width; got {text!r}.")
        return found


@dataclass(frozen=True)
class Seconds:
    """Where the time of one run goes, in seconds, with a machine for each party.

    `sharing`: what is added where all parties share this machine's cores. `exact`: no loop's trips, and no sort's
    comparisons, depend on data.
    """

    link: str
    computing: float
    delays: float
    transfer: float
    handling: float
    sharing: float = 0.0
    exact: bool = True

    @property
    def total(self) -> float:
        return self.computing + self.delays + self.transfer + self.handling

    @property
    def together(self) -> float:
        """Of a run in which all parties are on this machine."""
        return self.total + self.sharing

    def __str__(self) -> str:
        trip = "" if self.exact else "; of loops on revealed values, one trip, of a sort an example"
        return (
            f"{self.total:.3f} s over {self.link}: {self.computing:.3f} computing, {self.delays:.3f} waiting for "
            f"messages, {self.transfer:.3f} sending, {self.handling:.3f} for rounds and encryption; "
            f"{self.together:.3f} s if all parties share this machine's {cores()} cores{trip}"
        )


@dataclass(frozen=True)
class Machine:
    """What this machine adds: seconds of a round beside its delay, and of a byte beside its way."""

    round: float
    byte: float


def estimate(parts: Sequence[PartyProgram], rounds: int, bytes_sent: Sequence[int], link: str) -> Seconds:
    """Of a program whose parts by party these are."""
    speed, here = Speed.parse(link), machine()
    most = max(map(int, bytes_sent), default=0)
    ran = [alone(part) for part in parts]
    computing = max((r.seconds for r in ran), default=0.0)
    handling = rounds * here.round + most * here.byte
    crowd = max(1.0, len(parts) / cores())  # parties for each core
    sharing = max(0.0, sum(r.work for r in ran) / cores() - computing) + (crowd - 1) * handling
    exact = not any(_turns(part.block) for part in parts)
    return Seconds(link, computing, rounds * speed.delay, 8 * most / speed.width, handling, sharing, exact)


@dataclass(frozen=True)
class Ran:
    """Of one party's part by itself: seconds, and those of all cores together."""

    seconds: float
    work: float


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _OneTrip(Executor):
    """Runs a loop on revealed values once, all branches of a choice, and sorts an example: nothing depends on zeros."""

    def __init__(self, streams: Streams, link: Link) -> None:
        super().__init__(streams, link)
        self.spare = Ran(0.0, 0.0)  # of branches that are not the longest

    def _while(self, step: WhileStep, env: dict[int, Component]) -> None:
        first, second = load(env, step.condition_constants), load(env, step.body_constants)
        carries = load(env, step.carries)
        self._block(step.condition, [*first, *carries])
        store(env, step.outputs, self._block(step.body, [*second, *carries]))

    def _cond(self, step: CondStep, env: dict[int, Component]) -> None:
        taken = []
        for branch in step.branches:
            start, work = time.perf_counter(), time.process_time()
            results = self._block(branch, load(env, step.operands))
            taken.append((time.perf_counter() - start, time.process_time() - work, results))
        longest = max(taken, key=lambda t: t[0])
        over = [t for t in taken if t is not longest]
        spare = self.spare
        self.spare = Ran(spare.seconds + sum(t[0] for t in over), spare.work + sum(t[1] for t in over))
        store(env, step.outputs, longest[2])

    def _rank(self, step: RankStep, env: dict[int, Component]) -> None:
        """Comparisons are computed on zeros; what they would show is of the permutation that `batches` takes, too."""
        count = step.rows * step.length
        values = np.random.default_rng(0).permutation(count)
        words = [None if r is None else np.asarray(whole(env[r], (count,))) for r in step.words]

        def compare(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            pairs = [None if w is None else taken(w, which) for which in (first, second) for w in words]
            self._block(step.compare(len(first)), pairs)
            return np.asarray(values[first] < values[second], np.uint8)

        order = ranking(step.rows, step.length, step.wanted, compare)
        if step.output is not None:
            env[step.output] = order.view(np.uint64).reshape(step.rows, step.length)


def alone(part: PartyProgram) -> Ran:
    """One party's computing: the second of two runs."""
    inputs, at = [], 0
    for port in part.inputs:
        for register in part.block.params[at : at + port.components]:
            inputs.append(None if register is None else np.zeros(port.shape, port.dtype))
        at += port.components
    part.prepare()
    streams = Streams(lambda holders: new_key(), part.party)
    members = 1 + max([part.party or 0, *(p for r in _peers(part) for p in r)])
    ran = Ran(0.0, 0.0)
    for _ in range(2):
        executor = _OneTrip(streams, _Nothing(part.party or 0, [str(i) for i in range(members)]))
        start, work = time.perf_counter(), time.process_time()
        executor.run_blocked(part, inputs)
        seconds, work = time.perf_counter() - start, time.process_time() - work
        ran = Ran(seconds - executor.spare.seconds, work - executor.spare.work)
    return ran


def _blocks(block: BlockProgram) -> Iterator[BlockProgram]:
    """A block and all that are within it."""
    yield block
    for step in block.steps:
        inner: Sequence[BlockProgram] = ()
        match step:
            case LoopStep():
                inner = (step.body,)
            case WhileStep():
                inner = (step.condition, step.body)
            case CondStep():
                inner = step.branches
        for one in inner:
            yield from _blocks(one)


def _turns(block: BlockProgram) -> bool:
    """Whether a loop, a choice or a sort in it depends on revealed values."""
    return any(isinstance(step, WhileStep | CondStep | RankStep) for inner in _blocks(block) for step in inner.steps)


def _peers(part: PartyProgram) -> Any:
    for block in _blocks(part.block):
        for step in block.steps:
            for round_ in getattr(step, "rounds", ()):
                yield (*round_.sends, *round_.receives)


class _Nothing(Link):
    """Carries nothing: what would come is zero, and comes at once."""

    def __init__(self, rank: int, parties: Sequence[str]) -> None:
        super().__init__(rank, parties, 1.0, "")

    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        for views in receives.values():
            for view in views:
                np.frombuffer(view, np.uint8)[:] = 0

    def _settle(self) -> None: ...

    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None: ...

    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        return b""

    def _send_abort(self, origin: str, reason: str) -> None: ...

    def _shut(self, graceful: bool) -> None: ...


# What this machine adds -------------------------------------------------------------------------------------


@cache
def machine() -> Machine:
    """Measured between two processes over TLS, once; kept in the cache."""
    kept = disk.folder()
    path = kept / "machine.json" if kept is not None else None
    if path is not None and path.is_file():
        try:
            return Machine(**json.loads(path.read_text()))
        except (ValueError, TypeError, OSError):
            pass  # damaged: measured again
    with Scratch() as folder:
        file = make_cluster(folder, PAIR, protocol="ref2k")
        other = subprocess.Popen([sys.executable, "-c", _OTHER, str(file)])
        try:
            found = _measure(file, PAIR[0])
        finally:
            other.wait(60)
    if path is not None:
        path.write_text(json.dumps({"round": found.round, "byte": found.byte}))
    return found


def _measure(file: Path, me: str) -> Machine:
    """One end's part: rounds of 8 bytes, then a long message each way."""
    with connect(load_cluster(file), me) as link:
        peer = 1 - link.rank
        taken = []
        for size, count in ((8, ROUNDS), (BYTES, 3)):
            out, into = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            link.exchange({peer: [out]}, {peer: [into]})
            spent = []
            for _ in range(count):
                start = time.perf_counter()
                link.exchange({peer: [out]}, {peer: [into]})
                spent.append(time.perf_counter() - start)
            taken.append(float(np.median(spent)))
        return Machine(taken[0], max(0.0, taken[1] - taken[0]) / BYTES)


def other(file: str) -> None:
    """The other end of `machine`, in a process of its own."""
    _measure(Path(file), PAIR[1])
