"""A stage for a device other than the processor: in, its function; out, one without calls of the native library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spuvm.compiler.project.stage_function import Equation, Function, Later, StageFunction
from spuvm.runtime.ring.arithmetic import by_limbs, call_elsewhere
from spuvm.runtime.ring.native import MATMUL_TARGET, WIDE_TARGET


def elsewhere(function: StageFunction | Later, limbs: str) -> Function:
    """The function, its products of matrices by limbs of this kind (`ring.limbs`)."""

    def run(*arrays: Any) -> Sequence[Any]:
        made = function.made() if isinstance(function, Later) else function
        with by_limbs(limbs):
            return made.evaluated(_applied, arrays)

    return run


def _applied(equation: Equation, arguments: Sequence[Any]) -> Sequence[Any]:
    params = equation.params or {}
    target = params.get("target_name")
    if target not in (MATMUL_TARGET, WIDE_TARGET):
        return equation.apply(*arguments)
    attributes = dict(params["attributes"])
    turned = (bool(getattr(v, "value", v)) for v in (attributes["x_transposed"], attributes["y_transposed"]))
    return call_elsewhere(target, arguments, *turned)
