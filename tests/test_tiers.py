"""One sample of the conformance table by each tier: interpreted, machine code of LLVM, XLA. The same bits in all."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from conformance.batch import Combination, operands
from conformance.cases import CASES
from machine import shared_inputs, simulate

from spuvm.compiler.compile import compile_function
from spuvm.compiler.fuse import llvm
from spuvm.runtime.config import Config
from spuvm.runtime.engine import interpreter, tier

SAMPLE = ("lt", "dot_general", "select_n", "gather")

pytestmark = pytest.mark.skipif(interpreter.library() is None, reason="needs the native library")


def sample() -> list[Combination]:
    """Of each primitive the first case, all operands secret."""
    first = {c.primitive: c for c in reversed(CASES) if c.primitive in SAMPLE}
    assert first.keys() == set(SAMPLE)
    return [Combination(c, c.dtypes[0], c.shapes[0], ("secret",) * len(c.operands)) for c in first.values()]


def raw(x: Any) -> np.ndarray:
    """As the ring has it."""
    array = np.asarray(x)
    return np.round(array * 2.0**18).astype(np.int64) if array.dtype.kind == "f" else array


def test_all_tiers_give_the_same_bits() -> None:
    batch = sample()
    with jax.enable_x64(True):
        args = [operands(c, 3 + i) for i, c in enumerate(batch)]

        def whole(*groups: Any) -> Any:
            return [c.case.function(*group) for c, group in zip(batch, groups)]

        flat = [x for group in args for x in group]
        config = Config(parties=("a", "b", "c"))
        choreography = compile_function(whole, [tuple(a) for a in args], ["secret"] * len(flat), config).choreography
        inputs = shared_inputs(choreography, [raw(x) for x in flat])
        results = {}
        for name in tier.TIERS if llvm.binding() is not None else ("native", "xla"):
            with tier.use(name):
                results[name] = simulate(choreography, inputs)
    for name, found in results.items():
        assert len(found) == len(results["native"]) >= 3 * len(batch)
        for mine, theirs in zip(found, results["native"], strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
