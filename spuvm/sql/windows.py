"""Window functions: rows sorted by partition and order, running sums, and values carried to other rows. Results go back
to where the rows were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from spuvm.sql.carrying import Frame, carried, carried_back, from_behind
from spuvm.sql.columns import Array, Vec, both, chosen, divided, nulled, number
from spuvm.sql.extremes import extreme
from spuvm.sql.groups import mean
from spuvm.sql.nearby import sums_to
from spuvm.sql.ordering import Part, changes, packed, parts, placed, rebuilt, sorted_vecs
from spuvm.sql.plan import Aggregate, Near, Order, Ranked
from spuvm.sql.relation import Rows


def window(rows: Rows, partition: Sequence[str], order: Sequence[Order], items: Sequence[Ranked]) -> Rows:
    """The relation with the functions' columns."""
    out = rows
    for item in items:
        out = out.with_columns({item.field.name: _one(rows, partition, order, item)})
    return out


def _one(rows: Rows, partition: Sequence[str], order: Sequence[Order], item: Ranked) -> Vec:
    extreme = item.fn in ("min", "max") and item.frame == "all" and item.column is not None
    if extreme:  # the order does not count: by the value itself, the best last
        order = [Order(str(item.column), item.fn == "min", True)]
    frame, back = _sorted(rows, partition, order, [item.column] if item.column else [])
    v = FUNCTIONS[item.fn](frame, item)
    # Back to where the rows were.
    (result,) = rebuilt([v], placed(back, v.arrays))
    return Vec(item.field.type, nulled(result, result.valid).words, result.valid)


def _sorted(rows: Rows, partition: Sequence[str], order: Sequence[Order], more: Sequence[str]) -> tuple[Frame, Array]:
    names = list(dict.fromkeys([*partition, *(o.column for o in order), *more]))

    def keys(r: Rows) -> tuple[list[Part], list[Part]]:
        absent = [] if r.valid is None else [Part(1 - r.ones, 1)]
        return (
            [*absent, *(p for n in partition for p in parts(r[n]))],
            [p for o in order for p in parts(r[o.column], o.descending, o.nulls_first)],
        )

    outer, inner = keys(rows)
    flags = [] if rows.valid is None else [rows.valid]
    vecs, extra = sorted_vecs([*outer, *inner], rows.vecs(names), [jnp.arange(rows.count), *flags])
    found = Rows(dict(zip(names, vecs)), extra[1] if flags else None, rows.count)
    outer, inner = keys(found)
    first = jnp.concatenate([jnp.ones(1, jnp.bool_), jnp.zeros(rows.count - 1, jnp.bool_)])
    starts = changes(packed(outer)) if outer else first
    fresh = starts | changes(packed(inner)) if inner else starts
    return Frame(found, partition, order, starts, fresh), extra[0]


# Functions ----------------------------------------------------------------------------------------------------


def _row_number(f: Frame, item: Ranked) -> Vec:
    return Vec(item.field.type, (f.number + 1,))


def _rank(f: Frame, item: Ranked) -> Vec:
    (first,) = carried(f.fresh, [f.place])
    return Vec(item.field.type, (first - f.begin + 1,))


def _dense_rank(f: Frame, item: Ranked) -> Vec:
    seen = jnp.cumsum(number(f.fresh))
    (before,) = carried(f.starts, [seen])
    return Vec(item.field.type, (seen - before + 1,))


def _percent_rank(f: Frame, item: Ranked) -> Vec:
    (first,) = carried(f.fresh, [f.place])
    (end,) = carried_back(f.ends, [f.place])
    alone = number(f.starts & f.ends)  # 0 of 1 row that comes before it
    size = (end - f.begin + alone).astype(jnp.float64)
    share = (first - f.begin).astype(jnp.float64) / size
    return Vec(item.field.type, (share,))


def _cume_dist(f: Frame, item: Ranked) -> Vec:
    (last,), (end,) = carried_back(f.stale, [f.place]), carried_back(f.ends, [f.place])
    share = (last - f.begin + 1).astype(jnp.float64) / (end - f.begin + 1).astype(jnp.float64)
    return Vec(item.field.type, (share,))


