"""Where nodes of a flow are drawn: in layers from top to bottom, ordered so that few edges cross.

Layers by longest paths, and the order within them by the middles of neighbours (Sugiyama, Tagawa, Toda 1981). An edge
over several layers has a bend in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SWEEPS = 8
Edge = tuple[str, str]


class Bend(NamedTuple):
    """Where an edge passes a layer."""

    edge: Edge
    layer: int


@dataclass(frozen=True)
class Layout:
    """Positions: `column` of nodes and bends in their layer's row; bends of each edge from top to bottom."""

    layers: list[list[str | Bend]]
    layer: Mapping[str, int]
    bends: Mapping[Edge, list[Bend]]


def laid_out(before: Mapping[str, Sequence[str]]) -> Layout:
    """A layout of nodes, given in an order in which each comes after those before it."""
    layer = _layers(before)
    rows: list[list[str | Bend]] = [[] for _ in range(max(layer.values()) + 1)]
    for node, at in layer.items():
        rows[at].append(node)
    above: dict[str | Bend, list[str | Bend]] = {}
    bends: dict[Edge, list[Bend]] = {}
    for node, others in before.items():
        for other in others:
            edge = (other, node)
            path = [Bend(edge, i) for i in range(layer[other] + 1, layer[node])]
            bends[edge] = path
            for bend in path:
                rows[bend.layer].append(bend)
            chain: list[str | Bend] = [other, *path, node]
            for upper, lower in itertools.pairwise(chain):
                above.setdefault(lower, []).append(upper)
    return Layout(_ordered(rows, above), layer, bends)


def _layers(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    out: dict[str, int] = {}
    after: dict[str, list[str]] = {n: [] for n in before}
    for node, others in before.items():
        out[node] = 1 + max((out[o] for o in others), default=-1)
        for other in others:
            after[other].append(node)
    for node in reversed(list(before)):  # as low as what follows allows, if nothing holds it up
        if not before[node] and after[node]:
            out[node] = min(out[a] for a in after[node]) - 1
    return out


def _ordered(rows: list[list[str | Bend]], above: Mapping[str | Bend, Sequence[str | Bend]]) -> list[list[str | Bend]]:
    below: dict[str | Bend, list[str | Bend]] = {}
    for lower, uppers in above.items():
        for upper in uppers:
            below.setdefault(upper, []).append(lower)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for i in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            fixed = rows[i - 1] if down else rows[i + 1]
            at = {x: (k + 0.5) / len(fixed) for k, x in enumerate(fixed)}
            own = {x: (k + 0.5) / len(rows[i]) for k, x in enumerate(rows[i])}
            near = above if down else below
            rows[i] = sorted(rows[i], key=lambda x: _middle([at[n] for n in near.get(x, ()) if n in at], own[x]))
    return rows


def _middle(places: Sequence[float], own: float) -> float:
    return sum(places) / len(places) if places else own
