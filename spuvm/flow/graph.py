"""Flows: graphs of components, checked before anything runs, with one text that parties agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.flow.components import Component, find
from spuvm.flow.kinds import Kind
from spuvm.flow.parameters import plain
from spuvm.flow.refs import Call, Ref
from spuvm.runtime.errors import ConfigError

FORMAT = 1
Edge = tuple[str, str]  # a node, and one of its outputs


@dataclass(frozen=True, eq=False)
class Node:
    """A component at its place in a flow; `inputs` are the outputs that each input takes."""

    name: str
    component: Component
    inputs: Mapping[str, tuple[Edge, ...]]
    parameters: Mapping[str, Any]
    retries: int = 0

    @cached_property
    def before(self) -> tuple[str, ...]:
        """The nodes whose outputs it takes, each once."""
        return tuple(dict.fromkeys(name for edges in self.inputs.values() for name, _ in edges))

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Its parameters as JSON has them."""
        return {k: plain(v) for k, v in sorted(self.parameters.items())}

    @property
    def at(self) -> str | None:
        """The one party where it runs; None if it needs several."""
        return None if self.component.at is None else str(self.parameters[self.component.at])

    def as_dict(self) -> dict[str, Any]:
        """For the text of a flow."""
        inputs = {k: [list(e) for e in edges] for k, edges in sorted(self.inputs.items())}
        return {
            "node": self.name,
            "component": self.component.name,
            "code": self.component.digest,
            "inputs": inputs,
            "parameters": self.arguments,
            "retries": self.retries,
        }


class Flow:
    """A graph of components.

        rows = match(read(party="alice", table="loans"), read(party="bob", table="bills"), key="id")
        train, test = split(rows, test_size=0.2)
        model = sgb(train, label="bad")
        flow = spu.Flow("credit", model=model, quality=evaluate(model, test, label="bad"))

    Args:
        name: of the flow.
        outputs: what it gives, by name: outputs of nodes, and so all nodes that they need.
        parties: all that take part, if the flow says so; else those that `spu.init` names.

    Raises:
        ConfigError: for nodes that lack inputs, or are given some of another kind, naming the node.
    """

    def __init__(self, name: str, /, *, parties: Sequence[str] | None = None, **outputs: Ref) -> None:
        for key, ref in outputs.items():
            if not isinstance(ref, Ref):
                raise ConfigError(f"output `{key}` of flow `{name}` is a `{type(ref).__name__}`: give a node's output.")
        names = _names([r.call for r in outputs.values()])
        made = {n: _node(n, call, names) for call, n in names.items()}
        self._fill(name, parties, made, {k: (names[r.call], r.output) for k, r in outputs.items()})

    @classmethod
    def of_nodes(
        cls, name: str, parties: Sequence[str] | None, nodes: Iterable[Node], outputs: Mapping[str, Edge] | None = None
    ) -> Flow:
        """A flow of nodes by name; its outputs are those of the nodes that nothing follows, if not given."""
        flow = cls.__new__(cls)
        flow._fill(name, parties, {n.name: n for n in nodes}, outputs)
        return flow

    def _fill(self, name: str, parties: Any, nodes: Mapping[str, Node], outputs: Mapping[str, Edge] | None) -> None:
        if not isinstance(name, str) or not name or not name.isprintable() or "/" in name:
            raise ConfigError(f"a flow's name must be a printable text without `/`, got {name!r:.60}.")
        if not nodes:
            raise ConfigError(f"flow `{name}` has no nodes: give it outputs of components.")
        self.name = name
        self.parties = None if parties is None else tuple(parties)
        checked(nodes, self.parties)
        self.nodes = {n: nodes[n] for n in ordered(nodes)}
        self.outputs = dict(outputs) if outputs is not None else _last(self.nodes)

    # What it is

    @cached_property
    def text(self) -> str:
        """What parties agree on: all nodes with code, inputs and parameters."""
        body = {
            "format": FORMAT,
            "flow": self.name,
            "parties": self.parties,
            "nodes": [n.as_dict() for n in self.nodes.values()],
            "outputs": {k: list(e) for k, e in sorted(self.outputs.items())},
        }
        return json.dumps(body, indent=1, sort_keys=True)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def followers(self) -> dict[str, tuple[str, ...]]:
        """By node, those that take its outputs."""
        out: dict[str, list[str]] = {n: [] for n in self.nodes}
        for node in self.nodes.values():
            for before in node.before:
                out[before].append(node.name)
        return {k: tuple(v) for k, v in out.items()}

    def sources(self, name: str) -> frozenset[str]:
        """The nodes that read owners' tables, among a node and all before it."""
        return self._sources[name]

    @cached_property
    def _sources(self) -> dict[str, frozenset[str]]:
        out: dict[str, frozenset[str]] = {}
        for n, node in self.nodes.items():
            own = {n} if node.component.reads else set()
            out[n] = frozenset(own).union(*(out[b] for b in node.before))
        return out

    def owners(self, name: str) -> tuple[str, ...]:
        """The parties whose tables a node's values come of."""
        return tuple(sorted({self.reads(s).party for s in self.sources(name)}))

    def reads(self, name: str) -> Any:
        """What a source asks for; see `component.Reads`."""
        node = self.nodes[name]
        assert node.component.reads is not None
        return node.component.reads(node.parameters)

    # Others

    def set(self, **parameters: Any) -> Flow:
        """The same flow with other parameters: `flow.set(**{"boost.max_depth": 4})`.

        Raises:
            ConfigError: for nodes and parameters that there are not.
        """
        nodes = dict(self.nodes)
        for key, value in parameters.items():
            name, dot, parameter = key.partition(".")
            if name not in nodes or not dot:
                raise ConfigError(
                    f"`{key}` names no parameter of flow `{self.name}`{nearest(name, list(nodes))}: write "
                    "NODE.PARAMETER."
                )
            node = nodes[name]
            given = {**node.parameters, parameter: value}
            nodes[name] = replace(node, parameters=node.component.checked(given, f"node `{name}`"))
        return Flow.of_nodes(self.name, self.parties, nodes.values(), self.outputs)

    @classmethod
    def load(cls, path: str | Path) -> Flow:
        """A flow of a TOML file; see `files.load`."""
        made: Flow = LOADERS["toml"](path)
        return made

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<flow {self.name}: {len(self.nodes)} nodes, {self.hash[:12]}>"


