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
from spuvm.compiler.approx_sqrt import RSQRT, rsqrt, sqrt
from spuvm.compiler.builder import Builder
from spuvm.compiler.context import Context, Operand, Rule
from spuvm.compiler.ir import Value
from spuvm.compiler.jax_rules import apply
from spuvm.compiler.normalize import COARSE, FINE, MIDDLE, leading_bit, mantissa
from spuvm.compiler.polynomial import polynomial, reread
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array
Real = np.ndarray[Any, Any]


# quotients and norms --------------------------------------------------------------------------------------


def _primitive(name: str, meaning: Callable[..., Any], result: Callable[..., Any] = lambda x, *_: x) -> Primitive:
    made = Primitive(name)
    made.def_impl(meaning)
    made.def_abstract_eval(result)
    return made


OVER = _primitive("spu_over", lambda x, y: x / y[..., None])  # [..., i], [...] -> [..., i]
OVER_ROOT = _primitive("spu_over_root", lambda x, y: x / jnp.sqrt(y)[..., None])
UNIT = _primitive("spu_unit", lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True))  # along the last axis
NORM = _primitive("spu_norm", lambda x: jnp.linalg.norm(x, axis=-1), lambda x: x.update(shape=x.shape[:-1]))


def over(ctx: Context, x: Operand, y: Operand, **_: Any) -> Value:
    return _product(ctx, ctx.value(x), reciprocal, ctx.value(y))


def over_root(ctx: Context, x: Operand, y: Operand, **_: Any) -> Value:
    return _product(ctx, ctx.value(x), rsqrt, ctx.value(y))


def unit(ctx: Context, x: Operand, **_: Any) -> Value:
    """x / |x| = (x 2^(-E / 2)) c^(-1/2) with |x|^2 = c 2^E (see approx_sqrt.py); 0 for 0. |x| < 2^13 (f = 18).

    Of x only its direction matters, down to the smallest x. Error: 4e-6 plus one unit. 32 rounds.
    """
    b, x = ctx.b, ctx.value(x)
    lead = leading_bit(b, square := _square(ctx, x), signed=False)
    coarse, middle, fine, big, medium, small = lead.tables(
        b,
        (COARSE, lambda v: 1 << (48 - 16 * v)),
        (MIDDLE, lambda v: 1 << (12 - 4 * v)),
        (FINE, lambda v: 1 << (3 - v)),
        (COARSE, lambda v: 1 << (24 - 8 * v)),
        (MIDDLE, lambda v: 1 << (6 - 2 * v)),
        (FINE, lambda v: round(2.0 ** (_FINE - v / 2))),
    )
    u = mantissa(b, square, lead, b.mul_raw(coarse, b.mul_raw(middle, fine)))
    inverse = polynomial(b, u, RSQRT, _UNIT)
    scale = _spread(b, b.mul_raw(big, b.mul_raw(medium, small)), x.shape)
    scaled = b.with_frac(reread(b, b.mul_raw(reread(b, x, 0), scale), 30 + _FINE), _UNIT)
    return b.mul(scaled, _spread(b, inverse, x.shape))


_FINE = 23  # fraction bits of 2^(-j / 2), j the last digit of E
_UNIT = 20  # of what is multiplied last


