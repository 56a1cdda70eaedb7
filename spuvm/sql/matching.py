"""Joins of two owners' own keys inside of a query: which they are, and when they cost less than a sort.

Where the rows of a lookup are one owner's, in its order, and the table is another's, both owners know their keys. Then
`spuvm.psi` looks them up obliviously (`spuvm/psi/oblivious.py`): a cuckoo hash table, an oblivious selection of three
candidates for each row, and in the query's program the comparison that says which of them it is. Nobody learns more
than by the sort that it stands for: sizes, which all know. How they run: `selecting`.

Security: semi-honest, honest majority of three, as ABY3 has it; under other protocols both sides are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spuvm.compiler.cost import Cost, Row
from spuvm.psi.oblivious import Looked
from spuvm.psi.selection import Roles
from spuvm.runtime.config import Config
from spuvm.sql.functions import common
from spuvm.sql.plan import Field, Filter, Lookup, Node, Project, Scan, nodes
from spuvm.sql.types import Type

JOINS = ("auto", "sort", "psi")
LABEL = "by the owners' keys, obliviously"
DELAY = 1 << 16  # bytes that a round weighs as much as: 0.5 ms at 1 Gbit/s


# Which lookups --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key column as its owner's scan has it: a field, and the dictionary that its codes are spelled by, if any."""

    field: Field
    dictionary: str | None
    type: Type


@dataclass(frozen=True, eq=False)
class Sides:
    """A lookup of one owner's keys among another's.

    Attributes:
        base, table: the two scans.
        mine, theirs: the key columns of each.
        types: what both are compared as.
        carried: the table's columns that come beside the base's rows.
    """

    base: Scan
    table: Scan
    mine: tuple[Key, ...]
    theirs: tuple[Key, ...]
    types: tuple[Type, ...]
    carried: tuple[Field, ...]

    @property
    def numbers(self) -> int:
        """Words of a row."""
        return sum(_numbers(f.type) for f in self.carried)

    @property
    def bits(self) -> int:
        """Bits of a row: bools, whether cells are there, and one that is set in every row."""
        return sum((f.type.kind == "bool") + f.nullable for f in self.carried) + 1

    def looked(self, members: Sequence[str]) -> Looked:
        third = next(p for p in members if p not in (self.base.owner, self.table.owner))  # one that computes, if any
        roles = Roles(self.base.owner, self.table.owner, third)
        return Looked(roles, self.base.bound, self.table.bound, self.numbers, self.bits, np.uint64)


def _numbers(type_: Type) -> int:
    return {"bool": 0, "float": 2}.get(type_.kind, type_.parts)


def choose(root: Node, config: Config, how: str) -> None:
    """Name the lookups that owners' keys decide; `how`: one of `JOINS`, "auto" where it is estimated to cost less."""
    if how == "sort" or config.protocol != "aby3" or config.ring_bits != 64:
        return
    count = 0
    for node in nodes(root):
        if not isinstance(node, Lookup) or (sides := sides_of(node)) is None:
            continue
        if how == "psi" or weight(*by_keys(sides, config.members)) < weight(*by_sorting(node)):
            count += 1
            node.matching = f"{LABEL} (match {count})"


def sides_of(node: Lookup) -> Sides | None:
    """The two owners' scans and keys of a lookup, if its keys are theirs; None if not."""
    base, table = _rooted(node.probe), _plain(node.table)
    if base is None or table is None or base.owner == table.owner or not node.pairs:
        return None
    mine = [_key(node.probe, a) for a, _ in node.pairs]
    theirs = [_key(node.table, b) for _, b in node.pairs]
    if not all(k is not None for k in (*mine, *theirs)):
        return None
    own, others = [k for k in mine if k is not None], [k for k in theirs if k is not None]
    types = tuple(common([x.type, y.type], "a join of") for x, y in zip(own, others))
    if any(t.kind in ("float", "null") or t.dictionary is not None for t in types):
        return None
    return Sides(base, table, tuple(own), tuple(others), types, _carried(node, table))


def _rooted(node: Node) -> Scan | None:
    """The owner's scan whose rows, in their order, a relation has."""
    match node:
        case Scan():
            return node if node.owner else None
        case Filter() | Project():
            return _rooted(node.input)
        case Lookup():
            return _rooted(node.probe)
    return None


def _plain(node: Node) -> Scan | None:
    """The owner's scan that a relation is, but for computed columns."""
    while isinstance(node, Project):
        node = node.input
    return node if isinstance(node, Scan) and node.owner else None


def _key(node: Node, name: str) -> Key | None:
    """A column as one of its scan's, through whatever leaves rows where they are."""
    match node:
        case Scan():
            return Key(node[name], None, node[name].type) if node.owner else None
        case Filter():
            return _key(node.input, name)
        case Lookup():
            return _key(node.probe, name) if name in node.probe.names else None
        case Project() if name in node.items:
            e = node.items[name]
            if e.op == "col":
                return _key(node.input, e.value)
            if e.op == "words" and e.args[0].op == "col":
                below = _key(node.input, e.args[0].value)
                return None if below is None else Key(below.field, e.value, e.type)
            return None
        case Project():
            return _key(node.input, name)
    return None


