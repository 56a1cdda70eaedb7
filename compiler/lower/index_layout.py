"""Which axes of an operand the indices of gather, scatter and dynamic slices address."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.module import Op, Value
from spuvm.compiler.lower.context import Context
from spuvm.compiler.lower.oblivious import Index, Selection
from spuvm.compiler.lower.reduce import moved
from spuvm.runtime.ring.elements import signed

Label = tuple[str, int]  # an axis of the indices ("i") or of the operand ("x")


@dataclass(frozen=True)
class Layout:
    """Which axes of an operand the indices address; JAX's dimension numbers of gather and scatter alike.

    `windows` is the extent of a slice along each axis of the operand, `queries` the shape of the
    indices without their last axis.
    """

    shape: tuple[int, ...]
    windows: tuple[int, ...]
    queries: tuple[int, ...]
    indexed: tuple[int, ...]
    dropped: tuple[int, ...]  # axes of the operand that the slices do not have
    batch: tuple[int, ...]
    query_batch: tuple[int, ...]
    placed: tuple[int, ...]  # where the axes of the slices stand

    @property
    def rest(self) -> tuple[int, ...]:
        return tuple(d for d in range(len(self.shape)) if d not in (*self.batch, *self.indexed))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Elements of the batch, queries of each, elements of the rest."""
        batch = math.prod(self.shape[d] for d in self.batch)
        rest = math.prod(self.windows[d] for d in self.rest)
        return batch, math.prod(self.queries) // max(batch, 1), rest

    @property
    def standard(self) -> list[Label]:
        """The order batch, query, windows, rest."""
        free = [d for d in range(len(self.queries)) if d not in self.query_batch]
        return [("i", d) for d in (*self.query_batch, *free)] + [("x", d) for d in (*self.indexed, *self.rest)]

    @property
    def slices(self) -> list[Label]:
        """The order of the result of gather and of the updates of scatter."""
        names: dict[int, Label] = {}
        kept = [d for d in range(len(self.shape)) if d not in (*self.dropped, *self.batch)]
        names.update((p, ("x", d)) for p, d in zip(sorted(self.placed), kept))
        free = [p for p in range(len(self.queries) + len(kept)) if p not in names]
        names.update((p, ("i", d)) for d, p in enumerate(free))
        return [names[p] for p in sorted(names)]

    def size(self, label: Label) -> int:
        kind, d = label
        return self.queries[d] if kind == "i" else self.windows[d]

    def operand(self, ctx: Context, x: Value) -> Value:
        """[batch, axes..., rest], of the part that a slice at the start of the other axes covers."""
        for d in self.rest:
            x = ctx.b.slice(x, d, 0, self.windows[d]) if self.windows[d] < self.shape[d] else x
        x = moved(ctx, x, [*self.batch, *self.indexed, *self.rest])
        batch, _, rest = self.counts
        return ctx.b.reshape(x, (batch, *(self.shape[d] for d in self.indexed), rest))

    def back(self, ctx: Context, x: Value) -> Value:
        """The inverse of `operand`."""
        order = [*self.batch, *self.indexed, *self.rest]
        sizes = [self.windows[d] if d in self.rest else self.shape[d] for d in order]
        return moved(ctx, ctx.b.reshape(x, sizes), np.argsort(order).tolist())

    def as_slices(self, ctx: Context, z: Value) -> Value:
        """[batch, query, windows..., rest] -> the result of gather."""
        labels = [label for label in self.standard if label in self.slices]
        z = ctx.b.reshape(z, [self.size(label) for label in labels])
        return moved(ctx, z, [labels.index(label) for label in self.slices])

    def from_slices(self, ctx: Context, u: Value) -> Value:
        """The inverse of `as_slices`."""
        u = moved(ctx, u, [self.slices.index(label) for label in self.standard if label in self.slices])
        batch, queries, rest = self.counts
        return ctx.b.reshape(u, (batch, queries, *(self.windows[d] for d in self.indexed), rest))

    def selection(self, ctx: Context, indices: Sequence[Index], *, secret: bool, **options: Any) -> Selection:
        flat = self.queried(ctx, indices)
        sizes, windows = (tuple(v[d] for d in self.indexed) for v in (self.shape, self.windows))
        return Selection(ctx, flat, sizes, windows, rest=self.counts[2], secret_data=secret, **options)

    def places(self, indices: NDArray[Any], *, clip: bool) -> NDArray[np.int64]:
        """[batch, update]: the element of the indexed axes, flat, that an update of known indices goes to, or -1."""
        order = [*self.query_batch, *(d for d in range(len(self.queries)) if d not in self.query_batch)]
        flat = indices.astype(np.int64).transpose(*order, len(order)).reshape(*self.counts[:2], -1)
        place, inside = np.zeros((*flat.shape[:2], 1), np.int64), np.ones((*flat.shape[:2], 1), bool)
        for j, d in enumerate(self.indexed):
            last = self.shape[d] - self.windows[d]
            start = np.clip(flat[..., j], 0, last)
            inside &= clip | (start == flat[..., j])[..., None]
            within = start[..., None] + np.arange(self.windows[d])
            place = (place[..., None] * self.shape[d] + within[..., None, :]).reshape(*flat.shape[:2], -1)
        return np.where(inside, place, -1).reshape(flat.shape[0], -1)

    def queried(self, ctx: Context, indices: Sequence[Index]) -> list[Index]:
        """Each index as [batch, query]."""
        order = [*self.query_batch, *(d for d in range(len(self.queries)) if d not in self.query_batch)]
        return [i.map(lambda v: ctx.b.reshape(moved(ctx, narrow(ctx, v), order), self.counts[:2])) for i in indices]


