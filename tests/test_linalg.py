"""Linear algebra on secret matrices against JAX in the clear, for several shapes and awkward matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as scipy
import lowering
import numpy as np
import pytest
from jax import lax
from lowering import UNIT, agrees, lowered, run

import spuvm as spu
from spuvm.runtime.errors import UnsupportedError

RNG = np.random.default_rng(21)


Array = np.ndarray[Any, Any]  # of NumPy: the table below is made when tests are collected, and JAX would compile it


def normal(*shape: int) -> Array:
    return (np.rint(RNG.normal(size=shape) * 2**12) / 2**12).astype(np.float32)


def regular(*shape: int) -> Array:
    """Well conditioned, with rows in an order that needs pivots."""
    n = shape[-1]
    return np.roll(normal(*shape) / 4 + 2 * np.eye(n, dtype=np.float32), 1, -2)


def definite(*shape: int) -> Array:
    a = normal(*shape)
    return a @ np.swapaxes(a, -1, -2) / shape[-1] + np.eye(shape[-1], dtype=np.float32) / 2


def triangular(**options: Any) -> Callable[..., Any]:
    return lambda a, b: lax.linalg.triangular_solve(a, b, **options)


def projectors(a: Any) -> Any:
    """What of eigenvectors does not depend on their signs."""
    w, v = jnp.linalg.eigh(a)
    return w, jnp.abs(v), (v * w[..., None, :]) @ jnp.swapaxes(v, -1, -2)


def products(full: bool) -> Callable[..., Any]:
    def fn(a: Any) -> Any:
        u, s, v = jnp.linalg.svd(a, full_matrices=full)
        n = s.shape[-1]
        return s, jnp.abs(u[..., :n]), (u[..., :n] * s[..., None, :]) @ v[..., :n, :], u @ jnp.swapaxes(u, -1, -2)

    return fn


Case = tuple[Callable[..., Any], tuple[Any, ...], float]
T = regular(2, 4, 4)[:, [1, 2, 3, 0]]
KNOWN = np.asarray(T[0])

CASES: dict[str, Case] = {
    "cholesky": (jnp.linalg.cholesky, (definite(2, 5, 5),), 10),
    "cho_solve": (lambda a, b: scipy.cho_solve(scipy.cho_factor(a), b), (definite(4, 4), normal(4, 2)), 80),
    "lu": (lax.linalg.lu, (normal(2, 4, 4),), 40),
    "lu, wide": (lax.linalg.lu, (normal(3, 5),), 40),
    "lu, tall": (lax.linalg.lu, (normal(5, 3),), 40),
    "solve": (jnp.linalg.solve, (regular(2, 4, 4), normal(2, 4, 3)), 20),
    "solve, known matrix": (lambda b: jnp.linalg.solve(KNOWN, b), (normal(4),), 20),
    "inv": (jnp.linalg.inv, (regular(4, 4),), 20),
    "inv, one": (jnp.linalg.inv, (regular(1, 1),), 8),
    "det": (lambda a: (jnp.linalg.det(a), jnp.linalg.slogdet(a)), (regular(4, 4),), 100),
    "lower": (triangular(left_side=True, lower=True), (T, normal(2, 4, 2)), 20),
    "lower transposed": (triangular(left_side=True, lower=True, transpose_a=True), (T, normal(2, 4, 2)), 20),
    "from the right": (triangular(lower=True), (T, normal(2, 3, 4)), 20),
    "upper transposed from the right": (triangular(transpose_a=True), (T, normal(2, 3, 4)), 20),
    "unit diagonal": (triangular(left_side=True, lower=True, unit_diagonal=True), (T, normal(2, 4, 2)), 20),
    "solve_triangular": (lambda a, b: scipy.solve_triangular(a, b, lower=True), (T[0], normal(4)), 20),
    "qr": (jnp.linalg.qr, (normal(2, 5, 4),), 40),
    "qr, wide": (jnp.linalg.qr, (normal(3, 5),), 60),
    "qr, complete": (lambda a: jnp.linalg.qr(a, "complete"), (normal(5, 3),), 40),
    "eigh": (projectors, (definite(2, 4, 4),), 300),
    "eigh, odd": (projectors, (normal(5, 5) / 4 + np.diag(np.arange(5, dtype=np.float32) / 2),), 600),
    "svd": (products(False), (normal(2, 4, 3),), 600),
    "svd, full": (products(True), (normal(5, 3),), 600),
    "svd, wide": (lambda a: jnp.linalg.svd(a, compute_uv=False), (normal(3, 4),), 300),
    "lstsq": (lambda a, b: jnp.linalg.lstsq(a, b)[0], (normal(6, 3), normal(6)), 300),
    "pinv": (jnp.linalg.pinv, (normal(5, 3),), 300),
    "gradient of slogdet": (jax.grad(lambda a: jnp.linalg.slogdet(a)[1]), (regular(2, 4, 4)[0],), 20),
    "gradient of solve": (jax.grad(lambda a, b: (jnp.linalg.solve(a, b) ** 2).sum(), (0, 1)), (T[0], normal(4)), 60),
    "gradient of cholesky": (jax.grad(lambda a: (jnp.linalg.cholesky(a) ** 3).sum()), (definite(3, 3),), 200),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees(name: str) -> None:
    fn, args, units = CASES[name]
    agrees(fn, *args, units=units)


def test_pseudo_inverses_are_refused_in_a_ring_of_32_bits() -> None:
    """Half of the singular values of an ordinary matrix would count as 0."""
    with pytest.raises(UnsupportedError, match="ring of 32 bits: use ring=64"):
        spu.jit(jnp.linalg.pinv, ring=32).compile(np.eye(3, dtype=np.float32))


def test_householder_product() -> None:
    a, taus = normal(2, 5, 3), jnp.abs(normal(2, 3)) / 2
    agrees(lax.linalg.householder_product, a, taus, units=60)


def test_wide_types() -> None:
    with jax.enable_x64(True):
        agrees(jnp.linalg.inv, jnp.asarray(np.asarray(T[0], np.float64)), units=20)


@pytest.mark.parametrize("frac", [8, 26])
def test_other_fractions(frac: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "FRAC", frac)
    for a in (np.zeros((3, 3)), np.eye(3), np.asarray(definite(3, 3))):
        w, v, product = run(lowered(projectors, jnp.asarray(a, jnp.float32)), a, jitter=2)
        error = 20 * 2.0**-frac + 4e-5 * max(1.0, np.abs(a).max())
        np.testing.assert_allclose(product, a, atol=error)
        np.testing.assert_allclose(np.linalg.norm(v, axis=0), 1, atol=error)
        np.testing.assert_allclose(w, np.linalg.eigvalsh(a), atol=error)


# awkward matrices --------------------------------------------------------------------------------------

AWKWARD = {
    "zero": np.zeros((4, 4)),
    "identity": np.eye(4),
    "rank one": np.ones((4, 4)),
    "diagonal": np.diag([1.0, 2.0, -3.0, 0.5]),
    "permutation": np.eye(4)[[2, 0, 3, 1]],
    "small": np.asarray(regular(4, 4)) / 512,
    "equal eigenvalues": np.kron([[2.0, 1.0], [1.0, 2.0]], np.eye(2)),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_factors_of_awkward_matrices(name: str) -> None:
    """The factors are orthogonal and their product is the matrix, even where they are not unique."""
    a = np.rint(AWKWARD[name] / UNIT) * UNIT
    symmetric = a + a.T

    def result(fn: Callable[..., Any], x: Any) -> list[Any]:
        return run(lowered(fn, jnp.asarray(x, jnp.float32)), x, jitter=5)

    q, r = result(jnp.linalg.qr, a)
    w, v = result(jnp.linalg.eigh, symmetric)
    u, s, vh = result(jnp.linalg.svd, a)
    lu, _, order = result(lax.linalg.lu, a)
    for product, want in (
        (q @ r, a),
        (q.T @ q, np.eye(4)),
        (v * w @ v.T, symmetric),
        (v.T @ v, np.eye(4)),
        (u * s @ vh, a),
        (vh @ vh.T, np.eye(4)),
        ((np.tril(lu, -1) + np.eye(4)) @ np.triu(lu), a[order]),
    ):
        np.testing.assert_allclose(product, want, atol=80 * UNIT)
    assert (np.diff(w) >= 0).all() and (np.diff(s) <= 0).all()
    assert (np.abs(np.tril(lu, -1)) <= 1 + 4 * UNIT).all()


def test_determinants_of_singular_matrices() -> None:
    (got,) = run(lowered(jnp.linalg.det, jnp.ones((4, 4))), np.ones((4, 4)), jitter=1)
    assert abs(got) <= 4 * UNIT
    sign, _ = run(lowered(jnp.linalg.slogdet, jnp.ones((4, 4))), np.diag([1.0, 2.0, 0.0, 3.0]), jitter=1)
    assert sign == 0


@pytest.mark.parametrize("n", [16])
def test_larger_matrices(n: int) -> None:
    a, b, d = regular(n, n), normal(n), definite(n, n)
    for fn, args, units in (
        (jnp.linalg.solve, (a, b), 100),
        (jnp.linalg.cholesky, (d,), 20),
        (jnp.linalg.eigvalsh, (d,), 100),
    ):
        (got,) = run(lowered(fn, *args), *args, jitter=2)
        np.testing.assert_allclose(got, np.asarray(fn(*args)), atol=units * UNIT)


# what is refused, what it costs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda a: lax.linalg.qr(a, pivoting=True), "pivoting=False"),
        (lambda a: lax.linalg.eigh(a, subset_by_index=(0, 1)), "compute all and slice"),
        (lambda a: jnp.linalg.eigvals(a), "power iteration"),
    ],
)
def test_refusals(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        lowered(fn, jnp.eye(3))


def test_rounds() -> None:
    n = 8
    a, b = regular(n, n), normal(n)
    for fn, args, rounds in (
        (jnp.linalg.cholesky, (a,), 34 * n),
        (lambda a: lax.linalg.lu(a)[0], (a,), (53 + 11 * 3) * n),
        (lambda a, b: scipy.solve_triangular(a, b, lower=True), (a, b), 30 + 2 * n),
        (jnp.linalg.qr, (a,), 63 * n),
        (lambda a: lax.linalg.eigh(a, sort_eigenvalues=False)[1], (a,), 7 * (n - 1) * 66),
    ):
        assert spu.jit(fn).cost(*args).rounds <= rounds


def test_under_aby3() -> None:
    a, b = regular(3, 3), normal(3)
    got = spu.reveal(spu.jit(jnp.linalg.solve)(a, b))
    np.testing.assert_allclose(got, jnp.linalg.solve(a, b), atol=2e-4)
