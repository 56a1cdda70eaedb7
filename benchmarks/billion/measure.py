"""One benchmark at one size, in this process: prints what it measured as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tasks import STREAMS, TASKS

from spuvm.streaming.job import Runner


def main() -> None:
    name, folder, rows, rows_per_block = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    task = TASKS[name]
    seen: dict[str, Any] = {}
    plain = Runner.run

    def run(self: Runner, todo: Any, progress: Any = None) -> None:
        seen["job"] = self.job
        for program in self.job.programs.values():
            program.party(None).prepare()
        forget(folder)
        seen["began"], seen["cpu"] = time.perf_counter(), time.process_time()
        plain(self, todo, progress)

    Runner.run = run  # type: ignore[method-assign]
    start = time.perf_counter()
    value = task.run(STREAMS[task.kind](folder, rows_per_block))
    end, cpu = time.perf_counter(), time.process_time()
    job = seen["job"]
    costs = {counts: program.cost for counts, program in job.programs.items()}
    sent = sum(int(costs[job.counts(b)].bytes_sent.sum()) for b in range(job.blocks))
    error = task.check(value, json.loads((folder / "truth.json").read_text()), rows)
    print(
        json.dumps(
            {
                "task": name,
                "rows": rows,
                "seconds": end - seen["began"],
                "cpu_seconds": cpu - seen["cpu"],
                "setup_seconds": seen["began"] - start,
                "blocks": job.blocks,
                "rounds_per_block": max(c.rounds for c in costs.values()),
                "bytes_per_row": sent / rows,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "error": error,
                "right": bool(error <= task.limit),
            }
        )
    )


def forget(folder: Path) -> None:
    """Have the system drop what it keeps of the inputs in memory: at every size they come from the disk."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
