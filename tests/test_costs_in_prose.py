"""Rounds and bytes that docstrings quote are those of the tables: what a program of the function alone costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jax import lax

import spuvm as spu
from spuvm.compiler.functions import cbrt, division, log, sqrt, trig
from spuvm.compiler.lower import composed, gamma

QUOTED: dict[Callable[..., Any], Callable[..., Any]] = {
    gamma.lgamma: lax.lgamma,
    gamma.digamma: lax.digamma,
    composed.tan: lax.tan,
    composed.sinh: lax.sinh,
    composed.asinh: lax.asinh,
    composed.acosh: lax.acosh,
    composed.atanh: lax.atanh,
    composed.asin: lax.asin,
    composed.erf_inv: lax.erf_inv,
    sqrt.sqrt: lax.sqrt,
    log.log: lax.log,
    trig.sin: lax.sin,
    cbrt.cbrt: lax.cbrt,
    division.reciprocal: lambda x: 1 / x,
}
QUOTE = re.compile(r"(\d+)\s+rounds,?(?: and)?\s+(\d+)\s+bytes")
N = 1000


@pytest.mark.parametrize("described", QUOTED, ids=lambda f: f.__name__)
def test_a_docstring_quotes_what_it_costs(described: Callable[..., Any]) -> None:
    """Under ABY3, all parties' bytes for an element."""
    quoted = QUOTE.search(described.__doc__ or "")
    assert quoted, "the docstring says `Cost: ... rounds, ... bytes`"
    cost = spu.jit(QUOTED[described]).cost(np.ones(N, np.float32))
    assert tuple(map(int, quoted.groups())) == (cost.rounds, round(cost.bytes_sent.sum() / N))
