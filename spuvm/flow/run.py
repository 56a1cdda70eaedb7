"""Running a flow: every party runs the same nodes in the same order, keeps what they give, and takes it again.

There is no master. Before anything runs all parties agree on the flow's hash, say which checkpoints they have, and
which nodes their grants stop; from there on each knows by itself what is next. Nodes of one party run beside each
other: over a network because all others pass them by, in a simulation on threads.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spuvm import context as contexts
from spuvm.flow import grants as granted
from spuvm.flow import records, talk
from spuvm.flow.checkpoints import Checkpoints
from spuvm.flow.grants import Grant, NotGranted
from spuvm.flow.graph import Edge, Flow, Node
from spuvm.flow.places import Places, Tables
from spuvm.flow.planning import Plan, plan
from spuvm.flow.recorder import Spent, recording
from spuvm.flow.records import NodeRun, Record
from spuvm.flow.storing import INLINE, STORES, without_frame
from spuvm.runtime.cores import allowed
from spuvm.runtime.errors import ConfigError, InputError, LinkError, PeerMismatchError, SpuError

STATE = "flows"  # the folder of runs and checkpoints, if none is given
JOINT = "all parties"
Told = Callable[[str, NodeRun], None]


class NodeFailed(SpuError):
    """A node that stopped with an error; what was finished before is kept."""

    def __init__(self, message: str, node: str, cause: BaseException) -> None:
        super().__init__(message)
        self.node, self.cause = node, cause
        self.exit_status = cause.exit_status if isinstance(cause, SpuError) else 1


@dataclass(eq=False)
class Run:
    """A flow that ran: `run["quality"]` is the value of an output.

    Attributes:
        nodes: how each fared.
    """

    flow: Flow
    name: str
    places: Places
    nodes: dict[str, NodeRun]
    values: dict[Edge, Any] = field(default_factory=dict)

    def __getitem__(self, output: str) -> Any:
        """The value of an output of the flow, or of a node: `run["split.train"]`."""
        edge = self.flow.outputs.get(output)
        if edge is None:
            name, _, out = output.partition(".")
            if name not in self.flow.nodes:
                known = ", ".join([*self.flow.outputs, *self.flow.nodes])
                raise ConfigError(f"the run has no output `{output}`: there are {known:.300}.")
            ports = [p.name for p in self.flow.nodes[name].component.outputs]
            edge = (name, out or ports[0])
        return self.value(edge)

    def value(self, edge: Edge) -> Any:
        """A node's output, read from its checkpoint if it is not at hand."""
        if edge not in self.values:
            self.values[edge] = load(self.places, self.nodes[edge[0]], edge[1])
        return self.values[edge]

    @property
    def states(self) -> dict[str, str]:
        """By node."""
        return {n: r.state for n, r in self.nodes.items()}

    @property
    def spent(self) -> Spent:
        """Of all nodes that ran."""
        total = Spent()
        for r in self.nodes.values():
            total.rounds += r.spent.rounds
            for party, sent in r.spent.sent.items():
                total.sent[party] = total.sent.get(party, 0) + sent
            for key, times in r.spent.reveals.items():
                total.reveals[key] = total.reveals.get(key, 0) + times
        return total

    def recorded(self) -> records.Recorded:
        """What the record of the first party here says."""
        return records.read(self.places.folder(self.places.here[0]), self.name)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for r in self.nodes.values():
            counts[r.state] = counts.get(r.state, 0) + 1
        return f"<run {self.name}: {', '.join(f'{n} {state}' for state, n in counts.items())}>"


