"""Calls of jax.numpy, jax.lax and jax.scipy that earlier had no rule, against JAX in the clear."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
import pytest
from jax import lax
from lowering import UNIT, lowered, run

import spuvm as spu
from spuvm.compiler.functions import gamma, normal
from spuvm.runtime.errors import UnsupportedError

RNG = np.random.default_rng(12)
X, Y = (RNG.uniform(-2, 2, 9).astype(np.float32) for _ in range(2))
POSITIVE = RNG.uniform(0.3, 5, 9).astype(np.float32)
M, N = (RNG.integers(-50, 50, 9).astype(np.int32) for _ in range(2))
COUNT = RNG.integers(0, 40, 9).astype(np.int32)


def pair_of_best(p: Any, q: Any) -> Any:
    first = p[0] > q[0]
    return jnp.where(first, p[0], q[0]), jnp.where(first, p[1], q[1])


# name: function, arguments, tolerance
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], float]] = {
    "signbit, copysign": (lambda x, y: (jnp.signbit(x), jnp.copysign(x, y)), (X, Y), 1e-5),
    "ldexp": (lambda x, n: (jnp.ldexp(x, n), jnp.ldexp(x, -3)), (X, COUNT % 7), 1e-4),
    "gcd, lcm": (lambda x, y: (jnp.gcd(x, y), jnp.lcm(x, y)), (M, N), 0),
    "shifts": (lambda x, n: (x << n, x >> n, lax.shift_right_logical(x, n)), (M * 10**6, COUNT), 0),
    "shifts of bytes": (lambda x, n: (x << n, x >> n), (COUNT.astype(np.uint8) * 7, COUNT.astype(np.uint8) % 11), 0),
    "bit casts": (
        lambda x: (x.view(jnp.uint32) >> 3, lax.bitcast_convert_type(x.view(jnp.uint32), jnp.int32)),
        (M,),
        0,
    ),
    "whole powers": (lambda x: (x ** jnp.arange(9), x ** jnp.array([0.0, -1, 2, 3, 1, -2, 0, 5, 4])), (X,), 1e-3),
    "integer powers": (lambda x: x ** jnp.arange(9), (M,), 0),
    "powers": (lambda x, n, y: (x**n, jnp.abs(x) ** y), (X, COUNT % 5, Y), 1e-3),
    "gamma": (
        lambda x: (jsp.special.gamma(x), jsp.special.beta(x, 2 * x), jsp.special.factorial(x)),
        (POSITIVE,),
        1e-3,
    ),
    "densities": (
        lambda x, n: (jsp.stats.gamma.logpdf(x, 2.0), jsp.stats.t.logpdf(x, 3.0), jsp.stats.poisson.logpmf(n, x)),
        (POSITIVE, COUNT),
        1e-3,
    ),
    "normal tails": (
        lambda x: (
            jsp.stats.norm.logcdf(8 * x),
            jsp.stats.norm.logsf(20 * x),
            jsp.special.erfcx(x),
            jsp.special.erfcx(x * x * 9),
        ),
        (X,),
        3e-5,
    ),
    "gradient of log_ndtr": (jax.grad(lambda x: jsp.special.log_ndtr(3 * x).sum()), (X,), 1e-4),
    "gradient of gammaln": (jax.grad(lambda x: jsp.special.gammaln(x).sum()), (POSITIVE,), 1e-4),
    "reduce": (lambda x: lax.reduce(x, 0.0, lambda p, q: jnp.maximum(abs(p), abs(q)), (0,)), (X,), 1e-4),
    "reduce pairs": (lambda x, y: lax.reduce((x, y), (-jnp.inf, 0.0), pair_of_best, (0,)), (X, Y), 1e-4),
    "approximate top": (lambda x: (lax.approx_max_k(x, 3), lax.approx_min_k(x, 2)), (X,), 1e-4),
    "products of bools": (lambda x, y: (x[:, None] > y) @ (x > 0), (X, Y), 0),
    "greatest of segments": (lambda x, n: jax.ops.segment_max(x, n, num_segments=3), (X, np.arange(9) % 3), 1e-5),
    "remainders": (lambda x, y: (x % y, jnp.fmod(x, y), jnp.floor_divide(x, y)), (X * 10, Y), 1e-3),
    "integer parts": (lambda x, y: (x // y, x % y, jnp.divmod(x, y)), (M, np.where(N == 0, 3, N)), 0),
    "by zero": (lambda x: (lax.div(x, x * 0), lax.rem(x, x * 0), lax.div(x, jnp.zeros_like(x))), (M,), 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(name: str) -> None:
    f, args, tolerance = CALLS[name]
    module = lowered(f, *args)
    wants = jax.tree.leaves(jax.jit(f)(*args))
    for got, want in zip(run(module, *args, jitter=4), wants, strict=True):
        assert got.shape == want.shape
        limit = tolerance * np.maximum(1, np.abs(np.asarray(want, np.float64)))
        assert (np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64)) <= limit).all(), (got, want)


def test_python_numbers_take_the_dtype_of_the_others_where_they_would_be_wider() -> None:
    with jax.enable_x64(True):
        got = spu.reveal(spu.jit(lambda x: (jnp.gcd(x, 12), jnp.lcm(x, 4)))(M))
        want = jnp.gcd(M, 12), jnp.lcm(M, 4)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
        assert g.dtype == M.dtype


def test_functions_of_the_user_keep_their_meaning() -> None:
    """Rules for functions that JAX calls are found by name; a user's may have the same."""

    def own(f: Callable[..., Any], name: str) -> Any:
        f.__name__ = f.__qualname__ = name
        return jax.jit(f)

    gcd, expm, fresnel = own(lambda x, y: x + y, "gcd"), own(lambda x: 2 * x, "expm"), own(lambda x: -x, "fresnel")

    def f(x: Any, n: Any) -> Any:
        return gcd(n, n), expm(x), fresnel(x)

    for got, want in zip(run(lowered(f, X, M), X, M), f(X, M), strict=True):
        np.testing.assert_allclose(got, want, atol=UNIT)


