"""Linear algebra on secret matrices [*batch, rows, columns]: factorisations, triangular systems, eigenvectors.

The algorithms are those of the textbooks (Golub and Van Loan, "Matrix Computations"), with a fixed number of
steps and masks in place of branches, written in JAX (see jax_rules.py). A step is one iteration of a loop
whose index is public: what masks and slices by it is local, and the loop's body is compiled once.

Errors are those of fixed point: every step adds a few units (2^-f) to entries, and a solution has them
times the condition number. Scale matrices to entries of about 1; entries beyond 2^13 overflow in products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.approx_division import reciprocal
from spuvm.compiler.approx_sqrt import rsqrt
from spuvm.compiler.builder import Builder
from spuvm.compiler.context import Context, Operand, Rule
from spuvm.compiler.ir import Value
from spuvm.compiler.jax_rules import apply
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array
Real = np.ndarray[Any, Any]


# many numbers over one ------------------------------------------------------------------------------------


def _primitive(name: str, meaning: Callable[..., Any]) -> Primitive:
    made = Primitive(name)
    made.def_impl(meaning)
    made.def_abstract_eval(lambda x, y: x)
    return made


OVER = _primitive("spu_over", lambda x, y: x / y[..., None])
OVER_ROOT = _primitive("spu_over_root", lambda x, y: x / jnp.sqrt(y)[..., None])


def _inverse_times(inverse: Callable[[Builder, Value], Value]) -> Rule:
    """x[..., i] inverse(y[...]): relative error 6e-6 plus one unit for results below 2^14 (f = 18).

    The inverse has so many fraction bits that those of a large y do not matter: one inverse and a product for
    each x, in place of a division.
    """

    def rule(ctx: Context, x: Operand, y: Operand, **_: Any) -> Value:
        b, shape = ctx.b, ctx.outs[0].shape
        frac = b.frac
        x, y = ctx.value(x), ctx.value(y)
        b.frac = max(frac, 48 - frac)
        try:
            factor = inverse(b, y)
        finally:
            b.frac = frac
        factor = b.broadcast(b.reshape(factor, (*shape[:-1], 1)), shape)
        return b.with_frac(b.mul_raw(x, factor), frac)

    return rule


def _over(x: Array, y: Array) -> Array:
    return OVER.bind(x, y)  # type: ignore[no-any-return]


def _over_root(x: Array, y: Array) -> Array:
    return OVER_ROOT.bind(x, y)  # type: ignore[no-any-return]


# shorthands -----------------------------------------------------------------------------------------------


def _row(a: Array, k: Any) -> Array:
    return lax.dynamic_index_in_dim(a, k, -2, keepdims=False)


def _column(a: Array, k: Any) -> Array:
    return lax.dynamic_index_in_dim(a, k, -1, keepdims=False)


def _outer(x: Array, y: Array) -> Array:
    return x[..., :, None] * y[..., None, :]


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _steps(body: Callable[[Any, Any], Any], init: Any, count: int) -> tuple[Any, Any]:
    return lax.scan(body, init, np.arange(count, dtype=np.int32))


def _lower(a: Array, diagonal: int = 0) -> Array:
    """The lower triangle; the mask is known, so that this is local."""
    return jnp.where(np.tri(*a.shape[-2:], k=diagonal, dtype=bool), a, 0)


# Cholesky -------------------------------------------------------------------------------------------------


def _cholesky(a: Array) -> Array:
    """a = L L^T by columns: L[:, k] = a[:, k] / sqrt(a[k, k]), a -= L[:, k] L[:, k]^T. Reads the lower triangle."""
    n = a.shape[-1]
    rows = np.arange(n)

    def step(a: Array, k: Any) -> tuple[Array, Array]:
        column = jnp.where(rows >= k, _column(a, k), 0)
        column = _over_root(column, _column(column, k))
        return a - _outer(column, column), column

    columns = _steps(step, a, n)[1]
    return _lower(jnp.moveaxis(columns, 0, -1))


def cholesky(ctx: Context, a: Operand, **_: Any) -> Operand:
    """The lower factor of a positive definite matrix; rounds: 34 a column. Not positive definite: no sense."""
    return apply(ctx, _cholesky, a)[0]


# LU with partial pivoting ----------------------------------------------------------------------------------


def _swapped(x: Array, k: Any, chosen: Array) -> tuple[Array, Array]:
    """The chosen row of x, and x with it and row k exchanged; products with indicators need no truncation."""
    top = jnp.sum(chosen[..., :, None] * x, -2)
    change = top - _row(x, k)
    here = (np.arange(x.shape[-2]) == k)[:, None]
    return top, x - _outer(chosen, change) + jnp.where(here, change[..., None, :], 0)


def _lu(a: Array) -> tuple[Array, Array, Array]:
    """P a = L U in place, the pivots' rows and the permutation.

    The pivot's row is a secret index: rows are exchanged by products with its indicator.
    """
    m, n = a.shape[-2:]
    rows, columns = np.arange(m, dtype=np.int32), np.arange(n)

    def step(state: tuple[Array, Array], k: Any) -> tuple[tuple[Array, Array], Array]:
        a, order = state
        size = jnp.where(rows >= k, jnp.abs(_column(a, k)), -1)
        pivot = lax.argmax(size, size.ndim - 1, np.int32)
        chosen = pivot[..., None] == rows
        top, a = _swapped(a, k, chosen.astype(a.dtype))
        order = _swapped(order[..., None], k, chosen.astype(np.int32))[1][..., 0]
        factor = jnp.where(rows > k, _over(_column(a, k), _column(top, k)), 0)
        a = a - _outer(factor, jnp.where(columns > k, top, 0))
        a = jnp.where((rows[:, None] > k) & (columns == k), factor[..., :, None], a)
        return (a, order), pivot

    order = jnp.broadcast_to(rows, a.shape[:-1])
    (a, order), pivots = _steps(step, (a, order), min(m, n))
    return a, jnp.moveaxis(pivots, 0, -1), order


def lu(ctx: Context, a: Operand, **_: Any) -> list[Operand]:
    """Rounds: 50 a column and those of argmax. A pivot that is zero leaves its column as it is."""
    return apply(ctx, _lu, a)


# triangular systems ----------------------------------------------------------------------------------------


def _triangular_solve(
    a: Array, b: Array, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool
) -> Array:
    """Every case is brought to a x = b with lower a of unit diagonal: transposed, reversed, rows scaled."""
    if not left_side:
        a, b, transpose_a = a, _t(b), not transpose_a
    if transpose_a:
        a, lower = _t(a), not lower
    if not lower:
        a, b = a[..., ::-1, ::-1], b[..., ::-1, :]
    if not unit_diagonal:
        diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
        n = a.shape[-1]
        scaled = _over(jnp.concatenate([_lower(a, -1), b], -1), diagonal)
        a, b = scaled[..., :n], scaled[..., n:]
    a = _lower(a, -1)

    def step(b: Array, k: Any) -> tuple[Array, None]:
        return b - _outer(_column(a, k), _row(b, k)), None

    x = _steps(step, b, a.shape[-1])[0]
    x = x if lower else x[..., ::-1, :]
    return x if left_side else _t(x)


def triangular_solve(ctx: Context, a: Operand, b: Operand, *, conjugate_a: bool, **params: Any) -> Operand:
    """Rounds: 31 for the inverses of the diagonal, then 2 a row."""
    return apply(ctx, lambda a, b: _triangular_solve(a, b, **params), a, b)[0]


def custom_linear_solve(ctx: Context, *args: Operand, const_lengths: Any, jaxprs: Any) -> list[Operand]:
    """`lax.custom_linear_solve`: the direct solution."""
    before = const_lengths.matvec + const_lengths.vecmat
    constants = args[before : before + const_lengths.solve]
    return ctx.run(jaxprs.solve, [*constants, *args[sum(const_lengths) :]])


def _slogdet(a: Array) -> tuple[Array, Array]:
    """Sign and log |det a|; where det a is 0 in fixed point, the sign is 0 and the logarithm that of a small number."""
    u, pivots, _ = _lu(a)
    diagonal = jnp.diagonal(u, axis1=-2, axis2=-1)
    moved = pivots != np.arange(a.shape[-1], dtype=np.int32)
    signs = jnp.sign(diagonal) * jnp.where(moved, -1.0, 1.0)
    return jnp.prod(signs, -1), jnp.sum(jnp.log(jnp.abs(diagonal)), -1)


def slogdet(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    """In place of JAX's own form, which has an infinite constant."""
    return apply(ctx, _slogdet, *args)


