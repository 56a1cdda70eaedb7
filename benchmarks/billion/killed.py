"""A stream that is killed ten times and goes on: the same output within a unit of rounding, and no block twice.

    python benchmarks/billion/killed.py --data FOLDER [--rows 1e8] [--kills 10] [--network]

Computes a product and a comparison of every row and writes them as Parquet. A process is killed
(SIGKILL) at random moments: simulated, the only one; with `--network` one of three parties, drawn each
time. Then all of it is computed again without a break, and compared. Every
process notes the blocks that it begins; one that was finished before its process started must
not be among them. What came of it is added to `results.json` beside this file. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from generate import generate
from run import HERE, read_record, write_record

from spuvm.network import make_run_folder
from spuvm.runtime.config import Config

PARTIES = ("alice", "bob", "carol")
UNIT = 2.0**-18
PROGRAM = """
import sys
import spuvm as spu
from spuvm.streaming.job import Runner

log, data, output, folder, rows_per_block, party, cluster = sys.argv[1:]
plain = Runner._compute

def compute(self, ready, state):
    with open(log, "a") as file:
        file.write(f"{ready.block}\\n")
    return plain(self, ready, state)

Runner._compute = compute
if party:
    spu.init(party=party, config=cluster)
sources = {"x": f"{data}/alice.parquet:x@alice", "y": f"{data}/bob.parquet:y@bob"}
rows = spu.stream(sources, rows_per_block=int(rows_per_block))
rows.map(lambda x, y: {"p": x * y, "less": x < y}).to_parquet(output, "carol", folder=folder)
spu.shutdown()
"""


class Run:
    """Processes that compute into one folder, again and again until it is done."""

    def __init__(self, work: Path, name: str, data: Path, rows_per_block: int, cluster: Path | None) -> None:
        self.folder, self.output, self.work = work / name, work / f"{name}.parquet", work
        self.parties: Sequence[str] = PARTIES if cluster else ("",)
        self._fixed = [str(data), str(self.output), str(self.folder), str(rows_per_block)]
        self._cluster = str(cluster or "")
        self._starts = 0
        self.again = 0

    def finished(self, party: str) -> set[int]:
        files = (self.folder / (party or "simulated")).glob("blocks-*.jsonl")
        lines = [line for f in files for line in f.read_text().splitlines(keepends=True)]
        return {json.loads(line)["block"] for line in lines if line.endswith("}\n")}

    def go(self, kill_at: int | None) -> bool:
        """Until the end, or until so many blocks are finished at a party drawn, which is then killed."""
        self._starts += 1
        logs = {p: self.work / f"{self.folder.name}-{self._starts}-{p}.log" for p in self.parties}
        common = set.intersection(*(self.finished(p) for p in self.parties))
        processes = {
            p: subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(logs[p]), *self._fixed, p, self._cluster], stderr=subprocess.DEVNULL
            )
            for p in self.parties
        }
        if kill_at is not None:
            victim = random.choice(list(self.parties))
            kill_at = max(kill_at, len(common) + 1)
            while len(self.finished(victim)) < kill_at and processes[victim].poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0, 0.3))
            processes[victim].send_signal(signal.SIGKILL)
        statuses = [p.wait() for p in processes.values()]
        begun = [int(line) for f in logs.values() if f.exists() for line in f.read_text().split()]
        self.again += sum(b in common for b in begun)
        print(f"start {self._starts}: {len(common)} blocks finished before, {len(set(begun))} begun", flush=True)
        return not any(statuses)


def within_a_unit(one: Path, other: Path) -> bool:
    """Whether products differ by at most a unit of fixed point, and comparisons not at all."""
    files = [pq.ParquetFile(path) for path in (one, other)]
    if files[0].num_row_groups != files[1].num_row_groups:
        return False
    for group in range(files[0].num_row_groups):
        a, b = (file.read_row_group(group) for file in files)
        if a["less"] != b["less"] or np.abs(a["p"].to_numpy() - b["p"].to_numpy()).max() > UNIT:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=lambda s: round(float(s)), default=10**8)
    parser.add_argument("--rows-per-block", type=int, default=1 << 20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--record", type=Path, default=HERE, help="where results.json and RESULTS.md are")
    given = parser.parse_args()
    data = generate("columns", given.rows, given.data)
    work = given.data / "killed"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    began = time.perf_counter()
    cluster = make_run_folder(work / "keys", Config(parties=PARTIES)) if given.network else None
    first = Run(work, "killed", data, given.rows_per_block, cluster)
    blocks = -(-given.rows // given.rows_per_block)
    moments = sorted(random.sample(range(1, max(9 * blocks // 10, given.kills + 1)), given.kills))
    first.go(moments[0])
    for moment in moments[1:]:
        if first.go(moment):
            parser.error(f"it was done before it was killed {given.kills} times: more rows, or smaller blocks.")
    whole = Run(work, "whole", data, given.rows_per_block, cluster)
    if not (first.go(None) and whole.go(None)):
        print("a run that nobody killed failed")
        return 1
    same = within_a_unit(first.output, whole.output)
    print(f"{given.kills} kills: outputs {'are the same within a unit' if same else 'DIFFER'}")
    print(f"finished blocks that were begun again: {first.again}")
    shutil.rmtree(work)
    found = {
        "rows": given.rows,
        "rows_per_block": given.rows_per_block,
        "network": given.network,
        "kills": given.kills,
        "same": "unit" if same else False,
        "begun_again": first.again,
        "seconds": round(time.perf_counter() - began, 1),
    }
    body = read_record(given.record)
    others = [r for r in body.get("killed", []) if (r["rows"], r["network"]) != (given.rows, given.network)]
    write_record(given.record, body | {"killed": [*others, found]})
    return 0 if same and not first.again else 1


if __name__ == "__main__":
    raise SystemExit(main())
