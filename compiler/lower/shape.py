"""Rules of the rearrangements: local for every sharing, whatever the visibility.

Indices are known at compile time or public; a secret index has no local meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from spuvm.compiler.ir import ops
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import finite
from spuvm.runtime.errors import EncodingError, UnsupportedError


def ints(numbers: Sequence[Any]) -> tuple[int, ...]:
    """Attributes are Python integers: JAX's own may be NumPy's."""
    return tuple(int(n) for n in numbers)


def reshape(ctx: Context, x: Value, *, dimensions: Any = None, **_: Any) -> Value:
    """`dimensions`, where given, is the order in which the operand's axes are read."""
    x = x if dimensions is None else transpose(ctx, x, permutation=dimensions)
    return resized(ctx, x)


def resized(ctx: Context, x: Value, **_: Any) -> Value:
    """squeeze and expand_dims: the result's shape says it all."""
    return ctx.map(lambda v: ctx.b.reshape(v, ctx.outs[0].shape), x)


def broadcast_in_dim(ctx: Context, x: Value, *, shape: Any, broadcast_dimensions: Any, **_: Any) -> Value:
    shape, dims = ints(shape), ints(broadcast_dimensions)
    if x.shape == shape:
        return x
    return ctx.map(lambda v: ctx.b.op("broadcast", v, shape=shape, dims=dims), x)


def transpose(ctx: Context, x: Value, *, permutation: Any) -> Value:
    return ctx.map(lambda v: ctx.b.op("transpose", v, perm=ints(permutation)), x)


def rev(ctx: Context, x: Value, *, dimensions: Any) -> Value:
    return ctx.map(lambda v: ctx.b.op("rev", v, axes=ints(dimensions)), x)


def slice_(ctx: Context, x: Value, *, start_indices: Any, limit_indices: Any, strides: Any) -> Value:
    start, limit = ints(start_indices), ints(limit_indices)
    stride = ints(strides) if strides is not None else (1,) * len(start)
    return ctx.map(lambda v: ctx.b.op("slice", v, start=start, limit=limit, stride=stride), x)


def split(ctx: Context, x: Value, *, sizes: Any, axis: int) -> list[Value]:
    ends = np.cumsum(ints(sizes)).tolist()
    return [
        ctx.map(lambda v, e=end, n=size: ctx.b.slice(v, axis, e - n, e), x)  # type: ignore[misc]
        for end, size in zip(ends, ints(sizes))
    ]


def concatenate(ctx: Context, *xs: Operand, dimension: int) -> Value:
    values = [ctx.value(x) for x in xs if np.shape(x)[dimension]]
    return ctx.b.concatenate(values or [ctx.value(xs[0])], int(dimension))


def stack(ctx: Context, *xs: Operand, axis: int) -> Value:
    axis = int(axis)
    values = [ctx.value(x) for x in xs]
    rows = [ctx.b.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in values]
    return ctx.b.concatenate(rows, axis)


def unstack(ctx: Context, x: Value, *, axis: int) -> list[Value]:
    axis = int(axis)
    rows = [ctx.b.slice(x, axis, i, i + 1) for i in range(x.shape[axis])]
    return [ctx.b.reshape(r, (*x.shape[:axis], *x.shape[axis + 1 :])) for r in rows]


def tile(ctx: Context, x: Value, *, reps: Any) -> Value:
    """Repeat whole blocks: each axis gets a new one before it, of its repetitions."""
    reps = ints(reps)
    x = ctx.b.reshape(x, (*(1,) * (len(reps) - len(x.shape)), *x.shape))
    shape = tuple(n for pair in zip(reps, x.shape) for n in pair)
    wide = ctx.b.op("broadcast", x, shape=shape, dims=tuple(range(1, len(shape), 2)))
    return ctx.b.reshape(wide, tuple(r * n for r, n in zip(reps, x.shape)))


def pad(ctx: Context, x: Operand, value: Operand, *, padding_config: Any) -> Value:
    low, high, interior = (ints(c) for c in zip(*padding_config)) if padding_config else ((), (), ())
    return ctx.b.op("pad", ctx.value(x), ctx.value(value), low=low, high=high, interior=interior)


# indices ---------------------------------------------------------------------------------------------


def public(ctx: Context, index: Operand) -> Value:
    """An index as a value that all parties know."""
    value = ctx.value(index)
    if not value.type.is_public:
        raise UnsupportedError(
            f"the index is {value.type.visibility}: it must be public. Select with "
            "jax.nn.one_hot(index, n) @ x, or make the index public with spu.reveal."
        )
    return value


