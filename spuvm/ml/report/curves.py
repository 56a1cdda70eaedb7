"""Curves as pictures (SVG): lines over two axes, for pages that need nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 380, 280, 52, 36, 14, 16
COLOURS = ("#1e88e5", "#d84315", "#43a047", "#5e35b1", "#6d4c41")
Line = tuple[Sequence[float], Sequence[float]]


def curve_svg(lines: Mapping[str, Line], label: str, dots: bool = False) -> str:
    """One picture of several named lines; `dots` are not joined."""
    points = {k: [(x, y) for x, y in zip(*xy) if math.isfinite(x) and math.isfinite(y)] for k, xy in lines.items()}
    every = [p for some in points.values() for p in some]
    if not every:
        return ""
    xs, ys = _ticks([x for x, _ in every]), _ticks([y for _, y in every])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - BOTTOM - TOP)

    body = []
    for x in xs:
        px, _ = place(x, ys[0])
        body.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        body.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>')
    for y in ys:
        _, py = place(xs[0], y)
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}" stroke="#eee"/>')
        body.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
    for i, (name, some) in enumerate(points.items()):
        colour = COLOURS[i % len(COLOURS)]
        placed = [place(x, y) for x, y in some]
        if dots:
            body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in placed]
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(points) > 1:
            body.append(f'<text x="{LEFT + 10}" y="{TOP + 14 + 15 * i}" fill="{colour}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(label, quote=True)}" font-family="system-ui, sans-serif" font-size="11" '
        f'fill="#424242">{"".join(body)}</svg>'
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Four to seven round numbers that span the values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
