"""Rules written in JAX: a primitive as a function of others, traced and lowered in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule


def apply(ctx: Context, function: Callable[..., Any], *args: Operand) -> list[Operand]:
    """The results of a JAX function on operands; its operations share the location of the equation at hand."""
    wide = any(o.dtype == np.float64 for o in ctx.outs)
    args = tuple(_operand(x, np.dtype("float64" if wide else "float32")) for x in args)
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(np.shape(x), _dtype(x, wide)) for x in args))
    return ctx.run(closed, args)


def _operand(x: Operand, floats: Any) -> Operand:
    if isinstance(x, Value) or kind_of(np.asarray(x).dtype) in "iub":
        return x
    return np.asarray(x).astype(floats)


def _dtype(x: Operand, wide: bool) -> Any:
    if not isinstance(x, Value):
        return x.dtype
    if x.type.kind == "fxp":
        return np.dtype("float64" if wide else "float32")
    return np.dtype(x.type.element)


def written(function: Callable[..., Any]) -> Rule:
    """The rule of a primitive without parameters that matter, and of one result."""

    def rule(ctx: Context, *args: Operand, **_: Any) -> Operand:
        (out,) = apply(ctx, function, *args)
        return out

    return rule
