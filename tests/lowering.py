"""Lower a JAX function, evaluate the IR on encoded inputs, compare with JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir import text
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.lower.missing import validities
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config

FRAC = 18
UNIT = 2.0**-FRAC


def lowered(
    fn: Callable[..., Any], *args: Any, visibility: Visibility | Sequence[Visibility] = "secret", optimize: bool = True
) -> Module:
    traced = trace(fn, args)
    each = [visibility] * len(traced.inputs) if isinstance(visibility, int | str) else list(visibility)
    module = lower(traced, each, Config(fxp_fraction_bits=FRAC))
    return run_passes(module) if optimize else module


def run(module: Module, *args: Any, jitter: int | None = None) -> list[Any]:
    """The leaves of the result, decoded; NaN where they are no numbers."""
    leaves = [encode(x, dtype) for x, dtype in zip(jax.tree.leaves(args), module.input_dtypes)]
    raw = evaluate(module, leaves, jitter=jitter)
    out = [decode(r, dtype) for r, dtype in zip(raw, module.output_dtypes)]
    valid = validities(module.outputs)
    return [
        np.where(out[valid[i]], x, np.nan) if i in valid else x for i, x in enumerate(out) if i not in valid.values()
    ]


def encode(x: Any, dtype: str) -> np.ndarray[Any, Any]:
    if is_float(dtype):
        return np.rint(np.asarray(x, np.float64) * 2.0**FRAC).astype(np.int64)
    return np.asarray(x).astype(dtype)


def decode(raw: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    if is_float(dtype):
        return np.asarray(raw.view(np.int64) / 2.0**FRAC)
    return raw != 0 if dtype == "bool" else raw.view(np.int64).astype(dtype)


def is_float(dtype: str) -> bool:
    return "float" in dtype


def agrees(fn: Callable[..., Any], *args: Any, units: float = 16, **options: Any) -> Module:
    """`fn` through the IR is within `units` units of `fn` in JAX, floor and jitter; integers are equal.

    The text form of the program parses back to the same text.
    """
    module = lowered(fn, *args, **options)
    want = [np.asarray(x) for x in jax.tree.leaves(jax.jit(fn)(*args))]
    for jitter in (None, 7):
        for got, wanted, dtype in zip(run(module, *args, jitter=jitter), want, module.output_dtypes):
            assert got.shape == wanted.shape
            if is_float(dtype):
                np.testing.assert_allclose(got, wanted.astype(np.float64), rtol=1e-5, atol=units * UNIT)
            else:
                np.testing.assert_array_equal(got, wanted)
    printed = text.to_text(module)
    assert text.to_text(text.parse(printed)) == printed
    return module


def names(module: Module) -> list[str]:
    return [op.name for op in module.body.walk()]
