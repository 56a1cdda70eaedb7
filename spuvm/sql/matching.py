"""Joins of two owners' own keys inside of a query: which they are, when they cost less than a sort, how they run.

Where the rows of a lookup are one owner's, in its order, and the table is another's, both owners know their keys. Then
`spuvm.psi` looks them up obliviously (`spuvm/psi/oblivious.py`): a cuckoo hash table, an oblivious selection of three
candidates for each row, and in the query's program the comparison that says which of them it is. Nobody learns more
than by the sort that it stands for: sizes, which all know.

Security: semi-honest, honest majority of three, as ABY3 has it; under other protocols both sides are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.compiler.cost import Cost, Row
from spuvm.devices import PYU, PYUObject
from spuvm.psi.cuckoo import FUNCTIONS
from spuvm.psi.keys import Fixed, Keys
from spuvm.psi.oblivious import Looked, candidates, drawn_seeds, hashed, looked_up
from spuvm.psi.places import Held, here
from spuvm.psi.selection import Roles
from spuvm.psi.tables import Words, first_rows
from spuvm.runtime.config import Config
from spuvm.runtime.ring.encodings import encode
from spuvm.sql.columns import Array, Vec, both, converted
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


# At the owners --------------------------------------------------------------------------------------------------


def keys_of(tree: Mapping[str, Any], keys: Sequence[Key], types: Sequence[Type], once: bool) -> Keys:
    """An owner's key columns as words; rows that are not there, or have a NULL, have none.

    Args:
        tree: of the scan, as `scanning.scanned` gives it.
        once: whether of equal keys the first alone counts.
    """
    columns: list[Fixed | Any] = []
    present = tree["there"]
    for key, type_ in zip(keys, types):
        words = tree["words"][key.field.name]
        if key.dictionary is not None:
            words = [w[words[0]] for w in tree["dictionaries"][key.dictionary]]
        with jax.enable_x64(True):
            same = converted(Vec(key.type, tuple(map(jnp.asarray, words))), type_)
            columns += [_fixed(np.asarray(w).astype(np.int64)) for w in same.words]
        valid = tree["valid"].get(key.field.name)
        present = valid if present is None else present if valid is None else present & valid
    rows = len(columns[0].words)
    out = Keys(tuple(columns), np.ones(rows, bool) if present is None else np.asarray(present))
    if not once:
        return out
    return Keys(out.columns, out.present & first_rows(out)[0])


def _fixed(numbers: np.ndarray) -> Fixed:
    return Fixed(np.stack([numbers.view(np.uint64), (numbers >> 63).view(np.uint64)], axis=1))


def words_of(tree: Mapping[str, Any], carried: Sequence[Field], rows: int, frac: int) -> Words:
    """The table's columns as they enter the selection: words, and bits, the last of which is set."""
    numbers: list[np.ndarray] = []
    bits: list[np.ndarray] = []
    for f in carried:
        words = tree["words"][f.name]
        if f.type.kind == "bool":
            bits.append(words[0])
        elif f.type.kind == "float":
            whole = encode(words[0], frac, f.name).view(np.int64)
            numbers += [whole >> frac, whole & ((1 << frac) - 1)]
        else:
            numbers += words
        if f.nullable:
            bits.append(tree["valid"][f.name])
    bits.append(np.ones(rows, bool))
    matrix = np.stack(numbers).astype(np.int64).view(np.uint64) if numbers else np.empty((0, rows), np.uint64)
    return Words(matrix, np.packbits(np.stack(bits).astype(bool), axis=0, bitorder="little"), {})


# Before the query's program -------------------------------------------------------------------------------------


def matchings(root: Node) -> dict[str, Sides]:
    """The lookups of a plan that owners' keys decide, by name."""
    found: dict[str, Sides] = {}
    for node in nodes(root):
        if isinstance(node, Lookup) and node.matching:
            sides = sides_of(node)
            assert sides is not None
            found[node.matching] = sides
    return found


def unmeasured(name: str, run: Callable[[], Any]) -> Any:
    return run()


