"""Rules of gather, scatter and dynamic slices.

Where all parties know the indices they are rearrangements (`rules_shape`). Secret or private ones
select by one-hot vectors (`onehot`): nothing shows, at a cost proportional to the indexed axis.

Indices beyond the end follow JAX's modes. Two things are defined here that JAX leaves open or
fixed point cannot hold: indices promised to be in bounds are clipped when reading and dropped when
writing, as XLA does on a CPU; where JAX would fill in NaN for a secret index, the result is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.compiler import rules_shape
from spuvm.compiler.context import Context, Operand, Rule
from spuvm.compiler.ir import Op, Value
from spuvm.compiler.onehot import Selection
from spuvm.compiler.rules_elementwise import is_number, product
from spuvm.compiler.rules_logic import larger, smaller
from spuvm.compiler.rules_reduce import moved
from spuvm.compiler.rules_shape import ints, mode_name
from spuvm.runtime.errors import UnsupportedError

Combine = Callable[[Context, Value, Value], Value]
Label = tuple[str, int]  # an axis of the indices ("i") or of the operand ("x")


@dataclass(frozen=True)
class Layout:
    """Which axes of an operand the indices address; JAX's dimension numbers of gather and scatter alike.

    `windows` is the extent of a slice along each axis of the operand, `queries` the shape of the
    indices without their last axis.
    """

    shape: tuple[int, ...]
    windows: tuple[int, ...]
    queries: tuple[int, ...]
    indexed: tuple[int, ...]
    dropped: tuple[int, ...]  # axes of the operand that the slices do not have
    batch: tuple[int, ...]
    query_batch: tuple[int, ...]
    placed: tuple[int, ...]  # where the axes of the slices stand

    @property
    def rest(self) -> tuple[int, ...]:
        return tuple(d for d in range(len(self.shape)) if d not in (*self.batch, *self.indexed))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Elements of the batch, queries of each, elements of the rest."""
        batch = math.prod(self.shape[d] for d in self.batch)
        rest = math.prod(self.windows[d] for d in self.rest)
        return batch, math.prod(self.queries) // max(batch, 1), rest

    @property
    def standard(self) -> list[Label]:
        """The order batch, query, windows, rest."""
        free = [d for d in range(len(self.queries)) if d not in self.query_batch]
        return [("i", d) for d in (*self.query_batch, *free)] + [("x", d) for d in (*self.indexed, *self.rest)]

    @property
    def slices(self) -> list[Label]:
        """The order of the result of gather and of the updates of scatter."""
        names: dict[int, Label] = {}
        kept = [d for d in range(len(self.shape)) if d not in (*self.dropped, *self.batch)]
        names.update((p, ("x", d)) for p, d in zip(sorted(self.placed), kept))
        free = [p for p in range(len(self.queries) + len(kept)) if p not in names]
        names.update((p, ("i", d)) for d, p in enumerate(free))
        return [names[p] for p in sorted(names)]

    def size(self, label: Label) -> int:
        kind, d = label
        return self.queries[d] if kind == "i" else self.windows[d]

    def operand(self, ctx: Context, x: Value) -> Value:
        """[batch, axes..., rest], of the part that a slice at the start of the other axes covers."""
        for d in self.rest:
            x = ctx.b.slice(x, d, 0, self.windows[d]) if self.windows[d] < self.shape[d] else x
        x = moved(ctx, x, [*self.batch, *self.indexed, *self.rest])
        batch, _, rest = self.counts
        return ctx.b.reshape(x, (batch, *(self.shape[d] for d in self.indexed), rest))

    def back(self, ctx: Context, x: Value) -> Value:
        """The inverse of `operand`."""
        order = [*self.batch, *self.indexed, *self.rest]
        sizes = [self.windows[d] if d in self.rest else self.shape[d] for d in order]
        return moved(ctx, ctx.b.reshape(x, sizes), np.argsort(order).tolist())

    def as_slices(self, ctx: Context, z: Value) -> Value:
        """[batch, query, windows..., rest] -> the result of gather."""
        labels = [label for label in self.standard if label in self.slices]
        z = ctx.b.reshape(z, [self.size(label) for label in labels])
        return moved(ctx, z, [labels.index(label) for label in self.slices])

    def from_slices(self, ctx: Context, u: Value) -> Value:
        """The inverse of `as_slices`."""
        u = moved(ctx, u, [self.slices.index(label) for label in self.standard if label in self.slices])
        batch, queries, rest = self.counts
        return ctx.b.reshape(u, (batch, queries, *(self.windows[d] for d in self.indexed), rest))

    def selection(self, ctx: Context, indices: Sequence[Value], *, secret: bool, **options: Any) -> Selection:
        flat = self.queried(ctx, indices)
        sizes, windows = (tuple(v[d] for d in self.indexed) for v in (self.shape, self.windows))
        return Selection(ctx, flat, sizes, windows, rest=self.counts[2], secret_data=secret, **options)

    def queried(self, ctx: Context, indices: Sequence[Value]) -> list[Value]:
        """Each index as [batch, query]."""
        order = [*self.query_batch, *(d for d in range(len(self.queries)) if d not in self.query_batch)]
        return [ctx.b.reshape(moved(ctx, _narrow(ctx, i), order), self.counts[:2]) for i in indices]


