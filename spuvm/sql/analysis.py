"""`explain analyze`: a query run one relation after another, each measured beside what was predicted of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from spuvm.compiler.seconds import Speed
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.sql import machine, matching
from spuvm.sql.answers import ended
from spuvm.sql.columns import Vec
from spuvm.sql.plan import Lookup, Node, Scan, detail, nodes
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
    device: SPU, plan: Plan, given: Callable[[Any], Any], show: Callable[[Any], Any], link: str
) -> tuple[Any, tuple[Measured, ...]]:
    """Run a plan relation by relation, and `show` of its rows.

    Args:
        given: takes the scans from their owners, and selects by owners' keys, each measured by its argument.

    Returns:
        What the plan's function as a whole gives, and a line for each relation.
    """
    run = _Steps(device, plan, given, link)
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

    def __init__(self, device: SPU, plan: Plan, given: Callable[[Any], Any], link: str) -> None:
        self.device = device
        self.speed = Speed.parse(link)
        self.steps: list[Measured] = []
        self.by_keys = matching.matchings(plan.root)
        self.given = given(self.selection)
        self.done: dict[int, Any] = {}
        self.types: dict[int, dict[str, Any]] = {}
        self.counts: dict[int, int] = {}
        self.limits: list[Any] = []

    def relation(self, node: Node, what: str) -> None:
        def compute(scans: Any, found: Any, inputs: Any) -> Any:
            frac = self.device.vm.config.fxp_fraction_bits
            run = machine.run_of({"scans": scans, "matched": found, "frac": frac})
            run.done = {id(c): self.rebuilt(c, tree) for c, tree in zip(node.inputs, inputs)}
            rows = run.rows(node)
            self.types[id(node)] = {n: v.type for n, v in rows.columns.items()}
            self.counts[id(node)] = rows.count
            columns = {n: (list(v.words), v.valid) for n, v in rows.columns.items()}
            return {"columns": columns, "there": rows.valid}, run.limits

        name = node.matching if isinstance(node, Lookup) else ""
        found = {n: x for n, x in self.given["matched"].items() if n == name}
        given = (self._scans(node), found, [self.done[id(c)] for c in node.inputs])
        self.done[id(node)], limits = self.timed(compute, given, what, node.bound)
        self.limits += limits

    def rebuilt(self, node: Node, tree: Any) -> Rows:
        types = self.types[id(node)]
        columns = {n: Vec(types[n], tuple(words), valid) for n, (words, valid) in tree["columns"].items()}
        return Rows(columns, tree["there"], self.counts[id(node)])

    def _scans(self, node: Node) -> dict[str, Any]:
        """The scan itself; or the dictionaries in which a relation looks words up."""
        if isinstance(node, Scan):
            return {node.name: self.given["scans"][node.name]}
        spelled = machine.dictionaries_of(node)
        if isinstance(node, Lookup) and node.matching:  # the table's projections are computed beside the base
            spelled = spelled.union(*(machine.dictionaries_of(p) for p, _ in matching.steps(node)[0]))
        return {name: _only(x, spelled) for name, x in self.given["scans"].items()} if spelled else {}

    def selection(self, name: str, run: Callable[[], Any]) -> Any:
        """Before the program: what owners' keys select."""
        sides, config, party = self.by_keys[name], self.device.vm.config, self.device.vm.session.party
        before, started = _counted(self.device.vm.session.link), time.perf_counter()
        out = run()
        seconds, after = time.perf_counter() - started, _counted(self.device.vm.session.link)
        each = matching.selection(sides, config.members)
        rounds, most = max(r for r, _ in each.values()), max(b for _, b in each.values())
        mine = (rounds, most) if party is None else each[config.members[party]]
        network = rounds * self.speed.delay + 8 * most / self.speed.width
        what = f"before select {name}: {sides.base.table} and {sides.table.table}"
        self.steps.append(Measured(what, sides.base.bound, *mine, seconds, _between(before, after), network))
        return out

    def timed(self, function: Any, given: Any, what: str, rows: int) -> Any:
        run = self.device(function)
        program = run.compile(*given)
        session = self.device.vm.session
        program.party(session.party).prepare()
        before, started = _counted(session.link), time.perf_counter()
        out = run(*given)
        jax.tree.map(lambda x: x.block_until_ready(), out)
        seconds, after = time.perf_counter() - started, _counted(session.link)
        counted = _between(before, after)
        cost, party = program.cost, session.party
        rounds = cost.rounds if party is None else int(cost.party_rounds[party])
        sent = int(max(cost.bytes_sent) if party is None else cost.bytes_sent[party])
        network = cost.rounds * self.speed.delay + 8 * int(max(cost.bytes_sent)) / self.speed.width
        self.steps.append(Measured(what, rows, rounds, sent, seconds, counted, network))
        return out


def _between(before: tuple[int, int] | None, after: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if before is None or after is None else (after[0] - before[0], after[1] - before[1])


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
