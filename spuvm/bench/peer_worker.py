"""A worker that times SecretFlow SPU 0.9.5; run by the Python that has it, which does not have us.

    python -P peer_worker.py                      three threads, links in memory
    python -P peer_worker.py RANK HOST:PORT ...   one of three processes, plain TCP

ABY3, 64-bit ring, every other setting as SPU's own simulator leaves it. Timed is `Runtime.run`
alone, from shares that are set to shares that can be read: no tracing, no compiling. Or all of a call,
from arrays to arrays: as its own front end does, that compiles each time.
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
Request = dict[str, Any]


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


def run(runtime: Any, executable: Any, mine: Sequence[Any]) -> list[Any]:
    """One party, from its shares of the inputs to those of the outputs."""
    for name, share in zip(executable.input_names, mine):
        runtime.set_var(name, share)
    runtime.run(executable)
    return [runtime.get_var(name) for name in executable.output_names]


# All parties in this process, linked by memory ----------------------------------------------------


def in_parallel(party: Callable[[int], Any]) -> list[Any]:
    """What each of the parties, in a thread of its own, gives for its rank."""
    results: dict[int, Any] = {}

    def guarded(rank: int) -> None:
        try:
            results[rank] = party(rank)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=guarded, args=(rank,)) for rank in range(PARTIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        if isinstance(result, Exception):
            raise result
    return [results[rank] for rank in range(PARTIES)]


def description_of(addresses: Sequence[str]) -> Any:
    description = libspu.link.Desc()
    description.recv_timeout_ms = PATIENCE_MS
    description.http_timeout_ms = PATIENCE_MS
    for rank, address in enumerate(addresses):
        description.add_party(f"id_{rank}", address)
    return description


def operation_in_threads(request: Request) -> Request:
    inputs = load(request["inputs"])
    executable = compiled(operations.ALL[request["op"]].function, inputs)
    by_party = shares(inputs)
    description = description_of([f"thread_{rank}" for rank in range(PARTIES)])

    def party(rank: int) -> Any:
        return timed_run(libspu.link.create_mem(description, rank), executable, by_party[rank], request["repeat"])

    took, outputs = zip(*in_parallel(party))
    save(request["output"], reconstructed(outputs))
    return {"seconds": [max(t) for t in zip(*took)]}


def call_in_threads(request: Request) -> Request:
    inputs = load(request["inputs"])
    description = description_of([f"thread_{rank}" for rank in range(PARTIES)])
    runtimes = in_parallel(lambda rank: api.Runtime(libspu.link.create_mem(description, rank), configuration()))

    def call() -> list[Any]:
        executable = compiled(operations.ALL[request["op"]].function, inputs)
        by_party = shares(inputs)
        return reconstructed(in_parallel(lambda rank: run(runtimes[rank], executable, by_party[rank])))

    (first,) = serving.seconds(call, 1)
    again = serving.seconds(call, request["repeat"])
    save(request["output"], call())
    return {"first": first, "seconds": again}


IN_THREADS = {"operation": operation_in_threads, "call": call_in_threads}


def in_threads(request: Request) -> Request:
    return IN_THREADS[request["do"]](request)


# A process for each party -------------------------------------------------------------------------


class Process:
    """One party in a process of its own. Rank 0 deals the shares and puts results together, by files."""

    def __init__(self, rank: int, addresses: Sequence[str]) -> None:
        self.rank = rank
        self.link = libspu.link.create_brpc(description_of(addresses), rank)

    def __call__(self, request: Request) -> Request:
        return {"operation": self.operation, "call": self.call}[request["do"]](request)

    def operation(self, request: Request) -> Request:
        inputs = load(request["inputs"])
        executable = compiled(operations.ALL[request["op"]].function, inputs)
        took, outputs = timed_run(self.link, executable, self._dealt(request, inputs), request["repeat"])
        self._collected(request, outputs)
        return {"seconds": took}

    def call(self, request: Request) -> Request:
        inputs = load(request["inputs"])
        runtime = api.Runtime(self.link, configuration())

        def call() -> None:
            self.link.barrier()
            executable = compiled(operations.ALL[request["op"]].function, inputs)
            self._collected(request, run(runtime, executable, self._dealt(request, inputs)))

        (first,) = serving.seconds(call, 1)
        return {"first": first, "seconds": serving.seconds(call, request["repeat"])}

    def _file(self, request: Request, rank: int) -> Path:
        return Path(f"{request['inputs']}.shares{rank}")

    def _dealt(self, request: Request, inputs: Sequence[Any]) -> list[Any]:
        """This party's shares of the inputs."""
        if self.rank == 0:
            for rank, mine in enumerate(shares(inputs)):
                _dump(self._file(request, rank), mine)
        self.link.barrier()
        return _restore(self._file(request, self.rank))

    def _collected(self, request: Request, outputs: Sequence[Any]) -> None:
        """Write what all parties' shares of the outputs mean."""
        _dump(self._file(request, self.rank), outputs)
        self.link.barrier()
        if self.rank == 0:
            save(request["output"], reconstructed([_restore(self._file(request, r)) for r in range(PARTIES)]))
        self.link.barrier()


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
