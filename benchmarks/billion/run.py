"""All benchmarks at several sizes, each in a process of its own; a table, a plot, and the record of what was measured.

    python benchmarks/billion/run.py --data FOLDER                      # (a) to (e), 10^6 to 3 10^7 rows
    python benchmarks/billion/run.py --data FOLDER --tasks moments comparison --sizes 1e6 1e7 1e8 1e9

Simulated: all three parties' shares are computed in one process, and every message, but none is sent. Inputs are made
once (`generate.py`; 10^9 rows of three columns are 12 GB) and results checked against float64 on the way.
Measurements are added to `results.json` beside this file, and RESULTS.md and growth.png made from all of it: `--show`
does only that. Exit status 1 if a result is wrong or misses a goal: memory, or a growth that is not linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from generate import generate
from tasks import TASKS

HERE = Path(__file__).parent
ROWS_PER_BLOCK = 1 << 20
SIZES = (10**6, 3 * 10**6, 10**7, 3 * 10**7)
MEMORY_GOAL, MEMORY_FROM = 3 << 30, 10**7  # bytes of all processes, at so many rows and more
EXPONENT_GOAL = 0.05  # away from 1
NETWORKS = {"1 Gbit/s": 0.125e9, "10 Gbit/s": 1.25e9}

TIMES, SIZES_OF = ("rows", "seconds", "cpu s", "million rows/s", "set-up s"), ("bytes/row", "rounds/block", "peak MiB")
HEADINGS = (*TIMES, *SIZES_OF, "error", "load")

Record = dict[str, Any]


def measure(task: str, rows: int, data: Path, rows_per_block: int, seed: int) -> Record:
    """One benchmark in a new process."""
    folder = generate(TASKS[task].kind, rows, data, seed)
    command = [sys.executable, str(HERE / "measure.py"), task, str(folder), str(rows), str(rows_per_block)]
    load = os.getloadavg()[0]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    measured: Record = json.loads(done.stdout)
    return measured | {"load": round(load, 1), "rows_per_block": rows_per_block, "seed": seed}


def bandwidth() -> float:
    """Bytes per second that one core copies, read and written counted."""
    source = np.ones(1 << 25, np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def exponent(records: Sequence[Record], of: str = "seconds") -> float:
    """Of rows in seconds, by least squares over the logarithms of the four largest sizes."""
    largest = sorted(records, key=lambda r: r["rows"])[-4:]
    x, y = (np.log([r[k] for r in largest]) for k in ("rows", of))
    return float(np.polyfit(x, y, 1)[0])


def by_task(records: Sequence[Record]) -> dict[str, list[Record]]:
    out = {t: sorted((r for r in records if r["task"] == t), key=lambda r: r["rows"]) for t in TASKS}
    return {t: found for t, found in out.items() if found}


def misses(records: Sequence[Record]) -> list[str]:
    """The goals that were missed, in words."""
    out = [f"{r['task']} of {r['rows']:,}: wrong by {r['error']:.3g}" for r in records if not r["right"]]
    for r in records:
        if r["rows"] >= MEMORY_FROM and r["peak_bytes"] > MEMORY_GOAL:
            out.append(f"{r['task']} of {r['rows']:,}: {r['peak_bytes'] / 2**30:.2f} GiB")
    for task, found in by_task(records).items():
        if len(found) >= 4 and abs(exponent(found) - 1) > EXPONENT_GOAL:
            out.append(f"{task}: time grows as rows^{exponent(found):.3f}")
    return out


# What is written ------------------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any]:
    """All that was measured so far."""
    file = folder / "results.json"
    body: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"records": []}
    return body


def write_record(folder: Path, body: dict[str, Any]) -> None:
    """As JSON, and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(body, indent=1) + "\n")
    (folder / "RESULTS.md").write_text(markdown(body))


