"""Flows as TOML files, and back.

    name = "credit"
    parties = ["alice", "bob", "carol"]

    [nodes.loans]
    component = "read"
    party = "alice"
    table = "loans"

    [nodes.rows]
    component = "match"
    tables = ["loans", "bills"]        # an input: a node, "node.output", or a list of these
    key = "id"

A job for services (`[job]`) has the flow as its table `[flow]`. `retries` is a node's own; all else are inputs and
parameters of its component. `[outputs]` names what the flow gives; without it that is what no node takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.flow.components import ONE, Component, find
from spuvm.flow.graph import LOADERS, Edge, Flow, Node
from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.located import located

MAX_RETRIES = 100
BARE = re.compile(r"[A-Za-z0-9_-]+")
FIELDS = {
    "name": Field(fields.text),
    "parties": Field(fields.texts, None),
    "nodes": Field(fields.table_of(lambda v: v)),
    "outputs": Field(fields.table_of(fields.text), None),
    "schedule": Field(fields.text, None),
}
_retries = fields.whole(0, MAX_RETRIES)


def load(path: str | Path) -> Flow:
    """The flow of a TOML file.

    Raises:
        ConfigError: for a file that cannot be read, and for whatever is wrong with the flow.
    """
    with located(path):
        body = fields.load(Path(path))
        return of_dict(body["flow"] if {"job", "flow"} == body.keys() else body, str(path))


LOADERS["toml"] = load


def of_dict(body: Any, where: str = "the flow") -> Flow:
    """A flow of what a TOML file holds."""
    values = fields.read(body, FIELDS, where)
    components = {n: _component(n, entry, where) for n, entry in values["nodes"].items()}
    nodes = [_node(n, values["nodes"][n], components, where) for n in components]
    outputs = values["outputs"]
    if outputs is not None:
        outputs = {k: _edge(v, components, f"{where}: output `{k}`") for k, v in outputs.items()}
    return Flow.of_nodes(values["name"], values["parties"], nodes, outputs)


def _component(name: str, entry: Any, where: str) -> Component:
    if "." in name:
        raise ConfigError(f"{where}: node `{name}` has a dot in its name: rename it.")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("component"), str):
        raise ConfigError(f'{where}: node `{name}` lacks `component`: write component = "read", for one.')
    return find(entry["component"], f"{where}: node `{name}`: ")


def _node(name: str, entry: Mapping[str, Any], components: Mapping[str, Component], where: str) -> Node:
    component, inputs = components[name], {}
    rest = {k: v for k, v in entry.items() if k not in ("component", "retries")}
    for port in component.inputs:
        if port.name in rest:
            given = rest.pop(port.name)
            here = f"{where}: input `{port.name}` of node `{name}`"
            if isinstance(given, list) and not port.many:
                raise ConfigError(f"{here} takes one {port.kind}, got a list.")
            inputs[port.name] = tuple(
                _edge(e, components, here) for e in (given if isinstance(given, list) else [given])
            )
    try:
        retries = _retries(entry.get("retries", 0))
    except ValueError as error:
        raise ConfigError(f"{where}: `retries` of node `{name}` must be {error}.") from None
    return Node(name, component, inputs, component.checked(rest, f"{where}: node `{name}` ({component.name})"), retries)


def _edge(text: Any, components: Mapping[str, Component], where: str) -> Edge:
    if not isinstance(text, str):
        raise ConfigError(f"{where} must name a node, got {text!r:.60}.")
    name, _, output = text.partition(".")
    if name not in components:
        raise ConfigError(f"{where} names node `{name}`, which there is not{nearest(name, list(components))}.")
    outputs = [p.name for p in components[name].outputs]
    if not output and len(outputs) > 1:
        raise ConfigError(f"{where}: node `{name}` gives {' and '.join(outputs)}: write `{name}.{outputs[0]}`.")
    return name, output or outputs[0]


def to_toml(flow: Flow) -> str:
    """A TOML file that `load` makes the same flow of."""
    lines = [f"name = {_value(flow.name)}"]
    if flow.parties is not None:
        lines.append(f"parties = {_value(list(flow.parties))}")
    for node in flow.nodes.values():
        lines += ["", f"[nodes.{_key(node.name)}]", f"component = {_value(node.component.name)}"]
        for port in node.component.inputs:
            edges = [_named(e, flow) for e in node.inputs.get(port.name, ())]
            if edges:
                lines.append(f"{port.name} = {_value(edges if port.many else edges[0])}")
        for p in node.component.parameters:
            value = node.arguments[p.name]
            if value is not None and (p.required or node.parameters[p.name] != p.default):
                lines.append(f"{p.name} = {_value(value)}")
        if node.retries:
            lines.append(f"retries = {node.retries}")
    lines += ["", "[outputs]", *(f"{_key(k)} = {_value(_named(e, flow))}" for k, e in flow.outputs.items())]
    return "\n".join(lines) + "\n"


def _named(edge: Edge, flow: Flow) -> str:
    outputs = flow.nodes[edge[0]].component.outputs
    return edge[0] if len(outputs) == 1 and outputs[0].name == ONE else ".".join(edge)


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _value(name)


def _value(x: Any) -> str:
    if isinstance(x, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in x.items()) + " }"
    if isinstance(x, list | tuple):
        return "[" + ", ".join(map(_value, x)) + "]"
    return json.dumps(x, ensure_ascii=False)
