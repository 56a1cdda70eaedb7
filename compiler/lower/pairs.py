"""Ways of few rounds: what a tree of comparisons finds in log n steps, from the comparisons of all pairs at once.

Of groups of r elements each is compared with each other; the `and` of r - 1 results says which element is first, the
`sum` of them where each one stands. That is one comparison deep where a tree of two has log2 r.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context

Better = Callable[[Context, Value, Value], Value]  # whether the first is strictly better than the second

SIZES = (4, 8, 16)  # of groups that are weighed
MOST = 1 << 22  # comparisons beyond which nobody asks for fewer rounds
LARGEST = 64  # elements of a group: which pairs there are is a constant of the program's text


def of_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second of each pair of n."""
    first, second = np.triu_indices(n, 1)
    return first, second


def taken(ctx: Context, x: Value, index: np.ndarray) -> Value:
    """x[index] along the first axis."""
    rest = x.shape[1:]
    where = ctx.b.const(index.reshape(-1, 1).astype(np.int64), "int64")
    offsets = tuple(range(1, len(rest) + 1))
    out = ctx.b.op("gather", x, where, dims=(offsets, (0,), (0,), (), ()), sizes=(1, *rest), mode="clip")
    return ctx.b.reshape(out, (*index.shape, *rest))


def against_others(ctx: Context, beats: Value, n: int) -> Value:
    """bool[pair, ...], whether the second of a pair is strictly better -> bool[n - 1, n, ...].

    Of each of n elements whether it comes before each other: of two equal ones the first does.
    """
    first, second = of_pairs(n)
    pair = np.zeros((n, n), np.int64)
    pair[first, second] = pair[second, first] = np.arange(len(first))
    others = np.array([[j for j in range(n) if j != i] for i in range(n)]).T
    mine = np.arange(n)
    both = ctx.b.concatenate([beats, ctx.b.not_(beats)], 0)
    return taken(ctx, both, pair[mine, others] + np.where(mine < others, len(first), 0))


def _first(ctx: Context, better: Better, x: Value) -> Value:
    """bool[n, ...]: which of n elements is best, of equal ones the first."""
    n = x.shape[0]
    first, second = of_pairs(n)
    wins = against_others(ctx, better(ctx, taken(ctx, x, second), taken(ctx, x, first)), n)
    while wins.shape[0] > 1:
        half = wins.shape[0] // 2
        low, high = ctx.b.slice(wins, 0, 0, half), ctx.b.slice(wins, 0, half, 2 * half)
        odd = [ctx.b.slice(wins, 0, 2 * half, wins.shape[0])] if wins.shape[0] % 2 else []
        wins = ctx.b.concatenate([ctx.b.logical("and", low, high), *odd], 0)
    return ctx.b.reshape(wins, wins.shape[1:])


def _chosen(ctx: Context, which: Value, x: Value) -> Value:
    """The sum of the elements that are chosen, one of n: no integer's type is left."""
    b = ctx.b
    number = b.bitcast(x, "fxp0") if x.type.kind == "int" and x.type.bits < b.ring_bits else x
    zero = b.broadcast(b.const(0, number.type.element), number.shape)
    with b.modular():
        return b.bitcast(b.sum(b.select(which, number, zero), [0]), x.type.element)


def best(better: Better, size: int) -> Callable[[Context, Value, Value | None], tuple[Value, Value | None]]:
    """[n, ...] -> the best of n, by groups of `size`, and its index if the elements' indices are given."""

    def way(ctx: Context, x: Value, index: Value | None) -> tuple[Value, Value | None]:
        while x.shape[0] > 1:
            n = x.shape[0]
            groups, rest = divmod(n, size)
            done = [_of_groups(ctx, better, x, index, 0, groups, size)] if groups else []
            done += [_of_groups(ctx, better, x, index, groups * size, 1, rest)] if rest else []
            x = ctx.b.concatenate([value for value, _ in done], 0)
            index = None if index is None else ctx.b.concatenate([i for _, i in done if i is not None], 0)
        return ctx.b.reshape(x, x.shape[1:]), None if index is None else ctx.b.reshape(index, index.shape[1:])

    return way


def _of_groups(
    ctx: Context, better: Better, x: Value, index: Value | None, start: int, groups: int, size: int
) -> tuple[Value, Value | None]:
    """The best of each group of neighbours."""

    def grouped(v: Value) -> Value:
        part = ctx.b.slice(v, 0, start, start + groups * size)
        part = ctx.b.reshape(part, (groups, size, *v.shape[1:]))
        return ctx.b.op("transpose", part, perm=(1, 0, *range(2, len(part.shape))))

    values = grouped(x)
    if size == 1:
        return _of_one(ctx, values), None if index is None else _of_one(ctx, grouped(index))
    which = _first(ctx, better, values)
    return _chosen(ctx, which, values), None if index is None else _chosen(ctx, which, grouped(index))


def _of_one(ctx: Context, x: Value) -> Value:
    return ctx.b.reshape(x, x.shape[1:])


def group_sizes(shape: Sequence[int]) -> list[int]:
    """The sizes of groups that are worth a look for [n, ...]; the last takes all elements at once."""
    n, others = shape[0], math.prod(shape[1:])
    sizes = [s for s in (*SIZES, n) if 2 < s <= min(n, LARGEST) and n * s * others // 2 <= MOST]
    return sorted(set(sizes))


def places_of(ctx: Context, precedes: Callable[[np.ndarray, np.ndarray], Value], n: int) -> Value:
    """int64[n, ...]: where each element goes in order; `precedes(i, j)`: bools, whether i comes strictly before j."""
    first, second = of_pairs(n)
    before = against_others(ctx, precedes(second, first), n)
    ahead = ctx.b.sum(ctx.b.convert(before, "int64"), [0])  # of how many others it is ahead
    return ctx.b.sub(ctx.b.broadcast(ctx.b.const(n - 1, "int64"), ahead.shape), ahead)
