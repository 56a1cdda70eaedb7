"""Bodies of loops and branches: which of their operands stay known, and who sees the others.

A *slot* describes an operand of a body: a known array stays known within it, anything else is a
type. Loops look for a fixed point: a carried value is known while the body returns the same
array, then public, private, or secret as the body makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.ir.dtypes import is_key
from spuvm.compiler.ir.module import Region, Type, Value, Visibility, join
from spuvm.compiler.ir.ops import parse_element
from spuvm.compiler.lower.context import Context, Known, Operand
from spuvm.compiler.lower.elementwise import finite
from spuvm.runtime.errors import UnsupportedError

Slot = Type | Any

KEY_IN_LOOP = "a random key differs from one iteration to the next: draw all random numbers before the loop."


def slot(x: Operand) -> Slot:
    return x.type if isinstance(x, Value) else x


def row_slot(ctx: Context, x: Operand) -> Slot:
    """The slot of one row of a stacked operand."""
    if isinstance(x, Value):
        return x.type.with_(shape=x.shape[1:])
    row = x[0]
    if is_key(x):
        raise UnsupportedError(KEY_IN_LOOP)
    if (x == row).all():
        return np.asarray(row)
    return typed(ctx, row, "public")


def typed(ctx: Context, x: Any, visibility: Visibility) -> Type:
    """The type of a value for a known array or an abstract one."""
    return parse_element(ctx.element(x.dtype)).with_(shape=tuple(x.shape), visibility=visibility)


def visibility(x: Operand | Slot) -> Visibility:
    if isinstance(x, Value):
        return x.type.visibility
    return x.visibility if isinstance(x, Type) else "public"


def merge(ctx: Context, before: Slot, after: Operand) -> Slot:
    """The slot that holds what came in and what the body returns."""
    if not isinstance(before, Type):
        if not isinstance(after, Value) and equal(before, after):
            return before
        if is_key(before):
            raise UnsupportedError(KEY_IN_LOOP)
        before = typed(ctx, before, "public")
    return before.with_(visibility=join(before.visibility, visibility(after)))


def equal(x: Known, y: Known) -> bool:
    if is_key(x):
        return is_key(y) and bool((jax.random.key_data(x) == jax.random.key_data(y)).all())
    return np.array_equal(x, y)


def fixed(before: Sequence[Slot], after: Sequence[Slot]) -> bool:
    """Whether an iteration changed no slot; `merge` keeps the object of a known array."""
    return all(a is b or (isinstance(a, Type) and isinstance(b, Type) and a == b) for a, b in zip(after, before))


def lower_body(ctx: Context, closed: Any, slots: Sequence[Slot]) -> tuple[Region, list[Operand]]:
    """The body's operations as a region whose parameters are the slots that are types."""
    with ctx.region([s for s in slots if isinstance(s, Type)]) as region:
        params = iter(region.params)
        results = ctx.run(closed, [next(params) if isinstance(s, Type) else s for s in slots])
    return region, results


def shown(ctx: Context, x: Operand, type_: Type) -> Value:
    """`x` as a value of `type_`, which is as visible or less: sharing it where needed."""
    value = ctx.value(finite(ctx, x))
    if value.type.visibility == type_.visibility:
        return value
    return ctx.b.op("share", value, to=type_.visibility)


def values(xs: Sequence[Operand]) -> list[Value]:
    return [x for x in xs if isinstance(x, Value)]


def repeated(x: Known, trips: int) -> Known:
    """A known row of every iteration, stacked."""
    return np.broadcast_to(x, (trips, *np.shape(x)))