def selected(
    root: Node,
    scans: Mapping[str, PYUObject],
    config: Config,
    measured: Callable[[str, Callable[[], Any]], Any] = unmeasured,
) -> dict[str, Any]:
    """What the program takes of each matching: the base's fingerprints, and shares of the candidates, at two parties.

    Args:
        scans: the scans' trees at their owners, by `Scan.name`.
        measured: runs each selection, by its name.
    """
    found = matchings(root)
    if not found:
        return {}
    places = here()

    def at(scan: Scan, function: Any, *args: Any) -> Held:
        tree = Held(frozenset({scan.owner}), scans[scan.name].value)
        return places.run(scan.owner, lambda t: function(t, *args), tree)

    keys: dict[str, tuple[Held, Held]] = {}
    committed: dict[str, list[Held]] = {}
    for name, s in found.items():
        keys[name] = at(s.base, keys_of, s.mine, s.types, False), at(s.table, keys_of, s.theirs, s.types, True)
        for scan, k in zip((s.base, s.table), keys[name]):
            committed.setdefault(scan.owner, []).append(k)
    seeds = drawn_seeds(places, committed)
    out = {}
    for name, s in found.items():
        looked, (mine, theirs) = s.looked(config.members), keys[name]
        looking = places.run(s.base.owner, hashed, mine, seeds)
        hashes = places.run(s.table.owner, hashed, theirs, seeds)
        words = at(s.table, words_of, s.carried, s.table.bound, config.fxp_fraction_bits)
        table = places.run(s.table.owner, looked.table, theirs, hashes, words)
        numbers, bits = measured(name, partial(candidates, places, looked, looking, table))
        known = places.run(s.base.owner, lambda h, x=looked: x.fingerprints(h).view(np.int64), looking)
        out[name] = {
            "mine": PYUObject(PYU(s.base.owner), known.value),
            "numbers": [
                PYUObject(PYU(p), None if x.value is None else x.value.view(np.int64)) for p, x in numbers.items()
            ],
            "bits": [PYUObject(PYU(p), None if x.value is None else x.value.astype(bool)) for p, x in bits.items()],
        }
    return out


def inputs(sides: Sides, members: Sequence[str]) -> tuple[Any, Any]:
    """Shapes of what `selected` gives of one, and whose they are."""
    looked = sides.looked(members)
    three = FUNCTIONS * looked.rows
    words = jax.ShapeDtypeStruct((looked.limbs + looked.numbers, three), np.dtype(np.int64))
    bits = jax.ShapeDtypeStruct((looked.bits, three), np.dtype(np.bool_))
    mine = jax.ShapeDtypeStruct((looked.limbs, looked.rows), np.dtype(np.int64))
    holders = [looked.roles.programmer, looked.roles.receiver]
    return (
        {"mine": mine, "numbers": [words, words], "bits": [bits, bits]},
        {"mine": looked.roles.programmer, "numbers": holders, "bits": holders},
    )


# In the query's program -----------------------------------------------------------------------------------------


def found_of(sides: Sides, given: Mapping[str, Any], probed: Array | None, frac: int) -> tuple[Array, dict[str, Vec]]:
    """For each row of the base whether its key is there, and the table's carried columns by name, NULL where not.

    Args:
        given: as `inputs` describes it.
        probed: which rows of the base are there.
        frac: the machine's fraction bits.
    """
    numbers, bits = given["numbers"][0] + given["numbers"][1], given["bits"][0] ^ given["bits"][1]
    limbs = given["mine"].shape[0]
    words, flags = looked_up(given["mine"], list(numbers[:limbs]), list(numbers[limbs:]), list(bits))
    more, marks = iter(words), iter(flags)
    matched = both(flags[-1], probed)
    assert matched is not None
    columns = {}
    for f in sides.carried:
        if f.type.kind == "bool":
            cells: tuple[Array, ...] = (next(marks),)
        elif f.type.kind == "float":
            cells = (next(more).astype(jnp.float64) + next(more).astype(jnp.float64) * 2.0**-frac,)
        else:
            cells = tuple(next(more) for _ in range(f.type.parts))
        columns[f.name] = Vec(f.type, cells, next(marks) if f.nullable else None)
    return matched, columns
