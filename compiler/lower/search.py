"""Binary search by comparison: `jnp.searchsorted`, and with it `histogram`, `digitize` and `interp`.

JAX's own form reads one element after another at secret places: many rounds. Here a query is
compared with the last element of each block, the block is read, and the query compared with all of
it: two comparisons' rounds and about 2 sqrt(n) comparisons for each query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand

SHORT = 32  # so many elements are compared all at once
SIDES = {"le_to": "left", "lt_to": "right"}  # the comparison of query and element in JAX's loop


def searchsorted(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    """The rule of JAX's inner function; None where its form is not the known one."""
    sides = {SIDES[name] for name in _primitives(closed.jaxpr) if name in SIDES}
    out = ctx.outs[0]
    if len(args) != 2 or len(sides) != 1 or len(args[0].shape) != 1 or args[1].shape != out.shape:
        return None
    table, queries = (_number(ctx, ctx.value(x)) for x in args)
    if table.type.element != queries.type.element or table.type.kind == "bool" or not all((*table.shape, *out.shape)):
        return None
    flat = ctx.b.reshape(queries, (queries.type.size,))
    place = _place(ctx, table, flat, right="right" in sides)
    return [ctx.b.reshape(ctx.b.convert(place, ctx.element(out.dtype)), out.shape)]


def _number(ctx: Context, x: Value) -> Value:
    """An integer narrower than the ring as a whole number, which padding may exceed."""
    return ctx.b.bitcast(x, "fxp0") if x.type.kind == "int" and x.type.bits < ctx.b.ring_bits else x


def _primitives(jaxpr: Any) -> Iterator[str]:
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                yield from _primitives(getattr(inner, "jaxpr", inner))


def _place(ctx: Context, table: Value, queries: Value, *, right: bool) -> Value:
    """int32[query]: how many elements stand before each query."""
    n, wide = table.shape[0], table.type.kind == "int" and table.type.bits >= ctx.b.ring_bits
    if n <= SHORT or wide:  # a query of the ring's width may equal what fills the last block
        return ctx.b.sum(_before(ctx, ctx.b.reshape(table, (n, 1)), queries, right), (0,))
    length = 1 << math.ceil(math.log2(n) / 2)
    full = n // length
    top = ctx.b.const(np.array(1 << fixedpoint.limit_bits(ctx.b.ring_bits), object), table.type.element)
    rest = ctx.b.broadcast(top, ((full + 1) * length - n,))
    blocks = ctx.b.reshape(ctx.b.concatenate([table, rest], 0), (full + 1, length))
    last = ctx.b.slice(ctx.b.slice(blocks, 0, 0, full), 1, length - 1, length)
    passed = _before(ctx, last, queries, right)  # [block, query], decreasing
    ends = [ctx.b.broadcast(ctx.b.const(e, "int32"), (1, *queries.shape)) for e in (1, 0)]
    which = ctx.b.sub(ctx.b.concatenate([ends[0], passed], 0), ctx.b.concatenate([passed, ends[1]], 0))
    which = ctx.b.bitcast(which, "fxp0" if table.type.kind == "fxp" else table.type.element)
    block = ctx.b.op("dot", blocks, which, dims=(((0,), (0,)), ((), ())))  # [element, query]
    within = ctx.b.sum(_before(ctx, block, queries, right), (0,))
    length_ = ctx.like(np.int32(length), within)
    return ctx.b.add(ctx.b.mul_raw(ctx.b.sum(passed, (0,)), length_), within)


def _before(ctx: Context, elements: Value, queries: Value, right: bool) -> Value:
    """int32[element, query]: whether an element stands before a query (right: or equals it)."""
    shape = (elements.shape[0], *queries.shape)
    x, y = ctx.b.broadcast(elements, shape), ctx.b.broadcast(queries, shape)
    before = ctx.b.not_(ctx.b.less(y, x)) if right else ctx.b.less(x, y)
    return ctx.b.convert(before, "int32")


# name of a function that JAX calls -> its own rule
CALLS = {"_searchsorted_scan_impl": searchsorted}
