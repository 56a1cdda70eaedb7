"""Results that somebody sees: joined rows, which rows match, how many, and sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data.part import pyarrow
from spuvm.devices import PYU, PYUObject
from spuvm.objects import SPUObject
from spuvm.psi.ecdh import matches_by_curve
from spuvm.psi.helper import Helper, find
from spuvm.psi.joining import MATCHINGS, all_of, none_of, to_shares
from spuvm.psi.places import Held, Move
from spuvm.psi.plan import Plan
from spuvm.psi.raw import RawColumn, decoded
from spuvm.psi.sharing import machine_function
from spuvm.psi.tables import Table
from spuvm.psi.tags import order, tags
from spuvm.runtime.errors import ConfigError

ALL = "all"


# Joined rows ------------------------------------------------------------------------------------------------


def joined_rows(plan: Plan) -> PYUObject | Any:
    """The joined rows as an arrow table at the party that may see them; for "all", at every party.

    They are joined as shares. Rows that are there come first, by a secret sort, so that nothing but they are seen;
    others are zeros.
    """
    if plan.vm.config.ring_bits == 32:
        raise ConfigError(
            "joined rows are shown by a machine whose ring has 64 bits or 128: leave out `ring = 32`, or give another "
            "`device`."
        )
    table = to_shares(plan)
    form = _form(plan, list(table.columns))
    names = list(form)
    words = [[table.columns[f"{n}\0{i}"] for i in range(form[n].words)] for n in names]
    present = [table.present[n] for n in names]
    with jax.enable_x64(True):
        ordered = machine_function(plan.vm, _compact)(table.valid, words, present)
        leaves, tree = jax.tree.flatten(ordered)
        if plan.output == ALL:
            shown = plan.vm.reveal(leaves)
        else:
            shown = _to(plan, leaves, plan.output)
    if any(x is None for x in shown):
        return PYUObject(PYU(plan.output), None)
    made = _arrow(jax.tree.unflatten(tree, shown), form)
    return made if plan.output == ALL else PYUObject(PYU(plan.output), made)


def _form(plan: Plan, columns: Sequence[str]) -> dict[str, RawColumn]:
    known = {f.shown: f.raw for p in plan.owners for f in [*plan.key_fields(p, True), *plan.fields(p)]}
    names = list(dict.fromkeys(n.partition("\0")[0] for n in columns))
    return {n: raw for n in names if (raw := known[n]) is not None}


def _compact(valid: Any, words: Any, present: Any) -> Any:
    """The rows that are there, in their order, before all others, which become zeros."""
    leaves, tree = jax.tree.flatten((words, present))
    drop, *ordered = jax.lax.sort((~valid, *leaves), num_keys=1, is_stable=True)
    keep = ~drop
    return keep, jax.tree.unflatten(tree, [jnp.where(keep, x, jnp.zeros_like(x)) for x in ordered])


def _to(plan: Plan, objects: Sequence[SPUObject], party: str) -> list[Any]:
    """The values at one party; None elsewhere."""
    opened = plan.vm.convert(objects, "reveal", plan.vm.config.members.index(party))
    return [None if x.parts[0] is None else x.known_value() for x in opened]


def _arrow(shown: Any, form: Mapping[str, RawColumn]) -> Any:
    arrow, _ = pyarrow()
    keep, (words, present) = shown
    rows = int(keep.sum())
    arrays = {
        n: decoded(np.stack([np.asarray(w)[:rows].view(np.uint64) for w in ws]), np.asarray(there)[:rows], raw)
        for (n, raw), ws, there in zip(form.items(), words, present)
    }
    return arrow.table(arrays)


# Which rows match -------------------------------------------------------------------------------------------


def matches(plan: Plan, to: Sequence[str], without: bool = False) -> dict[str, Held]:
    """At each of the owners in `to`, bool[rows]: whether all (`without`: none) of the others have its row's key."""
    if plan.mode == "helper":
        return _by_helper(plan, to, without)
    if plan.mode == "ecdh":
        return _by_curve(plan, to, without)
    return _by_machine(plan, to, without)