def _spread(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """One number for all along the last axis."""
    return b.broadcast(b.reshape(x, (*shape[:-1], 1)), shape)


def norm(ctx: Context, x: Operand, **_: Any) -> Value:
    """|x|: relative error 5e-6 plus two units. |x| < 2^13 (f = 18)."""
    return sqrt(ctx.b, _square(ctx, ctx.value(x)))


def _square(ctx: Context, x: Value) -> Value:
    """|x|^2 with all of its fraction bits."""
    return ctx.b.sum(ctx.b.mul_raw(x, x), [len(x.shape) - 1])


def _product(ctx: Context, x: Value, inverse: Callable[[Builder, Value], Value], y: Value) -> Value:
    """x[..., i] inverse(y[...]): relative error 6e-6 plus one unit for results below 2^14 (f = 18).

    The inverse has so many fraction bits that those of a large y do not matter: one inverse and a product for
    each x, in place of divisions.
    """
    b, frac = ctx.b, ctx.b.frac
    b.frac = max(frac, 48 - frac)
    try:
        factor = inverse(b, y)
    finally:
        b.frac = frac
    return b.with_frac(b.mul_raw(x, _spread(b, factor, x.shape)), frac)


# shorthands -----------------------------------------------------------------------------------------------


def _row(a: Array, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, -2, keepdims=False)


def _column(a: Array, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, -1, keepdims=False)


def _outer(x: Array, y: Array) -> Array:
    return x[..., :, None] * y[..., None, :]


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _steps(body: Callable[[Any, Any], Any], init: Any, count: int) -> tuple[Any, Any]:
    return lax.scan(body, init, np.arange(count, dtype=np.int32))


def _lower(a: Array, diagonal: int = 0) -> Array:
    """The lower triangle; the mask is known, so that this is local."""
    rows, columns = a.shape[-2:]
    return jnp.where(np.tri(rows, columns, k=diagonal, dtype=bool), a, 0)


# Cholesky -------------------------------------------------------------------------------------------------


def _cholesky(a: Array) -> Array:
    """a = L L^T by columns: L[:, k] = a[:, k] / sqrt(a[k, k]), a -= L[:, k] L[:, k]^T. Reads the lower triangle."""
    n = a.shape[-1]
    rows = np.arange(n)

    def step(a: Array, k: Any) -> tuple[Array, Array]:
        column = jnp.where(rows >= k, _column(a, k), 0)
        column = OVER_ROOT.bind(column, _column(column, k))
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
        factor = jnp.where(rows > k, OVER.bind(_column(a, k), _column(top, k)), 0)
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
        scaled = OVER.bind(jnp.concatenate([_lower(a, -1), b], -1), diagonal)
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
    """Householder reflections: H = I - 2 w w^T, w = u / |u|, u = x + sign(x_k) |x| e_k.

    x is the column below row k. H is orthogonal whatever the error of |x| may be.
    """
    m, n = a.shape[-2:]
    rows = np.arange(m)

    def step(state: tuple[Array, Array], k: Any) -> tuple[tuple[Array, Array], None]:
        q, r = state
        x = jnp.where(rows >= k, _column(r, k), 0)
        head = _column(x, k)
        size = NORM.bind(x)
        size = jnp.where(head < 0, -size, size)
        w = UNIT.bind(jnp.where(rows == k, x + size[..., None], x))
        w = jnp.where(k < m - 1, w, 0)
        r = r - _outer(w, 2.0 * (w[..., None, :] @ r)[..., 0, :])
        q = q - _outer(2.0 * (q @ w[..., None])[..., 0], w)
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


# eigenvectors and singular vectors -------------------------------------------------------------------------

# Jacobi's method, all pairs (i, n - 1 - i) of a step at once. After a step all places but the first move on by
# one, so that n - 1 steps (a sweep) treat every pair and end in the order of the beginning.

SWEEPS = 7  # for n <= 16; the error falls quadratically from about the fourth on
LEAST = 2.0**-18  # keeps two zeros from being a rotation that is none


def _rotations(p: Array, q: Array, pq: Array) -> Array:
    """The matrix [*batch, n, n] of the rotations that make [[p, pq], [pq, q]] diagonal, and of the places' move.

    With d = (q - p) / 2, the cosine and the sine are as |d| + sqrt(d^2 + pq^2) to sign(d) pq.
    """
    n = 2 * p.shape[-1]
    d = (q - p) * 0.5
    negative = d < 0
    size = NORM.bind(jnp.stack([d, pq], -1))
    x = jnp.where(negative, -d, d) + size + LEAST
    cosine, sine = jnp.moveaxis(UNIT.bind(jnp.stack([x, jnp.where(negative, -pq, pq)], -1)), -1, 0)
    same = jnp.concatenate([cosine, cosine[..., ::-1]], -1)
    other = jnp.concatenate([sine, -sine[..., ::-1]], -1)
    eye = np.eye(n, dtype=bool)
    matrix = jnp.where(eye, same[..., None], 0) + jnp.where(eye[::-1], other[..., None], 0)
    return matrix[..., np.r_[0, n - 1, 1 : n - 1]]


def _even(a: Array, axes: Sequence[int]) -> Array:
    """`a` with a row or column of zeros more where their number is odd; what it stands for is not rotated."""
    widths = [(0, a.shape[d] % 2 if d - a.ndim in axes else 0) for d in range(a.ndim)]
    return jnp.pad(a, widths)


def _jacobi(step: Callable[[Array], tuple[Array, Array]], a: Array, n: int) -> tuple[Array, Array]:
    """The last matrix and the product of all rotations."""

    def body(state: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], None]:
        a, v = state
        a, rotation = step(a)
        return (a, v @ rotation), None

    eye = jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), (*a.shape[:-2], n, n))
    return _steps(body, (a, eye), SWEEPS * (n - 1))[0]  # type: ignore[no-any-return]


