"""What a program costs as one page that needs nothing else: by party, operation and source line, and in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spuvm.compiler.compile import Program
from spuvm.compiler.cost import Row
from spuvm.compiler.seconds import Seconds

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .3rem 0 .3rem .8rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; } code { font: .85rem ui-monospace, monospace; overflow-wrap: anywhere; }
.bar { display: inline-block; height: .7rem; background: var(--bar); vertical-align: baseline; }
"""


def page(program: Program, taken: Seconds | None) -> str:
    """The HTML of it."""
    cost = program.cost
    inexact = "" if cost.exact else " Of loops on revealed values one trip is counted."
    parts = [
        f"<h1>{escape(program.module.name)}</h1>",
        f"<p>{cost.rounds:,} rounds, {int(cost.bytes_sent.sum()):,} bytes of all parties.{inexact}</p>",
        f"<p><code>{program.hash}</code></p>",
        "<h2>By party</h2>",
        _table(
            ("party", "rounds", "bytes sent"),
            [(p, f"{r:,}", f"{b:,}") for p, r, b in zip(cost.parties, cost.party_rounds, cost.bytes_sent)],
        ),
    ]
    if taken is not None:
        names = ("computing", "delays", "transfer", "handling", "total", "together")
        shown = [(n if n != "together" else "on one machine", f"{getattr(taken, n):.3f}") for n in names]
        parts += [f"<h2>Seconds over {escape(taken.link)}</h2>", _table(("what", "seconds"), shown)]
    for title, rows, key in (("operation", cost.by_op(), "op"), ("source line", cost.by_line(), "location")):
        parts += [f"<h2>By {title}</h2>", _rows(title, rows, key, cost.parties)]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_policy()}'
    title = f"<title>Cost of {escape(program.module.name)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}</head>\n<body>{body}</body></html>\n'


def _policy() -> str:
    return "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"


def _rows(title: str, rows: Sequence[Row], key: str, parties: Sequence[str]) -> str:
    total = max(1, sum(int(r.bytes.sum()) for r in rows))
    out = []
    for row in sorted(rows, key=lambda r: -int(r.bytes.sum())):
        sent = int(row.bytes.sum())
        if sent or row.rounds:
            shares = f"{sent / total:.1%}"
            counts = (f"{row.calls:,}", f"{row.rounds:,}", *(f"{b:,}" for b in row.bytes))
            out.append((getattr(row, key), *counts, shares))
    return _table((title, "calls", "rounds alone", *(f"bytes by {p}" for p in parties), "share"), out, bars=True)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], bars: bool = False) -> str:
    """Of texts, which are escaped; the last column has a bar if asked for."""
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in heads) + "</tr>"]
    for row in rows:
        cells = [escape(cell) for cell in row]
        if bars:
            cells[-1] = f'<span class="bar" style="width: {float(row[-1].rstrip("%")) / 20:.2f}rem"></span> {cells[-1]}'
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
