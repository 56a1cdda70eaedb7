"""RANGE frames: sums over the rows of a partition whose key is up to so far from each row's.

Construction. Beside the rows stand as many that look: each has its row's partition and its key, moved by the distance.
Both are sorted together, those that look behind rows of their key, or before them; a running sum of the rows' values is
then what is summed up to the moved key (as in `lookups`), and opened places of shuffled rows bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp

from spuvm.sql import dates
from spuvm.sql.columns import Array, Vec, converted
from spuvm.sql.ordering import Part, by_key, parts, placed
from spuvm.sql.plan import Near, Order
from spuvm.sql.relation import Rows
from spuvm.sql.types import Type


def sums_to(
    rows: Rows,
    partition: Sequence[str],
    order: Sequence[Order],
    near: Near,
    distance: float,
    values: Sequence[Array],
    with_equals: bool,
) -> list[Array]:
    """For each row what is summed of all rows, from the first on, to the key that is `distance` behind its own.

    Args:
        with_equals: whether rows of that very key count.
    """
    absent = [] if rows.valid is None else [Part(1 - rows.ones, 1)]
    fixed = [*absent, *(p for n in partition for p in parts(rows[n]))]
    moved = [_moved(rows[o.column], o, near, distance) for o in order]
    there, looking = (
        [*fixed, *(p for o, vecs in zip(order, moved) for p in parts(vecs[side], o.descending, o.nulls_first))]
        for side in (0, 1)
    )
    count = rows.count
    both = [Part(jnp.concatenate([a.value, b.value]), a.bits) for a, b in zip(there, looking)]
    late = jnp.concatenate([jnp.full(count, 1 - with_equals), jnp.full(count, int(with_equals))])
    place = jnp.concatenate([count + jnp.arange(count), jnp.arange(count)])
    entering = [jnp.concatenate([x, jnp.zeros_like(x)]) for x in values]
    out = by_key([*both, Part(late, 1)], [place, *entering])
    return [x[:count] for x in placed(out[0], [jnp.cumsum(x) for x in out[1:]])]


def _moved(key: Vec, order: Order, near: Near, distance: float) -> tuple[Vec, Vec]:
    """A key and the key so far behind it, in one type; NULL stays NULL."""
    if not distance:
        plain = key if near.keys is None else converted(key, near.keys)
        return plain, plain
    far = -distance if order.descending else distance
    if near.months:
        type_ = dates.later_type([key.type], far)
        wide = type_.within(min(type_.lo, key.type.lo), max(type_.hi, key.type.hi))
        return replace(key, type=wide), _masked(Vec(wide, dates.later([key], wide, far), key.valid))
    if near.keys is None:
        return key, _masked(Vec(key.type, (key.value + far,), key.valid))
    plain = converted(key, near.keys)
    step = int(far)
    return plain, _masked(Vec(near.keys, (_within(plain.value + step, step, near.keys, key.type),), key.valid))


def _within(moved: Array, step: int, wide: Type, own: Type) -> Array:
    """No further than the type reaches, which is as far as any key is."""
    more = 10 ** (wide.scale - own.scale)
    if wide.lo <= own.lo * more + step and own.hi * more + step <= wide.hi:
        return moved
    return jnp.clip(moved, wide.lo, wide.hi)


def _masked(x: Vec) -> Vec:
    """Zeros where it is NULL."""
    if x.valid is None:
        return x
    return replace(x, words=tuple(jnp.where(x.valid, w, jnp.zeros_like(w)) for w in x.words))
