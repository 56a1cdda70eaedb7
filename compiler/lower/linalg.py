"""Linear algebra on secret matrices [*batch, rows, columns]: factorisations and triangular systems.

The algorithms are those of the textbooks (Golub and Van Loan, "Matrix Computations"), with a fixed number of
steps and masks in place of branches, written in JAX (see lower/jax_rules.py). A step is one iteration of a loop
whose index is public: what masks and slices by it is local, and the loop's body is compiled once.

Errors are those of fixed point: every step adds a few units (2^-f) to entries, and a solution has them
times its norm and the condition number. Scale matrices to entries of
about 1: norms beyond 2^13 (f = 18) overflow in products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.functions.leading_bit import COARSE, FINE, MIDDLE, leading_bit, mantissa, scales
from spuvm.compiler.functions.polynomial import FORMATS, constant, polynomial, reread, table
from spuvm.compiler.functions.sqrt import RSQRT
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.runtime.errors import UnsupportedError

Array = jax.Array


# quotients and norms --------------------------------------------------------------------------------------


def _primitive(name: str, meaning: Callable[..., Any], result: Callable[..., Any] = lambda x, *_, **__: x) -> Primitive:
    made = Primitive(name)
    made.def_impl(meaning)
    made.def_abstract_eval(result)
    return made


OVER = _primitive("spu_over", lambda x, y: x / y[..., None])  # [..., i], [...] -> [..., i]
OVER_ROOT = _primitive("spu_over_root", lambda x, y: x / jnp.sqrt(y)[..., None])
UNIT = _primitive("spu_unit", lambda x, more: 2.0**more * x / jnp.linalg.norm(x, axis=-1, keepdims=True))
NORM = _primitive("spu_norm", lambda x: jnp.linalg.norm(x, axis=-1), lambda x: x.update(shape=x.shape[:-1]))


def over(ctx: Context, x: Operand, y: Operand, **_: Any) -> Value:
    return _product(ctx, ctx.value(x), "reciprocal", ctx.value(y))


def over_root(ctx: Context, x: Operand, y: Operand, **_: Any) -> Value:
    return _product(ctx, ctx.value(x), "rsqrt", ctx.value(y))


def unit(ctx: Context, x: Operand, *, more: int, **_: Any) -> Value:
    """2^more x / |x|, along the last axis: a unit vector with so many fraction bits more; 0 for 0.

    x / |x| = (x 2^(-E / 2)) c^(-1/2) with |x|^2 = c 2^E (see functions/sqrt.py). |x| < 2^13 (f = 18). Of x only its
    direction matters, down to the smallest x. Error: 4e-6 plus one unit. 32 rounds. In a ring of 32 bits, whose
    polynomials are good for 10 bits, a step of Newton's method makes its length 1: 12 rounds more.
    """
    b, x = ctx.b, ctx.value(x)
    bits = FORMATS[b.ring_bits].factor  # fraction bits of 2^(-j / 2), j the last digit of E
    last, coarsest = b.ring_bits // 2 - 2, b.ring_bits // 2 - 8  # of both factors; of the largest whole factor
    lead = leading_bit(b, square := _square(ctx, x), signed=False)
    coarse, middle, fine, big, medium, small = lead.tables(
        b,
        *scales(b),
        (COARSE, lambda v: 1 << (coarsest - 8 * v)),
        (MIDDLE, lambda v: 1 << (6 - 2 * v)),
        (FINE, lambda v: round(2.0 ** (bits - v / 2))),
    )
    u = mantissa(b, square, lead, b.mul_raw(coarse, b.mul_raw(middle, fine)))
    inverse = polynomial(b, u, table(b, "rsqrt", RSQRT), last)
    scale = _spread(b, b.mul_raw(big, b.mul_raw(medium, small)), x.shape)
    scaled = b.with_frac(reread(b, b.mul_raw(reread(b, x, 0), scale), coarsest + 6 + bits), last)
    out = b.mul(scaled, _spread(b, inverse, x.shape), b.frac + more)
    return reread(b, _of_length_one(ctx, out) if b.ring_bits == 32 else out, b.frac)


def _of_length_one(ctx: Context, x: Value) -> Value:
    """x (3 - |x|^2) / 2, for |x| near 1."""
    b, frac = ctx.b, x.type.frac
    half = reread(b, b.trunc(_square(ctx, x), frac + 1), frac)
    factor = b.sub(constant(b, 1.5, frac, half.shape), half)
    return b.mul(x, _spread(b, factor, x.shape), frac)


def _spread(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """One number for all along the last axis."""
    return b.broadcast(b.reshape(x, (*shape[:-1], 1)), shape)


def norm(ctx: Context, x: Operand, **_: Any) -> Value:
    """|x|: relative error 5e-6 plus two units. |x| < 2^13 (f = 18)."""
    return ctx.b.function("sqrt", _square(ctx, ctx.value(x)))


def _square(ctx: Context, x: Value) -> Value:
    """|x|^2 with all of its fraction bits."""
    return ctx.b.sum(ctx.b.mul_raw(x, x), [len(x.shape) - 1])


def _product(ctx: Context, x: Value, inverse: str, y: Value) -> Value:
    """x[..., i] inverse(y[...]): relative error 6e-6 plus one unit for results below 2^14 (f = 18).

    The inverse has so many fraction bits that those of a large y do not matter: one inverse and a product for
    each x, in place of divisions.
    """
    b, frac = ctx.b, ctx.b.frac
    factor = b.function(inverse, y, frac=max(frac, {32: 18, 64: 48, 128: 80}[b.ring_bits] - frac))
    return b.with_frac(b.mul_raw(x, _spread(b, factor, x.shape)), frac)


# shorthands -----------------------------------------------------------------------------------------------


def _row(a: Array, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, -2, keepdims=False)


def _column(a: Array, k: Any) -> Any:
    return lax.dynamic_index_in_dim(a, k, -1, keepdims=False)


def _outer(x: Array, y: Array) -> Array:
    return x[..., :, None] * y[..., None, :]


def transposed(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def places(n: int) -> Any:
    """0, 1, ..., n - 1 as int32, which every ring holds; JAX's own default may have 64 bits."""
    return np.arange(n, dtype=np.int32)