LOADERS: dict[str, Any] = {}


# Building -------------------------------------------------------------------------------------------------


def _walk(calls: Sequence[Call]) -> Iterator[Call]:
    """All calls that these need, each once, those before others first; without recursion, as chains are long."""
    done: set[Call] = set()
    stack: list[tuple[Call, bool]] = [(c, False) for c in reversed(calls)]
    while stack:
        call, ready = stack.pop()
        if call in done:
            continue
        if ready:
            done.add(call)
            yield call
            continue
        stack.append((call, True))
        before = [r.call for refs in call.inputs.values() for r in refs if isinstance(r, Ref)]
        stack += [(c, False) for c in reversed(before) if c not in done]


def _names(calls: Sequence[Call]) -> dict[Call, str]:
    """Each call's name in the flow: as given, or the component's, numbered where there are several."""
    out: dict[Call, str] = {}
    taken: set[str] = set()
    every = list(_walk(calls))
    for call in every:
        if call.name is not None:
            if call.name in taken or not call.name or "." in call.name:
                raise ConfigError(f"two nodes cannot be called `{call.name}`, and names have no dots: rename one.")
            taken.add(call.name)
            out[call] = call.name
    counts: dict[str, int] = {}
    for call in every:
        if call not in out:
            base = call.component.name
            while True:
                counts[base] = counts.get(base, 0) + 1
                name = base if counts[base] == 1 else f"{base}-{counts[base]}"
                if name not in taken:
                    break
            taken.add(name)
            out[call] = name
    return {call: out[call] for call in every}


def _node(name: str, call: Call, names: Mapping[Call, str]) -> Node:
    inputs = {}
    for key, refs in call.inputs.items():
        for ref in refs:
            if not isinstance(ref, Ref):
                raise ConfigError(
                    f"input `{key}` of node `{name}` ({call.component.name}) is a `{type(ref).__name__}`: give an "
                    "output of a node, or name it if it is a parameter."
                )
        inputs[key] = tuple((names[r.call], r.output) for r in refs)
    return Node(name, call.component, inputs, call.parameters, call.retries)


