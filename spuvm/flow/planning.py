"""What a run has to do: keys of all nodes, which of them every party has from before, and who stops which."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spuvm import context as contexts
from spuvm.flow import talk
from spuvm.flow.checkpoints import Checkpoints
from spuvm.flow.grants import Grant, refusal
from spuvm.flow.graph import Flow
from spuvm.flow.places import Places, digest
from spuvm.runtime.errors import InputError, PeerMismatchError, SpuError


@dataclass(frozen=True)
class Plan:
    """Of one attempt of a run.

    Attributes:
        keys: by node, what its checkpoint is called.
        making: what nodes that this attempt makes are marked with, in checkpoints.
        have: nodes whose checkpoints all parties have, and the mark of the attempt that made them.
        run: nodes to be run, in order.
        stops: by node that some party does not allow, why.
    """

    keys: Mapping[str, str]
    making: str
    have: Mapping[str, str]
    run: tuple[str, ...]
    stops: Mapping[str, str]

    def state(self, name: str) -> str:
        """Of a node before anything runs."""
        return "waiting" if name in self.run else "cached" if name in self.have else "not needed"


def plan(
    flow: Flow,
    places: Places,
    stores: Mapping[str, Checkpoints],
    grants: Mapping[str, Sequence[Grant]] | None,
    fresh: bool,
) -> Plan:
    """Agree with all parties on what is to be done."""
    labels = _labels(flow, places)
    keys = keys_of(flow, labels)
    have = _have(flow, keys, stores, fresh)
    run = _needed(flow, have)
    return Plan(keys, drawn_name(places), have, run, _stops(flow, run, places, grants))


def drawn_name(places: Places) -> str:
    """A name that no other attempt and no other search has, drawn by all parties together."""
    drawn = talk.said({p: secrets.token_hex(16) for p in places.here}, talk.is_label, "part of a name")
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16]


def _labels(flow: Flow, places: Places) -> dict[str, str]:
    """By source, what its owner calls the table's present content."""
    mine: dict[str, dict[str, str]] = {p: {} for p in places.here}
    known: dict[tuple[str, str], str] = {}
    for name, node in flow.nodes.items():
        if node.component.reads is None:
            continue
        party, table, _ = flow.reads(name)
        if party not in mine:
            continue
        with contexts.abort_everyone_on_error():
            if (party, table) not in known:
                try:
                    known[party, table] = places.label(party, digest(places.table(party, table)))
                except SpuError as error:
                    raise InputError(f"node `{name}` at {party}: {error}") from None
            mine[party][name] = known[party, table]
    heard = talk.said(mine, talk.are_labels, "labels of tables")
    out: dict[str, str] = {}
    for name, node in flow.nodes.items():
        if node.component.reads is not None:
            owner = flow.reads(name).party
            if name not in heard.get(owner, {}):
                raise PeerMismatchError(f"{owner} does not say which table node `{name}` reads.")
            out[name] = heard[owner][name]
    return out


def keys_of_present(flow: Flow, places: Places) -> dict[str, str]:
    """By node, what its checkpoint is called, of tables as they are now."""
    return keys_of(flow, _labels(flow, places))


def keys_of(flow: Flow, labels: Mapping[str, str]) -> dict[str, str]:
    """By node: SHA-256 of its component's code, its parameters, and its inputs' keys or its table's label."""
    context = contexts.here()
    where = [list(context.parties), context.config.digest if context.config else "usual"]
    out: dict[str, str] = {}
    for name, node in flow.nodes.items():
        inputs = {k: [[out[n], o] for n, o in edges] for k, edges in sorted(node.inputs.items())}
        c = node.component
        body = [where, c.name, c.memory, node.arguments, inputs, labels.get(name, "")]
        out[name] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return out


def _have(flow: Flow, keys: Mapping[str, str], stores: Mapping[str, Checkpoints], fresh: bool) -> dict[str, str]:
    """Nodes whose checkpoints all parties have, of the same making."""
    kept = [n for n, node in flow.nodes.items() if not fresh and node.component.kept]
    mine: dict[str, dict[str, str]] = {}
    for party, store in stores.items():
        mine[party] = {n: made for n in kept if (made := store.made(keys[n])) is not None}
    first, *others = talk.said(mine, talk.are_marks, "checkpoints").values()
    return {n: made for n, made in first.items() if n in flow.nodes and all(o.get(n) == made for o in others)}


def _needed(flow: Flow, have: Mapping[str, str]) -> tuple[str, ...]:
    """Nodes that have to run: those that the outputs need, back to what is at hand."""
    wanted: set[str] = set()
    ends = {n for n, _ in flow.outputs.values()} | {n for n, after in flow.followers.items() if not after}
    work = [n for n in ends if n not in have]
    while work:
        name = work.pop()
        if name not in wanted:
            wanted.add(name)
            work += [b for b in flow.nodes[name].before if b not in have]
    return tuple(n for n in flow.nodes if n in wanted)


def _stops(
    flow: Flow, run: Sequence[str], places: Places, grants: Mapping[str, Sequence[Grant]] | None
) -> dict[str, str]:
    """By node, what a party's grants lack. In a simulation without grants nobody is asked."""
    networked = contexts.here().party is not None
    mine: dict[str, dict[str, str]] = {}
    for party in places.here:
        own = (grants or {}).get(party, ())
        asked = networked or grants is not None
        found = {n: refusal(own, flow, n, party) for n in flow.nodes} if asked else {}
        mine[party] = {n: why for n, why in found.items() if why is not None}
    heard = talk.said(mine, talk.are_reasons, "grants")
    out: dict[str, str] = {}
    for reasons in heard.values():
        for name, why in reasons.items():
            out.setdefault(name, why)
    return out
