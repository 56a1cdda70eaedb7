"""Constants and rearrangements: the same function on every component, without messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from spuvm.compiler.expand.expander import Expander, Rule, Shared
from spuvm.compiler.expand.masked import keep_forms
from spuvm.compiler.expand.sharings import known_kind
from spuvm.compiler.ir.module import Op, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.runtime.ring import arithmetic, in_the_clear


def expand_const(ex: Expander, op: Op) -> None:
    data = op.attrs["data"]
    if op.output.type.kind == "bool":
        return ex.set(op.output, ex.constant(data != np.zeros((), data.dtype), "uint8"))
    ex.set(op.output, ex.constant(data))


# Rearrangements: the same function on every component -------------------------------------------------------------


def _common_kind(ex: Expander, values: list[Value], adds: bool) -> str:
    """The share kind in which values can be put side by side, or added up."""
    kinds = {ex.primary(v).kind for v in values} - {"p", "v"}
    if values[0].type.kind == "bool":
        return "b"
    if kinds == {"d"} and len(values) == 1:
        return "d"
    return "b" if kinds == {"b"} and not adds else "a"


def local_rule(name: str) -> Rule:
    function = LOCAL[name]

    def run(ex: Expander, op: Op) -> None:
        positions = tuple(index_operands(name, len(op.inputs)))
        data = [v for i, v in enumerate(op.inputs) if i not in positions]
        owners = {ex.primary(v).owner for v in data if ex.primary(v).kind == "v"}
        if all(ex.primary(v).known for v in data) and len(owners) <= 1:
            kind, shared = known_kind([ex.primary(v) for v in data]), {v: ex.primary(v) for v in data}
        else:
            kind = _common_kind(ex, data, name in ADDING)
            shared = {v: ex.primary(v) if kind == "d" else ex.as_kind(v, kind) for v in data}
        operands = [ex.primary(v) if i in positions else shared[v] for i, v in enumerate(op.inputs)]
        if name in SPLAT and operands[0].shape == () and op.inputs[0].shape != ():
            return ex.set(op.output, operands[0])
        if name == "broadcast" and op.inputs[0].shape == ():
            return ex.set(op.output, operands[0])
        operands = [ex.whole(x, v.shape) for x, v in zip(operands, op.inputs)]
        attrs = {k: _hashable(v) for k, v in op.attrs.items()}

        def rearranged(first: Shared, kind: str) -> Shared:
            return ex.apply(
                name,
                _on_elements(function, positions, name in ADDING),
                first,
                *operands[1:],
                kind=kind,
                public=positions if kind not in "pv" else (),
                shape=op.output.shape,
                dtype=first.dtype,
                elementwise=False,
                attrs=attrs,
            )

        ex.set(op.output, rearranged(operands[0], kind))
        if len(data) == 1 and kind == "v" and name not in ADDING:
            keep_forms(ex, op, lambda x: rearranged(ex.whole(x, op.inputs[0].shape), x.kind))

    return run


ADDING = {"sum", "cumsum", "scatter_add"}  # within a component: not what exclusive or is linear over
SPLAT = {"reshape", "transpose", "slice", "rev", "broadcast"}  # of equal elements: still equal


@cache
def _on_elements(function: Callable[..., Any], positions: tuple[int, ...], adds: bool) -> Callable[..., Any]:
    """The function of arrays on ring elements, of one or two limbs; indices are known, and in one array."""
    over_limbs = arithmetic.linear if adds else arithmetic.moved

    def run(*operands: Any, **params: Any) -> Any:
        ready = [in_the_clear.signed(x).astype(np.int64) if i in positions else x for i, x in enumerate(operands)]
        return over_limbs(partial(function, **params), *ready)

    return run


def _hashable(x: Any) -> Any:
    return tuple(_hashable(v) for v in x) if isinstance(x, list | tuple) else x
