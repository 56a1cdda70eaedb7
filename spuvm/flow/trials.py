"""Trials of a search beside each other, by workers of each party (`trial_workers.py`).

Over a network worker j of every party forms a session with those of the others. What trials give comes back by their
checkpoints, from which the search then takes it; so on Ray the folder of checkpoints is one that all its machines see.
Nodes that several trials of a batch have in common run once, before the batch: no two workers ever make the same
checkpoint, but with `fresh`, where each trial makes all that it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spuvm import context as contexts
from spuvm.flow import talk
from spuvm.flow.graph import Flow
from spuvm.flow.places import Places
from spuvm.flow.planning import drawn_name, keys_of_present
from spuvm.flow.run import STATE, NodeFailed, run
from spuvm.flow.trial_workers import ENGINES, Engine, Given, Outcome, Setting
from spuvm.runtime.cores import allowed


class Beside:
    """Workers that are ready. Every party calls the same."""

    def __init__(self, engine: Engine, count: int, options: Mapping[str, Any]) -> None:
        self._engine, self.count = engine, count
        self._options = {**options, "state": Path(options.get("state", STATE)).absolute()}
        self._name = drawn_name(Places(self._options["state"]))
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
        if not self._options.get("fresh"):
            _in_common(flows, self._options)
        given = [(self._given(flow),) for flow in flows]
        return self._all("trial", given)

    def _given(self, flow: Flow) -> Given:
        self._runs += 1
        modules = {n.component.function.__module__ for n in flow.nodes.values()}
        name = f"{flow.name}-trial-{self._name}-{self._runs}"
        options = {**self._options, "workers": max(1, allowed() // self.count)}
        return Given(flow.text, flow.hash, tuple(sorted(modules)), name, options)

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
    timeout = None if context.link is None else context.link.timeout
    mine = context.parties, context.party, file, timeout, context.device
    settings = [Setting(j, count, *mine, engine == "ray") for j in range(count)]
    with ENGINES[engine](settings) as made:
        with contexts.abort_everyone_on_error():
            ready = Beside(made, count, options)
        yield ready
        ready.leave()


def _in_common(flows: Sequence[Flow], options: Mapping[str, Any]) -> None:
    """Run nodes that several of these flows have in common, each once."""
    places = Places(options["state"], dict(options.get("tables") or {}))
    keys = [keys_of_present(flow, places) for flow in flows]
    count = Counter(key for own in keys for key in set(own.values()))
    seen: set[str] = set()
    for flow, own in zip(flows, keys):
        shared = [n for n in flow.nodes if count[own[n]] > 1]
        if not {own[n] for n in shared} <= seen:
            seen |= {own[n] for n in shared}
            with suppress(NodeFailed):  # each trial says so
                run(Flow.of_nodes(flow.name, flow.parties, [flow.nodes[n] for n in shared]), **options)