def run(
    flow: Flow,
    *,
    name: str | None = None,
    resume: bool = False,
    state: str | Path = STATE,
    tables: Tables | None = None,
    results: Mapping[str, Path] | None = None,
    grants: Mapping[str, Sequence[Grant]] | None = None,
    workers: int | None = None,
    retries: int = 0,
    fresh: bool = False,
    told: Told | None = None,
) -> Run:
    """Run a flow: what is the same as at another time is taken from there.

    Args:
        name: of the run; the flow's and a number if not given.
        resume: go on with a run of this name that did not end.
        state: the folder of checkpoints and records.
        tables: by party, its tables by name; in a networked run its own are enough.
        results: by party, the folder of files that the flow writes.
        grants: by party, what it allows. In a networked run an owner that gives none stops all that its tables go into.
        workers: threads of a simulation; as many as there are cores if not given.
        retries: how often a node that has fewer `retries` of its own is tried again.
        fresh: take nothing from before.
        told: called as nodes begin and end.

    Raises:
        NodeFailed: for a node that stopped, whichever error it had; NotGranted for one that was stopped.
        ConfigError: for a name that is taken, or parties that are not there.
        PeerMismatchError: in a networked run, if the parties do not give the same flow.
    """
    ready(flow)
    places = Places(Path(state), dict(tables or {}), dict(results or {}))
    name = _name(flow, places) if name is None else name
    if resume and contexts.here().party is None:  # over a network a party may have been killed before it wrote its own
        records.read(places.folder(places.here[0]), name)
    _agree(flow, name, fresh)
    head = {"flow": flow.hash, "text": flow.text, "parties": list(contexts.here().parties), "spuvm": version("spuvm")}
    made = _Runner(flow, places, grants, workers, told)
    with contexts.abort_everyone_on_error():
        made.records = [Record(places.folder(p), name, head, resume) for p in places.here]
    return made.run(name, retries, fresh)


def _agree(flow: Flow, name: str, fresh: bool) -> None:
    contexts.agree("flow", flow.hash.encode())
    contexts.agree("run", f"{name} {fresh}".encode())


def ready(flow: Flow) -> None:
    """There are parties, those of the flow among them; without `spu.init` they are simulated."""
    if contexts.current() is None:
        contexts.init(flow.parties or ("alice", "bob", "carol"), "local")
    known = contexts.here().parties
    missing = [p for p in flow.parties or () if p not in known]
    missing += [flow.reads(n).party for n in flow.nodes if flow.sources(n) == {n} and flow.reads(n).party not in known]
    missing += [n.at for n in flow.nodes.values() if n.at and n.at not in known]
    if missing:
        raise ConfigError(f"flow `{flow.name}` names {missing[0]}: the parties are {', '.join(known)}.")


def _name(flow: Flow, places: Places) -> str:
    mine = {p: records.next_number(places.folder(p), flow.name) for p in places.here}
    return f"{flow.name}-{max(talk.said(mine, talk.is_number, 'runs').values())}"


def load(places: Places, node: NodeRun, output: str) -> Any:
    """An output of a node, from its checkpoints.

    Raises:
        InputError: if they are damaged or gone, or another run has made the node anew since.
    """
    stores = {p: Checkpoints(places.folder(p) / "nodes") for p in places.here}
    with contexts.abort_everyone_on_error():
        known = [store.known(node.key) for store in stores.values()]
        if any(k["made"] != node.made for k in known):
            raise InputError(f"another run has made the node of {node.key[:12]} anew: run the flow again.")
        if any(k["outputs"] != known[0]["outputs"] for k in known):
            raise PeerMismatchError(f"the checkpoints of {node.key[:12]} at several parties say different things.")
        said = known[0]["outputs"][output]
        folders = {p: s.path(node.key, node.made) for p, s in stores.items()}
        return STORES[said["kind"]].load(said["known"], folders, output)


