"""Joins: rows find the row of a table that has their key, or the last one that does not come after it.

Construction. Both sides are sorted together, the table's rows before those that look for them. What a row finds is what
the last table row before it holds, and that is a running sum: each table row enters the sum with the difference to the
table row before it in the order of keys, so the sum at any place is the last one's value. Sums are free of messages,
so a join costs a sort of both sides (and one of the table, where it is not in order), a comparison for equality, and
the way back to where the rows were, by opened places of shuffled rows. Sorting the concatenation is ORQ's join (SOSP
2025) and Secrecy's (NSDI 2023) before it; in place of a network of log n rounds there are the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from spuvm.sql.columns import Array, Vec, both, chosen, converted, nulled, number
from spuvm.sql.functions import common
from spuvm.sql.ordering import Part, by_key, packed, parts, placed, shifted
from spuvm.sql.relation import Rows
from spuvm.sql.types import BOOL


@dataclass(frozen=True, eq=False)
class Found:
    """For each row that looked: whether there was a row of its key, and the columns of that one."""

    matched: Array
    columns: list[Vec]


def keys_of(probe: Rows, table: Rows, pairs: Sequence[tuple[str, str]]) -> tuple[list[Vec], list[Vec]]:
    """The key columns of both sides in common types, without NULLs' flags."""
    left, right = [], []
    for a, b in pairs:
        x, y = probe[a], table[b]
        same = common([x.type, y.type], "a join of")
        left.append(Vec(same, converted(x, same).words))
        right.append(Vec(same, converted(y, same).words))
    return left, right


def without_nulls(rows: Rows, names: Sequence[str]) -> Array | None:
    """Where a row is there and has no NULL in these columns."""
    return both(rows.valid, *(rows[n].valid for n in names))


def lookup(probe: Rows, table: Rows, pairs: Sequence[tuple[str, str]], columns: Sequence[str]) -> Found:
    """The table's `columns` by equal keys; rows with NULL in a key find nothing. Of equal keys, the last is found."""
    mine, theirs = keys_of(probe, table, pairs)
    there = without_nulls(table, [b for _, b in pairs])
    found = _found(_parts(mine), _parts(theirs), there, probe.count, table.count, table.vecs(columns))
    seen = without_nulls(probe, [a for a, _ in pairs])
    matched = both(found.matched, seen)
    assert matched is not None
    return Found(matched, [nulled(v, both(matched, v.valid)) for v in found.columns])


def _parts(keys: Sequence[Vec]) -> list[Part]:
    return [p for k in keys for p in parts(k)]


def _found(
    mine: Sequence[Part], theirs: Sequence[Part], there: Array | None, rows: int, size: int, carried: Sequence[Vec]
) -> Found:
    key = packed(theirs)
    valid = jnp.ones(size, jnp.int64) if there is None else number(there)
    payload = [w if w.dtype != jnp.bool_ else number(w) for v in carried for w in v.arrays]
    # Of equal keys, rows that are there come last.
    ordered = by_key([*theirs, Part(valid, 1)], [valid, *key.words, *payload])
    steps = [x - shifted(x) for x in ordered]
    # Behind them those that look; a row's place says where it came from.
    words = [jnp.concatenate([a, b]) for a, b in zip(ordered[1 : 1 + len(key.words)], packed(mine).words)]
    entering = [jnp.concatenate([s, jnp.zeros(rows, s.dtype)]) for s in steps]
    place = jnp.concatenate([rows + jnp.arange(size), jnp.arange(rows)])
    late = jnp.concatenate([jnp.zeros(size, jnp.int64), jnp.ones(rows, jnp.int64)])
    together = [Part(w, _bits(w, bits)) for w, bits in zip(words, key.widths)]
    out = by_key([*together, Part(late, 1)], [place, *words, *entering])
    where, own, sums = out[0], out[1 : 1 + len(words)], [jnp.cumsum(x) for x in out[1 + len(words) :]]
    same = sums[0] == 1
    for a, b in zip(own, sums[1 : 1 + len(words)]):
        same = same & (a == b)
    back = [x[:rows] for x in placed(where, [same, *sums[1 + len(words) :]])]
    return Found(back[0], _columns(carried, back[1:]))


def _bits(word: Array, width: int) -> int | None:
    return None if width >= 64 else width - 1


def _columns(like: Sequence[Vec], arrays: Sequence[Array]) -> list[Vec]:
    out, at = [], 0
    for v in like:
        values = arrays[at : at + len(v.arrays)]
        words = tuple(x != 0 if w.dtype == jnp.bool_ else x for x, w in zip(values, v.words))
        out.append(Vec(v.type, words, None if v.valid is None else values[len(words)] != 0))
        at += len(v.arrays)
    return out


def last_before(position: Array, starts: Array, there: Array, carried: Sequence[Vec]) -> list[Vec]:
    """For each public position the columns of the last row that starts at or before it.

    `starts`: int64[size], not decreasing among rows that are `there`.
    """
    size, rows = int(starts.shape[0]), int(position.shape[0])
    bits = (max(rows, size) + 1).bit_length()
    at = jnp.where(there, starts, (1 << bits) - 1)
    arrays = [w if w.dtype != jnp.bool_ else number(w) for v in carried for w in v.arrays]
    ordered = by_key([Part(at, bits)], [at, *arrays])
    steps = [x - shifted(x) for x in ordered[1:]]
    places = jnp.concatenate([ordered[0], position])
    late = jnp.concatenate([jnp.zeros(size, jnp.int64), jnp.ones(rows, jnp.int64)])
    where = jnp.concatenate([rows + jnp.arange(size), jnp.arange(rows)])
    entering = [jnp.concatenate([s, jnp.zeros(rows, s.dtype)]) for s in steps]
    out = by_key([Part(places, bits), Part(late, 1)], [where, *entering])
    back = placed(out[0], [jnp.cumsum(x) for x in out[1:]])
    return _columns(carried, [x[:rows] for x in back])


def marked(probe: Rows, table: Rows, pairs: Sequence[tuple[str, str]], null_aware: bool) -> Vec:
    """Whether there is a row of the key. As IN: NULL if there is none and the row's key, or one of the table's, is
    NULL."""
    matched = lookup(probe, table, pairs, []).matched
    return as_in(matched, probe, table, pairs) if null_aware else Vec(BOOL, (matched,))


def as_in(matched: Array, probe: Rows, table: Rows, pairs: Sequence[tuple[str, str]]) -> Vec:
    """`matched` as IN gives it."""
    (mine, theirs) = pairs[0]
    nothing = ~jnp.any(table.there)
    null: Array | None = None
    nulls, own = table[theirs].valid, probe[mine].valid
    if nulls is not None:
        null = jnp.broadcast_to(jnp.any(chosen(table.valid, ~nulls)), (probe.count,))
    if own is not None:
        null = ~own if null is None else null | ~own
    return Vec(BOOL, (matched,), None if null is None else matched | ~null | nothing)
