"""Large numbers: what is stated of them makes squares fit, and what leaves the ring is said where it can be known."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.objects import encoded
from spuvm.runtime.errors import RangeWarning

FUNCTIONS: dict[str, Any] = {
    "standardised": lambda x: (x - x.mean(0)) / x.std(0),
    "std": lambda x: jnp.std(x, axis=0),
    "mean of squares": lambda x: jnp.mean(x**2, axis=0),
    "norm": lambda x: jnp.linalg.norm(x[:, 0]),
    "normed": lambda x: x / jnp.linalg.norm(x, axis=0),
    "gram": lambda x: x.T @ x / len(x),
    "correlation": lambda x: jnp.corrcoef(x.T),
    "products": lambda x: x[:, 0] * x[:, 1] + x[:, 1] * x[:, 2],
}


def salaries(scale: float, rows: int) -> Any:
    return np.abs(np.random.default_rng(rows).normal(scale, scale / 3, (rows, 3))).astype(np.float32)


def in_the_clear(f: Any, *args: Any) -> Any:
    """What the program gives, its truncations rounded at random."""
    module = f.compile(*args).module
    plain = [getattr(x, "value", x) for x in args]
    raw = [encoded(x, v.type, "x", 64) for x, v in zip(plain, module.body.params)]
    (out,) = evaluate(module, raw, jitter=1)
    return out.view(np.int64) / 2.0 ** module.body.results[0].type.frac


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_stated_bound_makes_squares_fit(name: str) -> None:
    """Within two units, and 1e-5 of the largest, without a warning, for numbers of 10^5 below 2^19."""
    x = salaries(1e5, 700)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RangeWarning)
        found = in_the_clear(spu.jit(FUNCTIONS[name]), spu.secret(x, bound=2**19))
    with jax.enable_x64(True):
        want = np.asarray(FUNCTIONS[name](jnp.asarray(x, np.float64)))
    assert np.abs(found - want).max() < 2**-17 + 1e-5 * np.abs(want).max()


def test_what_leaves_the_ring_is_said_once_for_a_size() -> None:
    """With the line, the argument and what to state; then not again, until numbers are larger."""
    f = spu.jit(lambda income: jnp.std(income, axis=0))
    x = salaries(1e4, 50)
    with pytest.warns(RangeWarning, match=r"test_overflows.py:\d+ \(product: 2\^.*`income`: `spu.bound\(x, \d+\)`"):
        f(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RangeWarning)
        f(x / 2)
        f(spu.secret(x, bound=2**15))
    with pytest.warns(RangeWarning, match="income"):
        f(32 * x)


def test_what_fits_is_not_warned_of() -> None:
    """Large numbers that are added and compared, and small ones that are multiplied, in loops too."""

    def many(x: Any) -> Any:
        return jax.lax.scan(lambda c, row: (c + row / 1e5, jnp.maximum(row, c)), jnp.zeros(3), x)

    x = salaries(1e6, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RangeWarning)
        spu.jit(many)(x)
        spu.jit(lambda x, y: jnp.where(x > 0.0, x, y / 2).sum(0))(x, -x)


def test_shared_objects_are_seen_in_a_simulation_and_loops_are_followed() -> None:
    x = salaries(3e4, 8)
    f = spu.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, c: c + x[i] * x[i + 1], jnp.zeros(3)))
    shared = spu.jit(lambda x: x + 1)(x)
    with pytest.warns(RangeWarning, match=r"test_overflows.py:\d+"):
        f(shared)


def test_a_quotient_by_what_may_be_small_cannot_be_told() -> None:
    x = np.ones((4, 2), np.float32)
    found = spu.jit(lambda x, y: x * x / y).scales(spu.secret(x, bound=2**18), spu.secret(x, bound=8))
    (row,) = (r for r in found.rows if r.operation == "div")
    assert row.verdict == "cannot tell" and row.settled_by == "guard=True; the divisor may be small"


def test_a_power_that_leaves_the_ring_is_named() -> None:
    cube = spu.jit(lambda x: x**3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RangeWarning)
        cube(spu.secret(np.array([500.0, -2.0])))
    with pytest.warns(RangeWarning, match="leave the ring"):
        cube(spu.secret(np.array([1e4, -2.0])))
