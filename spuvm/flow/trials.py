"""Trials of a search beside each other: each worker of a party is a process of its own, which runs a trial at a time.

A worker is a process of this machine, or an actor on the party's Ray cluster. Over a network worker j of every party
forms a session with those of the others. What trials give comes back by their checkpoints, from which the search then
takes it; so on Ray the folder of checkpoints is one that all its machines see. Nodes that several trials of a batch
have in common run once, before the batch: no two workers ever make the same checkpoint.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from spuvm import context as contexts
from spuvm.flow import talk
from spuvm.flow.graph import Flow, of_text
from spuvm.flow.places import Places
from spuvm.flow.planning import keys_of_present
from spuvm.flow.run import STATE, NodeFailed, run
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
            contexts.join(moved(self._cluster, peers, setting.party, self._listen), setting.party, setting.cluster)

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


# What the search does with them ---------------------------------------------------------------------------


class Beside:
    """Workers that are ready. Every party calls the same."""

    def __init__(self, engine: Engine, count: int, options: Mapping[str, Any]) -> None:
        self._engine, self.count = engine, count
        self._options = {**options, "workers": max(1, allowed() // count)}
        self._name = _drawn()
        self._runs = 0
        self._introduce()

    def _introduce(self) -> None:
        """Tell each worker where its peers are."""
        at, me = self._all("listen", [()] * self.count), contexts.here().party
        said = {} if me is None else talk.said({me: at}, self._are_places, "workers")
        self._all("join", [({p: places[j] for p, places in said.items()},) for j in range(self.count)])

    def _are_places(self, x: Any) -> bool:
        """As many as there are workers: a host and a port each, or None."""
        return isinstance(x, list) and len(x) == self.count and all(at is None or _is_place(at) for at in x)

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        begun = [self._engine.call(j, method, *given) for j, given in enumerate(arguments)]
        return [self._engine.result(j, one) for j, one in enumerate(begun)]

    def run(self, flows: Sequence[Flow]) -> list[Outcome]:
        """Run as many flows as there are workers, or fewer, each by one."""
        _in_common(flows, self._options)
        given = [(self._given(flow),) for flow in flows]
        return self._all("trial", given)

    def _given(self, flow: Flow) -> Given:
        self._runs += 1
        modules = {n.component.function.__module__ for n in flow.nodes.values()}
        name = f"{flow.name}-trial-{self._name}-{self._runs}"
        return Given(flow.text, flow.hash, tuple(sorted(modules)), name, self._options)

    def leave(self) -> None:
        """All are done."""
        self._all("leave", [()] * self.count)


def _is_place(x: Any) -> bool:
    return (
        isinstance(x, list)
        and len(x) == 2
        and isinstance(x[0], str)
        and 0 < len(x[0]) < 256
        and type(x[1]) is int
        and 0 < x[1] < 65536
    )


@contextmanager
def beside(count: int, engine: str, options: Mapping[str, Any]) -> Iterator[Beside]:
    """So many workers of this party, which run flows with these options of `run`.

    Raises:
        LinkError: if one ends, or loses its peers.
    """
    context = contexts.here()
    file = None if context.file is None else str(context.file)
    settings = [
        Setting(j, count, context.parties, context.party, file, context.device, engine == "ray") for j in range(count)
    ]
    with ENGINES[engine](settings) as made:
        with contexts.abort_everyone_on_error():
            ready = Beside(made, count, options)
        yield ready
        ready.leave()


def _drawn() -> str:
    """Part of names of runs that no other search has, the same at all parties."""
    here = contexts.here()
    mine = {p: secrets.token_hex(16) for p in (here.parties[:1] if here.party is None else (here.party,))}
    return str(min(talk.said(mine, talk.is_label, "part of a name").values()))[:8]


def _in_common(flows: Sequence[Flow], options: Mapping[str, Any]) -> None:
    """Run nodes that several of these flows have in common, each once."""
    places = Places(Path(options.get("state", STATE)), dict(options.get("tables") or {}))
    keys = [keys_of_present(flow, places) for flow in flows]
    count = Counter(key for own in keys for key in set(own.values()))
    seen: set[str] = set()
    for flow, own in zip(flows, keys):
        shared = [n for n in flow.nodes if count[own[n]] > 1]
        if not {own[n] for n in shared} <= seen:
            seen |= {own[n] for n in shared}
            with suppress(NodeFailed):  # each trial says so
                run(Flow.of_nodes(flow.name, flow.parties, [flow.nodes[n] for n in shared]), **options)
