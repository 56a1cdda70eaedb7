"""Linkage in several passes: rows that an exact key leaves over are compared by the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.data.part import pyarrow
from spuvm.devices import PYU, PYUObject
from spuvm.psi.plan import Key, Plan, planned
from spuvm.psi.revealed import matches
from spuvm.psi.tables import Table, Wanted, kept, read
from spuvm.psi.tags import PUBLIC_KEY, order, tags
from spuvm.runtime.errors import InputError

PASS = "pass"


@dataclass(frozen=True, eq=False)
class Linked:
    """Rows of several owners that are of the same person or thing.

    Attributes:
        rows: at each owner, an arrow table: its rows, and `pass`, the number of the pass (from 1) that found them.
            Row i of one belongs to row i of the others.
        rates: of each pass, how many rows it found; None where that is below `report_from`.
        learns: who learned what.
    """

    rows: Mapping[str, PYUObject]
    rates: tuple[int | None, ...]
    learns: tuple[str, ...]

    def __str__(self) -> str:
        said = ["few" if n is None else f"{n:,}" for n in self.rates]
        return "\n".join(f"pass {i}: {n} rows" for i, n in enumerate(said, 1))


def link(
    files: Mapping[str, Any],
    passes: Sequence[Key],
    *,
    types: Mapping[str, str] | None = None,
    normalize: Mapping[str, Sequence[str]] | None = None,
    report_from: int = 10,
    **options: Any,
) -> Linked:
    """Find rows that belong together, by the first of several keys that says so.

    Args:
        files: as of `join`.
        passes: keys in the order they are tried, such as ["id", ["name", "born"]]. A key that an owner has in several
            rows that are left tells nothing in that pass: these wait for the next.
        types, normalize: of key columns, by the first owner's names; see `join`.
        report_from: the least number of rows of a pass that `rates` tells.
        options: mode, helper, device, guard: as of `join`.

    All owners learn which of their rows are found in each pass; all parties how many are left.
    """
    if not passes:
        raise InputError("`passes` is empty: name the keys to try, as in ['id', ['name', 'born']].")
    left: dict[str, Any] = {}
    for p in files:
        source = files[p]
        wanted = Wanted((), types=_all_types(types, passes, files, p))
        left[p] = PYU(p)(lambda source=source, p=p, wanted=wanted: read(source, p, wanted)[0])()
    found: dict[str, list[PYUObject]] = {p: [] for p in files}
    rates: list[int | None] = []
    learns: tuple[str, ...] = ()
    for number, key in enumerate(passes, 1):
        said: dict[str, Any] = {"types": _some(types, key), "normalize": _some(normalize, key)}
        plan = planned(left, key, "semi", "owners", duplicates="none", **said, **options)
        learns = learns or plan.learns
        here = matches(plan, plan.owners)
        counts = set()
        for p in plan.owners:
            rows = plan.places.run(p, _linked, plan.tables[p], here[p], number)
            counts.add(plan.places.tell(p, plan.places.run(p, lambda t: t.num_rows, rows), int))
            found[p].append(PYUObject(PYU(p), rows.value))
            rest = plan.places.run(p, lambda t, b: t.arrow.filter(~b), plan.tables[p], here[p])
            left[p] = PYUObject(PYU(p), rest.value)
        (count,) = counts
        rates.append(int(count) if count >= report_from else None)
        if any(count == n for n in _sizes(plan)):
            break
    rows_of = {p: PYU(p)(lambda *pieces: _whole(pieces))(*pieces) for p, pieces in found.items()}
    return Linked(rows_of, tuple(rates), learns)


def _sizes(plan: Plan) -> list[int]:
    return [plan.rows(p) for p in plan.owners]


def _linked(table: Table, found: np.ndarray, number: int) -> Any:
    arrow, _ = pyarrow()
    rows = table.arrow.filter(found).take(order(tags(kept(table.keys, found), PUBLIC_KEY)))
    return rows.append_column(PASS, arrow.array(np.full(rows.num_rows, number, np.int8)))


def _whole(pieces: Sequence[Any]) -> Any:
    arrow, _ = pyarrow()
    return arrow.concat_tables(pieces, promote_options="permissive")


def _some(said: Mapping[str, Any] | None, key: Key) -> dict[str, Any]:
    """What is said of the key columns of one pass, as the first owner calls them."""
    first = next(iter(key.values())) if isinstance(key, Mapping) else key
    names = (first,) if isinstance(first, str) else tuple(first)
    return {n: v for n, v in (said or {}).items() if n in names}


def _all_types(
    types: Mapping[str, str] | None, passes: Sequence[Key], files: Mapping[str, Any], party: str
) -> dict[str, str]:
    """Declared types by the names that a party's columns have."""
    out: dict[str, str] = {}
    for key in passes:
        per = [key[p] if isinstance(key, Mapping) else key for p in (next(iter(files)), party)]
        first, own = ((k,) if isinstance(k, str) else tuple(k) for k in per)
        out |= {n: types[f] for f, n in zip(first, own) if types and f in types}
    return out
