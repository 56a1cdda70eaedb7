"""Operations of two checkouts in turn, on the same inputs: which are slower after a change, and by how much.

    python benchmarks/paired.py ../before                          this checkout against another, all operations
    python benchmarks/paired.py ../before --ops less,exp --size 100000 --simulated

Both have to be installed in a `.venv` of their own. The workers of both live at once and are asked by turns, for a
tenth of a second each time, so that what else the machine does strikes both. Compared are the best seconds of a run and
the fewest processor seconds, user and system, of all parties together: the second hangs little on what runs beside.
An operation counts as slower if both say so by more than a tenth; the status is then 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.bench import serving, worker
from spuvm.bench.measure import NETWORKED, SEED, SIMULATED, machine
from spuvm.bench.operations import ALL, OPERATIONS, Sizes

SPAN = 0.1  # seconds of runs that are timed together
SETTLE, LONGEST = 4.0, 60.0  # processor seconds of runs before any is timed: machine code is made meanwhile; seconds
SLOWER = 1.1
PATIENCE = 600.0
Request = dict[str, Any]


# One worker: a process of either checkout; it may use only what both have ------------------------------


class Timed:
    """The function and the shared inputs of the operation that is measured."""

    def __init__(self) -> None:
        self.machine = worker.start()

    def __call__(self, request: Request) -> Request:
        if request["do"] == "take":
            inputs = self.machine.shared(request["inputs"])
            function = self.machine.device(ALL[request["op"]].function)
            self.run: Callable[[], Any] = lambda: worker.wait(function(*inputs))
            self.run()
            return {}
        began, work = time.perf_counter(), _processor()
        for _ in range(request["runs"]):
            self.run()
        return {"seconds": time.perf_counter() - began, "processor": _processor() - work}


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# The parent --------------------------------------------------------------------------------------------


@dataclass
class Side:
    """The least of one run at one checkout, so far. Processor seconds are those of all parties."""

    seconds: float = np.inf
    processor: float = np.inf

    def note(self, replies: Sequence[Request], runs: int) -> None:
        self.seconds = min(self.seconds, max(r["seconds"] for r in replies) / runs)
        self.processor = min(self.processor, sum(r["processor"] for r in replies) / runs)


@dataclass
class Pair:
    operation: str
    mode: str
    before: Side
    after: Side

    @property
    def ratios(self) -> tuple[float, float]:
        """How many times as fast as before: by seconds, and by processor seconds."""
        return self.before.seconds / self.after.seconds, self.before.processor / self.after.processor

    @property
    def slower(self) -> bool:
        return max(self.ratios) < 1 / SLOWER

    def line(self) -> str:
        times = (self.before.seconds, self.after.seconds, self.before.processor, self.after.processor)
        figures = [f"{1000 * t:9.2f}" for t in times]
        by_seconds, by_processor = self.ratios
        cells = (*figures[:2], f"{by_seconds:6.2f}", *figures[2:], f"{by_processor:6.2f}")
        return f"{self.operation:20} {self.mode:10}" + " ".join(cells) + ("  SLOWER" if self.slower else "")


def started(checkout: Path, mode: str, folder: Path) -> Any:
    """The workers of a checkout: one, or one for each party with certificates in `folder`."""
    from spuvm.bench.workers import Workers
    from spuvm.runtime.link.certificates import make_cluster

    command = [str(checkout / ".venv/bin/python"), __file__, "--worker"]
    env = {"SPUVM_CACHE_DIR": str(folder / "cache")}
    if mode == SIMULATED:
        return Workers([command], PATIENCE, env)
    cluster = make_cluster(folder, worker.PARTIES, timeout_seconds=PATIENCE)
    return Workers([[*command, party, str(cluster)] for party in worker.PARTIES], PATIENCE, env)


def pairs(checkouts: Sequence[Path], mode: str, names: Sequence[str], sizes: Sizes, passes: int) -> Iterator[Pair]:
    """Each operation, by both checkouts in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spuvm-pairs-")))
        (folder / "before").mkdir()
        (folder / "after").mkdir()
        both = [
            stack.enter_context(started(c.resolve(), mode, folder / side))
            for c, side in zip(checkouts, ("before", "after"))
        ]
        for name in names:
            operation = OPERATIONS[name]
            path = folder / "inputs.npz"
            inputs = operation.inputs(np.random.default_rng(SEED), sizes.of(operation.sized_by))
            np.savez(path, *(np.asarray(x) for x in inputs))
            runs = [settled(w, {"do": "take", "op": name, "inputs": str(path)}) for w in both]
            found = Side(), Side()
            for turn in range(passes):
                for i in (0, 1) if turn % 2 else (1, 0):
                    found[i].note(both[i].ask({"do": "time", "runs": runs[i]}), runs[i])
            yield Pair(name, mode, *found)


def settled(workers: Any, request: Request) -> int:
    """After the operation has run for a while: how many runs fill the span."""
    workers.ask(request)
    began, runs, work, found = time.perf_counter(), 1, 0.0, Side()
    while work < SETTLE and time.perf_counter() - began < LONGEST:
        replies = workers.ask({"do": "time", "runs": runs})
        found.note(replies, runs)
        work += max(r["processor"] for r in replies)
        runs = max(1, min(1000, int(SPAN / found.seconds)))
    return runs


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        del sys.argv[1]
        serving.serve(Timed)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout, with its .venv")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1], help="this checkout, if not given")
    parser.add_argument("--ops", help=f"of {', '.join(OPERATIONS)}")
    parser.add_argument("--size", type=int, default=Sizes.size)
    parser.add_argument("--matrix", type=int, default=Sizes.matrix)
    parser.add_argument("--sort-size", type=int, default=Sizes.sort)
    parser.add_argument("--passes", type=int, default=9, help="how often each is asked")
    parser.add_argument("--simulated", action="store_true", help="leave out the runs over TLS")
    parser.add_argument("--network", action="store_true", help="leave out the simulated runs")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    names = options.ops.split(",") if options.ops else list(OPERATIONS)
    if unknown := [n for n in names if n not in OPERATIONS]:
        parser.error(f"no operation {', '.join(unknown)}: there are {', '.join(OPERATIONS)}")
    modes = [SIMULATED] * (not options.network) + [NETWORKED] * (not options.simulated)
    about, found = machine(), list[Pair]()
    columns = ("ms before", "after", " times", "cpu ms", "after", " times")
    print(f"{'operation':20} {'mode':10}" + " ".join(c if c[0] == " " else f"{c:>9}" for c in columns))
    sizes = Sizes(options.size, options.matrix, options.sort_size)
    for mode in modes:
        own: list[Pair] = []
        for pair in pairs((options.before, options.after), mode, names, sizes, options.passes):
            own.append(pair)
            print(pair.line(), flush=True)
        means = np.exp(np.mean(np.log([p.ratios for p in own]), axis=0))
        print(f"{mode}, geometric means: {means[0]:.2f} times by seconds, {means[1]:.2f} by processor seconds")
        found += own
    if options.json is not None:
        figures = {"machine": about, "sizes": asdict(sizes), "pairs": [asdict(p) for p in found]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(p.slower for p in found))


if __name__ == "__main__":
    sys.exit(main())
