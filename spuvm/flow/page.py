"""A page about a run, or two side by side: graph, tables, curves, costs, what anybody learned, budgets, versions.

One HTML file without scripts or anything from elsewhere; what it shows, all parties of the run know.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.data.targets import replacing
from spuvm.flow.checkpoints import Checkpoints
from spuvm.flow.components import Component
from spuvm.flow.differences import difference
from spuvm.flow.drawing import svg
from spuvm.flow.estimating import told
from spuvm.flow.graph import Flow, Node, of_text
from spuvm.flow.kinds import Report
from spuvm.flow.records import Recorded
from spuvm.flow.tuning import Tuning
from spuvm.ml.report.curves import curve_svg
from spuvm.runtime.errors import InputError, SpuError

INSTALL = "pages need a package that is missing: pip install 'spuvm[service]'"


@dataclass(frozen=True)
class Shown:
    """A run as the page has it."""

    name: str
    recorded: Recorded
    picture: str
    reports: Sequence[tuple[str, Report]]
    nodes: Sequence[Mapping[str, Any]]
    learned: Sequence[tuple[str, Sequence[str]]]


def write_page(path: str | Path, runs: Sequence[Recorded], folder: Path) -> None:
    """Write the page of one run or two, whose checkpoints are in a party's folder of the state."""
    with replacing(Path(path), True) as temporary:
        temporary.write_text(page(runs, folder))


def page(runs: Sequence[Recorded], folder: Path) -> str:
    """The HTML of it."""
    shown = [_shown(r, folder) for r in runs]
    changes = difference(runs[0].text, runs[1].text) if len(runs) == 2 else []
    curves = [_curves(s) for s in shown]
    if len(shown) == 2:
        curves = [_together(shown), {}]
    more = {"budget": _budget(folder), "beside": len(shown) == 2}
    return _rendered("run.html", runs=shown, changes=changes, curves=curves, **more)


def tuning_page(flow: str, found: Tuning) -> str:
    """The HTML of a search."""
    return _rendered("tuning.html", flow=flow, found=found, table=found.table(), plot=found.plot())


def _rendered(name: str, **values: Any) -> str:
    try:
        import jinja2
    except ImportError:
        raise InputError(f"{INSTALL}.") from None
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["cell"] = cell
    text: str = pages.get_template(name).render(**values)
    return text


def flow_of(made: Recorded) -> Flow:
    """The flow that a record tells of; its components must be known here."""
    return of_text(made.text)


def _shown(made: Recorded, folder: Path) -> Shown:
    store = Checkpoints(folder / "nodes")
    found, reports, nodes = flow_of(made), [], []
    for name, ran in made.nodes.items():
        node = found.nodes[name]
        spent = ran.spent
        if ran.state == "cached":
            spent = _spent_then(store, ran.key, spent)
        row = {"name": name, "component": node.component.name, "state": ran.state, "seconds": ran.seconds}
        row |= {"owners": ", ".join(found.owners(name)), "rounds": spent.rounds, "bytes": spent.bytes}
        parameters = {p.name: node.parameters[p.name] for p in node.component.parameters}
        changed = {k: v for k, v in parameters.items() if v != _default(node.component, k)}
        nodes.append(
            row | {"error": ran.error, "parameters": ", ".join(f"{k} = {_plain(v)}" for k, v in changed.items())}
        )
        reports += _reports(store, node, ran.key)
    learned = [(n, lines) for n, r in made.nodes.items() if (lines := told(r))]
    return Shown(str(made.head["run"]), made, svg(found, made.nodes), reports, nodes, learned)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _default(component: Component, name: str) -> Any:
    return next(p.default for p in component.parameters if p.name == name)


def _spent_then(store: Checkpoints, key: str, spent: Any) -> Any:
    """What a node cost when it ran."""
    try:
        return type(spent).of_dict(store.known(key)["spent"])
    except (SpuError, KeyError):
        return spent


def _reports(store: Checkpoints, node: Node, key: str) -> list[tuple[str, Report]]:
    """What a node found that all know."""
    if not any(p.kind.name in ("report", "number") for p in node.component.outputs) or key not in store:
        return []
    out = []
    for port, said in store.known(key)["outputs"].items():
        if said["kind"] == "report":
            out.append((node.name, Report.of_dict(said["known"])))
        elif said["kind"] == "number":
            out.append((node.name, Report({port if port != "out" else node.component.name: said["known"]})))
    return out


def _curves(shown: Shown) -> dict[str, str]:
    return {
        f"{node}: {name}": curve_svg({shown.name: xy}, name)
        for node, report in shown.reports
        for name, xy in report.curves.items()
    }


def _together(shown: Sequence[Shown]) -> dict[str, str]:
    """Curves of two runs in one picture each."""
    found: dict[str, dict[str, Any]] = {}
    for s in shown:
        for node, report in s.reports:
            for name, xy in report.curves.items():
                found.setdefault(f"{node}: {name}", {})[s.name] = xy
    return {title: curve_svg(lines, title) for title, lines in found.items()}


def _budget(folder: Path) -> list[tuple[str, str]]:
    """What was spent of a party's privacy budget, if it has a ledger here."""
    path = folder / "privacy.budget"
    if not path.exists():
        return []
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            rows = db.execute("select label, spent from uses order by number").fetchall()
    except sqlite3.Error:
        return [("the ledger cannot be read", "")]
    return [(str(label), str(spent)) for label, spent in rows]


def cell(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.5g}"
    return "" if value is None else str(value)
