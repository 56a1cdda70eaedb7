"""A plan as a picture: one box a relation, inputs above; owners' parts and what is revealed in colours of their own."""

from __future__ import annotations

from html import escape

from spuvm.sql.plan import Node, Scan, detail, nodes

WIDTH, HEIGHT, GAP = 250, 64, 26
LOCAL, SECRET, SHOWN = "#dbeafe", "#f3f4f6", "#fde68a"


def svg(root: Node, reveals: tuple[str, ...]) -> str:
    """The plan as SVG."""
    levels: dict[int, int] = {}
    for node in nodes(root):
        levels[id(node)] = 1 + max((levels[id(c)] for c in node.inputs), default=-1)
    places: dict[int, tuple[int, int]] = {}
    columns: dict[int, int] = {}
    for node in nodes(root):
        level = levels[id(node)]
        column = columns.get(level, 0)
        columns[level] = column + 1
        places[id(node)] = (20 + column * (WIDTH + GAP), 20 + level * (HEIGHT + GAP))
    width = 40 + max(columns.values()) * (WIDTH + GAP)
    height = 40 + len(columns) * (HEIGHT + GAP) + HEIGHT
    last_x, last_y = places[id(root)]
    body = [_line(places[id(c)], places[id(n)]) for n in nodes(root) for c in n.inputs]
    body += [
        _box(places[id(n)], _title(n), detail(n), LOCAL if isinstance(n, Scan) and n.owner else SECRET)
        for n in nodes(root)
    ]
    shown = (last_x, last_y + HEIGHT + GAP)
    body += [_line((last_x, last_y), shown), _box(shown, "revealed", "; ".join(reveals), SHOWN)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _title(node: Node) -> str:
    where = f" {f'at {node.owner}' if node.owner else 'of shares'}" if isinstance(node, Scan) else ""
    return f"{type(node).__name__.lower()}{where}, up to {node.bound:,} rows"


def _box(at: tuple[int, int], title: str, text: str, fill: str) -> str:
    x, y = at
    lines = [text[i : i + 42] for i in range(0, min(len(text), 84), 42)]
    shown = "".join(
        f'<text x="{x + 10}" y="{y + 38 + 15 * i}" font-size="10">{escape(line)}</text>' for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="#9ca3af"/>'
        f'<text x="{x + 10}" y="{y + 20}" font-size="12" font-weight="bold">{escape(title)}</text>{shown}'
        f"<title>{escape(text)}</title>"
    )


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + WIDTH // 2, start[1] + HEIGHT
    return f'<path d="M{x1} {y1} L{end[0] + WIDTH // 2} {end[1]}" stroke="#9ca3af" fill="none"/>'
