"""Results as tables in the terminal, as JSON, and as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from spuvm.bench.measure import NETWORKED, ON_DEVICE, SIMULATED, Result, Timing

# How many times faster than the peer, at the standard sizes: operation, simulated, networked.
_TIMES_FASTER: tuple[tuple[str, float | None, float | None], ...] = (
    ("multiply", 8.0, 3.0),
    ("less", 25.0, 10.0),
    ("one_less", None, 1.0),
    ("matmul", 10.0, 8.0),
    ("exp", 10.0, 5.0),
    ("log", 20.0, 5.0),
    ("reciprocal", 10.0, 5.0),
    ("divide", 10.0, 5.0),
    ("sqrt", 10.0, 5.0),
    ("rsqrt", 10.0, 5.0),
    ("tanh", 10.0, 5.0),
    ("sigmoid", 10.0, 5.0),
    ("sin", 10.0, 5.0),
    ("erf", 10.0, 5.0),
    ("argmax", 5.0, 5.0),
    ("median", 5.0, 5.0),
    ("sort", 10.0, 8.0),
)
GOALS = {
    (mode, operation): times
    for operation, *both in _TIMES_FASTER
    for mode, times in zip((SIMULATED, NETWORKED), both)
    if times is not None
}
TITLES = {
    SIMULATED: ("All parties simulated in one process", "three threads"),
    NETWORKED: ("Three processes over mutual TLS", "three processes over plain TCP"),
    ON_DEVICE: ("Simulated in one process, on the device by XLA", "three threads"),
}
OWN_COLUMNS = (
    "operation",
    "rows",
    "best ms",
    "median ms",
    "rows/s",
    "rounds",
    "bytes/row/party",
    "max error",
    "10^9 rows",
    "first call s",
)
PEER_COLUMNS = ("peer ms", "ratio", "peer's error")


def goal(result: Result) -> float | None:
    """How many times faster than the peer it should be."""
    return GOALS.get((result.mode, result.operation))


def missed(results: Sequence[Result]) -> list[str]:
    """What of the goals was measured and not reached, a sentence each; an error beyond the peer's too."""
    out = []
    for r in results:
        wanted = goal(r)
        name = f"{r.operation} ({r.mode})"
        if r.ours.failure is not None:
            out.append(f"{name} failed: {r.ours.failure}")
        if r.peer is None or r.peer.failure is not None or r.ours.failure is not None:
            continue
        if wanted is not None and not r.ratio >= wanted:
            out.append(f"{name} is {r.ratio:.2f} times as fast as the peer, the goal is {wanted:g}")
        if r.ours.max_error > r.peer.max_error:
            out.append(f"{name} has an error of {r.ours.max_error:.2g}, the peer of {r.peer.max_error:.2g}")
    return out


def columns(results: Sequence[Result]) -> list[str]:
    return [*OWN_COLUMNS, *(PEER_COLUMNS if any(r.peer for r in results) else ())]


def cells(result: Result, with_peer: bool) -> list[str]:
    """One line of the table."""
    ours, peer = result.ours, result.peer
    line = [
        result.operation,
        f"{result.rows:,}",
        _ms(ours),
        _milliseconds(ours.median),
        _number(result.rows / ours.median),
        _number(result.rounds),
        _number(result.bytes_sent / result.rows),
        _error(ours),
        duration(result.billion),
        _number(result.first),
    ]
    if with_peer:
        line += ["", "", ""] if peer is None else [_ms(peer), _ratio(result), _error(peer)]
    return line


def tables(results: Sequence[Result]) -> list[Table]:
    """For the terminal, one for each mode."""
    out = []
    for mode, own in _by_mode(results).items():
        table = Table(title=_title(mode, own), title_justify="left")
        for number, name in enumerate(columns(own)):
            table.add_column(name, justify="right" if number else "left")
        for result in own:
            table.add_row(*cells(result, any(r.peer for r in own)))
        out.append(table)
    return out


def first_call_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Logistic regression, simulated, in new processes", title_justify="left")
    for name in ("cache on disk", "start s", "first call s", "second call s", "of a call not the run, ms"):
        table.add_column(name, justify="right")
    for row in rows:
        times = (_number(row[key]) for key in ("start", "first", "second"))
        table.add_row(row["cache"], *times, _milliseconds(row["overhead"]))
    return table