def _ordered(values: Array, *matrices: Array) -> list[Array]:
    """The values in ascending order, and the matrices' columns with them."""
    n = values.shape[-1]
    order = jnp.argsort(values, -1)
    chosen = (order[..., None, :] == np.arange(n)[:, None]).astype(values.dtype)
    return [jnp.sum(chosen * values[..., None], -2), *(m @ chosen for m in matrices)]


def _eigh(a: Array, *, sort: bool) -> list[Array]:
    n = a.shape[-1]
    lower = _lower(a)
    a = _even(lower + _t(_lower(a, -1)), (-1, -2))
    half = a.shape[-1] // 2

    def step(a: Array) -> tuple[Array, Array]:
        diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
        crossed = jnp.diagonal(a[..., ::-1], axis1=-2, axis2=-1)
        rotation = _rotations(diagonal[..., :half], diagonal[..., ::-1][..., :half], crossed[..., :half])
        return _t(rotation) @ a @ rotation, rotation

    a, v = _jacobi(step, a, 2 * half)
    w, v = jnp.diagonal(a, axis1=-2, axis2=-1)[..., :n], v[..., :n, :n]
    if sort:
        w, v = _ordered(w, v)
    return [v, w]


def eigh(ctx: Context, a: Operand, *, lower: bool, sort_eigenvalues: bool, **params: Any) -> list[Operand]:
    """Rounds: 70 a step, SWEEPS (n - 1) steps, and those of a sort."""
    _no_subset(params)
    return apply(ctx, lambda a: _eigh(a if lower else _t(a), sort=sort_eigenvalues), a)


def _svd(a: Array, *, full_matrices: bool, compute_uv: bool) -> list[Array]:
    """One-sided: rotations from the right make the columns orthogonal; their norms are the singular values."""
    if a.shape[-2] < a.shape[-1]:
        s, *uv = _svd(_t(a), full_matrices=full_matrices, compute_uv=compute_uv)
        return [s, *(_t(m) for m in reversed(uv))]
    m, n = a.shape[-2:]
    a = _even(a, (-1,))
    half = a.shape[-1] // 2

    def step(a: Array) -> tuple[Array, Array]:
        p, q = a[..., :half], a[..., ::-1][..., :half]
        rotation = _rotations(jnp.sum(p * p, -2), jnp.sum(q * q, -2), jnp.sum(p * q, -2))
        return a @ rotation, rotation

    a, v = _jacobi(step, a, 2 * half)
    a, v = a[..., :n], v[..., :n, :n]
    s = NORM.bind(_t(a))
    if not compute_uv:
        return [-jnp.sort(-s, -1)]
    s, a, v = _ordered(-s, a, v)
    u = _t(UNIT.bind(_t(a)))
    if full_matrices and m > n:
        u = jnp.concatenate([u, _qr(u, full_matrices=True)[0][..., n:]], -1)
    return [-s, u, _t(v)]


def svd(ctx: Context, a: Operand, *, full_matrices: bool, compute_uv: bool, **params: Any) -> list[Operand]:
    """Rounds: 72 a step, SWEEPS (n - 1) steps for n columns or rows, whichever are fewer, and those of a sort.

    The columns of U for singular values below about 2^-9 are inexact: their products are a few units.
    """
    _no_subset(params)
    return apply(ctx, lambda a: _svd(a, full_matrices=full_matrices, compute_uv=compute_uv), a)


def _no_subset(params: Any) -> None:
    if params.get("subset_by_index") is not None:
        raise UnsupportedError("`subset_by_index` is not supported: compute all and slice.")


def _pinv(a: Array, tolerance: Any) -> Array:
    s, u, v = _svd(a, full_matrices=False, compute_uv=True)
    kept = s > tolerance * s[..., :1]
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, s, 1.0), 0.0)
    return _t(v) @ (inverse[..., None] * _t(u))


def pinv(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    """In place of JAX's own form, which has an infinite constant. Default tolerance: 10 max(m, n) units."""
    if any(eqn.primitive.name == "eigh" for eqn in closed.jaxpr.eqns) or len(args) != 1:
        return None
    tolerance = 10.0 * max(np.shape(args[0])[-2:]) * 2.0**-ctx.b.frac
    return apply(ctx, lambda a: _pinv(a, tolerance), *args)


RULES: dict[str, Rule] = {
    "spu_over": over,
    "spu_over_root": over_root,
    "spu_unit": unit,
    "spu_norm": norm,
    "cholesky": cholesky,
    "lu": lu,
    "triangular_solve": triangular_solve,
    "custom_linear_solve": custom_linear_solve,
    "qr": qr,
    "householder_product": householder_product,
    "eigh": eigh,
    "svd": svd,
}

# name of a function that JAX calls -> its own rule
CALLS = {"_slogdet_lu": slogdet, "_pinv": pinv}
