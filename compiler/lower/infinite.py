"""Which values may be infinite: what a constant infinity was moved into. What stands for it is told from numbers.

A secret that comes in is finite, and what nothing infinite was chosen for or added to is, too: questions about it are
answered when compiling. Of the others infinite is what is beyond a quarter of what fixed point holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.ir.fixedpoint import MASK
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.jaxprs import bodies

# Primitives that only move values: a constant infinity among them is a mask, as in a choice.
MOVING = (
    *("concatenate", "pad", "stack", "tile", "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims"),
    *("rev", "slice", "dynamic_slice", "dynamic_update_slice", "gather", "scatter", "scatter-min", "scatter-max"),
    *("copy", "copy_p"),
)
LOOPS = frozenset({"scan", "while"})
WITH_BODIES = LOOPS | {"cond"}
TAKES_CONSTANTS = frozenset({*MOVING, "select_n", "add", "sub"}) | WITH_BODIES
PASSES_ON = TAKES_CONSTANTS | {
    *("neg", "abs", "max", "min", "clamp", "reduce_max", "reduce_min", "cummax", "cummin", "sort", "top_k"),
    *("split", "unstack", "stop_gradient", "reduce_precision", "convert_element_type", "optimization_barrier"),
    *("reduce_window_max", "reduce_window_min"),
}


def comes_in(primitive: str, args: Sequence[Any], infinite: Collection[Value]) -> bool:
    """Whether an operation with these operands may give something infinite."""
    if primitive not in PASSES_ON:
        return False
    return any(x in infinite if isinstance(x, Value) else primitive in TAKES_CONSTANTS and _has_mask(x) for x in args)


def is_carried(eqn: Any) -> bool:
    """Whether a loop's body moves a constant infinity into its values: what comes in the next time may be one."""
    return eqn.primitive.name in LOOPS and any(map(_is_put_in, bodies(eqn.params)))


def _is_put_in(jaxpr: Any) -> bool:
    for eqn in jaxpr.eqns:
        inner = list(bodies(eqn.params))
        takes = bool(inner) or eqn.primitive.name in TAKES_CONSTANTS
        given = (np.asarray(v.val) for v in eqn.invars if takes and isinstance(v, jex.Literal))
        if any(map(_has_mask, given)) or any(map(_is_put_in, inner)):
            return True
    return False


def _has_mask(x: Any) -> bool:
    if not isinstance(x, np.ndarray) or kind_of(x.dtype) != "f" or not x.size:
        return False
    once = x if any(x.strides) else x[(0,) * x.ndim]
    return bool((np.abs(np.asarray(once).astype(np.float64)) >= MASK).any())
