"""Reductions over windows, pooling and its gradients.

Axes are reduced one after another, the last one first. Sums are local. A maximum is a tournament
whose every step is linear once its comparisons are made: a tangent passes the same steps forward,
the gradient passes them back. All three make the same comparisons, so a program that needs several
of them makes them once. Of equal elements the first wins, as in JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.conv import NOWHERE, Index, axis_windows
from spuvm.compiler.lower.elementwise import zeros
from spuvm.compiler.lower.reduce import _neighbours as neighbours
from spuvm.compiler.lower.reduce import identity
from spuvm.compiler.lower.shape import ints
from spuvm.compiler.lower.window_steps import Every, Pairs, Rows, Single, Slide, Step, apart, single
from spuvm.runtime.errors import EncodingError

SHORT_WINDOW = 8  # up to here a sum gathers its window; longer ones subtract cumulative sums


@dataclass(frozen=True)
class Axis:
    """The windows along one axis; `index` is [position, offset] -> element or NOWHERE."""

    axis: int
    size: int
    window: int
    stride: int
    low: int
    plain: bool  # no dilation: a window is a run of elements
    index: Index

    @property
    def positions(self) -> int:
        return len(self.index)

    @property
    def is_identity(self) -> bool:
        return np.array_equal(self.index, np.arange(self.size)[:, None])


def axes_of(shape: Sequence[int], params: dict[str, Any]) -> list[Axis]:
    """The axes that windows reach over, the last one first."""
    ones = (1,) * len(shape)
    spread, dilation = (ints(params.get(name) or ones) for name in ("base_dilation", "window_dilation"))
    windows, strides = ints(params["window_dimensions"]), ints(params["window_strides"])
    axes = []
    for a, n in reversed(list(enumerate(shape))):
        low_high = ints(params["padding"][a])
        index = axis_windows(n, windows[a], strides[a], spread[a], dilation[a], low_high)
        axes.append(Axis(a, n, windows[a], strides[a], low_high[0], spread[a] == dilation[a] == 1, index))
    return [axis for axis in axes if not axis.is_identity]


# sums --------------------------------------------------------------------------------------------------


def window_sum(ctx: Context, x: Value, **params: Any) -> Operand:
    if 0 in (*ctx.outs[0].shape, *x.shape):
        return zeros(ctx)
    for axis in axes_of(x.shape, params):
        step = _sum_by_differences if axis.plain and axis.window > SHORT_WINDOW else _sum_of_rows
        x = ctx.map(lambda v, a=axis, s=step: s(ctx, v, a), x)  # type: ignore[misc]
    return x


def _sum_of_rows(ctx: Context, x: Value, axis: Axis) -> Value:
    return ctx.b.sum(Rows(axis.axis, axis.index, x.shape).forward(ctx, x), (0,))


def _sum_by_differences(ctx: Context, x: Value, axis: Axis) -> Value:
    """The sum of elements l..h-1 is S[h] - S[l], where S[i] sums the first i: exact in the ring."""
    b, a = ctx.b, axis.axis
    sums = b.op("cumsum", x, axis=a, reverse=False)
    nothing = ctx.like(0, b.slice(sums, a, 0, 1))
    sums = b.concatenate([nothing, sums], a)
    first = np.arange(axis.positions) * axis.stride - axis.low
    ends = [np.clip(v, 0, axis.size)[:, None] for v in (first, first + axis.window)]
    lows, highs = (single(ctx, Rows(a, end, sums.shape).forward(ctx, sums)) for end in ends)
    return b.sub(highs, lows)


# tournaments -------------------------------------------------------------------------------------------


@dataclass
class Tournament:
    """The steps from all elements to the best of each window; `x` is where they have led to."""

    ctx: Context
    x: Value
    largest: bool
    steps: list[Step]

    def _do(self, step: Step) -> None:
        self.steps.append(step)
        self.x = step.forward(self.ctx, self.x)

    def _second_is_better(self, first: Value, second: Value) -> Value:
        low, high = (first, second) if self.largest else (second, first)
        if low.type.kind == "bool":
            return self.ctx.b.logical("and", self.ctx.b.not_(low), high)
        return self.ctx.b.less(low, high)

    def reduce(self, axis: Axis) -> None:
        length = (axis.positions - 1) * axis.stride + axis.window
        sliding = length * (axis.window - 1).bit_length()
        if axis.plain and axis.window > 2 and sliding < axis.positions * (axis.window - 1):
            self._slide(axis, length)
        else:
            self._do(Rows(axis.axis, _filled(axis.index), self.x.shape))
            while self.x.shape[0] > 1:
                self._do(Pairs(self._second_is_better(*neighbours(self.ctx, self.x)[:2])))
            self._do(Single())

    def _slide(self, axis: Axis, length: int) -> None:
        """Windows of 2, 4, 8 ... elements, then two that overlap. What stands beyond an edge is the edge."""
        a = axis.axis
        index = np.clip(np.arange(length) - axis.low, 0, axis.size - 1)[:, None]
        self._do(Rows(a, index, self.x.shape))
        self._do(Single())
        reach = 1
        while reach < axis.window:
            distance = min(reach, axis.window - reach)
            choice = self._second_is_better(*apart(self.ctx, self.x, a, distance))
            self._do(Slide(a, distance, choice))
            reach += distance
        if axis.stride > 1:
            self._do(Every(a, axis.stride, self.x.shape[a]))


def _filled(index: Index) -> Index:
    """What is nowhere becomes the element before it in its window, else the first one: no candidate is new."""
    index = index.copy()
    for offsets in (range(1, index.shape[1]), range(index.shape[1] - 2, -1, -1)):
        step = -1 if offsets.step == 1 else 1
        for o in offsets:
            index[:, o] = np.where(index[:, o] == NOWHERE, index[:, o + step], index[:, o])
    return np.maximum(index, 0)


def tournament(ctx: Context, x: Value, params: dict[str, Any], *, largest: bool) -> Tournament:
    played = Tournament(ctx, x, largest, [])
    for axis in axes_of(x.shape, params):
        played.reduce(axis)
    return played


def _occupied(shape: Sequence[int], out: Sequence[int], params: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Whether a window holds an element, for each of the result's positions."""
    mask = np.ones(out, bool)
    for axis in axes_of(shape, params):
        some = (axis.index != NOWHERE).any(1)
        mask &= some.reshape(-1, *[1] * (len(out) - 1 - axis.axis))
    return mask


