"""The page of results: RESULTS.md beside this file, from the records of all benchmarks.

    python benchmarks/results.py                          measure everything, an hour and more, and write the page
    python benchmarks/results.py --only kernels,boosting  some of it
    python benchmarks/results.py --show                   measure nothing, write the page anew

Each section has its commands, which write what they measured as JSON in `records`. Those of `billion` need `--data`,
a folder with room for their inputs: 17 GB.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boosting
import first_call
import published

from spuvm.bench import calls, kernels, report

HERE = Path(__file__).parent
Record = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """`commands` leave a record, of which `lines` makes Markdown; it is None where nothing is measured."""

    title: str
    commands: tuple[str, ...]
    record: str | None
    lines: Callable[[Record], list[str]]


def _kernels(record: Record) -> list[str]:
    rows = kernels.from_dicts(record["kernels"])
    return [_machine(record, f" Processor features in use: `{record['features']}`."), "", *kernels.markdown(rows)]


def _operations(record: Record) -> list[str]:
    found = report.from_dicts(record["results"])
    return [_machine(record), *report.sections(found, record["first_calls"], "###")]


def _applications(record: Record) -> list[str]:
    found = calls.from_dicts(record["applications"])
    about = (
        " A call goes from arrays, each at its owner, to revealed results: `first` in a new process, `from disk` in "
        "one that finds the compiled pieces of another, `again` later in the same process; `run` is what of it the "
        "parties compute together. The peer compiles at every call."
    )
    lines = [_machine(record, about)]
    for mode in dict.fromkeys(a.mode for a in found):
        title, header, rows = calls.lines(found, mode)
        lines += ["", f"### {title}", "", *report.markdown_table(header, rows)]
    return lines


def _first_call(record: Record) -> list[str]:
    times = ("cold s", "processor s", "warm s", "processor s", "`jax.jit` s", "processor s")
    header = ("program", "run", *times, "largest error")
    return [_machine(record), "", *report.markdown_table(header, first_call.cells(record["programs"]))]


def _boosting(record: Record) -> list[str]:
    lines = [_machine(record), "", *report.markdown_table(boosting.HEADER, boosting.cells(record["growth"]))]
    if record["seconds"]:
        first, *others = record["seconds"]
        lines += ["", f"Three processes over TLS, {boosting.BASE['rows']:,} rows: the first tree takes {first:.1f} s, "]
        lines[-1] += f"compiling included, each of the next {len(others)} at least {min(others):.1f} s."
    return lines


def _billion(record: Record) -> list[str]:
    lines = ["The largest runs; [billion/RESULTS.md](billion/RESULTS.md) has all sizes, a plot, and what is timed.", ""]
    largest: dict[str, Record] = {}
    for r in record["records"]:
        if r["rows"] >= largest.get(r["task"], r)["rows"]:
            largest[r["task"]] = r
    header = ("task", "rows", "seconds", "million rows/s", "bytes/row", "peak MiB", "error", "load")
    lines += report.markdown_table(header, [_billion_cells(r) for r in largest.values()])
    for r in record.get("killed", []):
        how = "one of three processes over TLS" if r["network"] else "simulated"
        same = {True: "the same, byte for byte", "unit": "the same within a unit", False: "DIFFERENT"}[r["same"]]
        lines += ["", f"Killed {r['kills']} times and resumed ({r['rows']:,} rows, {how}): the output is {same}; "]
        lines[-1] += f"finished blocks that were begun again: {r['begun_again']}."
    return lines


def _published(_: Record) -> list[str]:
    lines = ["Bytes are those that a party sends for an element: of ours the party that sends most.", ""]
    return lines + report.markdown_table(published.HEADER, published.cells())


def _billion_cells(r: Record) -> list[str]:
    rate, peak = r["rows"] / r["seconds"] / 1e6, r["peak_bytes"] / 2**20
    figures = (f"{r['rows']:,}", f"{r['seconds']:.1f}", f"{rate:.2f}", f"{r['bytes_per_row']:.1f}", f"{peak:,.0f}")
    return [r["task"], *figures, f"{r['error']:.1e}", str(r["load"])]


SECTIONS: dict[str, Section] = {
    "published": Section("Rounds and bytes beside published protocols", ("python published.py",), None, _published),
    "kernels": Section(
        "Kernels", ("spuvm bench kernels --json records/kernels.json",), "records/kernels.json", _kernels
    ),
    "operations": Section(
        "Operations",
        ("spuvm bench --against spu --repeat 3 --json records/operations.json",),
        "records/operations.json",
        _operations,
    ),
    "applications": Section(
        "Applications",
        ("spuvm bench applications --against spu --json records/applications.json",),
        "records/applications.json",
        _applications,
    ),
    "first_call": Section(
        "First calls of large programs",
        ("python first_call.py --json records/first_call.json",),
        "records/first_call.json",
        _first_call,
    ),
    "boosting": Section(
        "Boosting",
        ("python boosting.py --network --json records/boosting.json",),
        "records/boosting.json",
        _boosting,
    ),
    "billion": Section(
        "A billion rows",
        (
            "python billion/run.py --data DATA",
            "python billion/run.py --data DATA --tasks moments comparison --sizes 1e6 1e7 3e7 1e8 3e8 1e9",
            "python billion/killed.py --data DATA",
            "python billion/killed.py --data DATA --rows 1e7 --rows-per-block 131072 --network",
        ),
        "billion/results.json",
        _billion,
    ),
}


def _machine(record: Record, more: str = "") -> str:
    return report.machine_line(record["machine"]) + more


def page() -> str:
    """All sections, of those that have a record the figures."""
    lines = ["# Results", "", "Written by `make results`, or for one section by `make results ONLY=kernels`;"]
    lines += ["[README.md](README.md) says what is timed and what the columns mean. The commands run in this folder."]
    lines += ["Machines differ and are noisy: trust the ratios within a table."]
    for name, section in SECTIONS.items():
        lines += ["", f"## {section.title}", "", "```sh", *section.commands, "```", ""]
        file = HERE / section.record if section.record is not None else None
        if file is None or file.exists():
            lines += section.lines({} if file is None else json.loads(file.read_text()))
        else:
            lines += [f"Not measured yet: `make results ONLY={name}`."]
    return "\n".join(lines) + "\n"


def measure(section: Section, data: Path | None) -> None:
    """Run the commands of a section. What fails says so itself, and ends everything but a missed goal."""
    (HERE / "records").mkdir(exist_ok=True)
    for command in section.commands if section.record is not None else ():
        began = time.perf_counter()
        print(f"$ {command}", flush=True)
        program, *rest = shlex.split(command)
        python = [sys.executable, "-m", "spuvm"] if program == "spuvm" else [sys.executable]
        arguments = [str(data.absolute()) if data is not None and a == "DATA" else a for a in rest]
        done = subprocess.run([*python, *arguments], cwd=HERE, check=False)
        print(f"status {done.returncode} after {time.perf_counter() - began:.0f} s", flush=True)


def chosen(names: str | None) -> list[str]:
    out = list(SECTIONS) if not names else names.split(",")
    if unknown := [n for n in out if n not in SECTIONS]:
        raise SystemExit(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--data", type=Path, help="where the inputs of `billion` are, or go")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    given = parser.parse_args(arguments)
    for name in [] if given.show else chosen(given.only):
        if name == "billion" and given.data is None:
            print("billion is left out: give `--data` a folder with room for 17 GB (make results DATA=...)")
            continue
        measure(SECTIONS[name], given.data)
    (HERE / "RESULTS.md").write_text(page())


if __name__ == "__main__":
    main()
