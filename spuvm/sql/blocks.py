"""Totals of a table that comes a block of rows at a time: memory is that of a block, whatever the table's rows.

Where a GROUP BY of few known values, or of none, stands above filters and computed columns of one table, each block
gives its totals (see `tallies`), which are added; what stands above the groups runs once, on the totals. Of a table of
which several owners have rows, each totals its own, and totals alone are shared, whatever the rows. A join on the
way is made for each block anew, with its other side whole: that costs more than one join of all, so it is done only
where all at once does not fit into memory.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from spuvm.compiler.compile import Program
from spuvm.compiler.cost import Cost
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.machine.components import aligned
from spuvm.sql import machine, tallies
from spuvm.sql.answers import SHARED, ended, revealed
from spuvm.sql.plan import Expand, Filter, Group, Lookup, Node, Project, Scan, Union, nodes
from spuvm.sql.planning import Plan

ROWS = 1 << 20  # of a block, at most


@dataclass(frozen=True, eq=False)
class Streamed:
    """A GROUP BY whose rows come in blocks.

    Attributes:
        scans: what is cut: rows of one owner each, or of nobody, one after another.
        way: the relations between them and the groups, a union of the scans included.
    """

    group: Group
    scans: tuple[Scan, ...]
    way: tuple[Node, ...]


def streamed(root: Node, joins: bool = False) -> Streamed | None:
    """The GROUP BY of a plan to take in blocks, if it has one, of many rows or owners; `joins`: also above joins."""
    for node in nodes(root):
        if isinstance(node, Group) and (node.cells or not node.keys) and node.noise is None and tallies.additive(node):
            found = _down(node.input, joins)
            if found is None or _again(root, found[0], node) or _only_once(node.input) or not _pays(found[0]):
                continue
            return Streamed(node, *found)
    return None


def _down(node: Node, joins: bool) -> tuple[tuple[Scan, ...], tuple[Node, ...]] | None:
    match node:
        case Scan():
            return (node,), ()
        case Union() if node.parts and all(isinstance(p, Scan) for p in node.parts):
            return tuple(p for p in node.parts if isinstance(p, Scan)), (node,)
        case Filter() | Project():
            found = _down(node.input, joins)
        case Lookup() if joins and not node.matching:
            found = _down(node.probe, joins)
        case _:
            return None
    return None if found is None else (found[0], (*found[1], node))


def _pays(scans: tuple[Scan, ...]) -> bool:
    """Of many rows; or of several owners, each of whom totals its own."""
    return len(scans) > 1 or scans[0].bound > ROWS


def _again(root: Node, scans: tuple[Scan, ...], group: Group) -> bool:
    """Whether something else than the way to the groups reads the scans."""
    names = {s.name for s in scans}
    inside = {id(n) for n in nodes(group)}
    others = [n for n in nodes(root) if isinstance(n, Scan) and n.name in names and id(n) not in inside]
    uses = [c for n in nodes(root) for c in n.inputs if isinstance(c, Scan) and c.name in names]
    return bool(others) or len(uses) != len(scans)


def _only_once(node: Node) -> bool:
    """Whether something below the groups must not be computed for each block anew: noise, which would be drawn, and
    told of, several times; and what has to be seen of the rows, which blocks do not tell."""
    return any(
        (isinstance(n, Expand) and n.limited) or (isinstance(n, Group) and n.noise is not None) or tallies.declared(n)
        for n in nodes(node)
    )


def pieces(bound: int) -> Iterator[tuple[int, int]]:
    """First and last rows of blocks, of as many rows each as can be."""
    count = -(-bound // ROWS)
    ends = [bound * i // count for i in range(count + 1)]
    return itertools.pairwise(ends)


def cut(given: Any, start: int, stop: int) -> Any:
    """Some rows of what a scan gives to the machine; its dictionaries stay whole."""
    if isinstance(given, PYUObject):
        return PYU(given.device.party)(lambda tree: cut(tree, start, stop))(given)
    rows = jax.tree.map(
        lambda x: _cut(x, start, stop),
        {k: x for k, x in given.items() if k != "dictionaries"},
        is_leaf=lambda x: isinstance(x, SPUObject | Marked),
    )
    return {**rows, "dictionaries": given["dictionaries"]}


def spelling(given: Any) -> Any:
    """Of what a scan gives, its dictionaries alone."""
    if isinstance(given, PYUObject):
        return PYU(given.device.party)(spelling)(given)
    return {"words": {}, "valid": {}, "there": None, "dictionaries": given["dictionaries"]}


def _cut(x: Any, start: int, stop: int) -> Any:
    if isinstance(x, Marked):
        return replace(x, value=jax.ShapeDtypeStruct((stop - start, *x.shape[1:]), x.dtype))
    if not isinstance(x, SPUObject):
        return x[start:stop]
    parts = tuple(None if c is None else aligned(np.asarray(c)[start:stop]) for c in x.components)
    return SPUObject(parts, x.type.with_(shape=(stop - start, *x.type.shape[1:])), x.dtype, x.vm)


# On the machine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Blockwise:
    """A plan for the party `to` of which one GROUP BY takes its rows in blocks. `functions`: those made before, so that
    each is traced once."""

    device: SPU
    plan: Plan
    to: str
    found: Streamed
    functions: dict[Any, Any]

    def run(self, given: Any) -> Any:
        """What the plan's function gives, of a tree as it takes it."""
        sums: Any = None
        for scan in self.found.scans:
            for start, stop in pieces(scan.bound):
                part = self.device(self._totals(scan, stop - start))(self._block(given, scan, start, stop))
                sums = part if sums is None else self.device(tallies.added)(sums, part)
        return self.device(self._rest())({**self._above(given), "sums": sums})

    def cost(self, given: Any) -> Cost:
        """Of all blocks and what follows them, of a tree of shapes."""
        programs: list[tuple[Program, int]] = []
        for scan in self.found.scans:
            sizes = Counter(stop - start for start, stop in pieces(scan.bound))
            for rows, times in sizes.items():
                made = self.device(self._totals(scan, rows)).compile(self._block(given, scan, 0, rows))
                programs.append((made, times))
        sums = _outcome(programs[0][0], self.device.vm.config.members)
        blocks = sum(times for _, times in programs)
        for made, _ in programs[1:]:
            both = (sums, _outcome(made, self.device.vm.config.members))
            sums = _outcome(self.device(tallies.added).compile(*both), self.device.vm.config.members)
        if blocks > 1:
            programs.append((self.device(tallies.added).compile(sums, sums), blocks - 1))
        programs.append((self.device(self._rest()).compile({**self._above(given), "sums": sums}), 1))
        return _together([(p.cost, times) for p, times in programs])

    def _block(self, given: Any, scan: Scan, start: int, stop: int) -> Any:
        """The block beside what other scans give, of which those that come in blocks give nothing."""
        mine = {s.name for s in self.found.scans}
        others = {name: x for name, x in given["scans"].items() if name not in mine}
        return {**given, "scans": {**others, scan.name: cut(given["scans"][scan.name], start, stop)}}

    def _above(self, given: Any) -> Any:
        """What the relations above the groups read: of the scans in blocks, dictionaries alone."""
        mine = {s.name for s in self.found.scans}
        scans = {name: spelling(x) if name in mine else x for name, x in given["scans"].items()}
        return {**given, "scans": scans}

    def _totals(self, scan: Scan, rows: int) -> Any:
        return self._made((scan.name, rows), lambda: _block_function(self.found, scan, rows, self._frac))

    def _rest(self) -> Any:
        return self._made("rest", lambda: _rest_function(self.plan, self.to, self.found, self._frac))

    def _made(self, what: Any, make: Callable[[], Any]) -> Any:
        key = (self.plan.text, self.plan.ordered, self.to, what)
        if key not in self.functions:
            self.functions[key] = make()
        return self.functions[key]

    @property
    def _frac(self) -> int:
        return self.device.vm.config.fxp_fraction_bits


