"""Products of matrices over Z_2^32 and Z_2^64 inside JAX programs: uint32 and uint64 arrays that wrap.

XLA's own integer dot is fast for matrix times vector and 50 times too slow beyond it. Two forms
with the same bits stand beside each other: the native kernel as an FFI call (CPU only, as is the
runtime) and `matmul_xla`. Which one a program gets is settled when it is traced.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.runtime import native

# As in `lax.dot_general`: (contracted axes of x, of y), (batch axes of x, of y).
DimensionNumbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]

# Outer products per step of the pure-XLA loop: 8 or 32 run at half the speed.
_UNROLLED = 16
# Up to this depth one multiply-and-sum beats the loop and compiles faster.
_FUSED_DEPTH = 32


def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """[*batch, m, k] x [*batch, k, n] -> [*batch, m, n] modulo 2^bits; both uint32 or both uint64.

    64 bits need `jax.enable_x64(True)` around the trace, as all uint64 does.
    """
    return dot_general(x, y, _matmul_dimensions(x))


def matmul_xla(x: jax.Array, y: jax.Array) -> jax.Array:
    """`matmul` without the native kernel, bit for bit: what it falls back to, and what tests hold it to."""
    depth = x.shape[-1]
    if depth <= _FUSED_DEPTH:
        return _sum_of_products(x, y)
    missing = -depth % _UNROLLED
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    y = jnp.pad(y, [(0, 0)] * (y.ndim - 2) + [(0, missing), (0, 0)])

    def step(i: jax.Array, z: jax.Array) -> jax.Array:
        x_part = lax.dynamic_slice_in_dim(x, i * _UNROLLED, _UNROLLED, axis=x.ndim - 1)
        y_part = lax.dynamic_slice_in_dim(y, i * _UNROLLED, _UNROLLED, axis=y.ndim - 2)
        return z + _sum_of_products(x_part, y_part)

    zero = jnp.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    z: jax.Array = lax.fori_loop(0, x.shape[-1] // _UNROLLED, step, zero)
    return z


def dot_general(x: jax.Array, y: jax.Array, dimension_numbers: DimensionNumbers) -> jax.Array:
    """`lax.dot_general` modulo 2^bits, all of its axes and sizes; both uint32 or both uint64.

    One operand may be of uint8 beside uint64: it is widened while it is read, not in memory.
    """
    types = {x.dtype, y.dtype}
    small = types == {jnp.dtype("uint8"), jnp.dtype("uint64")}
    if not small and (len(types) > 1 or x.dtype not in (jnp.uint32, jnp.uint64)):
        raise TypeError(f"`x` and `y` must both be uint32 or both uint64, got {x.dtype} and {y.dtype}")
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    x_free = [axis for axis in range(x.ndim) if axis not in {*x_sum, *x_batch}]
    y_free = [axis for axis in range(y.ndim) if axis not in {*y_sum, *y_batch}]
    m, n, k = _size(x, x_free), _size(y, y_free), _size(x, x_sum)
    if min(m, n) <= 1 or k == 0 or x.size == 0:
        x, y = (v.astype(jnp.uint64) if small else v for v in (x, y))
        return lax.dot_general(x, y, dimension_numbers)
    x_matrix, x_transposed = _as_matrix(x, x_batch, x_free, x_sum)
    y_matrix, y_transposed = _as_matrix(y, y_batch, y_sum, y_free)
    z = _product(x_matrix, y_matrix, x_transposed, y_transposed)
    batch = [x.shape[axis] for axis in x_batch]
    return z.reshape(*batch, *(x.shape[axis] for axis in x_free), *(y.shape[axis] for axis in y_free))


def _product(x: jax.Array, y: jax.Array, x_transposed: bool, y_transposed: bool) -> jax.Array:
    """[b, m, k] x [b, k, n] -> [b, m, n], where a transposed operand lies in memory the other way round."""
    m, k = x.shape[:0:-1] if x_transposed else x.shape[1:]
    n = y.shape[1] if y_transposed else y.shape[2]
    dtype = jnp.promote_types(x.dtype, y.dtype)
    if x.dtype != y.dtype and (k <= 1 or not native.widens()):
        x, y = x.astype(dtype), y.astype(dtype)
    if k > 1 and native.register():  # an outer product is elementwise: XLA fuses it with what surrounds it
        result = jax.ShapeDtypeStruct((x.shape[0], m, n), dtype)
        call = jax.ffi.ffi_call(native.MATMUL_TARGET, result, vmap_method="broadcast_all")
        return call(x, y, x_transposed=x_transposed, y_transposed=y_transposed)
    x, y = x.astype(dtype), y.astype(dtype)
    return matmul_xla(x.mT if x_transposed else x, y.mT if y_transposed else y)


def _as_matrix(
    x: jax.Array, batch: Sequence[int], rows: Sequence[int], columns: Sequence[int]
) -> tuple[jax.Array, bool]:
    """[batch, rows, columns], or its transpose and True where that spares moving the data."""
    transposed = [*batch, *columns, *rows] == list(range(x.ndim)) != [*batch, *rows, *columns]
    if transposed:
        rows, columns = columns, rows
    shape = (_size(x, batch), _size(x, rows), _size(x, columns))
    return lax.transpose(x, (*batch, *rows, *columns)).reshape(shape), transposed


def _sum_of_products(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(x[..., :, :, None] * y[..., None, :, :], axis=-2, dtype=x.dtype)


def _matmul_dimensions(x: jax.Array) -> DimensionNumbers:
    batch = tuple(range(x.ndim - 2))
    return ((x.ndim - 1,), (x.ndim - 2,)), (batch, batch)


def _size(x: jax.Array, axes: Sequence[int]) -> int:
    return math.prod(x.shape[axis] for axis in axes)