class _Runner:
    """One run, in one process."""

    def __init__(
        self,
        flow: Flow,
        places: Places,
        grants: Mapping[str, Sequence[Grant]] | None,
        workers: int | None,
        told: Told | None,
    ) -> None:
        self.flow, self.places, self.grants = flow, places, grants
        self.stores = {p: Checkpoints(places.folder(p) / "nodes") for p in places.here}
        networked = contexts.here().party is not None
        self.workers = 1 if networked else workers or allowed()
        self.told: Told = told or (lambda name, run: None)
        self.records: list[Record] = []
        self.made: Run

    def run(self, name: str, retries: int, fresh: bool) -> Run:
        """Attempts, until one comes to the end."""
        tried: dict[str, int] = {}
        try:
            while True:
                try:
                    return self._attempt(name, fresh)
                except NodeFailed as error:
                    tried[error.node] = tried.get(error.node, 0) + 1
                    allowed = max(retries, self.flow.nodes[error.node].retries)
                    lost = isinstance(error.cause, LinkError | OSError) and not contexts.here().worker
                    if tried[error.node] > allowed or not lost:
                        raise
                    fresh = False
                    _reconnect()
                    _agree(self.flow, name, fresh)
        except BaseException as error:
            for record in self.records:
                record.end("stopped" if isinstance(error, NotGranted) else "failed", f"{type(error).__name__}: {error}")
            raise

    def _attempt(self, name: str, fresh: bool) -> Run:
        chosen = plan(self.flow, self.places, self.stores, self.grants, fresh)
        made = dict.fromkeys(chosen.run, chosen.making) | {n: m for n, m in chosen.have.items() if n not in chosen.run}
        nodes = {n: NodeRun(chosen.keys[n], chosen.state(n), made=made.get(n, "")) for n in self.flow.nodes}
        self.made = Run(self.flow, name, self.places, nodes)
        for n, _r in nodes.items():
            if n not in chosen.run:
                self._say(n)
        self._execute(chosen)
        for record in self.records:
            record.end("done")
        return self.made

    def _say(self, name: str) -> None:
        for record in self.records:
            record.node(name, self.made.nodes[name])
        self.told(name, self.made.nodes[name])

    # In order, as far as devices are free -----------------------------------------------------------------------

    def _execute(self, chosen: Plan) -> None:
        order = {n: i for i, n in enumerate(chosen.run)}
        missing = {n: sum(b in order for b in self.flow.nodes[n].before) for n in chosen.run}
        ready = [i for n, i in order.items() if not missing[n]]  # a heap: the first in order goes first
        left = self._uses(chosen)
        busy: dict[Future[Any], str] = {}
        with ExitStack() as stack:
            pool: ThreadPoolExecutor | None = None
            while ready or busy:
                free = self._free(ready, busy, chosen)
                if len(free) == 1 and not busy:
                    outputs = {free[0]: self._node(free[0], chosen)}
                else:
                    pool = pool or stack.enter_context(ThreadPoolExecutor(self.workers, "flow"))
                    busy |= {pool.submit(self._node, n, chosen): n for n in free}
                    done, _ = wait(busy, return_when=FIRST_COMPLETED)
                    outputs = {busy.pop(future): future.result() for future in done}
                for name, values in outputs.items():
                    self._finish(name, values, left)
                    for n in self.flow.followers[name]:
                        if n in order:
                            missing[n] -= 1
                            if not missing[n]:
                                heapq.heappush(ready, order[n])

    def _free(self, ready: list[int], busy: Mapping[Any, str], chosen: Plan) -> list[str]:
        """Take nodes from those that are ready whose devices are free: at most as many as there are threads."""
        taken = {self.flow.nodes[n].at or JOINT for n in busy.values()}
        out: list[str] = []
        later: list[int] = []
        while ready and len(out) + len(busy) < self.workers:
            i = heapq.heappop(ready)
            device = self.flow.nodes[chosen.run[i]].at or JOINT
            if device in taken:
                later.append(i)
                continue
            taken.add(device)
            out.append(chosen.run[i])
        for i in later:
            heapq.heappush(ready, i)
        return out

    def _uses(self, chosen: Plan) -> dict[Edge, int]:
        """How often each output is still needed; outputs of the flow once more."""
        left: dict[Edge, int] = {}
        for n in chosen.run:
            for edges in self.flow.nodes[n].inputs.values():
                for edge in edges:
                    left[edge] = left.get(edge, 0) + 1
        for edge in self.flow.outputs.values():
            left[edge] = left.get(edge, 0) + 1
        return left

    def _finish(self, name: str, outputs: Mapping[str, Any], left: dict[Edge, int]) -> None:
        """Keep what is still needed, and let go of the rest."""
        for out, value in outputs.items():
            if left.get((name, out), 0):
                self.made.values[name, out] = value
        for edges in self.flow.nodes[name].inputs.values():
            for edge in edges:
                left[edge] -= 1
                if not left[edge]:
                    self.made.values.pop(edge, None)
        self._say(name)

    # One node -------------------------------------------------------------------------------------------------

    def _node(self, name: str, chosen: Plan) -> dict[str, Any]:
        """Run a node and keep what it gives."""
        node, entry = self.flow.nodes[name], self.made.nodes[name]
        entry.state = "running"
        self.told(name, entry)
        start = time.perf_counter()
        try:
            self._allowed(name, chosen)
            with recording() as spent, contexts.abort_everyone_on_error():
                self._still_allowed(name)
                outputs = {k: without_frame(v) for k, v in self._called(node).items()}
            entry.spent, entry.seconds = spent, time.perf_counter() - start
            with contexts.abort_everyone_on_error():
                self._keep(node, entry, outputs)
        except NotGranted as error:
            self._failed(name, "stopped", error)
            raise
        except Exception as error:
            self._failed(name, "failed", error)
            what = str(error) if isinstance(error, SpuError) else f"{type(error).__name__}: {error}"
            raise NodeFailed(
                f"node `{name}` ({node.component.name}) stopped: {what.rstrip('.')}. Finished nodes are kept: resume "
                f"run `{self.made.name}` when this is put right.",
                name,
                error,
            ) from error
        entry.state = "done"
        return outputs

    def _allowed(self, name: str, chosen: Plan) -> None:
        """What all know: they stop together, and nobody has to be told."""
        if name in chosen.stops:
            contexts.agree("stop", name.encode())
            raise NotGranted(
                f"node `{name}` of flow `{self.flow.name}` stops: {chosen.stops[name]}. Ask its people for a grant "
                f"that names this flow ({self.flow.hash[:12]}) and what it does (`spuvm flow approve`), then resume."
            )

    def _still_allowed(self, name: str) -> None:
        """A grant may have ended meanwhile, which its party alone may have found."""
        if self.grants is not None:
            granted.check({p: g for p, g in self.grants.items() if p in self.places.here}, self.flow, name)

    def _called(self, node: Node) -> dict[str, Any]:
        component = node.component
        inputs = {k: [self.made.value(e) for e in edges] for k, edges in node.inputs.items()}
        given = dict(node.parameters)
        if component.place is not None:
            given[component.place] = self.places
        if component.inputs and component.inputs[0].many:
            return component.results(component.function(*inputs.get(component.inputs[0].name, ()), **given))
        given |= {k: v[0] for k, v in inputs.items()}
        return component.results(component.function(**given))

    def _keep(self, node: Node, entry: NodeRun, outputs: Mapping[str, Any]) -> None:
        known = {}
        filed = any(port.kind.name not in INLINE for port in node.component.outputs)
        with ExitStack() as stack:
            stores = self.stores.items() if filed else ()
            folders = {p: stack.enter_context(store.writing(entry.key, entry.made)) for p, store in stores}
            for port in node.component.outputs:
                saved = STORES[port.kind.name].save(outputs[port.name], folders, port.name)
                known[port.name] = {"kind": port.kind.name, "known": saved}
        body = {"component": node.component.name, "outputs": known, "spent": entry.spent.as_dict()}
        for store in self.stores.values():
            store.put(entry.key, entry.made, {**body, "seconds": entry.seconds})

    def _failed(self, name: str, state: str, error: BaseException) -> None:
        entry = self.made.nodes[name]
        entry.state, entry.error = state, str(error)
        self._say(name)


def _reconnect() -> None:
    """After a link broke: the same parties, under new keys. Nothing to do in a simulation."""
    where = contexts.whereabouts()
    if where is not None:
        contexts.init(party=where[0], config=where[1])