# QR --------------------------------------------------------------------------------------------------------


def _qr(a: Array, *, full_matrices: bool) -> tuple[Array, Array]:
    """Householder reflections: H = I - w w^T, w = u / sqrt(u^T u / 2), u = x + sign(x_k) |x| e_k.

    x is the column below row k. H is orthogonal whatever the error of |x| may be.
    """
    m, n = a.shape[-2:]
    rows = np.arange(m)

    def step(state: tuple[Array, Array], k: Any) -> tuple[tuple[Array, Array], None]:
        q, r = state
        x = jnp.where(rows >= k, _column(r, k), 0)
        head = _column(x, k)
        norm = jnp.sqrt(jnp.sum(x * x, -1))
        norm = jnp.where(head < 0, -norm, norm)
        u = jnp.where(rows == k, x + norm[..., None], x)
        w = _over_root(u, jnp.sum(u * u, -1) * 0.5)
        w = jnp.where(k < m - 1, w, 0)
        r = r - _outer(w, (w[..., None, :] @ r)[..., 0, :])
        q = q - _outer((q @ w[..., None])[..., 0], w)
        return (q, r), None

    steps = min(m, n)
    eye = jnp.broadcast_to(jnp.eye(m, dtype=a.dtype), (*a.shape[:-2], m, m))
    q, r = _steps(step, (eye, a), steps)[0]
    size = m if full_matrices else steps
    return q[..., :, :size], _t(_lower(_t(r[..., :size, :])))


