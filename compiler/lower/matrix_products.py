"""Rules of the matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import rescaled, zeros
from spuvm.compiler.lower.shape import ints


def dot_general(ctx: Context, x: Operand, y: Operand, *, dimension_numbers: Any, **_: Any) -> Operand:
    """One `dot` and one truncation; none where an operand is whole, nor any of these where one is empty."""
    if 0 in (*x.shape, *y.shape):
        return zeros(ctx)
    (xc, yc), (xb, yb) = dimension_numbers
    dims = tuple(tuple(map(ints, pair)) for pair in ((xc, yc), (xb, yb)))
    element = ctx.element(ctx.outs[0].dtype)
    if element == "bool":  # whether any pair is true
        z = ctx.b.op("dot", *(ctx.b.convert(ctx.value(v), "int32") for v in (x, y)), dims=dims)
        return ctx.b.not_(ctx.b.equal(z, ctx.like(0, z)))
    if not element.startswith("fxp"):
        return ctx.b.op("dot", *(ctx.b.convert(ctx.value(v), element) for v in (x, y)), dims=dims)
    p, q = (ctx.integral.get(v, v) for v in (_factor(ctx, x), _factor(ctx, y)))
    return rescaled(ctx, ctx.b.op("dot", p, q, dims=dims))


def _factor(ctx: Context, x: Operand) -> Value:
    """A constant keeps its own number of fraction bits."""
    if isinstance(x, Value):
        return ctx.b.convert(x, f"fxp{ctx.b.frac}")
    return fixedpoint.factor(ctx.b, np.asarray(x).astype(np.float64))


RULES: dict[str, Rule] = {"dot_general": dot_general}
