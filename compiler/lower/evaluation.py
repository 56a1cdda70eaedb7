"""A jaxpr evaluated equation by equation while JAX traces: how functions are rewritten before they are lowered.

Complex numbers, numbers that may be NaN, random keys and prints each have a way to compute an equation on operands of
their own, and are traced anew so; every new equation is attributed to the source line of the one that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.front.private_jax import attributed
from spuvm.compiler.front.trace import location_of
from spuvm.compiler.ir.module import Location
from spuvm.compiler.lower.context import dtype_of
from spuvm.compiler.lower.folded import constant_of

INLINED = ("jaxpr", "call_jaxpr")  # parameters that hold the body of a call


def evaluate(
    closed: Any,
    args: Sequence[Any],
    equation: Callable[[Any, list[Any], Location | None], list[Any]],
    constant: Callable[[Any], Any] = constant_of,
) -> list[Any]:
    """The results of a jaxpr: `equation` gives those of one equation, which the user's line (or None) made.

    `constant` gives an operand for a constant.
    """
    jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, jex.ClosedJaxpr) else (closed, ())
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, map(constant, consts)))
    env.update(zip(jaxpr.invars, args))

    def read(v: Any) -> Any:
        return constant(np.asarray(v.val, dtype_of(v.aval))) if isinstance(v, jex.Literal) else env[v]

    for eqn in jaxpr.eqns:
        line = location_of(eqn, jaxpr)
        with attributed(eqn) if line else nullcontext():  # without one, new equations are of the call's line
            env.update(zip(eqn.outvars, equation(eqn, [read(v) for v in eqn.invars], line)))
    return [read(v) for v in jaxpr.outvars]


def struct_of(aval: Any) -> Any:
    """What an argument of that type is traced by."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def bind(eqn: Any, args: list[Any], params: dict[str, Any]) -> list[Any]:
    """The equation itself, on these operands."""
    bound = eqn.primitive.get_bind_params(params)
    functions, rest = bound if isinstance(bound, tuple) else ((), bound)
    out = eqn.primitive.bind(*functions, *args, **rest)
    return list(out) if eqn.primitive.multiple_results else [out]
