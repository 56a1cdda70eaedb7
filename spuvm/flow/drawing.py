"""Flows as pictures (SVG): nodes with their owners, costs and states; edges with what travels, and who can see it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from html import escape

from spuvm.flow.graph import Flow, Node
from spuvm.flow.layout import Bend, Edge, Layout, laid_out
from spuvm.flow.records import NodeRun

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, BEND = 196, 62, 26, 52, 24, 18
COLOURS = {  # fill and border by state
    "done": ("#e8f5e9", "#43a047"),
    "cached": ("#e3f2fd", "#1e88e5"),
    "running": ("#fff8e1", "#ffb300"),
    "failed": ("#ffebee", "#e53935"),
    "stopped": ("#ffebee", "#e53935"),
    "not needed": ("#f5f5f5", "#bdbdbd"),
    "waiting": ("#ffffff", "#757575"),
}
LINES = {  # colour of an edge and who can see what travels on it, by kind
    "table": ("#455a64", "its owner"),
    "frame": ("#455a64", "its owners"),
    "model": ("#5e35b1", "secret"),
    "predictions": ("#5e35b1", "secret, or one party"),
    "report": ("#d84315", "all parties"),
    "number": ("#d84315", "all parties"),
    "file": ("#455a64", "one party"),
}
Places = Mapping[str | Bend, tuple[float, float]]
MOST = 400  # nodes: more make no picture


def svg(flow: Flow, nodes: Mapping[str, NodeRun] | None = None) -> str:
    """The picture of a flow, or of a run of it; readable without anything else."""
    if len(flow) > MOST:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="30"><text x="8" y="20">{len(flow)} nodes: too many for a picture</text></svg>'  # noqa: E501
    layout = laid_out({n: node.before for n, node in flow.nodes.items()})
    at = _places(layout)
    width = max(x + (WIDTH if isinstance(k, str) else BEND) for k, (x, _) in at.items()) + MARGIN
    height = MARGIN * 2 + len(layout.layers) * (HEIGHT + GAP_Y) - GAP_Y
    ends = _ends(flow, layout, at)
    body = [_edge(flow, layout, at, ends, before, n) for n, node in flow.nodes.items() for before in node.before]
    body += [_node(flow, node, at[n], (nodes or {}).get(n)) for n, node in flow.nodes.items()]
    label = escape(f"flow {flow.name}: {len(flow)} nodes", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{label}" font-family="system-ui, sans-serif" font-size="12">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="context-stroke"/></marker></defs>'
        + "".join(body)
        + "</svg>"
    )


def _places(layout: Layout) -> Places:
    """The left upper corner of each node and bend; layers are centred."""
    sizes = [sum((WIDTH if isinstance(k, str) else BEND) + GAP_X for k in row) - GAP_X for row in layout.layers]
    widest = max(sizes)
    out: dict[str | Bend, tuple[float, float]] = {}
    for i, row in enumerate(layout.layers):
        x = MARGIN + (widest - sizes[i]) / 2
        for k in row:
            out[k] = (x, MARGIN + i * (HEIGHT + GAP_Y))
            x += (WIDTH if isinstance(k, str) else BEND) + GAP_X
    return out


def _ends(flow: Flow, layout: Layout, at: Places) -> dict[tuple[str, Edge], float]:
    """Where each edge leaves a node ("out") and enters one ("in"): side by side, in the order of their sources."""
    leave: dict[str, list[tuple[float, Edge]]] = {n: [] for n in flow.nodes}
    enter: dict[str, list[tuple[float, Edge]]] = {n: [] for n in flow.nodes}
    for node in flow.nodes.values():
        for before in node.before:
            edge = (before, node.name)
            path: list[str | Bend] = [before, *layout.bends[edge], node.name]
            leave[before].append((at[path[1]][0], edge))
            enter[node.name].append((at[path[-2]][0], edge))
    out: dict[tuple[str, Edge], float] = {}
    for side, ends in (("out", leave), ("in", enter)):
        for n, some in ends.items():
            for i, (_, edge) in enumerate(sorted(some)):
                out[side, edge] = at[n][0] + WIDTH * (i + 1) / (len(some) + 1)
    return out


def _edge(
    flow: Flow, layout: Layout, at: Places, ends: Mapping[tuple[str, Edge], float], before: str, node: str
) -> str:  # fmt: skip
    ports = {o for edges in flow.nodes[node].inputs.values() for n, o in edges if n == before}
    component = flow.nodes[before].component
    kinds = list(dict.fromkeys(p.kind.name for p in component.outputs if p.name in ports))
    colour, who = LINES.get(kinds[0], ("#455a64", ""))
    points = [(ends["out", (before, node)], at[before][1] + HEIGHT)]
    for bend in layout.bends[before, node]:
        bx, by = at[bend]
        points += [(bx + BEND / 2, by), (bx + BEND / 2, by + HEIGHT)]
    points.append((ends["in", (before, node)], at[node][1] - 1))
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        path += f" C{x0:g} {middle:g} {x1:g} {middle:g} {x1:g} {y1:g}"
    names = [o for o in sorted(ports) if len(component.outputs) > 1 and o not in kinds]
    text = escape(f"{', '.join(names)} " if names else "") + escape(" and ".join(kinds))
    (x0, y0), (x1, y1) = points[-2:]
    seen = escape(f"{text}: {who} can see it")
    dash = ' stroke-dasharray="5 3"' if who == "all parties" else ""
    return (
        f'<g><title>{seen}</title><path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dash} '
        f'marker-end="url(#tip)"/><text x="{x0 + (x1 - x0) * 0.6:g}" y="{y0 + (y1 - y0) * 0.6:g}" fill="{colour}" '
        f'font-size="10.5" text-anchor="middle" paint-order="stroke" stroke="#fff" stroke-width="5">{text}</text></g>'
    )


def _node(flow: Flow, node: Node, place: tuple[float, float], ran: NodeRun | None) -> str:
    x, y = place
    fill, border = COLOURS[ran.state if ran else "waiting"]
    owners = ", ".join([node.at] if node.at else flow.owners(node.name)) or "public"
    lines = [("700", _cut(node.name, 25), 17), ("400", _cut(f"{node.component.name} · {owners}", 31), 33)]
    if ran is not None:
        lines.append(("400", _cost(ran), 50))
    elif node.component.inputs == () or node.at:
        lines.append(("400", "runs at " + node.at if node.at else "", 50))
    texts = "".join(
        f'<text x="{x + 10:g}" y="{y + dy:g}" font-weight="{weight}" fill="#212121" '
        f'font-size="{12 if dy < 20 else 11}">{escape(text)}</text>'
        for weight, text, dy in lines
    )
    shown = ran.spent.reveals if ran else {}
    mark = ""
    if shown:
        mark = (
            f'<circle cx="{x + WIDTH - 14:g}" cy="{y + 14:g}" r="9" fill="#d84315"/><text x="{x + WIDTH - 14:g}" '
            f'y="{y + 18:g}" fill="#fff" font-size="10.5" text-anchor="middle">{sum(shown.values())}</text>'
        )
    title = [f"{node.name} ({node.component.name})", *([ran.state] if ran else [])]
    title += [f"{what} to {to}" + (f", {t} times" if t > 1 else "") for (what, to, _), t in shown.items()]
    return (
        f'<g><title>{escape(chr(10).join(title))}</title><rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" '
        f'rx="6" fill="{fill}" stroke="{border}" stroke-width="1.4"/>{texts}{mark}</g>'
    )


def _cost(ran: NodeRun) -> str:
    if ran.state not in ("done", "failed", "stopped"):
        return ran.state
    if not ran.spent.rounds:
        return f"{ran.state}, {ran.seconds:.1f} s, local"
    return f"{ran.seconds:.1f} s, {ran.spent.rounds:,} rounds, {ran.spent.bytes / 1e6:.3g} MB"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
