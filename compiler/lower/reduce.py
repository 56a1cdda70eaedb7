"""Rules of reductions and cumulative operations.

Sums are local. Everything else is a tree of binary operations, each level one operation on half of
what is left: log2(n) levels and n - 1 combinations. Cumulative forms take log2(n) shifted passes. Where a
configuration is optimised for some links, other ways are weighed with these (see `weigh`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from spuvm.compiler.ir.dtypes import kind_of, limits_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import product
from spuvm.compiler.lower.logic import larger, smaller
from spuvm.compiler.lower.pairs import best, group_sizes
from spuvm.compiler.lower.shape import ints
from spuvm.compiler.lower.weigh import Way, cheapest

Combine = Callable[[Context, Value, Value], Value]


def _logical(name: str) -> Combine:
    return lambda ctx, x, y: ctx.b.logical(name, x, y)


def _above(ctx: Context, x: Value, y: Value) -> Value:
    return ctx.b.less(y, x)


def _below(ctx: Context, x: Value, y: Value) -> Value:
    return ctx.b.less(x, y)


def reduce_sum(ctx: Context, x: Value, *, axes: Any, **_: Any) -> Value:
    return ctx.map(lambda v: ctx.b.sum(v, ints(axes)), x)


def tree(combine: Combine, empty: str, better: Combine | None = None) -> Rule:
    """Reduce by halving. `empty` names the identity, which only an empty axis needs.

    With `better`, whether one is strictly better, also by groups of which each is compared with each (see `pairs`).
    """

    def rule(ctx: Context, x: Value, *, axes: Any, **_: Any) -> Operand:
        x = merged(ctx, x, ints(axes))
        if x.shape[0] == 0:
            out = ctx.outs[0]
            return np.broadcast_to(identity(empty, out.dtype), out.shape)
        few = [] if better is None or x.type.kind == "bool" else group_sizes(x.shape)
        return cheapest(ctx, [halving, *(_without_index(best(better, size)) for size in few if better)], x)

    def halving(ctx: Context, x: Value) -> Value:
        while x.shape[0] > 1:
            half = x.shape[0] // 2
            low, high = ctx.b.slice(x, 0, 0, half), ctx.b.slice(x, 0, half, 2 * half)
            odd = [ctx.b.slice(x, 0, 2 * half, x.shape[0])] if x.shape[0] % 2 else []
            x = ctx.b.concatenate([combine(ctx, low, high), *odd], 0)
        return ctx.b.reshape(x, x.shape[1:])

    return rule


def _without_index(way: Any) -> Way:
    return lambda ctx, x: way(ctx, x, None)[0]


def identity(name: str, dtype: Any) -> Any:
    """What JAX gives for an empty reduction."""
    if name in ("max", "min"):
        return np.asarray(_bounds(dtype)[name == "min"], dtype)
    return np.asarray({"prod": 1, "or": 0, "xor": 0, "and": -1}[name]).astype(dtype)


def _bounds(dtype: Any) -> tuple[Any, Any]:
    match kind_of(dtype):
        case "b":
            return False, True
        case "i" | "u":
            return limits_of(dtype)
    return -np.inf, np.inf


def merged(ctx: Context, x: Value, axes: Sequence[int]) -> Value:
    """`x` with the reduced axes merged into a single leading one."""
    kept = [d for d in range(len(x.shape)) if d not in axes]
    x = moved(ctx, x, [*axes, *kept])
    count = int(np.prod(x.shape[: len(axes)], dtype=np.int64))
    return ctx.b.reshape(x, (count, *x.shape[len(axes) :]))


def moved(ctx: Context, x: Value, order: Sequence[int]) -> Value:
    return x if list(order) == list(range(len(order))) else ctx.b.op("transpose", x, perm=tuple(order))


# argmax and argmin ------------------------------------------------------------------------------------


def arg_extreme(better: Callable[[Context, Value, Value], Value]) -> Rule:
    """A tree over neighbours, so that of equal candidates the left one has the lower index and stays."""

    def rule(ctx: Context, x: Value, *, axes: Any, index_dtype: Any) -> Value:
        (axis,) = ints(axes)
        x = merged(ctx, x, [axis])
        if x.type.kind == "bool":
            x = ctx.b.convert(x, "int32")
        numbers = np.arange(x.shape[0], dtype=np.int64).reshape(-1, *[1] * (len(x.shape) - 1))
        index = ctx.broadcast(ctx.b.const(numbers, ctx.element(index_dtype)), x.shape)
        groups = [_index_alone(best(better, size)) for size in group_sizes(x.shape)]
        return cheapest(ctx, [neighbours, *groups], x, index)  # type: ignore[return-value]

    def neighbours(ctx: Context, x: Value, index: Value) -> Value:
        while x.shape[0] > 1:
            (x0, x1, x_odd), (i0, i1, i_odd) = _neighbours(ctx, x), _neighbours(ctx, index)
            c = better(ctx, x1, x0)
            x = ctx.b.concatenate([ctx.b.select(c, x1, x0), *x_odd], 0)
            index = ctx.b.concatenate([ctx.b.select(c, i1, i0), *i_odd], 0)
        return ctx.b.reshape(index, x.shape[1:])

    return rule


def _index_alone(way: Any) -> Way:
    return lambda ctx, x, index: way(ctx, x, index)[1]


def _neighbours(ctx: Context, x: Value) -> tuple[Value, Value, list[Value]]:
    n = x.shape[0]
    even = n // 2 * 2
    pairs = (ctx.b.slice(x, 0, 0, even, 2), ctx.b.slice(x, 0, 1, even, 2))
    return *pairs, [ctx.b.slice(x, 0, even, n)] if n % 2 else []


# cumulative -------------------------------------------------------------------------------------------


def cumsum(ctx: Context, x: Value, *, axis: int, reverse: bool) -> Value:
    return ctx.map(lambda v: ctx.b.op("cumsum", v, axis=int(axis), reverse=bool(reverse)), x)


def scanned(combine: Combine) -> Rule:
    """Element i combines elements 0..i: after the pass with distance d, the last 2d up to i."""

    def rule(ctx: Context, x: Value, *, axis: int, reverse: bool) -> Value:
        flip = (lambda v: ctx.b.op("rev", v, axes=(int(axis),))) if reverse else (lambda v: v)
        return flip(cheapest(ctx, [partial(shifted, axis=int(axis)), partial(paired, axis=int(axis))], flip(x)))

    def shifted(ctx: Context, x: Value, *, axis: int) -> Value:
        n, distance = x.shape[axis], 1
        while distance < n:
            head = ctx.b.slice(x, axis, 0, distance)
            old, new = ctx.b.slice(x, axis, 0, n - distance), ctx.b.slice(x, axis, distance, n)
            x = ctx.b.concatenate([head, combine(ctx, old, new)], axis)
            distance *= 2
        return x

    def paired(ctx: Context, x: Value, *, axis: int) -> Value:
        """By the scan of all pairs (Brent and Kung 1982): 2 n combinations in 2 log2 n steps."""
        b, n = ctx.b, x.shape[axis]
        if n < 3:
            return shifted(ctx, x, axis=axis)
        even, odd = b.slice(x, axis, 0, n // 2 * 2, 2), b.slice(x, axis, 1, n, 2)
        ends = paired(ctx, combine(ctx, even, odd), axis=axis)  # at the odd positions
        later = b.slice(x, axis, 2, n, 2)
        between = combine(ctx, b.slice(ends, axis, 0, later.shape[axis]), later)
        first = b.concatenate([b.slice(x, axis, 0, 1), between], axis)
        return _interleaved(ctx, first, ends, axis)

    return rule


def _interleaved(ctx: Context, x: Value, y: Value, axis: int) -> Value:
    """x[0], y[0], x[1], ..., where x is as long as y or longer by one."""
    b, n = ctx.b, y.shape[axis]

    def column(v: Value) -> Value:
        part = b.slice(v, axis, 0, n)
        return b.reshape(part, (*part.shape[: axis + 1], 1, *part.shape[axis + 1 :]))

    both = b.concatenate([column(x), column(y)], axis + 1)
    out = b.reshape(both, (*y.shape[:axis], 2 * n, *y.shape[axis + 1 :]))
    rest = [b.slice(x, axis, n, n + 1)] if x.shape[axis] > n else []
    return b.concatenate([out, *rest], axis)


def log_add_exp(ctx: Context, x: Value, y: Value) -> Value:
    """max + log1p(exp(-|x - y|))"""
    d = ctx.b.sub(x, y)
    c = ctx.b.less(d, ctx.like(0.0, d))
    far = ctx.b.select(c, d, ctx.b.neg(d))
    top = ctx.b.select(c, y, x)
    return ctx.b.add(top, ctx.b.function("log1p", ctx.b.function("exp", far)))


RULES: dict[str, Rule] = {
    "reduce_sum": reduce_sum,
    "reduce_max": tree(larger, "max", _above),
    "reduce_min": tree(smaller, "min", _below),
    "reduce_prod": tree(product, "prod"),
    "reduce_and": tree(_logical("and"), "and"),
    "reduce_or": tree(_logical("or"), "or"),
    "reduce_xor": tree(_logical("xor"), "xor"),
    "argmax": arg_extreme(_above),
    "argmin": arg_extreme(_below),
    "cumsum": cumsum,
    "cumprod": scanned(product),
    "cummax": scanned(larger),
    "cummin": scanned(smaller),
    "cumlogsumexp": scanned(log_add_exp),
}