def _narrow(ctx: Context, index: Value) -> Value:
    """Indices of few bits as int32: the positions fit."""
    return ctx.b.convert(index, "int32") if index.type.bits < 32 else index


def components(ctx: Context, indices: Value) -> list[Value]:
    """The parts of index vectors; those that were put together by the program keep who knows them."""
    made = {v: op for op in ctx.b.region.ops for v in op.outputs}
    op = made.get(indices)
    last = len(indices.shape) - 1
    pieces = op.inputs if _joins(op, last) else [indices]  # type: ignore[union-attr]
    parts = []
    for piece in pieces:
        for j in range(piece.shape[last]):
            part = piece if piece.shape[last] == 1 else ctx.b.slice(piece, last, j, j + 1)
            parts.append(ctx.b.reshape(part, part.shape[:last]))
    return parts


def _joins(op: Op | None, axis: int) -> bool:
    return op is not None and op.name == "concatenate" and op.attrs["axis"] == axis


# reading -----------------------------------------------------------------------------------------------


def gather(ctx: Context, x: Operand, indices: Operand, *, mode: Any, fill_value: Any, **params: Any) -> Operand:
    fill = _fill_number(ctx, fill_value)
    where = ctx.value(indices)
    if where.type.is_public:
        return rules_shape.gather(ctx, x, indices, mode=mode, fill_value=fill, **params)
    d, x = params["dimension_numbers"], ctx.value(x)
    layout = Layout(
        x.shape, ints(params["slice_sizes"]), where.shape[:-1], ints(d.start_index_map), ints(d.collapsed_slice_dims),
        ints(d.operand_batching_dims), ints(d.start_indices_batching_dims), ints(d.offset_dims),
    )  # fmt: skip
    if 0 in ctx.outs[0].shape:
        return np.zeros(ctx.outs[0].shape, ctx.outs[0].dtype)
    clip = mode_name(mode) != "fill"
    parts = components(ctx, where)
    out = _read(ctx, x, layout, parts, clip)
    if clip or fill is None or fill == 0 or fill != fill:
        return out
    inside = _inside(ctx, layout, parts)
    dims = tuple(p for p, label in enumerate(layout.slices) if label[0] == "i")
    return ctx.b.select(ctx.b.op("broadcast", inside, shape=out.shape, dims=dims), out, ctx.like(fill, out))


def _read(ctx: Context, x: Value, layout: Layout, indices: Sequence[Value], clip: bool) -> Value:
    number = _as_number(ctx, ctx.integral.get(x, x))
    selection = layout.selection(ctx, indices, secret=x.type.is_secret, clip=clip)
    out = layout.as_slices(ctx, selection.read(layout.operand(ctx, number)))
    return ctx.whole(out) if x in ctx.integral else _as_bool(ctx, out, x)


def _inside(ctx: Context, layout: Layout, indices: Sequence[Value]) -> Value:
    """bool[*queries]: whether the whole slice lies within the operand."""
    out = None
    for index, d in zip(indices, layout.indexed):
        last = np.asarray(layout.shape[d] - layout.windows[d], np.int64)
        index = _narrow(ctx, index)
        outside = ctx.b.less(ctx.like(last, index), index)
        if index.type.signed:
            outside = ctx.b.logical("xor", outside, ctx.b.less(index, ctx.like(0, index)))
        inside = ctx.b.not_(outside)
        out = inside if out is None else ctx.b.logical("and", out, inside)
    assert out is not None
    return out


def _fill_number(ctx: Context, fill_value: Any) -> Any:
    """What stands for an element out of bounds; None for NaN, which fixed point does not have."""
    dtype = np.dtype(ctx.outs[0].dtype)
    if fill_value is not None or dtype.kind not in "iub":
        return fill_value
    return True if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def _as_number(ctx: Context, x: Value) -> Value:
    return ctx.b.convert(x, "int32") if x.type.kind == "bool" else x


def _as_bool(ctx: Context, x: Value, original: Value) -> Value:
    return ctx.b.not_(ctx.b.equal(x, ctx.like(0, x))) if original.type.kind == "bool" else x


# writing -----------------------------------------------------------------------------------------------


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
        if where.type.is_public and name in LOCAL:
            return LOCAL[name](ctx, x, indices, updates, mode=mode, **params)
        old, new = ctx.value(x), ctx.value(updates)
        if 0 in (*old.shape, *new.shape):
            return x
        layout = scatter_layout(old, where, new, params["dimension_numbers"])
        data, values = _as_number(ctx, old), _as_number(ctx, new)
        writer = Writer(ctx, layout, components(ctx, where), mode_name(mode) == "clip", bool(params["unique_indices"]))
        start = None if is_number(x, 0.0) and name in ("scatter-add", "scatter-sub") else data
        return _as_bool(ctx, writer.write(name, start, values), old)

    return rule