def steps(body: Callable[[Any, Any], Any], init: Any, count: int) -> tuple[Any, Any]:
    return lax.scan(body, init, places(count))


def lower_triangle(a: Array, diagonal: int = 0) -> Array:
    """The lower triangle; the mask is known, so that this is local."""
    rows, columns = a.shape[-2:]
    return jnp.where(np.tri(rows, columns, k=diagonal, dtype=bool), a, 0)


# Cholesky -------------------------------------------------------------------------------------------------


def _cholesky(a: Array) -> Array:
    """a = L L^T by columns: L[:, k] = a[:, k] / sqrt(a[k, k]), a -= L[:, k] L[:, k]^T. Reads the lower triangle."""
    n = a.shape[-1]
    rows = places(n)

    def step(a: Array, k: Any) -> tuple[Array, Array]:
        column = jnp.where(rows >= k, _column(a, k), 0)
        column = OVER_ROOT.bind(column, _column(column, k))
        return a - _outer(column, column), column

    columns = steps(step, a, n)[1]
    return lower_triangle(jnp.moveaxis(columns, 0, -1))


def cholesky(ctx: Context, a: Operand, **_: Any) -> Operand:
    """The lower factor of a positive definite matrix; 32 rounds a column.

    Error: a few units times the condition number's root. A matrix that is not positive definite gives no sense.
    """
    return apply(ctx, _cholesky, a)[0]


# LU with partial pivoting ----------------------------------------------------------------------------------


def _swapped(x: Array, k: Any, chosen: Array) -> tuple[Array, Array]:
    """The chosen row of x, and x with it and row k exchanged; products with indicators need no truncation."""
    top = jnp.sum(chosen[..., :, None] * x, -2, dtype=x.dtype)
    change = top - _row(x, k)
    here = (places(x.shape[-2]) == k)[:, None]
    return top, x - _outer(chosen, change) + jnp.where(here, change[..., None, :], 0)


def _lu(a: Array) -> tuple[Array, Array, Array]:
    """P a = L U in place, the pivots' rows and the permutation.

    The pivot's row is a secret index: rows are exchanged by products with its indicator.
    """
    m, n = a.shape[-2:]
    rows, columns = places(m), places(n)

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
    (a, order), pivots = steps(step, (a, order), min(m, n))
    return a, jnp.moveaxis(pivots, 0, -1), order


def lu(ctx: Context, a: Operand, **_: Any) -> list[Operand]:
    """53 + 11 log2(rows) rounds a column. A pivot that is zero leaves its column as it is."""
    return apply(ctx, _lu, a)


# triangular systems ----------------------------------------------------------------------------------------


def _triangular_solve(
    a: Array, b: Array, *, left_side: bool, lower: bool, transpose_a: bool, unit_diagonal: bool
) -> Array:
    """Every case is brought to a x = b with lower a of unit diagonal: transposed, reversed, rows scaled."""
    if not left_side:
        a, b, transpose_a = a, transposed(b), not transpose_a
    if transpose_a:
        a, lower = transposed(a), not lower
    if not lower:
        a, b = a[..., ::-1, ::-1], b[..., ::-1, :]
    if not unit_diagonal:
        diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
        n = a.shape[-1]
        scaled = OVER.bind(jnp.concatenate([lower_triangle(a, -1), b], -1), diagonal)
        a, b = scaled[..., :n], scaled[..., n:]
    a = lower_triangle(a, -1)

    def step(b: Array, k: Any) -> tuple[Array, None]:
        return b - _outer(_column(a, k), _row(b, k)), None

    x = steps(step, b, a.shape[-1])[0]
    x = x if lower else x[..., ::-1, :]
    return x if left_side else transposed(x)