def _only(ctx: Context, mask: np.ndarray[Any, Any], x: Value, other: Any) -> Value:
    """x where the known mask holds, else a known number."""
    if mask.all():
        return x
    return ctx.b.select(ctx.b.const(mask, "bool"), x, ctx.like(other, x))


def window_extreme(name: str) -> Rule:
    def rule(ctx: Context, x: Value, **params: Any) -> Operand:
        out = ctx.outs[0]
        mask = _occupied(x.shape, out.shape, params)
        if not mask.all() and x.type.kind == "fxp":
            raise EncodingError("a window lies in the padding altogether: its result would be infinite.")
        if not mask.any():
            return np.broadcast_to(identity(name, out.dtype), out.shape)
        best = tournament(ctx, x, params, largest=name == "max").x
        return _only(ctx, mask, best, identity(name, out.dtype))

    return rule


def select_and_gather_add(ctx: Context, tangent: Operand, x: Operand, *, select_prim: Any, **params: Any) -> Operand:
    """The tangent of each window's best element."""
    operand, carried = ctx.value(x), ctx.value(tangent)
    mask = _occupied(operand.shape, ctx.outs[0].shape, params)
    if not mask.any():
        return zeros(ctx)
    for step in tournament(ctx, operand, params, largest=select_prim.name == "ge").steps:
        carried = step.forward(ctx, carried)
    return _only(ctx, mask, carried, 0)