def narrow(ctx: Context, index: Value) -> Value:
    """Indices of few bits as int32: the positions fit."""
    return ctx.b.convert(index, "int32") if index.type.bits < 32 else index


def components(ctx: Context, indices: Value) -> list[Index]:
    """The parts of index vectors; those that were put together by the program keep who knows them."""
    made = made_by(ctx)
    op = made.get(indices)
    last = len(indices.shape) - 1
    joined = op is not None and op.name == "concatenate" and op.attrs["axis"] == last
    parts = []
    for piece in op.inputs if op is not None and joined else [indices]:
        for j in range(piece.shape[last]):
            part = piece if piece.shape[last] == 1 else ctx.b.slice(piece, last, j, j + 1)
            parts.append(wrapped(ctx, ctx.b.reshape(part, part.shape[:last]), made | made_by(ctx)))
    return parts


def made_by(ctx: Context) -> dict[Value, Op]:
    return {v: op for op in ctx.b.region.ops for v in op.outputs}


def wrapped(ctx: Context, index: Value, made: dict[Value, Op]) -> Index:
    """The index with what it was made from, if that is where(i < 0, i + n, i), as JAX writes x[i]."""
    op = made.get(index)
    while op is not None and op.name in ("reshape", "broadcast") and op.inputs[0].type.size == index.type.size:
        op = made.get(op.inputs[0])
    if op is None or op.name != "select" or not index.type.is_secret or not index.type.signed:
        return Index(index)
    condition, shifted, raw = (made.get(op.inputs[0]), made.get(op.inputs[1]), op.inputs[2])
    if condition is None or condition.name != "less" or condition.inputs[0] is not raw:
        return Index(index)
    if shifted is None or shifted.name != "add" or shifted.inputs[0] is not raw:
        return Index(index)
    zero, wrap = (_number(v, made) for v in (condition.inputs[1], shifted.inputs[1]))
    if zero != 0 or wrap is None or raw.type != op.output.type:
        return Index(index)
    return Index(index, ctx.b.reshape(raw, index.shape), wrap)


def _number(x: Value, made: dict[Value, Op]) -> int | None:
    """The integer that a constant repeats."""
    op = made.get(x)
    while op is not None and op.name == "broadcast":
        op = made.get(op.inputs[0])
    if op is None or op.name != "const" or op.attrs["data"].size != 1:
        return None
    return int(signed(op.attrs["data"].reshape(-1))[0])


def as_number(ctx: Context, x: Value) -> Value:
    return ctx.b.convert(x, "int32") if x.type.kind == "bool" else x


def as_bool(ctx: Context, x: Value, original: Value) -> Value:
    return ctx.b.not_(ctx.b.equal(x, ctx.like(0, x))) if original.type.kind == "bool" else x
