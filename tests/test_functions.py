"""Composed functions: their tables, what is outside of their domains, and counts of bits; test_approx.py has bounds."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, run
from sweeps import measure

import spuvm as spu
from spuvm.compiler.functions import inverse_angles, normal

RNG = np.random.default_rng(8)
COUNT = 4000

Real = np.ndarray[Any, Any]


def erf(x: Any) -> Real:
    out: Real = np.vectorize(math.erf)(x)
    return out


def by_newton(x: Real) -> Real:
    """The inverse of erf, from JAX's in float32."""
    y = np.asarray(lax.erf_inv(jnp.asarray(x, jnp.float32)), np.float64)
    for _ in range(3):
        y -= (erf(y) - x) * math.sqrt(math.pi) / 2 * np.exp(y * y)
    return y


@pytest.mark.parametrize(
    ("module", "table", "name"),
    [(inverse_angles, "ATAN", "atan"), (normal, "ERF_INV", "erf_inv"), (normal, "ERF_INV_TAIL", "erf_inv")],
)
def test_a_wrong_coefficient_is_noticed(module: Any, table: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [c + 2e-4 * (i == 2) for i, c in enumerate(getattr(module, table))]
    monkeypatch.setattr(module, table, tuple(wrong))
    assert measure(name, jitter=None).excess > 0


def test_polynomials_are_as_good_as_they_say() -> None:
    u = np.linspace(-0.5, 0.5, 2001)[1:]
    value = np.polynomial.polynomial.polyval
    assert np.abs(value(u, inverse_angles.ATAN) - np.arctan(u + 0.5)).max() <= 1.7e-6
    w = 5 * (u + 0.5)
    x = np.sqrt(-np.expm1(-w))
    assert np.abs(value(u, normal.ERF_INV) - by_newton(x) / x).max() <= 2.8e-6
    for table in (inverse_angles.ATAN, normal.ERF_INV, normal.ERF_INV_TAIL):
        assert all((c * 2**16).is_integer() for c in table[1::2])


def test_outside_of_the_domain_is_finite() -> None:
    x = np.array([1.0, -1.0])
    (got,) = run(lowered(lax.erf_inv, jnp.zeros(2, jnp.float32)), x)
    np.testing.assert_allclose(got, [3.36, -3.36], atol=0.1)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.uint32])
def test_bits(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    edges = [0, 1, 2, 3, 7, 8, limits.max, limits.min, limits.max // 3]
    numbers = RNG.integers(limits.min, limits.max, 50)
    x = jnp.asarray(np.concatenate([edges, numbers]), dtype)
    agrees(lambda x: (lax.population_count(x), lax.clz(x)), x)


def test_shapes_and_gradients() -> None:
    x = jnp.asarray([[0.25, -0.5, 0.75]])
    agrees(jax.grad(lambda x: (jnp.arctan(x) * jnp.arcsin(x) + jnp.tan(x)).sum()), x, units=60)
    agrees(lambda x: jnp.cbrt(x), x[0, 0], units=4)
    agrees(lambda x: jnp.arctan2(2.0, x), x[:0], units=4)


def test_under_aby3() -> None:
    def fn(x: Any, y: Any, i: Any) -> Any:
        return jnp.arctan2(y, x), jnp.cbrt(x), lax.clz(i)

    x, y, i = jnp.asarray([3.0, -20.0, 0.0]), jnp.asarray([4.0, 0.5, -1.0]), jnp.asarray([5, -7, 0])
    for got, want in zip(spu.reveal(spu.jit(fn)(x, y, i)), fn(x, y, i)):
        np.testing.assert_allclose(got, want, atol=2e-5)