def select_and_scatter_add(ctx: Context, source: Operand, x: Operand, *, select_prim: Any, **params: Any) -> Operand:
    """Each window's gradient goes to its best element."""
    operand, carried = ctx.value(x), ctx.value(source)
    mask = _occupied(operand.shape, carried.shape, params)
    if not mask.any():
        return zeros(ctx)
    carried = _only(ctx, mask, carried, 0)
    for step in reversed(tournament(ctx, operand, params, largest=select_prim.name == "ge").steps):
        carried = step.back(ctx, carried)
    return carried


# any associative function ------------------------------------------------------------------------------

Values = Sequence[Value]
Combine = Callable[[Values, Values], list[Value]]


def reduce_window(ctx: Context, *operands: Operand, jaxpr: Any, consts: Any = (), **params: Any) -> list[Operand]:
    """A tree over each window's elements, padded with the initial values, which enter once more at the end."""
    count = len(operands) // 2
    xs = [ctx.value(x) for x in operands[:count]]
    starts = [ctx.value(x) for x in operands[count:]]
    outs = [out.shape for out in ctx.outs]
    if 0 in outs[0]:
        return [np.zeros(out.shape, out.dtype) for out in ctx.outs]
    combine = vectorised(ctx, jaxpr, consts)
    for axis in axes_of(xs[0].shape, params):
        xs = _combined(ctx, [_rows_or(ctx, x, s, axis) for x, s in zip(xs, starts)], combine)
    wide = [ctx.broadcast(s, x.shape) for s, x in zip(starts, xs)]
    return list(combine(wide, xs))


def _rows_or(ctx: Context, x: Value, start: Value, axis: Axis) -> Value:
    """The windows of an axis, where nothing reads the initial value."""
    index = axis.index
    if (index == NOWHERE).any():
        row = ctx.broadcast(start, ctx.b.slice(x, axis.axis, 0, 1).shape if axis.size else _one(x, axis.axis))
        x = ctx.b.concatenate([x, row] if axis.size else [row], axis.axis)
        index = np.where(index == NOWHERE, axis.size, index)
    return Rows(axis.axis, index, x.shape).forward(ctx, x)


def _one(x: Value, axis: int) -> tuple[int, ...]:
    return (*x.shape[:axis], 1, *x.shape[axis + 1 :])


def _combined(ctx: Context, xs: list[Value], combine: Combine) -> list[Value]:
    while xs[0].shape[0] > 1:
        parts = [neighbours(ctx, x) for x in xs]
        pairs = combine([p[0] for p in parts], [p[1] for p in parts])
        xs = [ctx.b.concatenate([pair, *p[2]], 0) for pair, p in zip(pairs, parts)]
    return [single(ctx, x) for x in xs]


def vectorised(ctx: Context, jaxpr: Any, consts: Any) -> Combine:
    """A function of scalars, element by element."""
    closed = jaxpr if isinstance(jaxpr, jex.ClosedJaxpr) else jex.ClosedJaxpr(jaxpr, consts)
    function = jax.vmap(jex.jaxpr_as_fun(closed))
    dtypes = [out.dtype for out in ctx.outs]

    def combine(xs: Values, ys: Values) -> list[Value]:
        shape = xs[0].shape
        flat = [ctx.b.reshape(v, (v.type.size,)) for v in (*xs, *ys)]
        avals = [jax.ShapeDtypeStruct((flat[0].type.size,), d) for d in (*dtypes, *dtypes)]
        results = ctx.run(jax.make_jaxpr(function)(*avals), flat)
        return [ctx.b.reshape(ctx.value(r), shape) for r in results]

    return combine


RULES: dict[str, Rule] = {
    "reduce_window_sum": window_sum,
    "reduce_window_max": window_extreme("max"),
    "reduce_window_min": window_extreme("min"),
    "reduce_window": reduce_window,
    "select_and_gather_add": select_and_gather_add,
    "select_and_scatter_add": select_and_scatter_add,
}
