"""How many delays of a slow link a call takes, beside the rounds that are counted: three processes over TLS.

    python benchmarks/delays.py                links on which a message is 100 ms on its way
    python benchmarks/delays.py --delay 50

All parties begin at the same time. Seconds are those of the party that waits longest, best of three, and include
what all compute; a delay beside the rounds is the agreement's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.compiler.seconds import Speed
from spuvm.network import make_run_folder, run_parties
from spuvm.shaping import shaped

PARTIES = ("alice", "bob", "carol")
RUNS, TOGETHER = 3, 2.0  # runs of each; seconds of the clock at whose multiples the parties begin


def measure(party: str, config: str) -> None:
    """Prints the best seconds of each call, and its rounds."""
    spu.init(party=party, config=config)
    device = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    x = spu.PYU("alice")(lambda: np.array([1, 2, 3], np.float32))()
    y = spu.PYU("bob")(lambda: np.array([4, 5, 6], np.float32))()
    a, b = x.to(device), y.to(device)
    multiply = device(lambda a, b: a * b)
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "an eager product": (multiply.cost(a, b).rounds, lambda: (a * b).block_until_ready()),
        "a compiled product": (multiply.cost(a, b).rounds, lambda: multiply(a, b).block_until_ready()),
        "a product of two PYUs' arrays": (multiply.cost(x, y).rounds, lambda: multiply(x, y).block_until_ready()),
        "a PYU's array to the SPU": (1, lambda: x.to(device).block_until_ready()),
        "a reveal": (1, lambda: spu.reveal(a)),
    }
    for name, (rounds, call) in calls.items():
        best = float("inf")
        for _ in range(RUNS + 1):  # the first compiles
            time.sleep(TOGETHER - time.time() % TOGETHER)
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        print(f"{name};{rounds};{best}", flush=True)
    spu.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=int, default=100, help="milliseconds")
    parser.add_argument("--party", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.party:
        measure(options.party, options.config)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        cluster = make_run_folder(folder, spu.Config(parties=PARTIES), timeout=120.0)
        with shaped(cluster, Speed.parse(f"{options.delay}ms,1Gbit")) as files:
            commands = {p: [sys.executable, __file__, "--party", p, "--config", str(files[p])] for p in PARTIES}
            said = [o.stdout.split("\n") for o in run_parties(commands).values()]
    print(f"{'call':32}{'rounds':>8}{'delays':>8}")
    for lines in zip(*said):
        found = [line.split(";") for line in lines if line]
        if found:
            slowest = max(float(seconds) for _, _, seconds in found)
            print(f"{found[0][0]:32}{found[0][1]:>8}{1000 * slowest / options.delay:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
