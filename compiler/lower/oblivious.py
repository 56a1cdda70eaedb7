"""Selection by secret indices: what is read or written is a product with one-hot vectors.

An index becomes the bits of its position, the bits one-hot vectors; every element is touched, so
nothing about the index shows. A long axis is split into two digits, a high and a low one: reading
contracts one after the other, at 25 bytes for each entry of the two short vectors (ABY3) instead
of the long one. Costs are proportional to the indexed axis, locally, and to its square root or
less in what is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context
from spuvm.compiler.lower.reduce import moved

FEW = 4  # up to so many positions the index is compared with each: fewer bytes than its bits
ENTRY, PRODUCT = 25, 24  # bytes of an entry of a secret one-hot vector, of a product


@dataclass(frozen=True)
class Index:
    """An index; of one that counts from the end, `raw` is the number before `wrap` was added to a negative."""

    value: Value
    raw: Value | None = None
    wrap: int = 0

    def map(self, function: Callable[[Value], Value]) -> Index:
        return Index(function(self.value), self.raw if self.raw is None else function(self.raw), self.wrap)


@dataclass(frozen=True)
class Digit:
    """A one-hot vector for each query: `hot` is bool[size, batch, query]. Of a window: of its start."""

    size: int
    window: int
    hot: Value

    @property
    def secret(self) -> bool:
        return self.hot.type.is_secret

    def numbers(self, ctx: Context, element: str) -> Value:
        """[window, size, batch, query]: whether offset w of the window is element i."""
        hot = ctx.b.convert(self.hot, element)
        if self.window == 1:
            return ctx.b.reshape(hot, (1, *hot.shape))
        start = np.arange(self.size)[None] - np.arange(self.window)[:, None]
        inside = (start >= 0) & (start <= self.size - self.window)
        where = ctx.b.const(np.where(inside, start, -1)[..., None], "int64")
        return ctx.b.op("gather", hot, where, dims=((2, 3), (0,), (0,), (), ()), sizes=(1, *hot.shape[1:]), mode="fill")


@dataclass
class Selection:
    """Positions in the indexed axes of an operand; the data is [batch, axes..., rest].

    `indices` are [batch, query], one for each axis. An index beyond the axis counts as the nearest
    one (`clip`), or selects nothing. Reading costs more where the data is secret as well.
    """

    ctx: Context
    indices: Sequence[Index]
    sizes: tuple[int, ...]
    windows: tuple[int, ...]
    clip: bool
    rest: int
    secret_data: bool
    split: bool = True
    digits: list[Digit] = field(default_factory=list)  # in order of the axes
    parts: list[int] = field(default_factory=list)  # how many digits each axis has

    def __post_init__(self) -> None:
        for j, index in enumerate(self.indices):
            others = math.prod(self.sizes[:j] + self.sizes[j + 1 :]) * self.rest
            made = self._digits(index, self.sizes[j], self.windows[j], others)
            self.digits += made
            self.parts.append(len(made))

    def _digits(self, index: Index, size: int, window: int, others: int) -> list[Digit]:
        count = size - window + 1
        if not index.value.type.is_secret or count <= FEW:
            hot = few(self.ctx, index.value, count, clip=self.clip)
            return [Digit(size, window, hot)]
        low = self._low_bits(count, others) if window == 1 and self.split else 0
        bits, inside = index_bits(self.ctx, index, count, clip=self.clip)
        high = demultiplexed(self.ctx, self.ctx.b.slice(bits, 0, low, bits.shape[0]))
        high = self.ctx.b.slice(high, 0, 0, -(-count // (1 << low)))
        hots = [high, demultiplexed(self.ctx, self.ctx.b.slice(bits, 0, 0, low))] if low else [high]
        if inside is not None:
            hots[-1] = masked(self.ctx, hots[-1], inside)
        if low == 0:
            return [Digit(size, window, hots[0])]
        return [Digit(h.shape[0], 1, h) for h in hots]

    def _low_bits(self, count: int, others: int) -> int:
        """How many bits the low digit has, to send the least; 0 for a single digit."""

        def sent(bits: int) -> int:
            low = 1 << bits if bits else 0
            return ENTRY * (-(-count // max(low, 1)) + low) + PRODUCT * low * others * self.secret_data

        return min(range((count - 1).bit_length()), key=sent)

    def only(self, alive: Value) -> Selection:
        """The same without the queries that are not `alive` (bool[batch, query])."""
        first = self.digits[0]
        digits = [replace(first, hot=masked(self.ctx, first.hot, alive)), *self.digits[1:]]
        out = Selection(self.ctx, (), self.sizes, self.windows, self.clip, self.rest, self.secret_data)
        out.digits, out.parts = digits, self.parts
        return out

    @property
    def _order(self) -> list[int]:
        """Digits that somebody knows first, then the longest: the first to be contracted when reading."""
        return sorted(range(len(self.digits)), key=lambda i: (self.digits[i].secret, -self.digits[i].size))

    @property
    def _padded(self) -> list[int]:
        """The sizes of the axes as multiples of their low digits."""
        ends = np.cumsum(self.parts).tolist()
        return [math.prod(d.size for d in self.digits[end - n : end]) for n, end in zip(self.parts, ends)]

    def read(self, x: Value) -> Value:
        """[batch, axes..., rest] -> [batch, query, windows..., rest]"""
        b, element, order = self.ctx.b, _element(x), self._order
        for axis, (have, want) in enumerate(zip(self.sizes, self._padded), 1):
            if want > have:
                x = _with_zeros(self.ctx, x, axis, want - have)
        x = b.reshape(x, (x.shape[0], *(d.size for d in self.digits), self.rest))
        x = moved(self.ctx, x, [0, *(i + 1 for i in order), len(order) + 1])
        for step, i in enumerate(order):
            hot = self.digits[i].numbers(self.ctx, element)
            if step == 0:  # [batch, window, query, ...]
                x = b.op("dot", hot, x, dims=(((1,), (1,)), ((2,), (0,))))
                x = moved(self.ctx, x, [0, 2, *range(3, len(x.shape)), 1])
            else:  # [batch, query, window, ...]
                x = b.op("dot", hot, x, dims=(((1,), (2,)), ((2, 3), (0, 1))))
                x = moved(self.ctx, x, [0, 1, *range(3, len(x.shape)), 2])
        back = np.argsort(order).tolist()  # windows stand behind the rest, in the order of the steps
        x = moved(self.ctx, x, [0, 1, *(3 + i for i in back), 2])
        return b.reshape(x, (*x.shape[:2], *self.windows, self.rest))

    def write(self, u: Value) -> Value:
        """The transpose of `read`: [batch, query, windows..., rest] -> sums in [batch, axes..., rest]."""
        b, element, order = self.ctx.b, _element(u), self._order
        u = b.reshape(u, (*u.shape[:2], *(d.window for d in self.digits), self.rest))
        u = moved(self.ctx, u, [0, 1, *(i + 2 for i in order), len(order) + 2])
        for step, i in reversed(list(enumerate(order))):
            hot = self.digits[i].numbers(self.ctx, element)
            if step == 0:
                u = b.op("dot", hot, u, dims=(((0, 3), (2, 1)), ((2,), (0,))))
            else:  # [batch, query, size, windows before, ...]
                u = b.op("dot", hot, u, dims=(((0,), (2 + step,)), ((2, 3), (0, 1))))
                u = moved(self.ctx, u, [0, 1, *range(3, 3 + step), 2, *range(3 + step, len(u.shape))])
        u = moved(self.ctx, u, [0, *(1 + i for i in np.argsort(order).tolist()), len(order) + 1])
        u = b.reshape(u, (u.shape[0], *self._padded, self.rest))
        for axis, n in enumerate(self.sizes, 1):
            u = b.slice(u, axis, 0, n) if u.shape[axis] > n else u
        return u

    def whole(self) -> Value:
        """bool[axes..., batch, query]: the one-hot arrays of the positions themselves; windows of one only."""
        out = self.digits[0].hot
        for digit in self.digits[1:]:
            out = _outer(self.ctx, out, digit.hot, tail=2)
        out = self.ctx.b.reshape(out, (*self._padded, *out.shape[-2:]))
        for axis, n in enumerate(self.sizes):
            out = self.ctx.b.slice(out, axis, 0, n) if out.shape[axis] > n else out
        return out


def _element(x: Value) -> str:
    return "fxp0" if x.type.kind == "fxp" else x.type.element


def _with_zeros(ctx: Context, x: Value, axis: int, count: int) -> Value:
    shape = tuple(count if d == axis else n for d, n in enumerate(x.shape))
    return ctx.b.concatenate([x, ctx.b.broadcast(ctx.b.const(0, x.type.element), shape)], axis)


# one-hot vectors ---------------------------------------------------------------------------------------


def few(ctx: Context, index: Value, count: int, *, clip: bool) -> Value:
    """bool[count, *index]: by comparison with every position."""
    b = ctx.b
    if count == 1 and clip:
        return b.broadcast(b.const(1, "bool"), (1, *index.shape))
    if not index.type.is_secret:
        index = _clipped(ctx, index, count) if clip else index
        return b.equal(*_against(ctx, index, np.arange(count)))
    if not clip:
        return b.equal(*_against(ctx, index, np.arange(count)))
    below = b.less(*_against(ctx, index, np.arange(1, count)))  # increases with the position
    ends = [b.broadcast(b.const(int(e), "bool"), (1, *index.shape)) for e in (False, True)]
    return b.logical("xor", b.concatenate([below, ends[1]], 0), b.concatenate([ends[0], below], 0))


def _against(ctx: Context, index: Value, positions: NDArray[np.int64]) -> tuple[Value, Value]:
    shape = (len(positions), *index.shape)
    column = ctx.b.const(_column(positions, index), index.type.element)
    return ctx.b.broadcast(index, shape), ctx.b.broadcast(column, shape)


def _clipped(ctx: Context, index: Value, count: int) -> Value:
    """Of an index that somebody knows."""
    b = ctx.b
    for limit, low in ((0, True), (count - 1, False)):
        bound = ctx.like(limit, index)
        outside = b.less(index, bound) if low else b.less(bound, index)
        index = b.select(outside, bound, index)
    return index


def index_bits(ctx: Context, index: Index, count: int, *, clip: bool) -> tuple[Value, Value | None]:
    """bool[bit, *index] of a secret index below `count`, lowest bit first, and whether it is inside.

    One conversion to bits beside one comparison with the end; where negatives count from the end, a
    second conversion beside them is cheaper than a comparison before, and another comparison if it may
    be beyond the end then, as the start of a window may. Clipped: the bits are those of the nearest
    position, and there is nothing to say about the inside.
    """
    b, width = ctx.b, (count - 1).bit_length()
    x = index.value if index.raw is None else index.raw
    bits = low_bits(ctx, x, width)
    over, under = b.less(ctx.like(np.int64(count - 1), x), x), None
    if x.type.signed:
        under = _negative(ctx, x)
    if index.raw is not None and under is not None:
        from_end = b.add(x, ctx.like(np.int64(index.wrap), x))
        bits = b.select(b.broadcast(under, bits.shape), low_bits(ctx, from_end, width), bits)
        if index.wrap > count:
            beyond = b.less(ctx.like(np.int64(count - 1 - index.wrap), x), x)
            over = b.logical("xor", over, b.logical("and", under, beyond))
        under = b.logical("and", under, _negative(ctx, from_end))  # a large one may have wrapped around
    inside = b.not_(over if under is None else b.logical("xor", over, under))
    if not clip:
        return bits, inside
    last = ((count - 1) >> np.arange(width)) & 1
    ones = b.const(_column(last, x), "bool")
    end = b.logical("and", b.broadcast(over, bits.shape), b.broadcast(ones, bits.shape))
    return b.logical("xor", b.logical("and", bits, b.broadcast(inside, bits.shape)), end), None


def _negative(ctx: Context, x: Value) -> Value:
    return ctx.b.op("bit_parity", x, mask=1 << (ctx.b.ring_bits - 1))


def low_bits(ctx: Context, x: Value, width: int) -> Value:
    """bool[width, *x] of an integer, lowest first."""
    b, shape = ctx.b, (width, *x.shape)
    masks = b.const(_column(np.left_shift(1, np.arange(width)), x), x.type.element)
    low = b.logical("and", x, ctx.like(np.int64((1 << width) - 1), x))  # to bits before it is repeated
    each = b.logical("and", b.broadcast(low, shape), b.broadcast(masks, shape))
    return b.op("bit_parity", each, mask=(1 << width) - 1)


def _column(numbers: NDArray[np.int64], x: Value) -> NDArray[np.int64]:
    return numbers.reshape(-1, *[1] * len(x.shape))


def demultiplexed(ctx: Context, bits: Value) -> Value:
    """bool[bit, ...], lowest first -> bool[2^bits, ...]: one `and` for each entry."""
    n = bits.shape[0]
    if n == 1:
        return ctx.b.concatenate([ctx.b.not_(bits), bits], 0)
    low = demultiplexed(ctx, ctx.b.slice(bits, 0, 0, n // 2))
    high = demultiplexed(ctx, ctx.b.slice(bits, 0, n // 2, n))
    return _outer(ctx, high, low, tail=len(bits.shape) - 1)


def _outer(ctx: Context, x: Value, y: Value, *, tail: int) -> Value:
    """x[i, ...] and y[j, ...] at [i * len(y) + j, ...]"""
    same = x.shape[len(x.shape) - tail :]
    shape = (x.shape[0], y.shape[0], *same)
    wide = ctx.b.broadcast(ctx.b.reshape(x, (x.shape[0], 1, *same)), shape)
    return ctx.b.reshape(ctx.b.logical("and", wide, ctx.b.broadcast(y, shape)), (math.prod(shape[:2]), *same))


def masked(ctx: Context, hot: Value, condition: Value) -> Value:
    """hot[i, ...] and condition[...]"""
    return ctx.b.logical("and", hot, ctx.b.broadcast(condition, hot.shape))
