"""Sorting. Where the protocol can shuffle, or somebody knows the keys: the IR's own `sort` (`sort_words`).
By one bool: `sort_bools`.

Otherwise the bitonic network in its perfect-shuffle form. For N = 2^m elements, stage s = 1..m compares
elements whose positions differ in bit s-1, then s-2, ..., 0, ascending where bit s of the position is
clear. Rotating the bits of all positions brings the compared bit to the top: the pairs are the two halves,
and writing each pair side by side rotates by one more. So each stage is one static rearrangement and a
loop of s steps, and all loops have the same body. m (m + 1) / 2 steps of N / 2 comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.module import Value, Visibility, join
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import is_float
from spuvm.compiler.lower.logic import bit_not
from spuvm.compiler.lower.reduce import moved
from spuvm.compiler.lower.sort_bools import by_network
from spuvm.compiler.lower.sort_words import opens, sort_words


def sort(ctx: Context, *xs: Operand, dimension: int, is_stable: bool, num_keys: int) -> list[Value]:
    """Operands beyond the keys follow. A payload makes the order of equal keys visible: then the
    position decides (stable); in a network, a lone key needs no such care."""
    values = [ctx.value(x) for x in xs]
    axis = int(dimension)
    if opens(ctx, values[:num_keys], values, axis):
        return sort_words(ctx, values[:num_keys], values, axis)
    order = [axis, *(d for d in range(len(values[0].shape)) if d != axis)]
    back = np.argsort(order).tolist()
    if num_keys == 1 and values[0].type.kind == "bool" and values[0].type.is_secret:
        rows = [moved(ctx, v if v.type.kind == "bool" else _number(ctx, v), order) for v in values]
        ordered = [moved(ctx, r, back) for r in by_network(ctx, rows[0], rows)]
        return [r if v.type.kind == "bool" else _as(ctx, r, v) for r, v in zip(ordered, values)]
    rows = [moved(ctx, _number(ctx, v), order) for v in values]
    keys, payload = rows[:num_keys], rows[num_keys:]
    ordered = _sort_rows(ctx, keys, payload, tie_break=bool(payload) and is_stable)
    return [_as(ctx, moved(ctx, r, back), v) for r, v in zip(ordered, values)]


def top_k(ctx: Context, x: Value, *, k: int, axis: int, **_: Any) -> list[Value]:
    """The first k of a stable descending sort."""
    axis, k = int(axis) % len(x.shape), int(k)
    shape = [-1 if d == axis else 1 for d in range(len(x.shape))]
    numbers = np.arange(x.shape[axis]).reshape(shape)
    index = ctx.broadcast(ctx.b.const(numbers, ctx.element(ctx.outs[1].dtype)), x.shape)
    if opens(ctx, [x], [x, index], axis):
        key = _opposite(ctx, ctx.b.convert(x, "int8") if x.type.kind == "bool" else x)
        best = sort_words(ctx, [key], [x, index], axis, ((0, k),))
        return [ctx.b.slice(v, axis, 0, k) for v in best]
    order = [axis, *(d for d in range(len(x.shape)) if d != axis)]
    rows, index = (moved(ctx, v, order) for v in (_number(ctx, x), index))
    keys, which = _sort_rows(ctx, [_opposite(ctx, rows)], [index], tie_break=True, stable_by=1)
    back = np.argsort(order).tolist()
    top = [moved(ctx, ctx.b.slice(v, 0, 0, k), back) for v in (_opposite(ctx, keys), which)]
    return [_as(ctx, top[0], x), top[1]]


def _number(ctx: Context, x: Value) -> Value:
    """Bools and integers narrower than the ring as whole numbers, which padding may exceed."""
    if x.type.kind == "bool":
        return ctx.b.convert(x, "fxp0")
    return ctx.b.bitcast(x, "fxp0") if x.type.kind == "int" and x.type.bits < ctx.b.ring_bits else x


def _opposite(ctx: Context, x: Value) -> Value:
    """Reverses the order; its own inverse. Integers: the complement, which has no overflow."""
    return ctx.b.neg(x) if is_float(x) else bit_not(ctx, x)


def _as(ctx: Context, x: Value, original: Value) -> Value:
    if original.type.kind == "bool":
        return ctx.b.not_(ctx.b.equal(x, ctx.like(0, x)))
    return ctx.b.bitcast(x, original.type.element)


def _sort_rows(
    ctx: Context, keys: list[Value], payload: list[Value], *, tie_break: bool, stable_by: int | None = None
) -> list[Value]:
    """Sort along axis 0 by `keys`. `stable_by`: this operand is the position already."""
    n = keys[0].shape[0]
    rows = keys + payload
    if n < 2:
        return rows
    wide = any(k.type.kind == "int" and k.type.bits >= ctx.b.ring_bits for k in keys)
    size = 1 << (n - 1).bit_length()
    compared = list(range(len(keys)))
    if stable_by is not None:
        compared.append(stable_by)
    elif tie_break or (wide and payload and size > n):  # a key of the ring's width may equal the padding
        positions = np.arange(n).reshape(-1, *[1] * (len(keys[0].shape) - 1))
        rows = [*rows, ctx.broadcast(ctx.b.const(positions, "int32"), keys[0].shape)]
        compared.append(len(rows) - 1)
    padded = [_padded(ctx, r, size, compare=i in compared) for i, r in enumerate(rows)]
    ordered = _network(ctx, padded, compared)
    return [ctx.b.slice(r, 0, 0, n) for r in ordered[: len(keys) + len(payload)]]


def _top(ctx: Context, x: Value) -> int:
    """A ring element that is not below any of x's type: numbers but the widest integers stay below the limit."""
    if x.type.kind == "int" and x.type.bits >= ctx.b.ring_bits:
        return (1 << (ctx.b.ring_bits - x.type.signed)) - 1
    return 1 << fixedpoint.limit_bits(ctx.b.ring_bits)


