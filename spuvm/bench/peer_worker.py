"""A worker that times SecretFlow SPU 0.9.5; run by the Python that has it, which does not have us.

    python -P peer_worker.py                      three threads, links in memory
    python -P peer_worker.py RANK HOST:PORT ...   one of three processes, plain TCP

ABY3, 64-bit ring, every other setting as SPU's own simulator leaves it. Timed is `Runtime.run`
alone, from shares that are set to shares that can be read: no tracing, no compiling.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PARTIES = 3
PATIENCE_MS = 3_600_000


def _beside(name: str) -> Any:
    """A module of this folder, loaded without the package around it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


operations, serving = _beside("operations"), _beside("serving")
libspu = importlib.import_module("spu.libspu")
api = importlib.import_module("spu.api")
frontend = importlib.import_module("spu.utils.frontend")


def configuration() -> Any:
    return libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64)


def compiled(function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """The executable of a function whose inputs are all secret."""
    names = [f"in{i}" for i in range(len(inputs))]
    secret = [libspu.Visibility.VIS_SECRET] * len(inputs)
    copts = libspu.CompilerOptions()
    return frontend.compile(
        frontend.Kind.JAX, _named(function), inputs, {}, names, secret, _output_names, (), None, copts
    )[0]


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    """Library functions may be objects without the `__name__` that SPU's compiler reads."""

    def timed(*args: Any) -> Any:
        return function(*args)

    return timed


def _output_names(outputs: Sequence[Any]) -> list[str]:
    return [f"out{i}" for i in range(len(outputs))]


def shares(arrays: Sequence[Any]) -> list[list[Any]]:
    """By party, its shares of all arrays."""
    io = api.Io(PARTIES, configuration())
    secret = libspu.Visibility.VIS_SECRET
    return [list(of) for of in zip(*(io.make_shares(np.asarray(x), secret) for x in arrays))]


def reconstructed(outputs: Sequence[Sequence[Any]]) -> list[Any]:
    """Arrays from each party's shares of all of them."""
    io = api.Io(PARTIES, configuration())
    return [np.asarray(io.reconstruct(list(of))) for of in zip(*outputs)]


def load(path: str) -> list[Any]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def save(path: str, arrays: Sequence[Any]) -> None:
    np.savez(path, **{f"out{i}": x for i, x in enumerate(arrays)})


def timed_run(link: Any, executable: Any, mine: Sequence[Any], repeat: int) -> tuple[list[float], list[Any]]:
    """One party: set the shares, run once unmeasured, then `repeat` times from a common start."""
    runtime = api.Runtime(link, configuration())
    for name, share in zip(executable.input_names, mine):
        runtime.set_var(name, share)
    runtime.run(executable)
    took = []
    for _ in range(repeat):
        link.barrier()
        start = time.perf_counter()
        runtime.run(executable)
        took.append(time.perf_counter() - start)
    return took, [runtime.get_var(name) for name in executable.output_names]


def in_threads(request: dict[str, Any]) -> dict[str, Any]:
    """All parties in this process, linked by memory."""
    inputs = load(request["inputs"])
    executable = compiled(operations.OPERATIONS[request["op"]].function, inputs)
    by_party = shares(inputs)
    description = libspu.link.Desc()
    description.recv_timeout_ms = PATIENCE_MS
    for rank in range(PARTIES):
        description.add_party(f"id_{rank}", f"thread_{rank}")
    results: dict[int, Any] = {}

    def party(rank: int) -> None:
        try:
            link = libspu.link.create_mem(description, rank)
            results[rank] = timed_run(link, executable, by_party[rank], request["repeat"])
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=party, args=(rank,)) for rank in range(PARTIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        if isinstance(result, Exception):
            raise result
    save(request["output"], reconstructed([results[rank][1] for rank in range(PARTIES)]))
    return {"seconds": [max(t) for t in zip(*(results[rank][0] for rank in range(PARTIES)))]}


class Process:
    """One party in a process of its own."""

    def __init__(self, rank: int, addresses: Sequence[str]) -> None:
        self.rank = rank
        description = libspu.link.Desc()
        description.recv_timeout_ms = PATIENCE_MS
        description.http_timeout_ms = PATIENCE_MS
        for other, address in enumerate(addresses):
            description.add_party(f"id_{other}", address)
        self.link = libspu.link.create_brpc(description, rank)

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Rank 0 deals the shares and puts the results together, by files beside the inputs."""
        inputs = load(request["inputs"])
        executable = compiled(operations.OPERATIONS[request["op"]].function, inputs)
        dealt = Path(f"{request['inputs']}.shares{self.rank}")
        if self.rank == 0:
            for rank, mine in enumerate(shares(inputs)):
                _dump(dealt.with_suffix(f".shares{rank}"), mine)
        self.link.barrier()
        took, outputs = timed_run(self.link, executable, _restore(dealt), request["repeat"])
        _dump(dealt, outputs)
        self.link.barrier()
        if self.rank == 0:
            every = [_restore(dealt.with_suffix(f".shares{rank}")) for rank in range(PARTIES)]
            save(request["output"], reconstructed(every))
        self.link.barrier()
        return {"seconds": took}


def _dump(path: Path, values: Sequence[Any]) -> None:
    path.write_bytes(pickle.dumps([(v.meta, list(v.share_chunks)) for v in values]))


def _restore(path: Path) -> list[Any]:
    out = []
    for meta, chunks in pickle.loads(path.read_bytes()):
        share = libspu.Share()
        share.meta, share.share_chunks = meta, chunks
        out.append(share)
    return out


def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
    options = libspu.logging.LogOptions()
    options.system_log_path = os.devnull  # else a file appears wherever the user happens to be
    options.log_level = libspu.logging.LogLevel.ERROR
    libspu.logging.setup_logging(options)
    if len(sys.argv) > 1:
        return Process(int(sys.argv[1]), sys.argv[2:])
    return in_threads


if __name__ == "__main__":
    serving.serve(start)
    os._exit(0)  # brpc's threads may outlive the link
