"""Complex numbers and Fourier transforms, against JAX in the clear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spuvm as spu
from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.objects import encoded
from spuvm.runtime.config import Config
from spuvm.runtime.errors import UnsupportedError
from spuvm.runtime.ring.encodings import decode

RNG = np.random.default_rng(9)


def numbers(*shape: int) -> Any:
    return (RNG.uniform(-2, 2, shape) + 1j * RNG.uniform(-2, 2, shape)).astype(np.complex64)


def reals(*shape: int) -> Any:
    return RNG.uniform(-2, 2, shape).astype(np.float32)


def compare(f: Callable[..., Any], *args: Any, tolerance: float = 1e-4) -> None:
    """Through the IR; relative to the largest element."""
    traced = trace(f, args)
    module = run_passes(lower(traced, ["secret"] * len(traced.inputs), Config()))
    leaves = [encoded(x, v.type, "x") for x, v in zip(jax.tree.leaves(args), module.body.params)]
    raw = evaluate(module, leaves, jitter=3)
    wants = jax.tree.leaves(jax.jit(f)(*args))
    for r, v, dtype, want in zip(raw, module.body.results, module.output_dtypes, wants, strict=True):
        got = np.asarray(decode(r, v.type.kind, v.type.frac, np.dtype(dtype)))
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        if got.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want)
        else:
            error = np.abs(got.astype(complex) - np.asarray(want, complex)).max()
            assert error <= tolerance * max(1.0, float(np.abs(want).max())), error


def test_arithmetic_and_rearrangements() -> None:
    def f(z: Any, w: Any, x: Any, i: Any) -> Any:
        sums = (
            z + w,
            z - 1j,
            -z,
            z * w,
            z * x,
            2j * x,
            z / w,
            x / w,
            z**3,
            z**-2,
            jnp.square(z),
            z.conj(),
            z.real,
            z.imag,
        )
        moved = z.reshape(3, 2).T, z[1:4], jnp.concatenate([z, w]), z.at[2].set(1j), jnp.roll(z, 1), z[i], jnp.flip(z)
        logic = (
            z == w,
            z != z,
            jnp.where(x > 0, z, w),
            jnp.isfinite(z),
            jnp.sort(z),
            (z * 0).astype(bool),
            lax.complex(x, x),
        )
        totals = z.sum(), z.mean(), z.prod(), jnp.cumsum(z), jnp.cumprod(z), jnp.vdot(z, w), jnp.linalg.norm(z)
        return (
            sums,
            moved,
            logic,
            totals,
            z.reshape(2, 3) @ w.reshape(3, 2),
            z.reshape(2, 3) @ x.reshape(3, 2),
            jnp.convolve(z, w[:3]),
        )

    compare(f, numbers(6), numbers(6), reals(6), np.int32(2))


def test_functions() -> None:
    def f(z: Any) -> Any:
        first = abs(z), jnp.angle(z), jnp.exp(z), jnp.log(z), jnp.sqrt(z), 1 / z, jnp.sign(z), z**0.5, z ** (1 + 2j)
        return (
            first,
            jnp.sin(z),
            jnp.cos(z),
            jnp.tan(z),
            jnp.sinh(z),
            jnp.cosh(z),
            jnp.tanh(z),
            jnp.expm1(z),
            jnp.log1p(z),
        )

    compare(f, numbers(40), tolerance=3e-4)


def test_sizes_far_apart() -> None:
    """Neither the squares of small parts vanish nor those of large ones overflow."""
    z = np.array([3e-4 - 4e-4j, 3e6 + 4e6j, -5e-3j, 2e7, 0], np.complex64)
    compare(lambda z: (abs(z[1:4:2]), abs(z[2:3]), abs(z[4:])), z, tolerance=2e-5)
    compare(lambda z: abs(z[:1]) * 100, z, tolerance=1e-3)  # of a number of a hundred units


def test_control_and_gradients() -> None:
    def f(z: Any, x: Any) -> Any:
        carry, rows = lax.scan(lambda s, t: (s * t, s + t), jnp.complex64(1), z)
        branch = lax.cond(x[0] > 0, lambda v: v * 1j, lambda v: v + 1, z)
        loop = lax.fori_loop(0, 3, lambda i, s: s * (0.5 + 0.5j), z)
        counted = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1j), (0, z))[1]
        gradient = jax.grad(lambda v: jnp.abs(lax.complex(v, 2 * v) ** 2).sum())(x)
        return carry, rows, branch, loop, counted, gradient, jax.jit(lambda v: v * v)(z), jax.vmap(lambda v: v * z)(z)

    compare(f, numbers(4), reals(4))


@pytest.mark.parametrize("n", [1, 2, 7, 12, 64, 100, 97])
def test_transforms(n: int) -> None:
    def f(z: Any, x: Any) -> Any:
        half = z[: n // 2 + 1]
        return (
            jnp.fft.fft(z),
            jnp.fft.ifft(z),
            jnp.fft.rfft(x),
            jnp.fft.irfft(half, n),
            jnp.fft.fft(x),
            jnp.fft.hfft(half, n),
        )

    compare(f, numbers(n), reals(n), tolerance=2e-5)


def test_transforms_of_several_axes_and_what_is_made_of_them() -> None:
    def f(a: Any, x: Any, k: Any) -> Any:
        many = (
            jnp.fft.fft2(a),
            jnp.fft.rfft2(a),
            jnp.fft.irfftn(jnp.fft.rfftn(a)),
            jnp.fft.fft(a, axis=0),
            jnp.fft.fftshift(a),
        )
        power = jnp.abs(jnp.fft.rfft(x)) ** 2
        made = jax.scipy.fft.dct(x), jax.scipy.signal.fftconvolve(x, k)
        return many, power, made, jax.grad(lambda v: (jnp.abs(jnp.fft.fft(v)) ** 2).sum())(x)

    compare(f, reals(4, 6), reals(40), reals(5))


def test_on_shares() -> None:
    z, x = numbers(5), reals(16)
    f = spu.jit(lambda z, x: (z * z, jnp.fft.rfft(x)))
    out = f(z, x)
    assert repr(out[0]) == "<SPUObject complex64[5] secret aby3/64>"
    again = spu.reveal(spu.jit(lambda z: z + 1j)(out[0]))  # it stays shared
    got, want = [*spu.reveal(out), again], [z * z, np.fft.rfft(x), z * z + 1j]
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_shadow_run_knows_pairs() -> None:
    report = spu.check(lambda z, x: (z * z, x[:3] + spu.random.uniform(3), jnp.fft.rfft(x)), numbers(3), reals(8))
    assert report.ok, report


def test_refusals_name_the_primitive_and_the_line() -> None:
    with pytest.raises(UnsupportedError, match=r"test_complex.py:\d+: `cholesky`: not for complex"):
        spu.jit(lambda a: jnp.linalg.cholesky(a), protocol="ref2k").compile(numbers(3, 3))
    with pytest.raises(UnsupportedError, match="pad the data"):
        spu.jit(jnp.fft.fft, protocol="ref2k").compile(numbers(2053))
