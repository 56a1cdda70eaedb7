"""Integer quotients and remainders by secret numbers: exact, at the ends of the types too."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import lowered, run

import spuvm as spu

RNG = np.random.default_rng(5)


def pairs(dtype: str, count: int) -> tuple[Any, Any]:
    """All pairs of special numbers, then numbers of all sizes."""
    info = np.iinfo(dtype)
    special = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7, info.max // 2, info.max // 3]
    special += [-1, -2, -3, -7] if info.min else []
    x, y = (v.reshape(-1) for v in np.meshgrid(np.array(special, dtype), np.array(special, dtype)))
    sizes = 2.0 ** RNG.uniform(0, info.bits - 1, (2, count))
    more = (sizes * (np.where(RNG.random((2, count)) < 0.5, -1, 1) if info.min else 1)).astype(dtype)
    return np.concatenate([x, more[0]]), np.concatenate([y, more[1]])


def by_xla(x: Any, y: Any) -> Any:
    return lax.div(x, y), lax.rem(x, y)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_by_a_secret(dtype: str) -> None:
    with jax.enable_x64(True):
        x, y = pairs(dtype, 3000 if "64" not in dtype else 100)
        module = lowered(by_xla, x, y)
        want = jax.jit(by_xla)(x, y)
        for jitter in (None, 3):
            for got, wanted in zip(run(module, x, y, jitter=jitter), want):
                np.testing.assert_array_equal(got, wanted)


def by_constant(x: Any, divisor: Any) -> Any:
    return by_xla(x, jnp.full_like(x, divisor))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bits_by_a_constant(dtype: str) -> None:
    with jax.enable_x64(True):
        x, _ = pairs(dtype, 300)
        for d in [7, 1, 0, 10**9, 2**40 + 1, 2**62 + 3] + ([-5] if dtype == "int64" else []):
            f = partial(by_constant, divisor=np.asarray(d, dtype))
            module = lowered(f, x)
            for got, wanted in zip(run(module, x, jitter=1), jax.jit(f)(x)):
                np.testing.assert_array_equal(got, wanted)


def test_remainders_of_floats_are_exact_on_the_grid() -> None:
    x = np.rint(RNG.normal(size=500) * 10.0 ** RNG.uniform(-4, 9, 500) * 2**18) / 2**18
    y = np.rint(RNG.normal(size=500) * 10.0 ** RNG.uniform(-4, 9, 500) * 2**18) / 2**18
    y[y == 0] = 1.0
    with jax.enable_x64(True):
        module = lowered(lambda x, y: (lax.rem(x, y), jnp.mod(x, y)), x, y)
        for jitter in (None, 2):
            got = run(module, x, y, jitter=jitter)
            np.testing.assert_array_equal(got[0], np.fmod(x, y))
            np.testing.assert_array_equal(got[1], np.mod(x, y))


def test_on_shares() -> None:
    x, y = pairs("int32", 50)
    got, want = spu.reveal(spu.jit(by_xla)(x, y)), jax.jit(by_xla)(x, y)
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)