def as_dict(machine: dict[str, Any], results: Sequence[Result], first: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For JSON: seconds, bytes and ratios; what was not measured is null."""
    return {"machine": machine, "results": [_result(r) for r in results], "first_calls": list(first)}


def from_dicts(records: Sequence[dict[str, Any]]) -> list[Result]:
    """The results that JSON holds, as they were."""
    return [
        Result(
            r["operation"],
            r["mode"],
            r["rows"],
            _timed(r),
            _number_of(r["first_call_seconds"]),
            _number_of(r["rounds"]),
            _number_of(r["bytes_per_row_and_party"]) * r["rows"],
            None if r["peer"] is None else _timed(r["peer"]),
        )
        for r in records
    ]


def machine_line(machine: dict[str, Any]) -> str:
    """When and on what it was measured."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['time']}, {machine['processor']}, {machine['cores']} cores, load {machine['load'][0]} at the "
        f"start, Python {machine['python']}, {versions}."
    )


def page(machine: dict[str, Any], results: Sequence[Result], first: Sequence[dict[str, Any]]) -> str:
    """For people who do not run it: Markdown."""
    lines = ["# Results", "", "Made by `spuvm bench --markdown`.", ""]
    lines += [machine_line(machine) + " Machines differ and are noisy: trust the ratios."]
    return "\n".join([*lines, *sections(results, first, "##")]) + "\n"


def sections(results: Sequence[Result], first: Sequence[dict[str, Any]], heading: str) -> list[str]:
    """The tables and the goals that were missed, as lines of Markdown."""
    lines = []
    for mode, own in _by_mode(results).items():
        rows = [cells(r, any(r.peer for r in own)) for r in own]
        lines += ["", f"{heading} {_title(mode, own)}", "", *markdown_table(columns(own), rows)]
    if first:
        table = first_call_table(first)
        rows = [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns))]
        lines += ["", f"{heading} {table.title}", "", *markdown_table([str(c.header) for c in table.columns], rows)]
    misses = missed(results)
    if misses:
        lines += ["", "Goals that this run missed:", "", *(f"- {miss}" for miss in misses)]
    return lines


def duration(seconds: float) -> str:
    """Rounded to the unit that fits."""
    if not math.isfinite(seconds):
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _by_mode(results: Sequence[Result]) -> dict[str, list[Result]]:
    return {mode: own for mode in TITLES if (own := [r for r in results if r.mode == mode])}


def _title(mode: str, own: Sequence[Result]) -> str:
    title, peers = TITLES[mode]
    return f"{title}; peer: SPU 0.9.5, {peers}" if any(r.peer for r in own) else title


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(line)} |" for line in (header, align, *rows)]


def _result(r: Result) -> dict[str, Any]:
    return {
        "operation": r.operation,
        "mode": r.mode,
        "rows": r.rows,
        **_timing(r.ours),
        "rows_per_second": _finite(r.rows / r.ours.median),
        "rounds": _finite(r.rounds),
        "bytes_per_row_and_party": _finite(r.bytes_sent / r.rows),
        "billion_rows_seconds": _finite(r.billion),
        "first_call_seconds": _finite(r.first),
        "peer": None if r.peer is None else _timing(r.peer),
        "ratio": _finite(r.ratio),
        "goal": goal(r),
    }


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "seconds": timing.seconds,
        "best_seconds": _finite(timing.best),
        "median_seconds": _finite(timing.median),
        "max_error": _finite(timing.max_error),
        "failure": timing.failure,
    }


def _timed(r: dict[str, Any]) -> Timing:
    return Timing(list(r["seconds"]), _number_of(r["max_error"]), r["failure"])


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _number_of(x: float | None) -> float:
    return math.nan if x is None else x


def _ms(timing: Timing) -> str:
    return "failed" if timing.failure is not None else _milliseconds(timing.best)


def _milliseconds(seconds: float) -> str:
    return _number(1000 * seconds)


def _number(x: float) -> str:
    """Three figures at least, no more decimals than they need."""
    if not math.isfinite(x):
        return ""
    if x == int(x) or abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"


def _error(timing: Timing) -> str:
    if math.isnan(timing.max_error):
        return ""
    return "exact" if timing.max_error == 0 else f"{timing.max_error:.1e}"


def _ratio(result: Result) -> str:
    if not math.isfinite(result.ratio):
        return ""
    wanted = goal(result)
    return f"{result.ratio:.1f}" + (f" (goal {wanted:g})" if wanted else "")
