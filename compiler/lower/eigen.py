"""Eigenvectors and singular vectors of secret matrices, by Jacobi's method with a fixed number of sweeps.

All pairs of places (i, n - 1 - i) are treated at once, in one step. Then all places but the first move on by
one, so that n - 1 steps (a sweep) treat every pair and end in the order of the beginning. Numbers have the
range and errors of lower/linalg.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.ir.fixedpoint import limit_bits
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.compiler.lower.linalg import NORM, UNIT, householder_qr, lower_triangle, places, steps, transposed
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array

SWEEPS = 7  # for n <= 16; the error falls quadratically from about the fourth on


@dataclass(frozen=True)
class Bits:
    """Fraction bits that rotations and matrices have more than the program's numbers, so that steps round less.

    `least`, one unit, makes a rotation by no angle of two zeros.
    """

    rotation: int
    matrix: int
    least: float


def _bits(ctx: Context, *, squared: bool) -> Bits:
    """As many as there is room for: products are below 2^room, and entries whose squares are squared below its root.

    `squared`: so are those of what is rotated, else of the matrix.
    """
    b = ctx.b
    room = limit_bits(b.ring_bits) - 2 * b.frac
    matrix = max(min(2, room // 4 - 1), 0) if squared else 0
    entries = room // 4 if squared else room // 2
    rotation = min(6, room - entries - matrix - 2, b.ring_bits // 2 - 2 - b.frac)
    return Bits(max(rotation, 0), matrix, float(2.0**-b.frac))


def _rotations(d: Array, pq: Array, bits: Bits) -> Array:
    """2^bits.rotation times the matrix [*batch, n, n] of the rotations that make [[p, pq], [pq, q]] diagonal, and of
    the places' move.

    With d = (q - p) / 2, the cosine and the sine are as |d| + sqrt(d^2 + pq^2) to sign(d) pq.
    """
    n = 2 * d.shape[-1]
    negative = d < 0
    size = NORM.bind(jnp.stack([d, pq], -1))
    x = jnp.where(negative, -d, d) + size + bits.least
    cosine, sine = jnp.moveaxis(UNIT.bind(jnp.stack([x, jnp.where(negative, -pq, pq)], -1), more=bits.rotation), -1, 0)
    same = jnp.concatenate([cosine, cosine[..., ::-1]], -1)
    other = jnp.concatenate([sine, -sine[..., ::-1]], -1)
    eye = np.eye(n, dtype=bool)
    matrix = jnp.where(eye, same[..., None], 0) + jnp.where(eye[::-1], other[..., None], 0)
    return matrix[..., np.r_[0, n - 1, 1 : n - 1]]


def _even(a: Array, axes: Sequence[int]) -> Array:
    """`a` with a row or column of zeros more where their number is odd; what it stands for is not rotated."""
    widths = [(0, a.shape[d] % 2 if d - a.ndim in axes else 0) for d in range(a.ndim)]
    return jnp.pad(a, widths)


def _jacobi(step: Callable[[Array], tuple[Array, Array]], a: Array, n: int, bits: Bits) -> tuple[Array, Array]:
    """The last matrix and the product of all rotations."""

    def body(state: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], None]:
        a, v = state
        a, rotation = step(a)
        return (a, _turned(v, rotation, bits)), None

    eye = 2.0**bits.rotation * jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), (*a.shape[:-2], n, n))
    a, v = steps(body, (a, eye), SWEEPS * (n - 1))[0]
    return a, v * 2.0**-bits.rotation


def _turned(a: Array, rotation: Array, bits: Bits) -> Array:
    """A product with a rotation of `_rotations`: one truncation."""
    return (a @ rotation) * 2.0**-bits.rotation


def _ordered(values: Array, *matrices: Array) -> list[Array]:
    """The values in ascending order, and the matrices' columns with them."""
    n = values.shape[-1]
    _, order = lax.sort((values, jnp.broadcast_to(places(n), values.shape)), num_keys=1)
    chosen = (order[..., None, :] == places(n)[:, None]).astype(values.dtype)
    return [jnp.sum(chosen * values[..., None], -2), *(m @ chosen for m in matrices)]


def _eigh(a: Array, bits: Bits, *, sort: bool) -> list[Array]:
    n = a.shape[-1]
    lower = lower_triangle(a)
    a = _even(lower + transposed(lower_triangle(a, -1)), (-1, -2))
    half = a.shape[-1] // 2

    def step(a: Array) -> tuple[Array, Array]:
        diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
        crossed = jnp.diagonal(a[..., ::-1], axis1=-2, axis2=-1)
        d = (diagonal[..., ::-1] - diagonal)[..., :half] * 0.5
        rotation = _rotations(d, crossed[..., :half], bits)
        a = transposed(_turned(a, rotation, bits))
        return _turned(a, rotation, bits), rotation

    a, v = _jacobi(step, a, 2 * half, bits)
    w, v = jnp.diagonal(a, axis1=-2, axis2=-1)[..., :n], v[..., :n, :n]
    if sort:
        w, v = _ordered(w, v)
    return [v, w]