def qr(ctx: Context, a: Operand, *, pivoting: bool, full_matrices: bool, **_: Any) -> list[Operand]:
    """Rounds: 70 a column. A column that is zero below the diagonal may change the sign of its row of R."""
    if pivoting:
        raise UnsupportedError("QR with pivoting is not supported: use pivoting=False.")
    return apply(ctx, lambda a: _qr(a, full_matrices=full_matrices), a)


def _householder_product(a: Array, taus: Array) -> Array:
    """The first columns of the product of I - tau v v^T, v below the diagonal of a, with 1 on it."""
    m, n = a.shape[-2:]
    rows = np.arange(m)

    def step(q: Array, k: Any) -> tuple[Array, None]:
        v = jnp.where(rows > k, _column(a, k), (rows == k).astype(a.dtype))
        return q - _outer((q @ v[..., None])[..., 0] * _column(taus, k)[..., None], v), None

    eye = jnp.broadcast_to(jnp.eye(m, dtype=a.dtype), (*a.shape[:-2], m, m))
    return _steps(step, eye, taus.shape[-1])[0][..., :, :n]


def householder_product(ctx: Context, a: Operand, taus: Operand, **_: Any) -> Operand:
    return apply(ctx, _householder_product, a, taus)[0]


RULES: dict[str, Rule] = {
    "spu_over": _inverse_times(reciprocal),
    "spu_over_root": _inverse_times(rsqrt),
    "cholesky": cholesky,
    "lu": lu,
    "triangular_solve": triangular_solve,
    "custom_linear_solve": custom_linear_solve,
    "qr": qr,
    "householder_product": householder_product,
}

# name of a function that JAX calls -> its own rule
CALLS = {"_slogdet_lu": slogdet}
