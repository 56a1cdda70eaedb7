"""Convolutions: windows by a gather with known indices, then one matrix product.

The gather does padding, strides and both dilations: an index that falls between or beyond the
elements reads zero. Rearrangements are local, and a product is reshared after its sum: what is sent
has the size of the output, as for a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import rescaled, zeros
from spuvm.compiler.lower.matrix_products import _factor as fixed_point_factor
from spuvm.compiler.lower.reduce import moved
from spuvm.compiler.lower.shape import ints

Index = NDArray[np.int64]

MAX_WINDOWS = 1 << 22  # elements of gathered windows at a time: 32 MiB a component
NOWHERE = -1  # an index that reads zero


def conv_general_dilated(
    ctx: Context, x: Operand, y: Operand, *, dimension_numbers: Any, padding: Any, **params: Any
) -> Operand:
    """out[g, n, p, o] = sum over offsets k and channels c of x[g, n, p s + k d, c] y[g, k, c, o]"""
    numbers = dimension_numbers
    if not all((*ctx.outs[0].shape, *np.shape(x), *np.shape(y))):
        return zeros(ctx)
    images, kernel = (_operand(ctx, v) for v in (x, y))
    windows = windows_of(
        [images.shape[d] for d in numbers.lhs_spec[2:]],
        [kernel.shape[d] for d in numbers.rhs_spec[2:]],
        params["window_strides"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        padding,
    )
    features, batches = int(params["feature_group_count"]), int(params["batch_group_count"])
    images = _grouped_images(ctx, images, numbers.lhs_spec, features, batches)
    kernel = _grouped_kernel(ctx, kernel, numbers.rhs_spec, features * batches)
    return _arranged(ctx, rescaled(ctx, _products(ctx, images, kernel, windows)), numbers.out_spec)


def _operand(ctx: Context, x: Operand) -> Value:
    """A factor of a product; integers in the type of the result."""
    element = ctx.element(ctx.outs[0].dtype)
    if not element.startswith("fxp"):
        return ctx.b.convert(ctx.value(x), element)
    value = fixed_point_factor(ctx, x)
    return ctx.integral.get(value, value)


# which elements a window sees --------------------------------------------------------------------------


def windows_of(
    sizes: Sequence[int], kernel: Sequence[int], strides: Any, spread: Any, dilation: Any, padding: Any
) -> Index:
    """[output position, kernel offset] -> flat index of the element, or NOWHERE."""
    axes = [
        axis_windows(n, k, int(s), int(b), int(d), ints(low_high))
        for n, k, s, b, d, low_high in zip(sizes, kernel, strides, spread, dilation, padding)
    ]
    flat = np.zeros((1, 1), np.int64)
    for n, axis in zip(sizes, axes):
        inside = (flat[:, None, :, None] >= 0) & (axis[None, :, None, :] >= 0)
        index = flat[:, None, :, None] * n + axis[None, :, None, :]
        flat = np.where(inside, index, NOWHERE).reshape(flat.shape[0] * axis.shape[0], -1)
    return flat


def axis_windows(n: int, window: int, stride: int, spread: int, dilation: int, padding: Sequence[int]) -> Index:
    """[position, offset] -> element along one axis of n elements that stand `spread` apart, or NOWHERE."""
    low, high = padding
    length = low + ((n - 1) * spread + 1 if n else 0) + high
    reach = (window - 1) * dilation + 1
    positions = max((length - reach) // stride + 1, 0)
    place = np.arange(positions)[:, None] * stride + np.arange(window)[None] * dilation - low
    inside = (place >= 0) & (place % spread == 0) & (place // spread < n)
    return np.where(inside, place // spread, NOWHERE)


# operands in standard form -----------------------------------------------------------------------------


def _grouped_images(ctx: Context, x: Value, spec: Sequence[int], features: int, batches: int) -> Value:
    """[group, batch, place, channel]; a group is one of batches or one of channels."""
    batch, channel, *space = ints(spec)
    n, c = x.shape[batch] // batches, x.shape[channel] // features
    places = math.prod(x.shape[d] for d in space)
    x = moved(ctx, x, [batch, *space, channel])
    x = ctx.b.reshape(x, (batches, n, places, features, c))
    x = moved(ctx, x, [0, 3, 1, 2, 4]) if features > 1 else x
    return ctx.b.reshape(x, (features * batches, n, places, c))


def _grouped_kernel(ctx: Context, y: Value, spec: Sequence[int], groups: int) -> Value:
    """[group, offset, channel, feature]"""
    out, channel, *space = ints(spec)
    features, c = y.shape[out] // groups, y.shape[channel]
    offsets = math.prod(y.shape[d] for d in space)
    y = ctx.b.reshape(moved(ctx, y, [*space, channel, out]), (offsets, c, groups, features))
    return ctx.b.reshape(moved(ctx, y, [2, 0, 1, 3]), (groups, offsets, c, features))


def _arranged(ctx: Context, z: Value, spec: Sequence[int]) -> Value:
    """[group, batch, place, feature] in the result's own order."""
    batch, channel, *space = ints(spec)
    shape = ctx.outs[0].shape
    order = [batch, *space, channel]
    z = moved(ctx, z, [1, 2, 0, 3]) if z.shape[0] > 1 else z
    z = ctx.map(lambda v: ctx.b.reshape(v, tuple(shape[d] for d in order)), z)
    return ctx.map(lambda v: moved(ctx, v, np.argsort(order).tolist()), z)


# the product -------------------------------------------------------------------------------------------


def _products(ctx: Context, images: Value, kernel: Value, windows: Index) -> Value:
    """Sum over kernel offsets, as many at a time as memory allows; one truncation follows all."""
    offsets = windows.shape[1]
    elements = windows.shape[0] * images.type.size // images.shape[2]
    step = math.ceil(offsets / math.ceil(offsets * elements / MAX_WINDOWS))
    total = None
    for start in range(0, offsets, step):
        stop = min(start + step, offsets)
        weights = kernel if step == offsets else ctx.b.slice(kernel, 1, start, stop)
        part = _product(ctx, images, weights, windows[:, start:stop])
        total = part if total is None else ctx.b.add(total, part)
    assert total is not None
    return total


def _product(ctx: Context, images: Value, kernel: Value, windows: Index) -> Value:
    groups, n, _, c = images.shape
    positions, offsets = windows.shape
    seen = _gathered(ctx, images, windows)
    seen = ctx.b.reshape(seen, (groups, n * positions, offsets * c))
    kernel = ctx.b.reshape(kernel, (groups, offsets * c, kernel.shape[3]))
    if groups == 1:
        flat = [ctx.b.reshape(v, v.shape[1:]) for v in (seen, kernel)]
        out = ctx.b.op("dot", *flat, dims=(((1,), (0,)), ((), ())))
    else:
        out = ctx.b.op("dot", seen, kernel, dims=(((2,), (1,)), ((0,), (0,))))
    return ctx.b.reshape(out, (groups, n, positions, kernel.shape[2]))


def _gathered(ctx: Context, images: Value, windows: Index) -> Value:
    """[group, batch, position, offset, channel]"""
    groups, n, places, c = images.shape
    if np.array_equal(windows, np.arange(places)[:, None]):  # windows of one element
        return images
    index = ctx.b.const(windows[..., None], "int64")
    dims = ((0, 1, 4), (2,), (2,), (), ())
    mode = "fill" if (windows == NOWHERE).any() else "promise_in_bounds"
    return ctx.b.op("gather", images, index, dims=dims, sizes=(groups, n, 1, c), mode=mode)


RULES: dict[str, Rule] = {"conv_general_dilated": conv_general_dilated}