def eigh(ctx: Context, a: Operand, *, lower: bool, sort_eigenvalues: bool, **params: Any) -> list[Operand]:
    """SWEEPS (n - 1) steps of 65 rounds, and a sort. Error for n = 16: 2e-5 of the largest eigenvalue, and
    16 units in a ring of 32 bits, whose entries, rotated, stay below 2^7.
    """
    _no_subset(params)
    return apply(
        ctx, lambda a: _eigh(a if lower else transposed(a), _bits(ctx, squared=False), sort=sort_eigenvalues), a
    )


def _svd(a: Array, bits: Bits, *, full_matrices: bool, compute_uv: bool) -> list[Array]:
    """One-sided: rotations from the right make the columns orthogonal; their norms are the singular values."""
    if a.shape[-2] < a.shape[-1]:
        s, *uv = _svd(transposed(a), bits, full_matrices=full_matrices, compute_uv=compute_uv)
        return [s, *(transposed(m) for m in reversed(uv))]
    m, n = a.shape[-2:]
    a = _even(a, (-1,)) * 2.0**bits.matrix
    half, scale = a.shape[-1] // 2, 4.0**-bits.matrix

    def step(a: Array) -> tuple[Array, Array]:
        p, q = a[..., :half], a[..., ::-1][..., :half]
        twice = jnp.sum((q - p) * (q + p), -2)
        rotation = _rotations(twice * (0.5 * scale), jnp.sum(p * q, -2) * scale, bits)
        return _turned(a, rotation, bits), rotation

    a, v = _jacobi(step, a, 2 * half, bits)
    a, v = a[..., :n], v[..., :n, :n]
    s = NORM.bind(transposed(a)) * 2.0**-bits.matrix
    if not compute_uv:
        return [-jnp.sort(-s, -1)]
    s, a, v = _ordered(-s, a, v)
    u = transposed(UNIT.bind(transposed(a), more=0))
    if full_matrices and m > n:
        u = jnp.concatenate([u, householder_qr(u, full_matrices=True)[0][..., n:]], -1)
    return [-s, u, transposed(v)]


def svd(ctx: Context, a: Operand, *, full_matrices: bool, compute_uv: bool, **params: Any) -> list[Operand]:
    """SWEEPS (n - 1) steps of 63 rounds, n the smaller of both sizes, and a sort. Error: as eigh.

    Domain: columns (rows, if they are longer) of norm below 2^6 (2^3 in a ring of 32 bits), as their squares are
    squared. Vectors of singular values below about 2^-8 (2^-3) are inexact, with errors of 2^-18 / s^2 (2^-8 / s^2).
    """
    _no_subset(params)
    return apply(
        ctx, lambda a: _svd(a, _bits(ctx, squared=True), full_matrices=full_matrices, compute_uv=compute_uv), a
    )


def _no_subset(params: Any) -> None:
    if params.get("subset_by_index") is not None:
        raise UnsupportedError("`subset_by_index` is not supported: compute all and slice.")


def _pinv(a: Array, bits: Bits) -> Array:
    s, u, v = _svd(a, bits, full_matrices=False, compute_uv=True)
    kept = s > 10.0 * max(a.shape[-2:]) * bits.least * s[..., :1]
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, s, 1.0), 0.0)
    return transposed(v) @ (inverse[..., None] * transposed(u))


def pinv(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    """In place of JAX's own form, which has an infinite constant. Default tolerance: 10 max(m, n) units.

    In a ring of 32 bits these are a fifth of the largest singular value for n = 5: refused, as ordinary matrices would
    count as singular.
    """
    if ctx.config.ring_bits == 32:
        raise UnsupportedError(
            "`pinv` takes singular values below 10 max(m, n) units of the largest for 0, which are ordinary ones in a "
            "ring of 32 bits: use ring=64, or `jnp.linalg.solve` where the matrix is regular."
        )
    if any(eqn.primitive.name == "eigh" for eqn in closed.jaxpr.eqns) or len(args) != 1:
        return None
    return apply(ctx, lambda a: _pinv(a, _bits(ctx, squared=True)), *args)


RULES: dict[str, Rule] = {"eigh": eigh, "svd": svd}

# name of a function that JAX calls -> its own rule
CALLS = {"_pinv": pinv}
