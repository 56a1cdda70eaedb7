"""Rounds and bytes that docstrings quote are those of the tables: what a program of the function alone costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
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
TRUNCATIONS = {"`aby3`": ("aby3", 3), "`semi2k` of two": ("semi2k", 2), "`rep4`": ("rep4", 4)}
NUMBERS = Path(__file__).resolve().parent.parent / "docs" / "numbers.md"
QUOTE = re.compile(r"(\d+)\s+rounds,?(?: and)?\s+(\d+)\s+bytes")
N = 1000


@pytest.mark.parametrize("described", QUOTED, ids=lambda f: f.__name__)
def test_a_docstring_quotes_what_it_costs(described: Callable[..., Any]) -> None:
    """Under ABY3, all parties' bytes for an element."""
    quoted = QUOTE.search(described.__doc__ or "")
    assert quoted, "the docstring says `Cost: ... rounds, ... bytes`"
    cost = spu.jit(QUOTED[described]).cost(np.ones(N, np.float32))
    assert tuple(map(int, quoted.groups())) == (cost.rounds, round(cost.bytes_sent.sum() / N))


@pytest.mark.parametrize("row", TRUNCATIONS)
def test_the_table_of_exact_truncations(row: str) -> None:
    """Of docs/numbers.md: a product with a number and one of secrets, as usual and exact."""
    (line,) = [x for x in NUMBERS.read_text().splitlines() if x.startswith(f"| {row} | ")]
    protocol, parties = TRUNCATIONS[row]
    x = np.ones(N, np.float32)
    found = []
    for fn in (lambda x: x * 0.3, lambda x: x * x[::-1]):
        for how in ("probabilistic", "exact"):
            cost = spu.jit(fn, protocol=protocol, world_size=parties, truncation=how).cost(x)
            found.append((cost.rounds, round(cost.bytes_sent.sum() / N)))
    assert [tuple(map(int, pair)) for pair in re.findall(r"(\d+) rounds?, (\d+) bytes", line)] == found
