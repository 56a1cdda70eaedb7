"""Joins in which keys occur several times on both sides: all pairs, or as many rows as the user states."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from spuvm.sql.columns import Array, Vec, both, nulled
from spuvm.sql.functions import equal
from spuvm.sql.groups import group
from spuvm.sql.lookups import keys_of, last_before, lookup, without_nulls
from spuvm.sql.ordering import Part, parts, sorted_vecs
from spuvm.sql.plan import Aggregate, Field
from spuvm.sql.relation import Rows
from spuvm.sql.types import Type


def expand(
    left: Rows, right: Rows, pairs: Sequence[tuple[str, str]], bound: int, limited: bool
) -> tuple[Rows, Array | None]:
    """Rows of both sides with equal keys; and, if the bound is the user's, whether they fit."""
    if not limited:
        return _all_pairs(left, right, pairs), None
    return _by_counts(left, right, pairs, bound)


def _all_pairs(left: Rows, right: Rows, pairs: Sequence[tuple[str, str]]) -> Rows:
    """Every row beside every other; the keys are compared."""

    def slow(x: Array) -> Array:
        return jnp.repeat(x, right.count, total_repeat_length=left.count * right.count)

    def fast(x: Array) -> Array:
        return jnp.tile(x, left.count)

    columns = {n: v.map(slow) for n, v in left.columns.items()} | {n: v.map(fast) for n, v in right.columns.items()}
    valid = both(None if left.valid is None else slow(left.valid), None if right.valid is None else fast(right.valid))
    rows = Rows(columns, valid, left.count * right.count)
    for mine, theirs in zip(*keys_of(rows, rows, pairs)) if pairs else ():
        rows = rows.where(equal(mine, theirs))
    return rows.where(both(*(rows[n].valid for pair in pairs for n in pair)))


def _by_counts(left: Rows, right: Rows, pairs: Sequence[tuple[str, str]], bound: int) -> tuple[Rows, Array]:
    """Each left row as often as it has partners; each copy takes the next of them.

    1. Rows of the right side are sorted by key; each key's number of rows and first place are looked up by the left
    rows. 2. Running sums of these numbers say where a left row's copies begin; each of the `bound` places takes the
    last left row
       that begins at it or before.
    3. A copy's number, added to the first place of its key, is the place of its partner.
    Krastnikov, Kerschbaum, Stebila, "Efficient oblivious database joins", VLDB 2020, with lookups for their networks.
    """
    right = right.where(without_nulls(right, [b for _, b in pairs]))
    names = list(right.columns)
    absent = [] if right.valid is None else [Part(1 - right.ones, 1)]
    flags = [] if right.valid is None else [right.valid]
    vecs, extra = sorted_vecs([*absent, *(p for _, b in pairs for p in parts(right[b]))], right.vecs(names), flags)
    right = Rows(dict(zip(names, vecs)), extra[0] if extra else None, right.count)
    size = Type("int", 0, right.count)
    keys = [b for _, b in pairs]
    counted = group(
        right.with_columns({"#place": Vec(size, (jnp.arange(right.count),))}),
        keys,
        [
            Aggregate(Field("#count", size, False), "count", None),
            Aggregate(Field("#last", size, False), "any", "#place"),
        ],
    )
    found = lookup(left, counted, pairs, ["#count", "#last"])
    count, last = (v.value for v in found.columns)
    there = both(left.valid, found.matched)
    assert there is not None
    mine = jnp.where(there, count, 0)
    ends = jnp.cumsum(mine)
    begins, total = ends - mine, ends[-1]
    place = jnp.arange(bound)
    own = list(left.columns)
    carried = [*left.vecs(own), Vec(size, (begins,)), Vec(size, (last - count + 1,))]
    rows = last_before(place, jnp.minimum(begins, bound), there, carried)
    partner = rows[-1].value + place - rows[-2].value
    probe = Rows({"#at": Vec(size, (partner,))}, place < total, bound)
    table = Rows({**right.columns, "#row": Vec(size, (jnp.arange(right.count),))}, None, right.count)
    theirs = lookup(probe, table, [("#at", "#row")], names).columns
    valid = place < total
    columns = {**dict(zip(own, rows[:-2])), **dict(zip(names, theirs))}
    cleaned = {n: v if v.valid is None else nulled(v, v.valid) for n, v in columns.items()}
    return Rows(cleaned, valid, bound), total <= bound
