"""Applications as a user calls them: from arrays of their owners to arrays, tracing and compiling included."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from spuvm.bench import workers
from spuvm.bench.measure import SEED, SIMULATED, expected, max_error, slowest
from spuvm.bench.operations import APPLICATIONS, Sizes
from spuvm.bench.report import TITLES
from spuvm.bench.workers import BenchmarkError, Workers
from spuvm.runtime.scratch import Scratch

HEADER = ("application", "rows", "rounds", "MB/party", "first s", "from disk s", "again ms", "run ms", "error")
PEER_HEADER = ("peer: first s", "again ms", "run ms", "error", "ratio: first", "from disk", "again", "run")


@dataclass(frozen=True)
class Calls:
    """Seconds of one system in one mode: of the first call in a new process, of a later call, of the run within.

    `cached`: of the first call in a new process that finds the pieces of another on disk. NaN for what is not
    known, `failure` says why.
    """

    first: float = math.nan
    cached: float = math.nan
    again: float = math.nan
    run: float = math.nan
    error: float = math.nan
    failure: str | None = None


@dataclass(frozen=True)
class Application:
    """What was measured of one; bytes are what the party that sends most sends."""

    name: str
    mode: str
    rows: int
    rounds: float
    bytes_sent: float
    ours: Calls
    peer: Calls | None


def measure(
    modes: Sequence[str], repeat: int, patience: float, peer: Path | None, say: Callable[[str], None]
) -> Iterator[Application]:
    """All applications in all modes."""
    for name, operation in APPLICATIONS.items():
        rows = Sizes().of(operation.sized_by)
        inputs = [np.asarray(x) for x in operation.inputs(np.random.default_rng(SEED), rows)]
        exact = expected(operation, inputs)
        for mode in modes:
            say(f"{name}, {mode}")
            with Scratch() as folder:
                path = folder / "inputs.npz"
                np.savez(path, *inputs)
                request = {"op": name, "inputs": str(path), "output": f"{folder}/output.npz", "repeat": repeat}
                ours, reply = _ours(mode, request, exact, patience, folder)
                theirs = None if peer is None else _peers(mode, request, exact, patience, peer)
            sent = max((b for _, b in reply.get("predicted", [])), default=math.nan)
            yield Application(name, mode, rows, reply.get("rounds", math.nan), sent, ours, theirs)


Request = dict[str, Any]


def _ours(
    mode: str, request: Request, exact: Sequence[np.ndarray], patience: float, folder: Path
) -> tuple[Calls, Request]:
    """Two processes, or sets of them: one with nothing on disk, one with what that left there."""
    environment = {"SPUVM_CACHE_DIR": str(folder / "cache"), "SPUVM_CACHE": "1"}

    def started(name: str) -> Workers:
        if mode == SIMULATED:
            return workers.simulated(patience, environment)
        return workers.networked(patience, folder / name, environment)

    try:
        with started("cold") as cold:
            first, _, _ = _called(cold, request, exact)
        with started("warm") as warm:
            cached, again, error = _called(warm, request, exact)
            replies = warm.ask({"do": "operation"} | request)
    except BenchmarkError as failure:
        return Calls(failure=str(failure)), {}
    return Calls(first, cached, again, min(slowest(replies)), error), replies[0]


def _peers(mode: str, request: Request, exact: Sequence[np.ndarray], patience: float, python: Path) -> Calls:
    start = workers.peer_simulated if mode == SIMULATED else workers.peer_networked
    try:
        with start(python, patience) as process:
            first, again, error = _called(process, request, exact)
            run = min(slowest(process.ask({"do": "operation"} | request)))
    except BenchmarkError as failure:
        return Calls(failure=str(failure))
    return Calls(first, math.nan, again, run, error)


def _called(process: Workers, request: Request, exact: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Seconds of the first call, those of the fastest of the later ones, and the largest error."""
    replies = process.ask({"do": "call"} | request)
    with np.load(request["output"]) as file:
        error = max_error([file[key] for key in file.files], exact)
    return max(r["first"] for r in replies), min(slowest(replies)), error


# Reports ------------------------------------------------------------------------------------------


def as_dicts(found: Sequence[Application]) -> list[dict[str, Any]]:
    """For JSON: what was not measured is null."""
    return [_plain(vars(a) | {"ours": vars(a.ours), "peer": a.peer and vars(a.peer)}) for a in found]


def from_dicts(records: Sequence[dict[str, Any]]) -> list[Application]:
    """The inverse."""
    out = []
    for r in records:
        ours, peer = (None if r[side] is None else Calls(**_numbers(r[side])) for side in ("ours", "peer"))
        assert ours is not None
        out.append(Application(**_numbers(r) | {"ours": ours, "peer": peer}))
    return out


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None and k != "failure" else v for k, v in fields.items()}


def lines(found: Sequence[Application], mode: str) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and cells of the table of one mode."""
    own = [a for a in found if a.mode == mode]
    title, peers = TITLES[mode]
    against = any(a.peer for a in own)
    header = [*HEADER, *(PEER_HEADER if against else ())]
    return f"{title}; peer: SPU 0.9.5, {peers}" if against else title, header, [_cells(a, against) for a in own]


def tables(found: Sequence[Application]) -> list[Table]:
    """For the terminal, one for each mode."""
    out = []
    for mode in dict.fromkeys(a.mode for a in found):
        title, header, rows = lines(found, mode)
        table = Table(title=title, title_justify="left")
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        out.append(table)
    return out


def _cells(a: Application, against: bool) -> list[str]:
    ours, peer = a.ours, a.peer
    line = [a.name, str(a.rows), _text(a.rounds, ",.0f"), _text(a.bytes_sent / 1e6, ".3g")]
    if ours.failure:
        line += ["failed", "", "", "", ""]
    else:
        line += [_text(ours.first, ".2f"), _text(ours.cached, ".2f"), *_milliseconds(ours)]
    if not against:
        return line
    if peer is None or peer.failure:
        return [*line, "failed", *[""] * (len(PEER_HEADER) - 1)]
    ratios = ((peer.first, ours.first), (peer.first, ours.cached), (peer.again, ours.again), (peer.run, ours.run))
    return [*line, _text(peer.first, ".2f"), *_milliseconds(peer), *(_text(p / o, ".1f") for p, o in ratios)]


def _milliseconds(calls: Calls) -> list[str]:
    return [_text(1000 * calls.again, ".3g"), _text(1000 * calls.run, ".3g"), _text(calls.error, ".1e")]


def _text(x: float, form: str) -> str:
    return format(x, form) if math.isfinite(x) else ""
