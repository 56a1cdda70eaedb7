"""How each elementary function is computed: one entry an operation of ir/elementary.py.

A way is called as way(builder, *operands, **attributes) and gives the result with builder.frac fraction bits. It sees
what the protocol's kernels, the ring and the operands are, and takes the cheapest of what its file has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.compiler.functions import (
    cbrt,
    division,
    exact_division,
    exp,
    gamma,
    inverse_angles,
    log,
    normal,
    quotients,
    saturating,
    sqrt,
    trig,
    whole_powers,
)
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.elementary import ELEMENTARY, EXACT
from spuvm.compiler.ir.module import Value

Way = Callable[..., Value]


def _by(b: Builder, x: Value, *, by: Any) -> Value:
    return exact_division.div_public(b, x, np.broadcast_to(np.asarray(by, np.float64), x.shape))


def _power_of(b: Builder, x: Value, *, base: float, whole: bool = False) -> Value:
    return (whole_powers.power_of_whole if whole else exp.power_of)(b, base, x)


WAYS: dict[str, Way] = {
    "exp": exp.exp,
    "power_of": _power_of,
    "expm1": exp.expm1,
    "log": log.log,
    "log1p": log.log1p,
    "log_over": log.log_over,
    "logistic": saturating.sigmoid,
    "tanh": saturating.tanh,
    "erf": saturating.erf,
    "sqrt": sqrt.sqrt,
    "rsqrt": sqrt.rsqrt,
    "sin": trig.sin,
    "cos": trig.cos,
    "div": division.div,
    "div_by": _by,
    "reciprocal": division.reciprocal,
    "integer_pow": division.integer_pow,
    "pow": sqrt.pow_,
    "cbrt": cbrt.cbrt,
    "arc": inverse_angles.arc,
    "erf_inv_ratio": normal.erf_inv_ratio,
    "erfc_tail": normal.erfc_tail,
    "lgamma_near": gamma.lgamma_near,
    "digamma_near": gamma.digamma_near,
    "quotient": quotients.quotient,
    "remainder": quotients.remainder,
}

assert WAYS.keys() == ELEMENTARY.keys() | EXACT
