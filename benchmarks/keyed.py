"""Comparisons by keys beside circuits, SEMI2K of two parties with a dealer: three processes over TLS and slow links.

    python benchmarks/keyed.py                        a message is 25 ms on its way, 100 Mbit a second
    python benchmarks/keyed.py --link 5ms,1Gbit

Of `optimize="auto"`, whose comparisons are circuits, and "latency": rounds, bytes of the dealer, and seconds of the
party that waits longest, best of three, from shared inputs to a revealed bit of the result. All begin at once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.compiler.seconds import Speed
from spuvm.network import make_run_folder, run_parties
from spuvm.shaping import shaped

PARTIES = ("alice", "bob")
CONFIG = spu.Config(protocol="semi2k", parties=PARTIES)
RUNS, TOGETHER = 3, 2.0  # timed runs; seconds of the clock at whose multiples the parties begin


def _train(x: Any, y: Any) -> Any:
    """Ten epochs of a logistic regression."""

    def step(_: Any, w: Any) -> Any:
        return w - x.T @ (jax.nn.sigmoid(x @ w) - y) / len(y)

    return jax.lax.fori_loop(0, 10, step, jnp.zeros(x.shape[1], x.dtype))


def _data(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


WORK: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, np.ndarray]]] = {
    "less, 1 number": (jnp.less, (_data(1), -_data(1))),
    "less, 100 numbers": (jnp.less, (_data(100), -_data(100))),
    "less, 1000 numbers": (jnp.less, (_data(1000), -_data(1000))),
    "greatest of 64": (lambda x, y: jnp.max(x * y), (_data(64), _data(64))),
    "logistic, 100 rows of 10, 10 epochs": (_train, (_data(100, 10), (_data(100) > 0).astype(np.float32))),
}


def measure(party: str, config: str, optimize: str) -> None:
    """Prints of each work its rounds, the dealer's bytes and the best seconds."""
    spu.init(party=party, config=config)
    definition = {**spu.utils.testing.cluster_def(PARTIES), "runtime_config": {"protocol": "SEMI2K"}}
    device = spu.SPU(definition, optimize=optimize)
    last = device(lambda z: spu.reveal(z.reshape(-1)[0]))
    for name, (function, (x, y)) in WORK.items():
        shared = [device(lambda v: v * 1)(spu.PYU(p)(lambda v=v: v)()) for p, v in zip(PARTIES, (x, y))]
        run, best = device(function), float("inf")
        cost = run.cost(*shared)
        for _ in range(RUNS + 1):  # the first compiles
            time.sleep(TOGETHER - time.time() % TOGETHER)
            start = time.perf_counter()
            spu.reveal(last(run(*shared)))
            best = min(best, time.perf_counter() - start)
        print(f"{name};{cost.rounds};{int(cost.bytes_sent[-1])};{best}", flush=True)
    spu.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--link", default="25ms,100Mbit", help="of each two (25ms,100Mbit)")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return 0
    print("| | | rounds | kB, the dealer | s |\n|---|---|--:|--:|--:|")
    for optimize in ("auto", "latency"):
        with tempfile.TemporaryDirectory() as folder:
            cluster = make_run_folder(folder, CONFIG, timeout=120.0)
            with shaped(cluster, Speed.parse(options.link)) as files:
                start = [sys.executable, __file__, "--measure"]
                said = run_parties({p: [*start, p, str(files[p]), optimize] for p in (*PARTIES, "dealer")})
        for lines in zip(*(said[p].stdout.split("\n") for p in PARTIES)):
            found = [line.split(";") for line in lines if line]
            if found:
                slowest = max(float(seconds) for *_, seconds in found)
                name, rounds, dealt, _ = found[0]
                print(f"| {name} | `{optimize}` | {rounds} | {int(dealt) / 1e3:,.1f} | {slowest:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
