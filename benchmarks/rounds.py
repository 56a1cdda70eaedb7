"""How long a round of small arrays takes: 500 dependent steps `v * v * 0.9 + 0.1` on 8 numbers.

    python benchmarks/rounds.py                     simulated, and as three processes over TLS on this machine
    python benchmarks/rounds.py --simulated

Seconds of a run, best of ten, and processor time of the busiest party. Compiled and warm.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
STEPS, NUMBERS, RUNS = 500, 8, 10


def steps(v: Any) -> Any:
    for _ in range(STEPS):
        v = v * v * 0.9 + 0.1
    return v


def measure(party: str, config: str | None) -> None:
    """The best run of this process: its seconds, processor seconds, rounds, and the error."""
    if config:
        spu.init(party=party, config=config)
    else:
        spu.init(parties=PARTIES, address="local")
    x = np.linspace(0, 0.9, NUMBERS).astype(np.float32)
    device = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    halves = [spu.PYU(owner)(lambda: x / 2)() for owner in PARTIES[:2]]
    secret = device(lambda v, w: v + w)(*halves)  # of two owners: neither knows it
    function = device(steps)
    best, busy = float("inf"), float("inf")
    for _ in range(RUNS):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        result = function(secret)
        spu.reveal(result)
        best = min(best, time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        busy = min(busy, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    got, want = np.asarray(spu.reveal(result)), x
    for _ in range(STEPS):
        want = want * want * np.float32(0.9) + np.float32(0.1)
    spu.shutdown()
    print(f"{best:.4f} {busy:.4f} {np.max(np.abs(got - want)):.1e}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true", help="leave out the run over TLS")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.config)
        return 0
    rounds = spu.jit(steps).cost(np.zeros(NUMBERS, np.float32)).rounds
    command = [sys.executable, __file__, "--measure"]
    print(f"{'run':10} {'seconds':>8} {'us a round':>11} {'processor':>10}   error, of {rounds} rounds")
    for network in (False,) if options.simulated else (False, True):
        if network:
            with tempfile.TemporaryDirectory() as folder:
                config = str(make_run_folder(folder, spu.Config(parties=PARTIES), timeout=300.0))
                outcomes = run_parties({p: [*command, p, "--config", config] for p in PARTIES}, env=dict(os.environ))
            said = [outcomes[p].stdout.split() for p in PARTIES]
        else:
            ended = subprocess.run([*command, "alice"], capture_output=True, text=True, check=True)
            said = [ended.stdout.split()]
        seconds, busy = max(float(s[0]) for s in said), max(float(s[1]) for s in said)
        name = "TLS" if network else "simulated"
        print(f"{name:10} {seconds:8.4f} {1e6 * seconds / rounds:11.1f} {busy:10.4f}   {said[0][2]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