def markdown(body: dict[str, Any]) -> str:
    lines = [
        "# A billion rows",
        "",
        "Written by `python benchmarks/billion/run.py`; the figures are in [results.json](results.json). Simulated",
        f"ABY3 on a 64-bit ring: three parties in one process on {body['cores']} cores of {body['machine']}.",
        "",
        "* `seconds`: from reading the first block, from disk at every size, to the revealed result. `set-up`, before",
        "  that: tracing, and compiling what is not in the cache on disk.",
        "* `cpu s`: of all threads, in the same time. What others on the machine do changes it least.",
        "* `bytes/row`: what all parties together would send. `error`: the largest, of means per row.",
        "* `load`: how many processes wanted the cores when the run began. Seconds compare only where it was alike.",
        "",
        "![How time grows](growth.png)",
        "",
    ]
    if max(r["load"] for r in body["records"]) > body["cores"]:
        lines += ["**Other programs kept this machine busy meanwhile: the seconds are upper bounds.**", ""]
    for task, records in by_task(body["records"]).items():
        lines += [f"## {TASKS[task].what}", ""]
        lines += [f"| {' | '.join(HEADINGS)} |", "|---:" * len(HEADINGS) + "|"]
        for r in records:
            rate, peak, cpu = r["rows"] / r["seconds"] / 1e6, r["peak_bytes"] / 2**20, r["cpu_seconds"]
            lines.append(
                f"| {r['rows']:,} | {r['seconds']:.2f} | {cpu:.2f} | {rate:.2f} | {r['setup_seconds']:.1f} "
                f"| {r['bytes_per_row']:.1f} | {r['rounds_per_block']} | {peak:,.0f} | {r['error']:.1e} | {r['load']} |"
            )
        lines.append("")
        if len(records) >= 4:
            grows, busy = exponent(records), exponent(records, "cpu_seconds")
            lines += [
                f"Over the four largest sizes time grows as rows^{grows:.3f}, processor time as rows^{busy:.3f}.",
                "",
            ]
    return "\n".join([*lines, *killed_table(body.get("killed", []))])


def killed_table(records: Sequence[Record]) -> list[str]:
    """Of runs that were killed and went on."""
    if not records:
        return []
    lines = ["## Killed and resumed: `python benchmarks/billion/killed.py`", ""]
    lines += [
        "A product and a comparison of every row, written as Parquet; killed at random moments (SIGKILL), resumed,"
    ]
    lines += ["then computed once more without a break.", ""]
    lines += ["| rows | run | kills | output | finished blocks begun again | seconds of all runs |", "|---:" * 6 + "|"]
    for r in sorted(records, key=lambda r: (r["rows"], r["network"])):
        how = "one of three processes over TLS" if r["network"] else "simulated"
        output = {True: "the same, byte for byte", "unit": "the same within a unit", False: "DIFFERENT"}[r["same"]]
        lines.append(f"| {r['rows']:,} | {how} | {r['kills']} | {output} | {r['begun_again']} | {r['seconds']:.0f} |")
    return [*lines, ""]


def plot(body: dict[str, Any], path: Path) -> None:
    """Seconds over rows for each task, beside what memory and networks would take for the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tasks = by_task(body["records"])
    across = min(4, len(tasks))
    down = -(-len(tasks) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(3.6 * across, 3.2 * down), squeeze=False, sharex=True)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, (task, records) in zip(axes.flat, tasks.items()):
        rows = np.array([r["rows"] for r in records], float)
        sent = records[-1]["bytes_per_row"]
        axis.loglog(rows, [r["seconds"] for r in records], "o-", label="measured")
        axis.loglog(rows, 2 * sent * rows / body["bandwidth"], ":", label="memory: messages written and read once")
        for name, speed in NETWORKS.items():
            axis.loglog(rows, sent / 3 * rows / speed, "--", label=f"network of {name} a party")
        axis.set_title(task, fontsize=9)
        axis.set_xlabel("rows")
        axis.set_ylabel("seconds")
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "an unknown processor"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="where the inputs are, or go")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--sizes", nargs="+", type=lambda s: round(float(s)), default=list(SIZES), metavar="ROWS")
    parser.add_argument("--rows-per-block", type=int, default=ROWS_PER_BLOCK)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path, default=HERE, help="where results.json, RESULTS.md and growth.png are")
    parser.add_argument("--show", action="store_true", help="measure nothing, write table and plot anew")
    given = parser.parse_args()
    body = read_record(given.record)
    if not given.show:
        if given.data is None:
            parser.error("`--data` is missing: a folder with room for the inputs.")
        body |= {"bandwidth": bandwidth(), "cores": os.cpu_count(), "machine": processor()}
        for rows in sorted(given.sizes):
            for task in given.tasks:
                found = measure(task, rows, given.data, given.rows_per_block, given.seed)
                print(json.dumps(found), flush=True)
                same = [r for r in body["records"] if (r["task"], r["rows"]) == (task, found["rows"])]
                body["records"] = [r for r in body["records"] if r not in same] + [found]
                write_record(given.record, body)
    write_record(given.record, body)
    plot(body, given.record / "growth.png")
    missed = misses(body["records"])
    for line in missed:
        print(f"MISSED {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