def dynamic_slice(ctx: Context, x: Operand, *starts: Operand, slice_sizes: Any) -> Value:
    x, sizes = ctx.value(x), ints(slice_sizes)
    if any(isinstance(s, Value) for s in starts):
        indices = [public(ctx, s) for s in starts]
        return ctx.b.op("dynamic_slice", x, *indices, sizes=sizes)
    first = [min(max(int(np.asarray(s)), 0), d - n) for s, d, n in zip(starts, x.shape, sizes)]
    last = [s + n for s, n in zip(first, sizes)]
    return slice_(ctx, x, start_indices=first, limit_indices=last, strides=None)


def dynamic_update_slice(ctx: Context, x: Operand, update: Operand, *starts: Operand) -> Value:
    indices = [public(ctx, s) for s in starts]
    return ctx.b.op("dynamic_update_slice", ctx.value(x), ctx.value(update), *indices)


def mode_name(mode: Any) -> str:
    return str(lax.GatherScatterMode.from_any(mode).name).lower().replace("fill_or_drop", "fill")


def gather(ctx: Context, x: Operand, indices: Operand, *, mode: Any, fill_value: Any, **params: Any) -> Operand:
    """Out-of-bounds elements in mode "fill" are `fill_value`. NaN, JAX's default for floats, is refused where the
    indices are known; public ones that are out of bounds at run time give 0."""
    d = params["dimension_numbers"]
    dims = (
        d.offset_dims,
        d.collapsed_slice_dims,
        d.start_index_map,
        d.operand_batching_dims,
        d.start_indices_batching_dims,
    )
    attrs = {"dims": tuple(map(ints, dims)), "sizes": ints(params["slice_sizes"]), "mode": mode_name(mode)}
    x, where = ctx.value(x), public(ctx, indices)
    if attrs["mode"] == "fill" and fill_value is not None and fill_value != 0:
        if fill_value == fill_value:
            return _filled(ctx, x, where, fill_value, attrs)
        if not isinstance(indices, Value) and not _in_bounds(x, indices, attrs):
            raise EncodingError("an index is out of bounds, where JAX fills in NaN: give a `fill_value`.")
    return ctx.map(lambda v: ctx.b.op("gather", v, where, **attrs), x)


def _in_bounds(x: Value, indices: Any, attrs: dict[str, Any]) -> bool:
    ones = np.broadcast_to(np.ones((), np.int8), x.shape)
    return bool(np.asarray(ops.gather(ones, np.asarray(indices), **attrs)).all())


def _filled(ctx: Context, x: Value, where: Value, fill_value: Any, attrs: dict[str, Any]) -> Value:
    """Gather ones as well: they are zero where an index is out of bounds."""
    out = ctx.b.op("gather", x, where, **attrs)
    ones = ctx.b.broadcast(ctx.b.const(np.ones((), np.int64), "int64"), x.shape)
    inside = ctx.b.op("gather", ones, where, **attrs)
    fill = finite(ctx, np.asarray(fill_value, np.float64)) if out.type.kind == "fxp" else fill_value
    return ctx.b.select(ctx.b.equal(inside, ctx.like(1, inside)), out, ctx.like(fill, out))


def scatter(name: str) -> Rule:
    def rule(ctx: Context, x: Operand, indices: Operand, updates: Operand, *, mode: Any, **params: Any) -> Value:
        d = params["dimension_numbers"]
        dims = (
            d.update_window_dims,
            d.inserted_window_dims,
            d.scatter_dims_to_operand_dims,
            d.operand_batching_dims,
            d.scatter_indices_batching_dims,
        )
        operands = ctx.value(x), public(ctx, indices), ctx.value(updates)
        return ctx.b.op(name, *operands, dims=tuple(map(ints, dims)), mode=mode_name(mode))

    return rule


def scatter_sub(ctx: Context, x: Operand, indices: Operand, updates: Operand, **params: Any) -> Value:
    return scatter("scatter_add")(ctx, x, indices, ctx.b.neg(ctx.value(updates)), **params)  # type: ignore[no-any-return]


# nothing to do ---------------------------------------------------------------------------------------


def same(ctx: Context, x: Operand, **_: Any) -> Operand:
    return x


def all_same(ctx: Context, *xs: Operand, **_: Any) -> Sequence[Operand]:
    return xs


RULES: dict[str, Rule] = {
    "reshape": reshape,
    "squeeze": resized,
    "expand_dims": resized,
    "broadcast_in_dim": broadcast_in_dim,
    "transpose": transpose,
    "rev": rev,
    "slice": slice_,
    "split": split,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "tile": tile,
    "pad": pad,
    "stop_gradient": same,
    "copy": same,
    "copy_p": same,
    "reduce_precision": same,
    "sharding_constraint": same,
    "name": same,
    "pvary": all_same,
    "device_put": all_same,
    "optimization_barrier": all_same,
}
