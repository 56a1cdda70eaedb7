"""How much a dealer that runs ahead saves: 40 dependent comparisons and products of an array, SEMI2K over TLS.

    python benchmarks/dealt.py                      two parties and a dealer on this machine
    python benchmarks/dealt.py --size 200000

The same run with `dealer_ahead_mb` 0 (nothing is made before the last has left and is awaited) and 64, its default:
seconds and processor seconds of a party, best of five. What a dealer sends first lies ready when a round asks for it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob")
CONFIG = spu.Config(protocol="semi2k", parties=PARTIES)
STEPS, RUNS = 40, 5


def steps(v: Any, w: Any) -> Any:
    for _ in range(STEPS):
        v = jnp.where(v < w, v * 1.5, v - w)
    return v


def measure(party: str, config: str, size: int) -> None:
    """The best run of this process: seconds and processor seconds."""
    spu.init(party=party, config=config)
    x = np.linspace(0.1, 0.9, size).astype(np.float32)
    device = spu.SPU({**spu.utils.testing.cluster_def(PARTIES), "runtime_config": {"protocol": "SEMI2K"}})
    shared = [device(lambda v: v * 1.0)(spu.PYU(owner)(lambda: x)()) for owner in PARTIES]
    function, total = device(steps), device(jnp.sum)
    best, busy = float("inf"), float("inf")
    for _ in range(RUNS):
        start, work = time.perf_counter(), time.process_time()
        spu.reveal(total(function(*shared)))
        best = min(best, time.perf_counter() - start)
        busy = min(busy, time.process_time() - work)
    spu.shutdown()
    print(f"{best:.4f} {busy:.4f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=50_000, help="elements (50,000)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.config, options.size)
        return 0
    print(f"{'ahead, MiB':>10} {'seconds':>8} {'processor':>10}")
    for ahead in (0, 64):
        with tempfile.TemporaryDirectory() as folder:
            config = make_run_folder(folder, CONFIG, timeout=300.0)
            config.write_text(f"dealer_ahead_mb = {ahead}\n{config.read_text()}")
            command = [sys.executable, __file__, "--size", str(options.size), "--config", str(config), "--measure"]
            outcomes = run_parties({p: [*command, p] for p in (*PARTIES, "dealer")})
        said = [[float(x) for x in outcomes[p].stdout.split()] for p in PARTIES]
        print(f"{ahead:10} {max(s[0] for s in said):8.3f} {max(s[1] for s in said):10.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
