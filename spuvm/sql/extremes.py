"""The least and greatest value over a window's frame: what has been found doubles its reach, log n times."""

from __future__ import annotations

import jax.numpy as jnp

from spuvm.sql.carrying import Frame, carried_back, from_behind
from spuvm.sql.columns import Array, Vec, both, nulled
from spuvm.sql.functions import less
from spuvm.sql.plan import Ranked


def extreme(f: Frame, item: Ranked) -> Vec:
    """Of a whole partition, sorted by the value, the last row is the best."""
    v = f.rows[str(item.column)]
    if item.frame == "all":
        return from_behind(f.ends, v)
    if item.frame == "span":
        return _extreme_around(f, item, v)
    best = _best_of(v, f.number, f.rows.count, item.fn == "max")
    return from_behind(f.stale, best) if item.frame == "running" else best


def _extreme_around(f: Frame, item: Ranked, v: Vec) -> Vec:
    """Over rows from one place to another: the best of those up to the current row, of those from it on, or of both."""
    (start, end), greatest = item.span, item.fn == "max"
    if start is not None and end is not None and start > end:
        return nulled(v, jnp.zeros(f.rows.count, jnp.bool_))
    (last,) = carried_back(f.ends, [f.place])
    behind = (f.number, None if start is None else -start, None if end is None else -end)
    ahead = ((last - f.place)[::-1], end, start)
    if end is not None and end <= 0:
        return _best_behind(v, *behind, greatest)
    after = _best_behind(v.map(_backwards), *ahead, greatest).map(_backwards)
    if start is not None and start >= 0:
        return after
    return _better(_best_behind(v, behind[0], behind[1], 0, greatest), after, None, greatest)


def _backwards(x: Array) -> Array:
    return x[::-1]


def _best_behind(v: Vec, place: Array, far: int | None, near: int | None, greatest: bool) -> Vec:
    """The best of the rows that are `far` to `near` before each of a partition; from its first if `far` is None, to
    the row itself if `near` is None or below 0. NULL if there are none."""
    near, count = max(0, near or 0), int(place.shape[0])
    best = _best_of(v, place, count if far is None else min(far - near + 1, count), greatest)
    if not near:
        return best
    moved = best.map(lambda x: _before(x, near))
    return nulled(moved, both(moved.valid, place >= near))


def _before(x: Array, rows: int) -> Array:
    """What is so many rows before."""
    rows = min(rows, int(x.shape[0]))
    return jnp.concatenate([jnp.zeros(rows, x.dtype), x[: x.shape[0] - rows]])


def _best_of(v: Vec, place: Array, rows: int, greatest: bool) -> Vec:
    """The best of so many rows up to each, of its partition, in which it has this place; its reach doubles."""
    reach = 1
    while reach < rows:
        step = min(reach, rows - reach)
        v = _better(v, v.map(lambda x, s=step: _before(x, s)), place >= step, greatest)
        reach += step
    return v


def _better(x: Vec, y: Vec, there: Array | None, greatest: bool) -> Vec:
    """`y` where it is there and better, else `x`; NULL is worst."""
    better = less(x, y) if greatest else less(y, x)
    if x.valid is not None and y.valid is not None:
        better = (better | ~x.valid) & y.valid
    better = better if there is None else better & there
    words = tuple(jnp.where(better, a, b) for a, b in zip(y.words, x.words))
    return Vec(x.type, words, None if x.valid is None else x.valid | better)
