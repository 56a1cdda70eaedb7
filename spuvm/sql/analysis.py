"""`explain analyze`: a query run one relation after another, each measured beside what was predicted of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from spuvm.compiler.seconds import Speed
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.sql import machine
from spuvm.sql.answers import ended
from spuvm.sql.columns import Vec
from spuvm.sql.plan import Node, Scan, detail, nodes
from spuvm.sql.planning import Plan
from spuvm.sql.relation import Rows
from spuvm.sql.results import Result

SHOW = "show"  # the last step: rows are shuffled, and revealed


@dataclass(frozen=True)
class Measured:
    """One relation of the plan, or the showing of its rows.

    Attributes:
        rows: its bound.
        rounds, sent: predicted of this party (of a simulation: of all, and of who sends most), exactly.
        seconds: measured, without compiling.
        counted: rounds and bytes that this party's link has counted; None in a simulation, which has no link.
        network: seconds that rounds and bytes take over the stated link, computing aside.
    """

    what: str
    rows: int
    rounds: int
    sent: int
    seconds: float
    counted: tuple[int, int] | None
    network: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """Of a query that has run; prints as a table. `result`: its rows."""

    steps: tuple[Measured, ...]
    result: Result

    def __str__(self) -> str:
        lines = [f"{'rows':>9} {'rounds':>7} {'counted':>7} {'MB':>9} {'counted':>9} {'s':>8} {'network':>8}  relation"]
        for s in self.steps:
            counted = ("-", "-") if s.counted is None else (f"{s.counted[0]:,}", f"{s.counted[1] / 1e6:,.3f}")
            lines.append(
                f"{s.rows:9,} {s.rounds:7,} {counted[0]:>7} {s.sent / 1e6:9,.3f} {counted[1]:>9} {s.seconds:8.3f} "
                f"{s.network:8.3f}  {s.what}"
            )
        seconds = sum(s.seconds for s in self.steps)
        lines.append(f"{sum(s.rounds for s in self.steps):,} rounds, {seconds:.3f} s, one relation after another")
        return "\n".join(lines)


def analyzed(
    device: SPU, plan: Plan, given: Mapping[str, Any], show: Callable[[Any], Any], link: str
) -> tuple[Any, tuple[Measured, ...]]:
    """Run a plan relation by relation, and `show` of its rows.

    Args:
        given: the scans, by name, as `database` takes them from their owners.

    Returns:
        What the plan's function as a whole gives, and a line for each relation.
    """
    run = _Steps(device, given, link)
    numbers = {id(n): f"%{i}" for i, n in enumerate(nodes(plan.root))}
    for node in nodes(plan.root):
        run.relation(node, f"{numbers[id(node)]} {type(node).__name__.lower()} {detail(node)}"[:100])
    out = run.timed(
        lambda rows, limits: show(ended(plan, run.rebuilt(plan.root, rows), limits)),
        (run.done[id(plan.root)], run.limits),
        SHOW,
        plan.root.bound,
    )
    return out, tuple(run.steps)


class _Steps:
    """Relations that are done, as trees of secrets, and what each took."""

    def __init__(self, device: SPU, given: Mapping[str, Any], link: str) -> None:
        self.device = device
        self.given = given
        self.speed = Speed.parse(link)
        self.steps: list[Measured] = []
        self.done: dict[int, Any] = {}
        self.types: dict[int, dict[str, Any]] = {}
        self.counts: dict[int, int] = {}
        self.limits: list[Any] = []

    def relation(self, node: Node, what: str) -> None:
        def compute(scans: Any, inputs: Any) -> Any:
            run = machine.Run({name: machine.ScanInput(**tree) for name, tree in scans.items()})
            run.done = {id(c): self.rebuilt(c, tree) for c, tree in zip(node.inputs, inputs)}
            rows = run.rows(node)
            self.types[id(node)] = {n: v.type for n, v in rows.columns.items()}
            self.counts[id(node)] = rows.count
            columns = {n: (list(v.words), v.valid) for n, v in rows.columns.items()}
            return {"columns": columns, "there": rows.valid}, run.limits

        given = (self._scans(node), [self.done[id(c)] for c in node.inputs])
        self.done[id(node)], limits = self.timed(compute, given, what, node.bound)
        self.limits += limits

    def rebuilt(self, node: Node, tree: Any) -> Rows:
        types = self.types[id(node)]
        columns = {n: Vec(types[n], tuple(words), valid) for n, (words, valid) in tree["columns"].items()}
        return Rows(columns, tree["there"], self.counts[id(node)])

    def _scans(self, node: Node) -> dict[str, Any]:
        """The scan itself; or the dictionaries in which a relation looks words up."""
        if isinstance(node, Scan):
            return {machine.scan_name(node): self.given[machine.scan_name(node)]}
        spelled = machine.dictionaries_of(node)
        return {name: _only(x, spelled) for name, x in self.given.items()} if spelled else {}

    def timed(self, function: Any, given: Any, what: str, rows: int) -> Any:
        run = self.device(function)
        program = run.compile(*given)  # type: ignore[attr-defined]
        session = self.device.vm.session
        program.party(session.party).prepare()
        before, started = _counted(session.link), time.perf_counter()
        out = run(*given)
        jax.tree.map(lambda x: x.block_until_ready(), out)
        seconds, after = time.perf_counter() - started, _counted(session.link)
        counted = None if before is None or after is None else (after[0] - before[0], after[1] - before[1])
        cost, party = program.cost, session.party
        rounds = cost.rounds if party is None else int(cost.party_rounds[party])
        sent = int(max(cost.bytes_sent) if party is None else cost.bytes_sent[party])
        network = cost.rounds * self.speed.delay + 8 * int(max(cost.bytes_sent)) / self.speed.width
        self.steps.append(Measured(what, rows, rounds, sent, seconds, counted, network))
        return out


def _counted(link: Any) -> tuple[int, int] | None:
    if link is None:
        return None
    link.settle()
    return link.counters.rounds, sum(link.counters.bytes_sent.values())


def _only(scan: Any, spelled: set[str]) -> Any:
    """Of a scan its dictionaries alone."""

    def kept(tree: Any) -> Any:
        known = {d: w for d, w in tree["dictionaries"].items() if d in spelled}
        return {"words": {}, "valid": {}, "there": None, "dictionaries": known}

    return PYU(scan.device.party)(kept)(scan) if isinstance(scan, PYUObject) else kept(scan)
