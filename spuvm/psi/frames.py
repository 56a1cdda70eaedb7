"""Matching for frames: the rows that all owners have, at every owner in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spuvm.data.matching import register
from spuvm.devices import PYU, PYUObject
from spuvm.psi.plan import Key, Plan, planned
from spuvm.psi.revealed import matches
from spuvm.psi.tables import Table, kept
from spuvm.psi.tags import PUBLIC_KEY, order, tags
from spuvm.runtime.errors import InputError
from spuvm.watching import WATCHER


def inner(sources: Mapping[str, Any], key: Key, **options: Any) -> dict[str, PYUObject]:
    """Arrow tables of the rows whose key all owners have, ordered by a public hash of it; each at its owner.

    Owners learn which of their rows these are, and all parties how many.
    """
    plan = planned(sources, key, "semi", "owners", **options)
    found = matches(plan, plan.owners)
    _tell(plan)
    out, counts = {}, {}
    for party in plan.owners:
        rows = plan.places.run(party, _ordered, plan.tables[party], found[party])
        counts[party] = plan.places.tell(party, plan.places.run(party, lambda t: t.num_rows, rows), int)
        out[party] = PYUObject(PYU(party), rows.value)
    if not any(counts.values()):
        raise InputError(f"no key is at all of {', '.join(plan.owners)}: are these the right columns and files?")
    return out


def _tell(plan: Plan) -> None:
    """Whoever watches learns what matching shows beside what programs reveal."""
    watcher = WATCHER.get()
    if watcher is not None:
        for party in plan.owners:
            watcher.shown("which of its rows all owners have", party)
        if plan.mode == "helper":
            watcher.shown("which rows have equal keys, in a random order", str(plan.helper))


def _ordered(table: Table, found: Any) -> Any:
    return table.arrow.filter(found).take(order(tags(kept(table.keys, found), PUBLIC_KEY)))


register("inner", inner)
