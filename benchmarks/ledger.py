"""Concurrent uses of one budget, whose processes are killed at any moment: never overspent, no grant lost.

    python benchmarks/ledger.py --uses 1000

Each process asks again and again for a random epsilon, and notes what it was granted. Some are killed (SIGKILL) at a
random moment and others take their place. In the end the ledger opens, holds every use that anybody was granted, and
what it holds is within the budget.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from spuvm.dp import Budget, Spent
from spuvm.runtime.errors import InputError

WORKERS = 4
LONGEST = 0.15  # seconds that a process that is to be killed lives


def ask(path: Path, granted: Path, epsilon: float, seed: int) -> None:
    """Spend until killed, or until the budget refuses ten times in a row; each grant is a line on disk."""
    rng = random.Random(seed)
    refused = 0
    with open(granted, "a") as notes:
        while refused < 10:
            amount = epsilon * rng.uniform(0.2, 1.8)
            try:
                Budget.open(path).spend([Spent("laplace", 1 / amount)], f"{seed}")
            except InputError:
                refused += 1
                continue
            refused = 0
            notes.write(f"{amount!r}\n")
            notes.flush()
            os.fsync(notes.fileno())


def torture(folder: Path, uses: int, kills: int, seed: int = 0) -> dict[str, float]:
    """Run it in `folder`; what was granted, what is in the ledger, how many were killed."""
    os.environ["SPUVM_STATE_DIR"] = str(folder / "state")
    rng = random.Random(seed)
    path, granted = folder / "budget", folder / "granted"
    Budget(1.0, path=path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spuvm.dp.budget"])
    killed, started = 0, 0
    running: list[BaseProcess] = []
    while killed < kills or running:
        while len(running) < WORKERS and (killed < kills or not started):
            running.append(_start(context, path, granted, 1.0 / uses, seed + started))
            started += 1
        if killed < kills:
            time.sleep(rng.uniform(0, LONGEST))
            victim = rng.choice(running)
            if victim.pid is not None and victim.is_alive():
                os.kill(victim.pid, signal.SIGKILL)
                killed += 1
        elif running[0].is_alive():
            running[0].join(0.1)
        running = [p for p in running if p.is_alive()]
    final = [_start(context, path, granted, 1.0 / uses, -1 - i) for i in range(WORKERS)]
    for process in final:
        process.join()
    budget = Budget.open(path)
    written = [s.epsilon for use in budget.uses for s in use.spent]
    noted = [1 / (1 / float(line)) for line in granted.read_text().split()]
    lost = len(set(noted) - set(written))
    return {"uses": len(written), "granted": len(noted), "lost": lost, "killed": killed, "spent": budget.spent}


def _start(context: BaseContext, path: Path, granted: Path, epsilon: float, seed: int) -> BaseProcess:
    process: BaseProcess = context.Process(target=ask, args=(path, granted, epsilon, seed))  # type: ignore[attr-defined]
    process.start()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uses", type=int, default=1000, help="how many fit the budget")
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = torture(Path(folder), options.uses, options.kills)
    print(" ".join(f"{name} {value:.9g}" for name, value in found.items()))
    if found["spent"] > 1 or found["lost"]:
        raise SystemExit("the ledger failed")


if __name__ == "__main__":
    main()
