"""Sorting: a bitonic network as one loop whose body has the same shape in every step.

Step (k, d) compares the elements p and p + d of each block of 2d, ascending where bit k of p is
clear. For N = 2^m elements there are m (m + 1) / 2 steps of N / 2 comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spuvm.compiler import fixedpoint
from spuvm.compiler.context import Context, Operand, Rule
from spuvm.compiler.ir import Region, Type, Value, Visibility, join
from spuvm.compiler.rules_elementwise import bit_not, is_float
from spuvm.compiler.rules_reduce import moved
from spuvm.compiler.rules_shape import gather_rows

TOP = {"int64": 2**63 - 1, "uint64": 2**64 - 1}  # other types stay below fixed point's limit


def sort(ctx: Context, *xs: Operand, dimension: int, is_stable: bool, num_keys: int) -> list[Value]:
    """Operands beyond the keys follow. A payload makes the order of equal keys visible: then the
    position decides (stable); a lone key needs no such care."""
    values = [ctx.value(x) for x in xs]
    axis = int(dimension)
    order = [axis, *(d for d in range(len(values[0].shape)) if d != axis)]
    rows = [moved(ctx, _number(ctx, v), order) for v in values]
    keys, payload = rows[:num_keys], rows[num_keys:]
    ordered = _sort_rows(ctx, keys, payload, tie_break=bool(payload) and is_stable)
    back = np.argsort(order).tolist()
    return [_as(ctx, moved(ctx, r, back), v) for r, v in zip(ordered, values)]


def top_k(ctx: Context, x: Value, *, k: int, axis: int, **_: Any) -> list[Value]:
    """The first k of a stable descending sort."""
    axis = int(axis) % len(x.shape)
    order = [axis, *(d for d in range(len(x.shape)) if d != axis)]
    rows = moved(ctx, _number(ctx, x), order)
    numbers = np.arange(rows.shape[0]).reshape(-1, *[1] * (len(rows.shape) - 1))
    index = ctx.broadcast(ctx.b.const(numbers, ctx.element(ctx.outs[1].dtype)), rows.shape)
    keys, which = _sort_rows(ctx, [_opposite(ctx, rows)], [index], tie_break=True, stable_by=1)
    back = np.argsort(order).tolist()
    top = [moved(ctx, ctx.b.slice(v, 0, 0, int(k)), back) for v in (_opposite(ctx, keys), which)]
    return [_as(ctx, top[0], x), top[1]]


def _number(ctx: Context, x: Value) -> Value:
    return ctx.b.convert(x, "int8") if x.type.kind == "bool" else x


def _opposite(ctx: Context, x: Value) -> Value:
    """Reverses the order; its own inverse. Integers: the complement, which has no overflow."""
    return ctx.b.neg(x) if is_float(x) else bit_not(ctx, x)


def _as(ctx: Context, x: Value, original: Value) -> Value:
    return ctx.b.not_(ctx.b.equal(x, ctx.like(0, x))) if original.type.kind == "bool" else x


def _sort_rows(
    ctx: Context, keys: list[Value], payload: list[Value], *, tie_break: bool, stable_by: int | None = None
) -> list[Value]:
    """Sort along axis 0 by `keys`. `stable_by`: this operand is the position already."""
    n = keys[0].shape[0]
    rows = keys + payload
    if n < 2:
        return rows
    wide = any(k.type.kind == "int" and k.type.bits == 64 for k in keys)
    size = 1 << (n - 1).bit_length()
    compared = list(range(len(keys)))
    if stable_by is not None:
        compared.append(stable_by)
    elif tie_break or (wide and payload and size > n):  # a 64-bit key may equal the padding
        positions = np.arange(n).reshape(-1, *[1] * (len(keys[0].shape) - 1))
        rows = [*rows, ctx.broadcast(ctx.b.const(positions, "int32"), keys[0].shape)]
        compared.append(len(rows) - 1)
    padded = [_padded(ctx, r, size, compare=i in compared) for i, r in enumerate(rows)]
    ordered = _network(ctx, padded, compared)
    return [ctx.b.slice(r, 0, 0, n) for r in ordered[: len(keys) + len(payload)]]


def _padded(ctx: Context, x: Value, size: int, *, compare: bool) -> Value:
    """Append rows that sort behind all others."""
    n = x.shape[0]
    if size == n:
        return x
    top = TOP.get(x.type.element, 2**fixedpoint.LIMIT_BITS) if compare else 0
    fill = ctx.b.const(np.uint64(top), x.type.element)
    return ctx.b.concatenate([x, ctx.b.broadcast(fill, (size - n, *x.shape[1:]))], 0)


def _network(ctx: Context, rows: list[Value], compared: Sequence[int]) -> list[Value]:
    size = rows[0].shape[0]
    steps = [(2 << s, 1 << t) for s in range(size.bit_length() - 1) for t in reversed(range(s + 1))]
    blocks, distances = (ctx.b.const(np.array(c, np.int64), "int64") for c in zip(*steps))
    deciding = join(*(rows[i].type.visibility for i in compared))
    carried = [_seen_by(ctx, r, join(deciding, r.type.visibility)) for r in rows]
    scalar = Type("int", (), "public", bits=64, signed=True)
    with ctx.region([*(r.type for r in carried), scalar, scalar]) as body:
        *inner, block, distance = body.params
        body.results = _step(ctx, inner, compared, block, distance)
    return _loop(ctx, body, carried, [blocks, distances], len(steps))


def _loop(ctx: Context, body: Region, carries: list[Value], xs: list[Value], trips: int) -> list[Value]:
    attrs = {"trips": trips, "carries": len(carries), "constants": 0, "reverse": False}
    return ctx.b.ops("loop", [*carries, *xs], [body], **attrs)


def _seen_by(ctx: Context, x: Value, who: Visibility) -> Value:
    return x if x.type.visibility == who else ctx.b.op("share", x, to=who)


def _step(ctx: Context, rows: list[Value], compared: Sequence[int], block: Value, d: Value) -> list[Value]:
    """One step: split into the two sides of each comparison, exchange, put back."""
    b, size = ctx.b, rows[0].shape[0]
    pairs = b.const(np.arange(size // 2), "int64")
    d2 = b.broadcast(d, pairs.shape)
    low = b.add(pairs, b.logical("and", pairs, b.neg(d2)))  # p with a zero bit inserted at d
    lows = [gather_rows(ctx, r, low) for r in rows]
    highs = [gather_rows(ctx, r, b.add(low, d2)) for r in rows]
    up = b.equal(b.logical("and", low, b.broadcast(block, low.shape)), b.integer(0, low.type))
    shape = lows[0].shape
    ascending = b.op("broadcast", up, shape=shape, dims=(0,))
    above = _precedes(ctx, [highs[i] for i in compared], [lows[i] for i in compared])
    swap = b.not_(b.logical("xor", above, ascending))
    back = _back(ctx, size, d)
    out = []
    for x, y in zip(lows, highs):
        change = _times(ctx, swap, b.sub(y, x))
        out.append(gather_rows(ctx, b.concatenate([b.add(x, change), b.sub(y, change)], 0), back))
    return out


def _back(ctx: Context, size: int, d: Value) -> Value:
    """For each element, its row in (low sides, high sides)."""
    b = ctx.b
    i = b.const(np.arange(size), "int64")
    d = b.broadcast(d, i.shape)
    half = b.op("shift_right_logical", b.logical("and", i, b.neg(b.op("shift_left", d, bits=1))), bits=1)
    pair = b.add(half, b.logical("and", i, b.sub(d, b.integer(1, i.type))))
    is_high = b.convert(b.not_(b.equal(b.logical("and", i, d), b.integer(0, i.type))), "int64")
    return b.add(pair, b.mul_raw(is_high, b.integer(size // 2, i.type)))


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