def steps(node: Lookup) -> tuple[list[tuple[Project, frozenset[str]]], frozenset[str]]:
    """What becomes of the table's scan before its columns come beside the base: projections, the first one first, and
    which of their items are wanted; and which of the scan's own fields are."""
    wanted = frozenset() if node.kind == "mark" else frozenset(_wanted(node))
    relation, out = node.table, []
    while isinstance(relation, Project):
        made = frozenset(relation.items) & wanted
        kept = wanted - made if relation.keep else frozenset()
        out.append((relation, wanted))
        wanted = kept.union(*(relation.items[n].columns() for n in made))
        relation = relation.input
    return out[::-1], wanted


def _carried(node: Lookup, table: Scan) -> tuple[Field, ...]:
    """The scan's fields from which the table's columns follow; keys of an inner join are the base's own."""
    _, wanted = steps(node)
    return tuple(f for f in table.fields if f.name in wanted)


def _wanted(node: Lookup) -> list[str]:
    keys = keys_beside(node)
    return [n for n in node.table.names if n not in keys]


def keys_beside(node: Lookup) -> dict[str, str]:
    """Key columns of the table that an inner join need not carry, and the base's that equal them."""
    if node.kind != "inner":
        return {}
    return {b: a for a, b in node.pairs if _alike(node.probe[a].type, node.table[b].type)}


def _alike(x: Type, y: Type) -> bool:
    return x == y or (x.is_integer and (x.kind, x.scale, x.dictionary) == (y.kind, y.scale, y.dictionary))


def matchings(root: Node) -> dict[str, Sides]:
    """The lookups of a plan that owners' keys decide, by name."""
    found: dict[str, Sides] = {}
    for node in nodes(root):
        if isinstance(node, Lookup) and node.matching:
            sides = sides_of(node)
            assert sides is not None
            found[node.matching] = sides
    return found


# What they cost -------------------------------------------------------------------------------------------------


def weight(rounds: float, sent: float) -> float:
    """Rounds and bytes of all parties as one number."""
    return sent / 3 + DELAY * rounds


def selection(sides: Sides, members: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each party, rounds and bytes that it sends before the query's program: exactly."""
    looked = sides.looked(members)
    parties = (looked.roles.programmer, looked.roles.sender, looked.roles.receiver)
    out = dict.fromkeys(members, (0, 0))
    for asked, itemsize in zip(looked.asked, (8, 1)):
        for party, (rounds, sent) in zip(parties, asked.traffic(itemsize)):
            out[party] = out[party][0] + rounds, out[party][1] + sent
    return out


def with_selections(cost: Cost, root: Node) -> Cost:
    """The cost of a query's program, and of what is selected before it."""
    for name, sides in matchings(root).items():
        each = selection(sides, cost.parties)
        rounds = np.array([each[p][0] for p in cost.parties])
        sent = np.array([each[p][1] for p in cost.parties])
        row = Row(f"selection {name}", f"{sides.base.table} and {sides.table.table}", 1, int(rounds.max()), sent)
        cost = replace(
            cost,
            rounds=cost.rounds + int(rounds.max()),
            party_rounds=cost.party_rounds + rounds,
            bytes_sent=cost.bytes_sent + sent,
            rows=[*cost.rows, row],
        )
    return cost


def by_keys(sides: Sides, members: Sequence[str]) -> tuple[float, float]:
    """Rounds and bytes of all parties: the selection, exactly, and about what the comparison in the program takes."""
    each = selection(sides, members).values()
    rounds, sent = max(r for r, _ in each), sum(b for _, b in each)
    return rounds + 11, sent + sides.base.bound * (241 + 72 * sides.numbers + 3 * sides.bits)


def by_sorting(node: Lookup) -> tuple[float, float]:
    """About the rounds and bytes of a lookup by sorting both sides: comparisons, and columns that move with them."""
    rows = node.probe.bound + node.table.bound
    carried = (
        0 if node.kind == "mark" else sum(node.table[n].type.parts + node.table[n].nullable for n in _wanted(node))
    )
    return max(20, 22 * np.log2(rows) - 90), rows * (1100 + 90 * carried)


def compared(root: Node, members: Sequence[str]) -> tuple[str, ...]:
    """Of each lookup by owners' keys, a line: what it is estimated to cost, and what a sort would."""
    out = []
    for node in nodes(root):
        sides = sides_of(node) if isinstance(node, Lookup) and node.matching else None
        if sides is None:
            continue
        assert isinstance(node, Lookup)
        ways = by_keys(sides, members), by_sorting(node)
        mine, sorted_ = (f"{rounds:,.0f} rounds, {sent / 1e6:,.1f} MB" for rounds, sent in ways)
        names = f"{sides.base.owner}'s {sides.base.table} with {sides.table.owner}'s {sides.table.table}"
        out.append(f"{names} {node.matching}: about {mine}; by sorting both sides: about {sorted_}")
    return tuple(out)
