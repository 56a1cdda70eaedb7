"""What it costs that a party may deviate: the same programs under ABY3, ABY3 with `security="malicious"`, and REP4.

    python benchmarks/deviation.py [--size 100000] [--matrix 256]

Processor seconds of a party (all parties run as threads of this process, one run after one that is not timed), rounds,
and bytes of all parties. Inputs are private, results stay shared.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.compiler.compile import Program
from spuvm.runtime.engine.random import derive_key
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.memory import keep_large_blocks
from spuvm.runtime.protocols.registered import PROTOCOLS

NAMES = ("aby3", "aby3_malicious", "rep4")
STEPS = 10


def regression(x: Any, y: Any) -> Any:
    """Logistic regression, ten steps of gradient descent."""

    def step(w: Any, _: Any) -> Any:
        return w - 0.1 * x.T @ (jax.nn.sigmoid(x @ w) - y) / len(y), None

    return jax.lax.scan(step, jnp.zeros(x.shape[1]), None, length=STEPS)[0]


def programs(size: int, matrix: int) -> dict[str, tuple[Any, tuple[np.ndarray, ...]]]:
    """Functions and their inputs."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, size)).astype(np.float32)
    a, b = rng.normal(size=(2, matrix, matrix)).astype(np.float32)
    table, labels = rng.normal(size=(569, 30)).astype(np.float32), (rng.random(569) < 0.5).astype(np.float32)
    return {
        "multiply": (lambda x, y: x * y, (x, y)),
        "less": (lambda x, y: x < y, (x, y)),
        "matmul": (lambda x, y: x @ y, (a, b)),
        "logistic_regression": (regression, (table, labels)),
    }


def seconds(program: Program, arguments: tuple[np.ndarray, ...], parties: int) -> float:
    """Processor seconds of a party, on average."""
    links = memory_links(tuple(f"party{i}" for i in range(parties)))
    raws = [np.rint(x * 2.0**18).astype(np.int64).view(np.uint64) for x in arguments]

    streams = [Streams(lambda holders: derive_key(b"benchmark", repr(holders)), rank) for rank in range(parties)]

    def party(rank: int) -> None:
        inputs = [x if rank == port.owner else None for port, x in zip(program.choreography.inputs, raws, strict=True)]
        made = program.party(rank)
        made.prepare()
        Executor(streams[rank], links[rank]).run(made, inputs)

    with ThreadPoolExecutor(parties) as pool:
        list(pool.map(party, range(parties)))
        start = time.process_time()
        list(pool.map(party, range(parties)))
        return (time.process_time() - start) / parties


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="elements of multiply and less")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns of matmul")
    options = parser.parse_args()
    keep_large_blocks()  # as every session does
    print("| | protocol | s, processor | times | rounds | MB, all parties |\n|---|---|--:|--:|--:|--:|")
    for what, (function, arguments) in programs(options.size, options.matrix).items():
        base = 0.0
        for name in NAMES:
            owned = [spu.private(x, owner=f"party{i}") for i, x in enumerate(arguments)]
            program = spu.jit(function, protocol=name).compile(*owned)
            took = seconds(program, arguments, PROTOCOLS[name].parties)
            base = base or took
            cost = program.cost
            mb = cost.bytes_sent.sum() / 1e6
            print(f"| {what} | `{name}` | {took:.3f} | {took / base:.1f} | {cost.rounds:,} | {mb:,.2f} |", flush=True)


if __name__ == "__main__":
    main()