def of_text(body: Mapping[str, Any]) -> Flow:
    """The flow of a text that was read; its components must be known here."""
    nodes = [_told(n) for n in body["nodes"]]
    outputs = {k: (n, o) for k, (n, o) in body["outputs"].items()}
    return Flow.of_nodes(body["flow"], body["parties"], nodes, outputs)


def _told(body: Mapping[str, Any]) -> Node:
    component = find(body["component"], f"node `{body['node']}`: ")
    inputs = {k: tuple((n, o) for n, o in edges) for k, edges in body["inputs"].items()}
    return Node(body["node"], component, inputs, component.checked(body["parameters"]), body["retries"])


# Checking -------------------------------------------------------------------------------------------------


def checked(nodes: Mapping[str, Node], parties: Sequence[str] | None) -> None:
    """That every input is there and of its kind, and every party that is named takes part; ConfigError if not."""
    for node in nodes.values():
        where = f"node `{node.name}` ({node.component.name})"
        known = {p.name: p for p in node.component.inputs}
        for key, edges in node.inputs.items():
            if key not in known:
                raise ConfigError(f"{where} has no input `{key}`{nearest(key, list(known))}.")
            for edge in edges:
                _check_edge(nodes, edge, known[key].kind, f"input `{key}` of {where}")
        for port in known.values():
            if not node.inputs.get(port.name) and not port.optional:
                raise ConfigError(f"{where} lacks its input `{port.name}`: give it {_a(port.kind)}.")
        for p in node.component.parameters:
            value = node.parameters[p.name]
            if p.party and parties is not None and value not in (*parties, "", None):
                raise ConfigError(
                    f"`{p.name}` of {where} is {value!r:.60}{nearest(str(value), list(parties))}: the flow's parties "
                    f"are {', '.join(parties)}."
                )


def _check_edge(nodes: Mapping[str, Node], edge: Edge, want: Kind, where: str) -> None:
    name, output = edge
    if name not in nodes:
        raise ConfigError(f"{where} names node `{name}`, which there is not{nearest(name, list(nodes))}.")
    component = nodes[name].component
    port = component.output(output)
    if port is None:
        outputs = [p.name for p in component.outputs]
        raise ConfigError(
            f"{where}: node `{name}` ({component.name}) has no output `{output}`{nearest(output, outputs)}: it gives "
            f"{', '.join(outputs)}."
        )
    if port.kind != want:
        raise ConfigError(f"{where} takes {_a(want)}, and `{output}` of node `{name}` is {_a(port.kind)}: {want.help}.")


def _a(kind: Kind) -> str:
    return kind.name if kind.name.endswith("s") else f"a {kind.name}"


def ordered(nodes: Mapping[str, Node]) -> list[str]:
    """Names in an order in which each comes after what it needs, else as given; ConfigError for a circle."""
    waiting = {n: len(node.before) for n, node in nodes.items()}
    after: dict[str, list[str]] = {n: [] for n in nodes}
    for n, node in nodes.items():
        for before in node.before:
            after[before].append(n)
    ready = [n for n, count in waiting.items() if count == 0]
    out = []
    while ready:
        out.append(ready.pop(0))
        for n in after[out[-1]]:
            waiting[n] -= 1
            if waiting[n] == 0:
                ready.append(n)
    if len(out) < len(nodes):
        raise ConfigError(
            f"nodes form a circle: {' -> '.join(_circle(nodes, set(nodes) - set(out)))}. Cut it somewhere."
        )
    return out


def _circle(nodes: Mapping[str, Node], left: set[str]) -> list[str]:
    path = [next(n for n in nodes if n in left)]
    while path[-1] not in path[:-1]:
        path.append(next(b for b in nodes[path[-1]].before if b in left))
    return path[path.index(path[-1]) :][::-1]


def _last(nodes: Mapping[str, Node]) -> dict[str, Edge]:
    used = {e for n in nodes.values() for edges in n.inputs.values() for e in edges}
    loose = [(n, p.name) for n in nodes for p in nodes[n].component.outputs if (n, p.name) not in used]
    return {n if len(nodes[n].component.outputs) == 1 else f"{n}.{out}": (n, out) for n, out in loose}
