"""A worker that times spuvm, in a process of its own.

    python -m spuvm.bench.worker                       all parties simulated
    python -m spuvm.bench.worker PARTY cluster.toml    one party, over mutual TLS

Timed is a call of the compiled function, from shared inputs to shared outputs that are ready; or all of a call.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np

import spuvm as spu
from spuvm.bench import serving
from spuvm.bench.operations import ALL

PARTIES = ("alice", "bob", "carol")
OVERHEAD_CALLS = 5
Reply = dict[str, Any]


class Machine:
    """The three parties, simulated here, or this process as one of them."""

    def __init__(self) -> None:
        self.device = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
        self.session = self.device.vm.session

    def shared(self, path: str) -> list[spu.SPUObject]:
        """The arrays of an .npz file, secret-shared: they belong to the parties in turn."""
        return [wait(x.to(self.device)) for x in self.owned(path)]

    def owned(self, path: str) -> list[spu.PYUObject]:
        """The same, each at its owner."""
        with np.load(path) as file:
            arrays = [file[name] for name in file.files]
        return [spu.PYU(PARTIES[i % len(PARTIES)])(lambda x=x: x)() for i, x in enumerate(arrays)]

    def counted(self) -> list[int]:
        """Rounds and bytes sent so far, by the link's own counters; nothing in a simulation."""
        link = self.session.link
        return [] if link is None else [link.counters.rounds, sum(link.counters.bytes_sent.values())]

    def __call__(self, request: Reply) -> Reply:
        return REQUESTS[request["do"]](self, request)


def wait(outputs: Any) -> Any:
    """The outputs, ready."""
    for leaf in jax.tree.leaves(outputs):
        leaf.block_until_ready()
    return outputs


def time_operation(machine: Machine, request: Reply) -> Reply:
    """Compile and run once, then `repeat` times; write the revealed results."""
    inputs = machine.shared(request["inputs"])
    function = machine.device(ALL[request["op"]].function)
    start = time.perf_counter()
    wait(function(*inputs))
    first = time.perf_counter() - start
    before = machine.counted()
    took = serving.seconds(lambda: wait(function(*inputs)), request["repeat"])
    counted = [(b - a) / request["repeat"] for a, b in zip(before, machine.counted())]
    results = jax.tree.leaves(spu.reveal(function(*inputs)))
    if request["output"]:
        np.savez(request["output"], *results)
    cost = function.cost(*inputs)
    return {
        "seconds": took,
        "first": first,
        "rounds": cost.rounds,
        "exact": cost.exact,
        "predicted": [[int(r), int(b)] for r, b in zip(cost.party_rounds, cost.bytes_sent)],
        "counted": counted,
    }


def time_call(machine: Machine, request: Reply) -> Reply:
    """From arrays at their owners to revealed results: once, and `repeat` times again."""
    inputs = machine.owned(request["inputs"])
    function = machine.device(ALL[request["op"]].function)

    def call() -> list[Any]:
        return [np.asarray(x) for x in jax.tree.leaves(spu.reveal(function(*inputs)))]

    (first,) = serving.seconds(call, 1)
    again = serving.seconds(call, request["repeat"])
    np.savez(request["output"], *call())
    return {"first": first, "seconds": again}


def time_first_call(machine: Machine, request: Reply) -> Reply:
    """The first call of the process, the second, and what of a later one is not the compiled run."""
    inputs = machine.shared(request["inputs"])
    function = machine.device(ALL[request["op"]].function)
    first, second = serving.seconds(lambda: wait(function(*inputs)), 2)
    running: list[float] = []
    run: Callable[..., Any] = machine.session.run

    def timed_run(*args: Sequence[Any]) -> Any:
        start = time.perf_counter()
        out = jax.block_until_ready(run(*args))
        running.append(time.perf_counter() - start)
        return out

    with mock.patch.object(machine.session, "run", timed_run):
        calls = serving.seconds(lambda: wait(function(*inputs)), OVERHEAD_CALLS)
    overhead = sorted(call - part for call, part in zip(calls, running))[OVERHEAD_CALLS // 2]
    return {"first": first, "second": second, "overhead": overhead}


REQUESTS: dict[str, Callable[[Machine, Reply], Reply]] = {
    "operation": time_operation,
    "call": time_call,
    "first call": time_first_call,
}


def start() -> Machine:
    if len(sys.argv) > 1:
        party, config = sys.argv[1:]
        spu.init(party=party, config=config)
    else:
        spu.init(parties=PARTIES, address="local")
    return Machine()


if __name__ == "__main__":
    serving.serve(start)
    spu.shutdown()