@dataclass
class Writer:
    ctx: Context
    layout: Layout
    indices: Sequence[Value]
    clip: bool
    unique: bool

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
        if name != "scatter" and not alone:
            return self._onto(x, self._all(COMBINED[name], rows, u))
        selection = self._selection(rows, u)
        if not alone:
            selection = selection.only(self._last(u))
        old = selection.read(rows)
        new = u if name == "scatter" else COMBINED[name](ctx, old, u)
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
        flat = self.layout.queried(self.ctx, self.indices)
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

    def _all(self, combine: Combine, rows: Value, u: Value) -> Value:
        """[batch, axes..., rest]: each element combined with every update, those elsewhere changing nothing."""
        self._need_single(u)
        b, ctx = self.ctx.b, self.ctx
        hot = b.convert(self._selection(split=False).whole(), "fxp0" if u.type.kind == "fxp" else u.type.element)
        axes = len(hot.shape) - 2
        hot = moved(ctx, hot, [axes + 1, axes, *range(axes)])  # [query, batch, axes...]
        shape = (hot.shape[0], *rows.shape)
        wide = b.broadcast(b.reshape(hot, (*hot.shape, 1)), shape)
        u = moved(ctx, b.reshape(u, (u.shape[0], u.shape[1], *[1] * axes, u.shape[-1])), [1, 0, *range(2, axes + 3)])
        u = b.broadcast(u, shape)
        neutral = ctx.like(1, u) if combine is product else b.broadcast(rows, shape)
        each = b.add(neutral, b.mul_raw(b.sub(u, neutral), wide))
        while each.shape[0] > 1:
            half = each.shape[0] // 2
            sides = [b.slice(each, 0, s, s + half) for s in (0, half)]
            odd = [b.slice(each, 0, 2 * half, each.shape[0])] if each.shape[0] % 2 else []
            each = b.concatenate([combine(ctx, *sides), *odd], 0)
        return combine(ctx, rows, b.reshape(each, each.shape[1:]))


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
    "scatter": rules_shape.scatter("scatter"),
    "scatter-add": rules_shape.scatter("scatter_add"),
    "scatter-sub": rules_shape.scatter_sub,
}


# slices ------------------------------------------------------------------------------------------------


def _secret_starts(ctx: Context, starts: Sequence[Operand], sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    """The axes whose start is not public and matters."""
    return [d for d, s in enumerate(starts) if isinstance(s, Value) and not s.type.is_public and sizes[d] < shape[d]]


def _known_elsewhere(axes: Sequence[int], starts: Sequence[Operand]) -> list[Operand]:
    """The starts, 0 along these axes."""
    return [np.zeros((), np.int32) if d in axes else s for d, s in enumerate(starts)]


def _slice_layout(shape: tuple[int, ...], axes: Sequence[int], sizes: Sequence[int]) -> Layout:
    windows = tuple(sizes[d] if d in axes else n for d, n in enumerate(shape))
    return Layout(shape, windows, (), tuple(axes), (), (), (), tuple(range(len(shape))))


def dynamic_slice(ctx: Context, x: Operand, *starts: Operand, slice_sizes: Any) -> Operand:
    x, sizes = ctx.value(x), ints(slice_sizes)
    axes = _secret_starts(ctx, starts, sizes, x.shape)
    starts = tuple(np.zeros((), np.int32) if n == m else s for s, n, m in zip(starts, sizes, x.shape))
    if not axes:
        return rules_shape.dynamic_slice(ctx, x, *starts, slice_sizes=sizes)
    if 0 in sizes:
        return np.zeros(sizes, ctx.outs[0].dtype)
    around = [x.shape[d] if d in axes else n for d, n in enumerate(sizes)]
    x = rules_shape.dynamic_slice(ctx, x, *_known_elsewhere(axes, starts), slice_sizes=around)
    return _read(ctx, x, _slice_layout(x.shape, axes, sizes), [ctx.value(starts[d]) for d in axes], clip=True)


def dynamic_update_slice(ctx: Context, x: Operand, update: Operand, *starts: Operand) -> Operand:
    x, u = ctx.value(x), ctx.value(update)
    axes = _secret_starts(ctx, starts, u.shape, x.shape)
    starts = tuple(np.zeros((), np.int32) if n == m else s for s, n, m in zip(starts, u.shape, x.shape))
    if not axes:
        return rules_shape.dynamic_update_slice(ctx, x, u, *starts)
    if 0 in u.shape:
        return x
    around = [x.shape[d] if d in axes else n for d, n in enumerate(u.shape)]
    elsewhere = _known_elsewhere(axes, starts)
    part = rules_shape.dynamic_slice(ctx, x, *elsewhere, slice_sizes=around)
    writer = Writer(
        ctx, _slice_layout(part.shape, axes, u.shape), [ctx.value(starts[d]) for d in axes], clip=True, unique=True
    )
    part = _as_bool(ctx, writer.write("scatter", _as_number(ctx, part), _as_number(ctx, u)), part)
    if part.shape == x.shape:
        return part
    return rules_shape.dynamic_update_slice(ctx, x, part, *elsewhere)


RULES: dict[str, Rule] = {
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    **{name: scatter(name) for name in (*LOCAL, *COMBINED)},
}