def _by_helper(plan: Plan, to: Sequence[str], without: bool) -> dict[str, Held]:
    """The helper sends a bit for each tag, in the order of tags; the owner knows which row it is."""
    matching, places = Helper(plan), plan.places
    moves, orders = [], {}
    for party in to:
        orders[party] = matching.order(party)
        found = [matching.pointers(party, other) for other in plan.owners if other != party]
        bits = places.run(matching.helper, lambda *p: np.packbits(_combined([x >= 0 for x in p], without)), *found)
        moves.append(Move(bits, matching.helper, party, (-(-plan.rows(party) // 8),), np.uint8))
    heard = dict(zip(to, places.move(*moves)))
    return {p: places.run(p, _in_rows, heard[p], orders[p]) for p in to}


def _combined(found: Sequence[Any], without: bool) -> Any:
    return none_of(*found) if without else all_of(*found)


def _in_rows(bits: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty(len(order), bool)
    out[order] = np.unpackbits(bits, count=len(order)).astype(bool)
    return out


def _by_machine(plan: Plan, to: Sequence[str], without: bool) -> dict[str, Held]:
    """The first of the owners sees its bits, and tells the others tags of the rows that all have."""
    first, *others = to
    places = plan.places
    matching = MATCHINGS[plan.mode](plan)
    found = [matching.matched(first, other) for other in plan.owners if other != first]
    bits = machine_function(plan.vm, _none if without else _all)(*found)
    (shown,) = _to(plan, [bits], first)
    out = {first: places.run(first, lambda x, o: _back(x, o), Held(frozenset({first}), shown), matching.order(first))}
    for party in others:
        out[party] = _told(plan, first, party, out[first])
    return out


def _by_curve(plan: Plan, to: Sequence[str], without: bool) -> dict[str, Held]:
    """The first of the owners finds its matches, and tells the other tags of the rows that both have."""
    first, *others = to
    places = plan.places
    found = {first: matches_by_curve(plan, first)}
    for other in others:
        found[other] = _told(plan, first, other, found[first])
    return {p: places.run(p, np.logical_not, x) if without else x for p, x in found.items()}


def _told(plan: Plan, first: str, other: str, found: Held) -> Held:
    """At another owner, bool[rows]: whether the first one's rows that match have its row's key."""
    places = plan.places
    key = places.key(plan.owners, f"tags of matches at {first}")
    tell = places.run(first, lambda t, k, b: tags(t.keys, k)[b], plan.tables[first], key, found)
    count = places.run(first, lambda x: np.array([len(x)]), tell)
    (size,) = places.move(Move(count, first, other, (1,), np.int64))
    n = next((int(x.value[0]) for x in (count, size) if x.value is not None), 0)
    (told,) = places.move(Move(tell, first, other, (n, 2), np.uint64))
    return places.run(other, _has, plan.tables[other], key, told)


def _all(*found: Any) -> Any:
    return all_of(*found)


def _none(*found: Any) -> Any:
    return none_of(*found)


def _back(bits: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty(len(order), bool)
    out[order] = bits
    return out


def _has(table: Table, key: bytes, told: np.ndarray) -> np.ndarray:
    mine = tags(table.keys, key)
    by = order(mine)
    out = np.zeros(len(mine), bool)
    if len(told):
        out[by] = find(mine[by], told[order(told)]) >= 0
    return out


# Numbers ------------------------------------------------------------------------------------------------------


def count(plan: Plan) -> int:
    """How many keys of the first owner all others have, told to all parties."""
    first, *others = plan.owners
    if plan.mode == "ecdh":
        found_here = plan.places.run(first, lambda x: int(x.sum()), matches_by_curve(plan, first))
        return int(plan.places.tell(first, found_here, int))
    matching = MATCHINGS[plan.mode](plan)
    if isinstance(matching, Helper):
        found = [matching.pointers(first, other) for other in others]
        said = plan.places.run(matching.helper, lambda *p: int(all_of(*(x >= 0 for x in p)).sum()), *found)
        return int(plan.places.tell(matching.helper, said, int))
    bits = [matching.matched(first, other) for other in others]
    (total,) = plan.vm.reveal([machine_function(plan.vm, _count)(*bits)])
    return int(total)


def _count(*bits: Any) -> Any:
    return jnp.sum(all_of(*bits), dtype=jnp.int32)


def total(plan: Plan, owner: str, column: str) -> Any:
    """The sum of an owner's column over the rows whose key all others have, told to all parties."""
    # Nothing else is shared: keys may be larger than the machine's numbers.
    said = {p: {**s, "columns": [c for c in s["columns"] if c[0] == column]} for p, s in plan.said.items()}
    wanted = {p: replace(w, drop=(*w.drop, *w.key)) for p, w in plan.wanted.items()}
    owners = (owner, *(p for p in plan.owners if p != owner))
    table = to_shares(replace(plan, how="semi", owners=owners, said=said, wanted=wanted))
    with jax.enable_x64(True):
        (shown,) = plan.vm.reveal([machine_function(plan.vm, _total)(table.columns[column], table.valid)])
    return shown


def _total(x: Any, valid: Any) -> Any:
    return jnp.sum(jnp.where(valid, x, jnp.zeros_like(x)))