def triangular_solve(ctx: Context, a: Operand, b: Operand, *, conjugate_a: bool, **params: Any) -> Operand:
    """30 rounds for the inverses of the diagonal, then 2 a row.

    Rows are divided by their diagonal element first: the quotients must stay below 2^13.
    """
    return apply(ctx, lambda a, b: _triangular_solve(a, b, **params), a, b)[0]


def custom_linear_solve(ctx: Context, *args: Operand, const_lengths: Any, jaxprs: Any) -> list[Operand]:
    """`lax.custom_linear_solve`: the direct solution."""
    before = const_lengths.matvec + const_lengths.vecmat
    constants = args[before : before + const_lengths.solve]
    return ctx.run(jaxprs.solve, [*constants, *args[sum(const_lengths) :]])


def _slogdet(a: Array) -> tuple[Array, Array]:
    """Sign and log |det a|.

    A pivot that is 0 gives sign 0 and a small logarithm in place of an infinite one. Rounding may leave other
    singular matrices with a pivot of a few units.
    """
    u, pivots, _ = _lu(a)
    diagonal = jnp.diagonal(u, axis1=-2, axis2=-1)
    moved = pivots != places(a.shape[-1])
    signs = jnp.sign(diagonal) * jnp.where(moved, -1.0, 1.0)
    return jnp.prod(signs, -1), jnp.sum(jnp.log(jnp.abs(diagonal)), -1)


def slogdet(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
    """In place of JAX's own form, which has an infinite constant."""
    return apply(ctx, _slogdet, *args)


# QR --------------------------------------------------------------------------------------------------------


def householder_qr(a: Array, *, full_matrices: bool) -> tuple[Array, Array]:
    """Householder reflections: H = I - 2 w w^T, w = u / |u|, u = x + sign(x_k) |x| e_k.

    x is the column below row k. H is orthogonal whatever the error of |x| may be.
    """
    m, n = a.shape[-2:]
    rows = places(m)

    def step(state: tuple[Array, Array], k: Any) -> tuple[tuple[Array, Array], None]:
        q, r = state
        x = jnp.where(rows >= k, _column(r, k), 0)
        head = _column(x, k)
        size = NORM.bind(x)
        size = jnp.where(head < 0, -size, size)
        w = UNIT.bind(jnp.where(rows == k, x + size[..., None], x), more=0)
        w = jnp.where(k < m - 1, w, 0)
        r = r - _outer(w, 2.0 * (w[..., None, :] @ r)[..., 0, :])
        q = q - _outer(2.0 * (q @ w[..., None])[..., 0], w)
        return (q, r), None

    count = min(m, n)
    eye = jnp.broadcast_to(jnp.eye(m, dtype=a.dtype), (*a.shape[:-2], m, m))
    q, r = steps(step, (eye, a), count)[0]
    size = m if full_matrices else count
    return q[..., :, :size], transposed(lower_triangle(transposed(r[..., :size, :])))


def qr(ctx: Context, a: Operand, *, pivoting: bool, full_matrices: bool, **_: Any) -> list[Operand]:
    """63 rounds a column. A column that is zero below the diagonal may change the sign of its row of R."""
    if pivoting:
        raise UnsupportedError("QR with pivoting is not supported: use pivoting=False.")
    return apply(ctx, lambda a: householder_qr(a, full_matrices=full_matrices), a)


def _householder_product(a: Array, taus: Array) -> Array:
    """The first columns of the product of I - tau v v^T, v below the diagonal of a, with 1 on it."""
    m, n = a.shape[-2:]
    rows = places(m)

    def step(q: Array, k: Any) -> tuple[Array, None]:
        v = jnp.where(rows > k, _column(a, k), (rows == k).astype(a.dtype))
        return q - _outer((q @ v[..., None])[..., 0] * _column(taus, k)[..., None], v), None

    eye = jnp.broadcast_to(jnp.eye(m, dtype=a.dtype), (*a.shape[:-2], m, m))
    q: Array = steps(step, eye, taus.shape[-1])[0]
    return q[..., :, :n]


def householder_product(ctx: Context, a: Operand, taus: Operand, **_: Any) -> Operand:
    return apply(ctx, _householder_product, a, taus)[0]


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
}

# name of a function that JAX calls -> its own rule
CALLS = {"_slogdet_lu": slogdet}