def _block_function(found: Streamed, scan: Scan, rows: int, frac: int) -> Any:
    """Totals of a block of so many rows of one of the scans."""

    def totals(given: Any) -> Any:
        run = machine.run_of({**given, "frac": frac})
        run.counts[scan.name] = rows
        for node in found.way:
            if isinstance(node, Union):
                run.done[id(node)] = machine.RULES[Union](run, replace(node, parts=(scan,)))
        return tallies.totals(run.rows(found.group.input), found.group)

    return totals


def _rest_function(plan: Plan, to: str, found: Streamed, frac: int) -> Any:
    """The plan's function, of the totals of all rows."""

    def above(given: Any) -> Any:
        run = machine.run_of({**given, "frac": frac})
        rows, fits = tallies.grouped(given["sums"], found.group)
        run.done[id(found.group)] = rows
        run.limits += [] if fits is None else [fits]
        return revealed(ended(plan, run.rows(plan.root), run.limits, to != SHARED), to)

    return above


def _outcome(program: Program, members: Sequence[str]) -> Any:
    """Totals as arguments of a further program, by their shapes and who has them."""
    module, leaves = program.module, []
    for value, dtype in zip(module.body.results, module.output_dtypes):
        who = value.type.visibility
        shape = jax.ShapeDtypeStruct(value.type.shape, np.dtype(dtype))
        leaves.append(Marked(shape, members[who] if isinstance(who, int) else str(who)))
    assert program.traced is not None
    return jax.tree.unflatten(program.traced.out_tree, leaves)


def _together(costs: Sequence[tuple[Cost, int]]) -> Cost:
    """Of programs one after another, each so many times."""
    first = costs[0][0]
    rows = [
        replace(r, calls=r.calls * times, rounds=r.rounds * times, bytes=r.bytes * times)
        for c, times in costs
        for r in c.rows
    ]
    return replace(
        first,
        rounds=sum(c.rounds * times for c, times in costs),
        party_rounds=np.sum([c.party_rounds * times for c, times in costs], axis=0),
        bytes_sent=np.sum([c.bytes_sent * times for c, times in costs], axis=0),
        rows=rows,
        exact=all(c.exact for c, _ in costs),
        timed=None,
        drawn={},
    )
