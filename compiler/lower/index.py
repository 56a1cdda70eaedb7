"""Rules of gather and dynamic slices.

Where all parties know the indices they are rearrangements (`rules_shape`). Secret or private ones
select by one-hot vectors (`onehot`): nothing shows, at a cost proportional to the indexed axis.

Indices beyond the end follow JAX's modes. Two things are defined here that JAX leaves open or
fixed point cannot hold: indices promised to be in bounds are clipped when reading and dropped when
writing, as XLA does on a CPU; where JAX would fill in NaN for a secret index, the result is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spuvm.compiler.ir.dtypes import kind_of, limits_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower import shape
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.index_layout import Layout, as_bool, as_number, components, made_by, narrow, wrapped
from spuvm.compiler.lower.oblivious import Index
from spuvm.compiler.lower.scatter import Writer
from spuvm.compiler.lower.shape import ints, mode_name


def gather(ctx: Context, x: Operand, indices: Operand, *, mode: Any, fill_value: Any, **params: Any) -> Operand:
    fill = _fill_number(ctx, fill_value)
    where = ctx.value(indices)
    if where.type.is_public:
        return shape.gather(ctx, x, indices, mode=mode, fill_value=fill, **params)
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


def _read(ctx: Context, x: Value, layout: Layout, indices: Sequence[Index], clip: bool) -> Value:
    number = as_number(ctx, ctx.integral.get(x, x))
    selection = layout.selection(ctx, indices, secret=x.type.is_secret, clip=clip)
    out = layout.as_slices(ctx, selection.read(layout.operand(ctx, number)))
    return ctx.whole(out) if x in ctx.integral else as_bool(ctx, out, x)


def _inside(ctx: Context, layout: Layout, indices: Sequence[Index]) -> Value:
    """bool[*queries]: whether the whole slice lies within the operand."""
    out = None
    for each, d in zip(indices, layout.indexed):
        last = np.asarray(layout.shape[d] - layout.windows[d], np.int64)
        index = narrow(ctx, each.value)
        outside = ctx.b.less(ctx.like(last, index), index)
        if index.type.signed:
            outside = ctx.b.logical("xor", outside, ctx.b.less(index, ctx.like(0, index)))
        inside = ctx.b.not_(outside)
        out = inside if out is None else ctx.b.logical("and", out, inside)
    assert out is not None
    return out


def _fill_number(ctx: Context, fill_value: Any) -> Any:
    """What stands for an element out of bounds; None for NaN, which fixed point does not have."""
    dtype, kind = ctx.outs[0].dtype, kind_of(ctx.outs[0].dtype)
    if fill_value is not None or kind not in "iub":
        return fill_value
    return True if kind == "b" else limits_of(dtype)[0 if kind == "i" else 1]


# slices ------------------------------------------------------------------------------------------------


def _secret_starts(ctx: Context, starts: Sequence[Operand], sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    """The axes whose start is not public and matters."""
    return [d for d, s in enumerate(starts) if isinstance(s, Value) and not s.type.is_public and sizes[d] < shape[d]]


def _starts(ctx: Context, starts: Sequence[Operand], axes: Sequence[int]) -> list[Index]:
    return [wrapped(ctx, ctx.value(starts[d]), made_by(ctx)) for d in axes]


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
        return shape.dynamic_slice(ctx, x, *starts, slice_sizes=sizes)
    if 0 in sizes:
        return np.zeros(sizes, ctx.outs[0].dtype)
    around = [x.shape[d] if d in axes else n for d, n in enumerate(sizes)]
    x = shape.dynamic_slice(ctx, x, *_known_elsewhere(axes, starts), slice_sizes=around)
    return _read(ctx, x, _slice_layout(x.shape, axes, sizes), _starts(ctx, starts, axes), clip=True)


def dynamic_update_slice(ctx: Context, x: Operand, update: Operand, *starts: Operand) -> Operand:
    x, u = ctx.value(x), ctx.value(update)
    axes = _secret_starts(ctx, starts, u.shape, x.shape)
    starts = tuple(np.zeros((), np.int32) if n == m else s for s, n, m in zip(starts, u.shape, x.shape))
    if not axes:
        return shape.dynamic_update_slice(ctx, x, u, *starts)
    if 0 in u.shape:
        return x
    around = [x.shape[d] if d in axes else n for d, n in enumerate(u.shape)]
    elsewhere = _known_elsewhere(axes, starts)
    part = shape.dynamic_slice(ctx, x, *elsewhere, slice_sizes=around)
    writer = Writer(ctx, _slice_layout(part.shape, axes, u.shape), _starts(ctx, starts, axes), clip=True, unique=True)
    part = as_bool(ctx, writer.write("scatter", as_number(ctx, part), as_number(ctx, u)), part)
    if part.shape == x.shape:
        return part
    return shape.dynamic_update_slice(ctx, x, part, *elsewhere)


RULES: dict[str, Rule] = {
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}
