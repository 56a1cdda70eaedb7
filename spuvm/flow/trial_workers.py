"""Workers of a search, which run a trial at a time: each a process of this machine, or an actor of a Ray cluster."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple, Protocol

from spuvm import context as contexts
from spuvm.flow.graph import Flow, of_text
from spuvm.flow.run import NodeFailed, run
from spuvm.runtime.cores import allowed
from spuvm.runtime.errors import ConfigError, LinkError, SpuError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.workers import listening, moved
from spuvm.streaming.workers import ray_cluster, ray_result

ENDED = 10.0  # seconds that a process gets to end


class Outcome(NamedTuple):
    """How a trial ended: "done", "failed", or "lost" with the link to peers."""

    state: str
    why: str
    seconds: float


@dataclass(frozen=True)
class Setting:
    """What a worker needs to be its party, or in a simulation all."""

    number: int
    of: int
    parties: tuple[str, ...]
    party: str | None
    cluster: str | None
    timeout: float | None  # of the party's own session
    device: str | None
    on_ray: bool


@dataclass(frozen=True)
class Given:
    """A trial: the text of a flow, and what a run of it needs."""

    text: str
    hash: str
    modules: tuple[str, ...]  # of its components
    name: str
    options: Mapping[str, Any]


class Worker:
    """In a process of its own: runs what it is given, one after the other."""

    def __init__(self, setting: Setting) -> None:
        os.environ["NPROC"] = str(max(1, allowed() // setting.of))
        self._setting = setting
        self._cluster: Any = None
        self._listen: Any = None

    def listen(self) -> Any:
        """Where its peers find it; None in a simulation, and where sessions share the party's port."""
        setting, host = self._setting, None
        if setting.cluster is None or setting.party is None:
            return None
        if setting.on_ray:
            import ray

            host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        cluster = load_cluster(setting.cluster)
        self._cluster, self._listen, at = listening(cluster, setting.party, setting.number, host)
        return at

    def join(self, peers: Mapping[str, Any]) -> None:
        """Form the session with those of the same number. LinkError if they do not come."""
        setting = self._setting
        if setting.party is None or setting.cluster is None:
            contexts.init(setting.parties, "local", device=setting.device)
        else:
            cluster = moved(self._cluster, peers, setting.party, self._listen)
            contexts.join(cluster, setting.party, setting.cluster, setting.timeout, setting.device)

    def trial(self, given: Given) -> Outcome:
        """Run a flow; what it gives is in its checkpoints."""
        start = time.perf_counter()
        try:
            run(_flow(given), name=given.name, **given.options)
        except NodeFailed as error:
            state = "lost" if isinstance(error.cause, LinkError) else "failed"
            return Outcome(state, str(error), time.perf_counter() - start)
        except SpuError as error:
            state = "lost" if isinstance(error, LinkError) else "failed"
            return Outcome(state, str(error), time.perf_counter() - start)
        return Outcome("done", "", time.perf_counter() - start)

    def leave(self) -> None:
        """End the session."""
        contexts.shutdown()


def _flow(given: Given) -> Flow:
    for module in given.modules:
        importlib.import_module(module)
    flow = of_text(json.loads(given.text))
    if flow.hash != given.hash:
        raise ConfigError("a worker has other code of the flow's components: put them in a module that both import.")
    return flow


# Where workers are ----------------------------------------------------------------------------------------


class Engine(Protocol):
    """`call` begins what `result` then waits for."""

    def call(self, number: int, method: str, *arguments: Any) -> Any: ...
    def result(self, number: int, begun: Any) -> Any: ...


class _Processes:
    """Of this machine. They start anew, as a process with threads cannot be copied."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        if multiprocessing.parent_process() is not None:
            raise ConfigError(
                "a script that searches with `workers` is imported by them, and must not search then: write "
                '`if __name__ == "__main__":` before what it does.'
            )
        start = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for setting in settings:
            mine, its = start.Pipe()
            process = start.Process(target=_serve, args=(its, setting), daemon=True)
            process.start()
            its.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def call(self, number: int, method: str, *arguments: Any) -> None:
        with suppress(OSError):  # it has ended, as `result` says
            self._pipes[number].send((method, arguments))

    def result(self, number: int, begun: Any) -> Any:
        pipe, process = self._pipes[number], self._processes[number]
        connection.wait([pipe, process.sentinel])
        try:
            right, value = pipe.recv()
        except (EOFError, OSError):
            process.join(ENDED)
            status = f"status {process.exitcode}, see its own message"
            raise LinkError(f"worker {number} of the search ended with {status}.") from None
        if not right:
            raise LinkError(f"worker {number} of the search: {value}")
        return value

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(ENDED)
            if process.is_alive():
                process.kill()


def _serve(pipe: Any, setting: Setting) -> None:
    """A process's whole life; it ends with the search, or when that is gone."""
    worker = Worker(setting)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            method, arguments = pipe.recv()
            try:
                told = True, getattr(worker, method)(*arguments)
            except SpuError as error:
                told = False, str(error)
            pipe.send(told)


class _Actors:
    """Of a Ray cluster."""

    def __init__(self, ray: Any, settings: Sequence[Setting]) -> None:
        self._ray = ray
        made = ray.remote(num_cpus=1, max_restarts=0)(Worker)
        self._actors = [made.remote(s) for s in settings]

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        return getattr(self._actors[number], method).remote(*arguments)

    def result(self, number: int, begun: Any) -> Any:
        return ray_result(self._ray, begun)

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)


@contextmanager
def _processes(settings: Sequence[Setting]) -> Iterator[Engine]:
    made = _Processes(settings)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _on_ray(settings: Sequence[Setting]) -> Iterator[Engine]:
    with ray_cluster(len(settings)) as ray:
        made = _Actors(ray, settings)
        try:
            yield made
        finally:
            made.close()


ENGINES = {"local": _processes, "ray": _on_ray}