@pytest.mark.parametrize(("name", "top"), [("lgamma", 2.0**22), ("digamma", 2.0**40)])
def test_gamma_errors(name: str, top: float) -> None:
    """The stated error, 2e-5 plus 1e-5 of the result, over the domain."""
    x = np.concatenate([np.arange(1, 3000), np.exp(RNG.uniform(math.log(UNIT), math.log(top), 6000)) / UNIT])
    x = np.concatenate([np.rint(x), np.rint(RNG.uniform(0.5, 9, 6000) / UNIT)]) * UNIT
    with jax.enable_x64(True):
        truth = np.asarray(getattr(lax, name)(x))
        module = lowered(getattr(lax, name), x)
        for jitter in (None, 6):
            (got,) = run(module, x, jitter=jitter)
            excess = np.abs(got - truth) - (2e-5 + 1e-5 * np.abs(truth))
            assert excess.max() <= 0, (x[excess.argmax()], excess.max())


@pytest.mark.parametrize("table", [gamma.LGAMMA, gamma.DIGAMMA, normal.TAIL])
def test_odd_coefficients_are_short(table: tuple[float, ...]) -> None:
    assert all(float(c * 2**16).is_integer() for c in table[1::2])


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "float bits": (lambda x: lax.bitcast_convert_type(x, jnp.int32), (X,), "fixed-point"),
    "nextafter": (jnp.nextafter, (X, Y), "add a small constant"),
    "igamma_grad_a": (lax.igamma_grad_a, (POSITIVE, POSITIVE), "depends on the data"),
    "expn": (jsp.special.expn, (POSITIVE, POSITIVE), "one known number"),
    "eig": (jnp.linalg.eigvals, (np.eye(3, dtype=np.float32),), "eigh"),
    "bessel_jn": (lambda x: jsp.special.bessel_jn(x, v=2), (X,), "polynomial"),
    **{
        name: (getattr(jsp.special, name), (X,), rf"coefficients.*\({name}\): use a polynomial")
        for name in ("fresnel", "sici", "dawsn")
    },
    "polygamma": (lax.polygamma, (POSITIVE, POSITIVE), "known whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why_and_what_instead(name: str) -> None:
    f, args, words = REFUSED[name]
    with pytest.raises(UnsupportedError, match=words):
        lowered(f, *args)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "int2", "uint2"]
)
def test_small_dtypes(dtype: str) -> None:
    x = np.array([1, 0, 1, 3 if dtype == "uint4" else 1, -2 if dtype[0] != "u" else 2]).astype(np.dtype(dtype))

    def f(x: Any) -> Any:
        return x + x, x * x, x < x[::-1], x.astype(jnp.float32), jnp.float32(1.25).astype(x.dtype) + x

    got, want = spu.reveal(spu.jit(f, protocol="ref2k")(x)), f(jnp.asarray(x))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and (np.asarray(a, np.float32) == np.asarray(b, np.float32)).all()
