"""The steps of a tournament over windows: linear maps of what belongs to each candidate, and their transposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context
from spuvm.compiler.lower.conv import NOWHERE, Index
from spuvm.compiler.lower.reduce import _neighbours as neighbours
from spuvm.compiler.lower.reduce import moved


class Step(Protocol):
    """A linear map of what is known about each candidate, and its transpose."""

    def forward(self, ctx: Context, x: Value) -> Value: ...

    def back(self, ctx: Context, x: Value) -> Value: ...


@dataclass(frozen=True)
class Rows:
    """Gather the windows of an axis; the offset within a window becomes the leading axis."""

    axis: int
    index: Index
    shape: tuple[int, ...]

    @property
    def _tiles(self) -> bool:
        """Whether the windows lie side by side from the first element on."""
        return np.array_equal(self.index, np.arange(self.index.size).reshape(self.index.shape))

    @property
    def _split(self) -> tuple[int, ...]:
        return (*self.shape[: self.axis], *self.index.shape, *self.shape[self.axis + 1 :])

    def forward(self, ctx: Context, x: Value) -> Value:
        if self._tiles:
            if self.index.size < self.shape[self.axis]:
                x = ctx.b.slice(x, self.axis, 0, self.index.size)
            order = [self.axis + 1, *(d for d in range(len(self._split)) if d != self.axis + 1)]
            return moved(ctx, ctx.b.reshape(x, self._split), order)
        sizes = (*self.shape[: self.axis], 1, *self.shape[self.axis + 1 :])
        mode = "fill" if (self.index == NOWHERE).any() else "promise_in_bounds"
        return ctx.b.op("gather", x, self._where(ctx), dims=self._dims, sizes=sizes, mode=mode)

    def back(self, ctx: Context, x: Value) -> Value:
        rest = self.shape[self.axis] - self.index.size
        if not self._tiles:
            nothing = ctx.b.broadcast(ctx.b.const(0, x.type.element), self.shape)
            return ctx.b.op("scatter_add", nothing, self._where(ctx), x, dims=self._dims, mode="fill")
        order = [*range(1, self.axis + 2), 0, *range(self.axis + 2, len(self._split))]
        shape = (*self.shape[: self.axis], self.index.size, *self.shape[self.axis + 1 :])
        x = ctx.b.reshape(moved(ctx, x, order), shape)
        return padded(ctx, x, self.axis, 0, rest) if rest else x

    def _where(self, ctx: Context) -> Value:
        return ctx.b.const(np.ascontiguousarray(self.index.T)[..., None], "int64")

    @property
    def _dims(self) -> tuple[tuple[int, ...], ...]:
        """[offset, position] index the result: the window dimensions stand around the positions."""
        around = tuple(d + 1 for d in range(len(self.shape)) if d != self.axis)
        return (around, (self.axis,), (self.axis,), (), ())


@dataclass(frozen=True)
class Pairs:
    """Neighbours along the leading axis: the second where `choice`, else the first."""

    choice: Value

    def forward(self, ctx: Context, x: Value) -> Value:
        first, second, odd = neighbours(ctx, x)
        return ctx.b.concatenate([ctx.b.select(self.choice, second, first), *odd], 0)

    def back(self, ctx: Context, x: Value) -> Value:
        n, shape = self.choice.shape[0], self.choice.shape
        both = ctx.b.slice(x, 0, 0, n)
        second = where(ctx, self.choice, both)
        sides = [ctx.b.reshape(v, (n, 1, *shape[1:])) for v in (ctx.b.sub(both, second), second)]
        pairs = ctx.b.reshape(ctx.b.concatenate(sides, 1), (2 * n, *shape[1:]))
        odd = [ctx.b.slice(x, 0, n, x.shape[0])] if x.shape[0] > n else []
        return ctx.b.concatenate([pairs, *odd], 0)


@dataclass(frozen=True)
class Slide:
    """Each element or the one `distance` further on."""

    axis: int
    distance: int
    choice: Value

    def forward(self, ctx: Context, x: Value) -> Value:
        return ctx.b.select(self.choice, *reversed(apart(ctx, x, self.axis, self.distance)))

    def back(self, ctx: Context, x: Value) -> Value:
        later = where(ctx, self.choice, x)
        return ctx.b.add(
            padded(ctx, ctx.b.sub(x, later), self.axis, 0, self.distance),
            padded(ctx, later, self.axis, self.distance, 0),
        )


@dataclass(frozen=True)
class Every:
    """Each stride-th element."""

    axis: int
    stride: int
    size: int

    def forward(self, ctx: Context, x: Value) -> Value:
        return ctx.b.slice(x, self.axis, 0, self.size, self.stride)

    def back(self, ctx: Context, x: Value) -> Value:
        high = self.size - 1 - (x.shape[self.axis] - 1) * self.stride
        return padded(ctx, x, self.axis, 0, high, self.stride - 1)


@dataclass(frozen=True)
class Single:
    """Drop a leading axis of one."""

    def forward(self, ctx: Context, x: Value) -> Value:
        return single(ctx, x)

    def back(self, ctx: Context, x: Value) -> Value:
        return ctx.b.reshape(x, (1, *x.shape))


def where(ctx: Context, choice: Value, x: Value) -> Value:
    """x where `choice`, else 0: one product with a bit."""
    factor = ctx.b.convert(choice, "fxp0" if x.type.kind == "fxp" else x.type.element)
    return ctx.b.mul_raw(x, factor)


def apart(ctx: Context, x: Value, axis: int, distance: int) -> tuple[Value, Value]:
    n = x.shape[axis]
    return ctx.b.slice(x, axis, 0, n - distance), ctx.b.slice(x, axis, distance, n)


def padded(ctx: Context, x: Value, axis: int, low: int, high: int, interior: int = 0) -> Value:
    attrs = {
        name: tuple(n if d == axis else 0 for d in range(len(x.shape)))
        for name, n in (("low", low), ("high", high), ("interior", interior))
    }
    return ctx.b.op("pad", x, ctx.b.const(0, x.type.element), **attrs)


def single(ctx: Context, x: Value) -> Value:
    """Drop a leading axis of one."""
    return ctx.b.reshape(x, x.shape[1:])