def _ntile(f: Frame, item: Ranked) -> Vec:
    """The first `size % n` of n tiles have a row more than `size // n`."""
    (end,) = carried_back(f.ends, [f.place])
    rows, n = f.rows.count, item.value
    less = (end - f.begin + 1) // n
    more = end - f.begin + 1 - less * n
    border = more * (less + 1)
    large = f.number < border
    x = jnp.where(large, f.number, f.number - border)
    y = jnp.where(large, less + 1, less)
    within = divided(x, y, rows, rows // n + 1, 0)
    return Vec(item.field.type, (within + 1 + jnp.where(large, 0, more),))


def _nth_value(f: Frame, item: Ranked) -> Vec:
    v, n = f.rows[str(item.column)], item.value - 1
    arrays = [number(a) if a.dtype == jnp.bool_ else a for a in v.arrays]
    out = carried(f.number == n, arrays)
    found = v.rebuilt([o != 0 if a.dtype == jnp.bool_ else o for o, a in zip(out, v.arrays)])
    passed = nulled(found, both(found.valid, f.number >= n))
    return passed if item.frame == "rows" else from_behind(f.stale if item.frame == "running" else f.ends, passed)


def _moved(sign: int) -> Callable[[Frame, Ranked], Vec]:
    def run(f: Frame, item: Ranked) -> Vec:
        v, k, count = f.rows[str(item.column)], sign * item.value, f.rows.count

        def move(x: Array) -> Array:
            if abs(k) >= count:
                return jnp.zeros_like(x)
            empty = jnp.zeros(abs(k), x.dtype)
            return jnp.concatenate([empty, x[:-k]]) if k > 0 else jnp.concatenate([x[-k:], empty]) if k < 0 else x

        if k >= 0:
            inside = f.number >= k
        else:
            (end,) = carried_back(f.ends, [f.place])
            inside = f.place - k <= end
        there = both(None if v.valid is None else move(v.valid), inside)
        return nulled(Vec(v.type, tuple(map(move, v.words))), there)

    return run


def _edge(first: bool) -> Callable[[Frame, Ranked], Vec]:
    def run(f: Frame, item: Ranked) -> Vec:
        v = f.rows[str(item.column)]
        arrays = [number(a) if a.dtype == jnp.bool_ else a for a in v.arrays]
        if not first:
            return v if item.frame == "rows" else from_behind(f.stale if item.frame == "running" else f.ends, v)
        out = carried(f.starts, arrays)
        return v.rebuilt([o != 0 if a.dtype == jnp.bool_ else o for o, a in zip(out, v.arrays)])

    return run


def _summed(f: Frame, item: Ranked, values: Sequence[Array]) -> list[Array]:
    """Sums over the frame: to its end, less what comes before it."""
    ends = [jnp.cumsum(x) for x in values]
    before = carried(f.starts, [e - x for e, x in zip(ends, values)])
    if item.frame == "span":
        return _spanned(f, item, ends, before)
    if item.near is not None:
        return _near(f, item.near, values, ends, before)
    if item.frame != "rows":
        ends = carried_back(f.ends if item.frame == "all" else f.stale, ends)
    return [e - b for e, b in zip(ends, before)]


def _spanned(f: Frame, item: Ranked, sums: Sequence[Array], before: Sequence[Array]) -> list[Array]:
    """Sums from some rows behind (or before) the current one to others: differences of running sums that are shifted.

    Args:
        sums: to each row, of the whole relation.
        before: to the row before the partition's first.
    """
    start, end = item.span
    (last, *whole) = carried_back(f.ends, [f.place, *sums])
    size = last - f.begin + 1

    def up_to(at: int | None, total: Array, first: Array, everything: Array) -> Array:
        """The sum to the row `at` from the current one, within the partition."""
        if at is None or at >= f.rows.count:
            return everything
        if at <= -f.rows.count:
            return first
        empty = jnp.zeros(abs(at), total.dtype)
        moved = jnp.concatenate([empty, total[:at]]) if at < 0 else jnp.concatenate([total[at:], empty])
        if at < 0:
            return jnp.where(f.number + at >= 0, moved, first)
        return jnp.where(f.number + at < size, moved, everything) if at else total

    out = []
    for total, first, everything in zip(sums, before, whole):
        upper = up_to(end, total, first, everything)
        lower = first if start is None else up_to(start - 1, total, first, everything)
        out.append(upper - lower)
    if start is not None and end is not None and start > end:  # no row is in such a frame
        return [jnp.zeros_like(x) for x in out]
    return out


def _near(f: Frame, near: Near, values: Sequence[Array], ends: Sequence[Array], before: Sequence[Array]) -> list[Array]:
    """Sums over the rows whose key is near: what is summed up to the far end, less what is below the near one."""
    start, end = near.span
    if start is not None and end is not None and start > end:  # only NULLs are near each other
        (key,) = (f.rows[o.column] for o in f.order)
        if key.valid is None:
            return [jnp.zeros_like(x) for x in values]
        return [chosen(~key.valid, x) for x in _near(f, replace(near, span=(0, 0)), values, ends, before)]
    lower, upper = list(before), carried_back(f.ends, ends) if end is None else []
    if start is not None:
        lower = sums_to(f.rows, f.partition, f.order, near, start, values, False)
    if end is not None:
        upper = sums_to(f.rows, f.partition, f.order, near, end, values, True)
    return [u - w for u, w in zip(upper, lower)]


def _count_and_sum(f: Frame, item: Ranked) -> tuple[Array, Array | None]:
    v = f.rows[item.column] if item.column else None
    there = number(both(f.rows.there, None if v is None else v.valid))
    values = [there] if v is None or item.fn == "count" else [there, chosen(f.rows.valid, v.value)]
    out = _summed(f, item, values)
    return out[0], out[1] if len(out) > 1 else None


def _count(f: Frame, item: Ranked) -> Vec:
    return Vec(item.field.type, (_count_and_sum(f, item)[0],))


def _sum(f: Frame, item: Ranked) -> Vec:
    count, total = _count_and_sum(f, item)
    return Vec(item.field.type, (total,), count != 0)


def _avg(f: Frame, item: Ranked) -> Vec:
    count, total = _count_and_sum(f, item)
    call = Aggregate(item.field, "avg", item.column)
    return mean(call, total, count, f.rows[str(item.column)].type, f.rows.count, True)


FUNCTIONS: dict[str, Callable[[Frame, Ranked], Any]] = {
    "row_number": _row_number,
    "rank": _rank,
    "dense_rank": _dense_rank,
    "percent_rank": _percent_rank,
    "cume_dist": _cume_dist,
    "ntile": _ntile,
    "nth_value": _nth_value,
    "lag": _moved(1),
    "lead": _moved(-1),
    "first_value": _edge(True),
    "last_value": _edge(False),
    "count": _count,
    "sum": _sum,
    "avg": _avg,
    "min": extreme,
    "max": extreme,
}
