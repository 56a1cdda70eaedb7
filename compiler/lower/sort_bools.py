"""A stable sort by a single secret bool: those that are false, then those that are true. Nothing is compared.

How many bools of each kind come before an element says where it goes, and sums need no messages. Where the
protocol can shuffle, all is shuffled along with these places, which are then opened: a random permutation.
Elsewhere both halves are compacted by a network: an element that has to move by d places moves by 2^j in
step j if d has bit j, and because d never falls by more than the gap to the next element, no two meet
(Goodrich, SPAA 2011). Each step is a product for each element and operand; there are log n of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context


def places(ctx: Context, one: Value) -> tuple[Value, int]:
    """Where each element of [rows, n] goes whose key is 1 or 0, as an int64, and the bits that differences need."""
    b, n = ctx.b, one.shape[1]
    ones = b.op("cumsum", one, axis=1, reverse=False)
    zeros = b.sub(ctx.broadcast(b.const(np.arange(n), "int64"), one.shape), ones)  # before it, where the key is false
    total = b.slice(ones, 1, n - 1, n)
    behind = b.add(b.broadcast(b.sub(ctx.like(n - 1, total), total), one.shape), ones)
    return b.add(zeros, b.mul_raw(one, b.sub(behind, zeros))), n.bit_length() + 1


def by_network(ctx: Context, key: Value, rows: Sequence[Value]) -> list[Value]:
    """Rows [n, ...] in the order of the key, a bool [n, ...]: bools, whole numbers of the ring, or fixed point."""
    b, n = ctx.b, key.shape[0]
    if n < 2:
        return list(rows)
    true, false = b.convert(key, "fxp0"), b.convert(b.not_(key), "fxp0")
    first = _compacted(ctx, b.not_(key), false, true, rows)
    behind = [_reversed(ctx, x) for x in (key, true, false, *rows)]
    last = _compacted(ctx, behind[0], behind[1], behind[2], behind[3:])
    return [_plus(ctx, x, _reversed(ctx, y)) for x, y in zip(first, last)]


def _reversed(ctx: Context, x: Value) -> Value:
    return ctx.b.op("rev", x, axes=(0,))


def _compacted(ctx: Context, keep: Value, kept: Value, dropped: Value, rows: Sequence[Value]) -> list[Value]:
    """The elements that are kept at the front, zeros behind them; `kept` and `dropped` are numbers."""
    b, n = ctx.b, keep.shape[0]
    distance = b.mul_raw(kept, b.op("cumsum", dropped, axis=0, reverse=False))
    bits = [b.op("bit_parity", distance, mask=1 << j) for j in range((n - 1).bit_length())]
    rows = [_where(ctx, keep, kept, x) for x in rows]
    for step in (1 << j for j in range(len(bits))):
        moves = bits.pop(0)
        number = b.convert(moves, "fxp0")
        moved = [_moved(ctx, _where(ctx, moves, number, x), x, step) for x in (*rows, *bits)]
        rows, bits = moved[: len(rows)], moved[len(rows) :]
    return list(rows)


def _moved(ctx: Context, moving: Value, x: Value, step: int) -> Value:
    """x, of which what moves goes by so many places to the front; what is there moves as well, or is zero."""
    b, n = ctx.b, x.shape[0]
    zeros = b.const(np.zeros((step, *x.shape[1:]), np.int64), x.type.element)
    arriving = b.concatenate([b.slice(moving, 0, step, n), zeros], 0)
    left = b.logical("xor", x, moving) if x.type.kind == "bool" else b.sub(x, moving)
    return _plus(ctx, left, arriving)


def _where(ctx: Context, condition: Value, number: Value, x: Value) -> Value:
    """x where the condition, which `number` says in numbers, else zero."""
    if x.type.kind == "bool":
        return ctx.b.logical("and", condition, x)
    return ctx.b.mul_raw(number if x.type.kind == "fxp" else ctx.b.bitcast(number, x.type.element), x)


def _plus(ctx: Context, x: Value, y: Value) -> Value:
    """One of them is zero."""
    return ctx.b.logical("xor", x, y) if x.type.kind == "bool" else ctx.b.add(x, y)
