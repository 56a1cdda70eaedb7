"""Primitives made from the rules of other families."""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.elementwise import finite, neg
from spuvm.compiler.lower.reduce import merged
from spuvm.compiler.lower.shape import ints
from spuvm.compiler.lower.sort import top_k
from spuvm.compiler.lower.window import _combined as combined
from spuvm.compiler.lower.window import vectorised


def reduce(ctx: Context, *args: Operand, jaxpr: Any, dimensions: Any, **_: Any) -> list[Value]:
    """Any function of two scalars (or of two tuples of them) that may be applied in any order, as a tree."""
    n = len(args) // 2
    shape = np.shape(args[0]) if not isinstance(args[0], Value) else args[0].shape
    xs = [merged(ctx, ctx.value(x, shape), ints(dimensions)) for x in args[:n]]
    combine = vectorised(ctx, jaxpr, ())
    start = [ctx.value(finite(ctx, v), x.shape[1:]) for v, x in zip(args[n:], xs)]
    return combine(start, combined(ctx, xs, combine)) if xs[0].shape[0] else start


def approx_top_k(ctx: Context, x: Value, *, k: int, reduction_dimension: int, is_max_k: bool, **_: Any) -> list[Value]:
    """The exact one."""
    values, indices = top_k(ctx, x if is_max_k else neg(ctx, x), k=k, axis=reduction_dimension)
    return [values if is_max_k else ctx.b.neg(values), indices]


RULES: dict[str, Rule] = {"reduce": reduce, "approx_top_k": approx_top_k}
