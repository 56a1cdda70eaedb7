"""Rules of scatter: sums, updates that replace, and the least, greatest and product of several.

Where all parties know the indices, sums and replacements are rearrangements. What else is written
is the transpose of reading (`onehot`), and what a place held before is read first: then all changes
are sums. Of several updates that replace the same element the last one counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower import shape
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import finite, is_number, product
from spuvm.compiler.lower.index_layout import Layout, as_bool, as_number, components
from spuvm.compiler.lower.logic import larger, smaller
from spuvm.compiler.lower.oblivious import Index, Selection
from spuvm.compiler.lower.reduce import moved
from spuvm.compiler.lower.shape import ints, mode_name
from spuvm.compiler.lower.window import vectorised
from spuvm.runtime.errors import UnsupportedError

Combine = Callable[[Context, Value, Value], Value]


def scatter_layout(x: Value, where: Value, updates: Value, d: Any) -> Layout:
    dropped, batch = ints(d.inserted_window_dims), ints(d.operand_batching_dims)
    placed = sorted(ints(d.update_window_dims))
    kept = [a for a in range(len(x.shape)) if a not in (*dropped, *batch)]
    sizes = {a: updates.shape[p] for a, p in zip(kept, placed)}
    windows = tuple(sizes.get(a, 1) for a in range(len(x.shape)))
    return Layout(
        x.shape, windows, where.shape[:-1], ints(d.scatter_dims_to_operand_dims), dropped,
        batch, ints(d.scatter_indices_batching_dims), tuple(placed),
    )  # fmt: skip


def scatter(name: str) -> Rule:
    """`name` of the primitive; a minus sign makes `scatter-sub` a sum."""

    def rule(ctx: Context, x: Operand, indices: Operand, updates: Operand, *, mode: Any, **params: Any) -> Operand:
        where = ctx.value(indices)
        body = params["update_jaxpr"] if name == "scatter" else None
        applied = body is not None and bool(body.eqns)
        if where.type.is_public and name in LOCAL and not applied:
            return LOCAL[name](ctx, x, indices, updates, mode=mode, **params)
        old, new = ctx.value(finite(ctx, x)), ctx.value(finite(ctx, updates))
        if 0 in (*old.shape, *new.shape):
            return x
        layout = scatter_layout(old, where, new, params["dimension_numbers"])
        data, values = as_number(ctx, old), as_number(ctx, new)
        known = None if isinstance(indices, Value) else np.asarray(indices)
        clip, unique = mode_name(mode) == "clip", bool(params["unique_indices"])
        writer = Writer(ctx, layout, components(ctx, where), clip, unique, known)
        if applied:
            writer.function = vectorised(ctx, body, params["update_consts"])
        start = None if is_number(x, 0.0) and name in ("scatter-add", "scatter-sub") else data
        return as_bool(ctx, writer.write(name, start, values), old)

    return rule


@dataclass
class Writer:
    ctx: Context
    layout: Layout
    indices: Sequence[Index]
    clip: bool
    unique: bool
    known: Any = None  # the indices, where they are known when compiling
    function: Any = None  # of the old element and the update; what `x.at[i].apply` gives

    def write(self, name: str, x: Value | None, updates: Value) -> Value:
        """`x` (None: zeros) after the updates."""
        ctx, layout = self.ctx, self.layout
        u = layout.from_slices(ctx, updates)
        if name == "scatter-add" or name == "scatter-sub":
            change = self._selection(u).write(u if name == "scatter-add" else ctx.b.neg(u))
            return self._added(x, change)
        assert x is not None
        rows = layout.operand(ctx, x)
        alone = self.unique or layout.counts[1] == 1
        if self.function is not None and not alone:
            raise UnsupportedError("a function applied at several places: say `unique_indices=True` if they differ.")
        if name != "scatter" and not alone:
            each = self._candidates if self.known is None else self._known_candidates
            return self._onto(x, _reduced(ctx, COMBINED[name], rows, each(name == "scatter-mul", rows, u)))
        selection = self._selection(rows, u)
        if not alone:
            selection = selection.only(self._last(u))
        old = selection.read(rows)
        new = u if name == "scatter" else COMBINED[name](ctx, old, u)
        if self.function is not None:
            (new,) = self.function([old], [u])
        return self._added(x, selection.write(ctx.b.sub(new, old)))

    def _selection(self, *data: Value, split: bool = True) -> Selection:
        secret = any(v.type.is_secret for v in data)
        return self.layout.selection(self.ctx, self.indices, secret=secret, clip=self.clip, split=split)

    def _added(self, x: Value | None, change: Value) -> Value:
        """x plus a change of the part that the slices reach."""
        change = self.layout.back(self.ctx, change)
        if x is None:
            return self._widened(change)
        return self.ctx.b.add(x, self._widened(change))

    def _widened(self, part: Value) -> Value:
        shape = self.layout.shape
        if part.shape == shape:
            return part
        low, high = (0,) * len(shape), tuple(n - m for n, m in zip(shape, part.shape))
        return self.ctx.b.op("pad", part, self.ctx.b.const(0, part.type.element), low=low, high=high, interior=low)

    def _onto(self, x: Value, rows: Value) -> Value:
        return self._added(x, self.ctx.b.sub(rows, self.layout.operand(self.ctx, x)))

    def _last(self, u: Value) -> Value:
        """bool[batch, query]: no later query has the same index; of those that have, the last one counts."""
        self._need_single(u)
        ctx, n = self.ctx, self.layout.counts[1]
        first, second = np.triu_indices(n, 1)
        pair = np.full((n, n), -1)
        pair[first, second] = np.arange(len(first))
        same = None
        for index in self._flat():
            sides = [_columns(ctx, index, c) for c in (first, second)]
            equal = ctx.b.equal(*sides)
            same = equal if same is None else ctx.b.logical("and", same, equal)
        assert same is not None
        table = _columns(ctx, same, pair)  # [batch, query, later query]
        return ctx.b.not_(_any(ctx, table))

    def _flat(self) -> list[Value]:
        """The indices as [batch, query], clipped where that is asked for."""
        flat = [i.value for i in self.layout.queried(self.ctx, self.indices)]
        if not self.clip:
            return flat
        ends = [self.layout.shape[d] - 1 for d in self.layout.indexed]
        ctx = self.ctx
        return [smaller(ctx, larger(ctx, i, ctx.like(0, i)), ctx.like(e, i)) for i, e in zip(flat, ends)]

    def _need_single(self, u: Value) -> None:
        if any(n != 1 for n in u.shape[2:-1]):
            raise UnsupportedError(
                "several windows at secret places may overlap: write them one after the other, "
                "or say `unique_indices=True` where they do not."
            )

    def _candidates(self, factors: bool, rows: Value, u: Value) -> Value:
        """[query, batch, axes..., rest]: an update where it goes, elsewhere what changes nothing."""
        self._need_single(u)
        b, ctx = self.ctx.b, self.ctx
        hot = b.convert(self._selection(split=False).whole(), "fxp0" if u.type.kind == "fxp" else u.type.element)
        axes = len(hot.shape) - 2
        hot = moved(ctx, hot, [axes + 1, axes, *range(axes)])  # [query, batch, axes...]
        shape = (hot.shape[0], *rows.shape)
        wide = b.broadcast(b.reshape(hot, (*hot.shape, 1)), shape)
        u = moved(ctx, b.reshape(u, (u.shape[0], u.shape[1], *[1] * axes, u.shape[-1])), [1, 0, *range(2, axes + 3)])
        u = b.broadcast(u, shape)
        neutral = ctx.like(1, u) if factors else b.broadcast(rows, shape)
        return b.add(neutral, b.mul_raw(b.sub(u, neutral), wide))

    def _known_candidates(self, factors: bool, rows: Value, u: Value) -> Value:
        """[turn, batch, axes..., rest]: at each element the first update, the second, ..."""
        b, ctx, rest = self.ctx.b, self.ctx, rows.shape[-1]
        places = self.layout.places(self.known, clip=self.clip)  # [batch, update]
        count = math.prod(rows.shape[1:-1])
        turns = np.full((max(_most(places), 1), len(places), count), -1)
        for group, row in enumerate(places):
            for update, place in enumerate(row):
                if place >= 0:
                    turns[(turns[:, group, place] >= 0).sum(), group, place] = update
        u = b.reshape(u, (u.shape[0], places.shape[1], rest))
        where = b.const(turns[..., None], "int64")
        each = b.op("gather", u, where, dims=((3,), (1,), (1,), (0,), (1,)), sizes=(1, 1, rest), mode="fill")
        each = b.reshape(each, (len(turns), *rows.shape))
        neutral = ctx.like(1, each) if factors else b.broadcast(rows, each.shape)
        taken = b.const((turns >= 0).reshape(*each.shape[:-1], 1), "bool")
        return b.select(b.broadcast(taken, each.shape), each, neutral)


def _most(places: NDArray[np.int64]) -> int:
    """How many updates go to the same element at most."""
    return max(int(np.bincount(row[row >= 0], minlength=1).max()) for row in places)


def _reduced(ctx: Context, combine: Combine, rows: Value, each: Value) -> Value:
    """`rows` and all of `each`, combined."""
    while each.shape[0] > 1:
        half = each.shape[0] // 2
        sides = [ctx.b.slice(each, 0, s, s + half) for s in (0, half)]
        odd = [ctx.b.slice(each, 0, 2 * half, each.shape[0])] if each.shape[0] % 2 else []
        each = ctx.b.concatenate([combine(ctx, *sides), *odd], 0)
    return combine(ctx, rows, ctx.b.reshape(each, each.shape[1:]))


def _columns(ctx: Context, x: Value, columns: Any) -> Value:
    """x[:, columns]; -1 gives 0."""
    index = ctx.b.const(np.asarray(columns)[..., None], "int64")
    return ctx.b.op("gather", x, index, dims=((0,), (1,), (1,), (), ()), sizes=(x.shape[0], 1), mode="fill")


def _any(ctx: Context, x: Value) -> Value:
    """Whether any along the last axis holds."""
    axis = len(x.shape) - 1
    while x.shape[axis] > 1:
        n, half = x.shape[axis], x.shape[axis] // 2
        sides = [ctx.b.slice(x, axis, s, s + half) for s in (0, half)]
        odd = [ctx.b.slice(x, axis, 2 * half, n)] if n % 2 else []
        x = ctx.b.concatenate([ctx.b.logical("or", *sides), *odd], axis)
    return ctx.b.reshape(x, x.shape[:axis])


COMBINED: dict[str, Combine] = {"scatter-min": smaller, "scatter-max": larger, "scatter-mul": product}
LOCAL: dict[str, Rule] = {
    "scatter": shape.scatter("scatter"),
    "scatter-add": shape.scatter("scatter_add"),
    "scatter-sub": shape.scatter_sub,
}

RULES: dict[str, Rule] = {name: scatter(name) for name in (*LOCAL, *COMBINED)}