def _padded(ctx: Context, x: Value, size: int, *, compare: bool) -> Value:
    """Append rows that sort behind all others."""
    n = x.shape[0]
    if size == n:
        return x
    fill = ctx.b.const(np.array(_top(ctx, x) if compare else 0, object), x.type.element)
    return ctx.b.concatenate([x, ctx.b.broadcast(fill, (size - n, *x.shape[1:]))], 0)


def _network(ctx: Context, rows: list[Value], compared: Sequence[int]) -> list[Value]:
    deciding = join(*(rows[i].type.visibility for i in compared))
    carried = [_seen_by(ctx, r, join(deciding, r.type.visibility)) for r in rows]
    stages = rows[0].shape[0].bit_length() - 1
    for stage in range(1, stages + 1):
        carried = [_rotated(ctx, r, stage) for r in carried]
        # at step r, bit `stage` of the original position is bit r; the last stage is ascending throughout
        masks = [1 << r if stage < stages else 0 for r in range(stage)]
        carried = _loop(ctx, carried, compared, ctx.b.const(np.array(masks, np.int64), "int64"))
    return carried


def _rotated(ctx: Context, x: Value, stage: int) -> Value:
    """Bit stage - 1 of each position becomes the top bit: rotate the bits to the left."""
    size, rest = x.shape[0], x.shape[1:]
    if size == 1 << stage:
        return x
    order = [1, 0, *range(2, len(rest) + 2)]
    wide = ctx.b.reshape(x, (size >> stage, 1 << stage, *rest))
    return ctx.b.reshape(moved(ctx, wide, order), x.shape)


def _loop(ctx: Context, carries: list[Value], compared: Sequence[int], masks: Value) -> list[Value]:
    scalar = masks.type.with_(shape=())
    with ctx.region([*(c.type for c in carries), scalar]) as body:
        *inner, mask = body.params
        body.results = _step(ctx, inner, compared, mask)
    attrs = {"trips": masks.shape[0], "carries": len(carries), "constants": 0, "reverse": False}
    return ctx.b.ops("loop", [*carries, masks], [body], **attrs)


def _seen_by(ctx: Context, x: Value, who: Visibility) -> Value:
    return x if x.type.visibility == who else ctx.b.op("share", x, to=who)


def _step(ctx: Context, rows: list[Value], compared: Sequence[int], mask: Value) -> list[Value]:
    """Order each pair (p, p + N/2), ascending where p has no bit of the mask; write it to (2p, 2p + 1)."""
    b, half = ctx.b, rows[0].shape[0] // 2
    lows, highs = ([b.slice(r, 0, start, start + half) for r in rows] for start in (0, half))
    pairs = b.const(np.arange(half), "int64")
    masked = b.logical("and", pairs, b.broadcast(mask, pairs.shape))
    descending = b.op("broadcast", b.less(ctx.like(0, masked), masked), shape=lows[0].shape, dims=(0,))
    swap = b.logical("xor", descending, _precedes(ctx, *([side[i] for i in compared] for side in (highs, lows))))
    out = []
    for x, y, row in zip(lows, highs, rows):
        with b.modular():
            change = _times(ctx, swap, b.sub(y, x))
            first, second = b.add(x, change), b.sub(y, change)
        sides = [b.reshape(v, (half, 1, *v.shape[1:])) for v in (first, second)]
        out.append(b.reshape(b.concatenate(sides, 1), row.shape))
    return out


def _precedes(ctx: Context, xs: list[Value], ys: list[Value]) -> Value:
    """x < y, the first key deciding, then the next."""
    b = ctx.b
    out = b.less(xs[-1], ys[-1])
    for x, y in reversed(list(zip(xs[:-1], ys[:-1]))):
        out = b.logical("or", b.less(x, y), b.logical("and", b.equal(x, y), out))
    return out


def _times(ctx: Context, c: Value, x: Value) -> Value:
    """x where c, else 0."""
    return ctx.b.mul_raw(ctx.b.convert(c, "fxp0" if is_float(x) else x.type.element), x)


RULES: dict[str, Rule] = {"sort": sort, "top_k": top_k}
