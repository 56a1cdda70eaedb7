"""Products of matrices and sums over Z_2^k inside JAX programs: uint32 and uint64 arrays that wrap, and Words.

XLA's own integer dot is fast for matrix times vector and 50 times too slow beyond it. Two forms
with the same bits stand beside each other: the native kernel as an FFI call (CPU only) and `matmul_xla`, for 128 bits
`dot_of_words_xla`. Which one a program gets is settled when it is traced. A stage that goes to another device has
the native kernel's calls replaced (`call_elsewhere`) by products of limbs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring import native
from spuvm.runtime.ring.elements import Elements, Word
from spuvm.runtime.ring.limbs import matmul_by_limbs

# As in `lax.dot_general`: (contracted axes of x, of y), (batch axes of x, of y).
DimensionNumbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]

# Outer products per step of the pure-XLA loop: 8 or 32 run at half the speed.
_UNROLLED = 16
# Up to this depth one multiply-and-sum beats the loop and compiles faster.
_FUSED_DEPTH = 32

_LIMBS: ContextVar[str | None] = ContextVar("limbs", default=None)  # of products traced for another device


def matmul(x: Elements, y: Elements) -> Elements:
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


def dot_general(x: Elements, y: Elements, dimension_numbers: DimensionNumbers) -> Elements:
    """`lax.dot_general` modulo 2^bits, all of its axes and sizes; both uint32, both uint64 or both Words.

    One operand may be of uint8 beside words: beside uint64 it is widened while it is read, not in memory.
    """
    if isinstance(x, Word) or isinstance(y, Word):
        return _dot_of_words(bt.cast(x, 128), bt.cast(y, 128), dimension_numbers)
    types = {x.dtype, y.dtype}
    if types == {jnp.dtype("uint8"), jnp.dtype("uint32")}:
        return dot_general(bt.cast(x, 32), bt.cast(y, 32), dimension_numbers)
    small = types == {jnp.dtype("uint8"), jnp.dtype("uint64")}
    if not small and (len(types) > 1 or x.dtype not in (jnp.uint32, jnp.uint64)):
        raise TypeError(f"`x` and `y` must both be uint32 or both uint64, got {x.dtype} and {y.dtype}")
    return _sum_of_dots([(x, y)], dimension_numbers)


def dot_sum(pairs: Sequence[tuple[Elements, Elements]], dimension_numbers: DimensionNumbers) -> Elements:
    """The sum of the pairs' `dot_general`, which is written only once where they have the same shapes and types."""
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    same = (tuple(x_sum), tuple(x_batch)) == (tuple(y_sum), tuple(y_batch))
    all_axes = {len(v.shape) for v in pairs[0]} == {len(x_sum) + len(x_batch)}
    if same and all_axes and list(x_batch) == sorted(x_batch):  # inner products: XLA would run one dot after another
        width = max(bt.width(v) for pair in pairs for v in pair)
        products = reduce(lambda a, b: a + b, (bt.cast(x, width) * bt.cast(y, width) for x, y in pairs))
        return linear(lambda z: lax.reduce(z, np.zeros((), z.dtype), lax.add, tuple(x_sum)), products)
    if {v.dtype for pair in pairs for v in pair} in ({jnp.dtype("uint32")}, {jnp.dtype("uint64")}):
        return _sum_of_dots(pairs, dimension_numbers)
    return reduce(lambda a, b: a + b, (dot_general(x, y, dimension_numbers) for x, y in pairs))


def _sum_of_dots(pairs: Sequence[tuple[jax.Array, jax.Array]], dimension_numbers: DimensionNumbers) -> jax.Array:
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    x, y = pairs[0]
    x_free, y_free = _free(x, x_sum, x_batch), _free(y, y_sum, y_batch)
    m, n, k = _size(x, x_free), _size(y, y_free), _size(x, x_sum)
    if min(m, n) <= 1 or k == 0 or x.size == 0:
        dtype = jnp.promote_types(x.dtype, y.dtype)
        dots = (lax.dot_general(x.astype(dtype), y.astype(dtype), dimension_numbers) for x, y in pairs)
        return reduce(lambda a, b: a + b, dots)
    xs, x_transposed = zip(*(_as_matrix(x, x_batch, x_free, x_sum) for x, _ in pairs))
    ys, y_transposed = zip(*(_as_matrix(y, y_batch, y_sum, y_free) for _, y in pairs))
    z = _product(list(zip(xs, ys)), x_transposed[0], y_transposed[0])
    batch = [x.shape[axis] for axis in x_batch]
    return z.reshape(*batch, *(x.shape[axis] for axis in x_free), *(y.shape[axis] for axis in y_free))


def _dot_of_words(x: Word, y: Word, dims: DimensionNumbers) -> Word:
    if _LIMBS.get() or not native.multiplies_words() or _size(x.low, dims[0][0]) <= 1 or x.low.size == 0:
        return dot_of_words_xla(x, y, dims)
    (x_sum, y_sum), (x_batch, y_batch) = dims
    x_free, y_free = _free(x.low, x_sum, x_batch), _free(y.low, y_sum, y_batch)
    operands, transposed = [], []
    for v, rows, columns, batch in ((x, x_free, x_sum, x_batch), (y, y_sum, y_free, y_batch)):
        for limb in (v.low, v.high):
            matrix, turned = _as_matrix(limb, batch, rows, columns)
            operands.append(matrix)
        transposed.append(turned)
    batches = [x.shape[axis] for axis in x_batch]
    limb = jax.ShapeDtypeStruct((math.prod(batches), _size(x.low, x_free), _size(y.low, y_free)), np.uint64)
    call = jax.ffi.ffi_call(native.WIDE_TARGET, (limb, limb), vmap_method="sequential")
    z = call(*operands, x_transposed=transposed[0], y_transposed=transposed[1])
    shape = (*batches, *(x.shape[a] for a in x_free), *(y.shape[a] for a in y_free))
    return Word(*(v.reshape(shape) for v in z))


def dot_of_words_xla(x: Word, y: Word, dims: DimensionNumbers) -> Word:
    """The same without the native kernel, bit for bit.

    Of the low limbs' product all 128 bits count: it is a sum of products of pieces that cannot overflow.
    """

    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        z: jax.Array = dot_general(a, b, dims)
        return z

    depth = _size(x.low, dims[0][0])
    count = 3 if depth < 1 << 18 else 4  # pieces of 22 or 16 bits; a sum of so many products of two pieces
    step = -(-64 // count)
    pieces = [[bt.cast(_field(v.low, i * step, step), 64) for i in range(count)] for v in (x, y)]
    diagonals: list[list[jax.Array]] = [[] for _ in range(2 * count - 1)]
    for i, j in product(range(count), repeat=2):
        diagonals[i + j].append(dot(pieces[0][i], pieces[1][j]))
    cross = dot(x.low, y.high) + dot(x.high, y.low)
    total = Word(jnp.zeros_like(cross), cross)
    for i, terms in enumerate(diagonals):
        total = total + bt.shift_left(bt.cast(reduce(lambda a, b: a + b, terms), 128), i * step)
    return total


def _field(x: jax.Array, low: int, width: int) -> jax.Array:
    """`width` bits of a uint64 from bit `low` on."""
    out: jax.Array = bt.shift_right(x, low) & bt.constant(x, (1 << width) - 1)
    return out


def moved(function: Callable[..., jax.Array], *operands: Elements) -> Elements:
    """A function of arrays that only moves elements: of Words, one limb at a time."""
    if not any(isinstance(x, Word) for x in operands):
        return function(*operands)
    return Word(*(function(*(getattr(x, n) if isinstance(x, Word) else x for x in operands)) for n in ("low", "high")))


def linear(function: Callable[..., jax.Array], *operands: Elements) -> Elements:
    """A function of arrays that moves and adds elements; of Words, whose halves it adds without overflow."""
    if not any(isinstance(x, Word) for x in operands):
        return function(*operands)

    def of(part: Callable[[Word], jax.Array]) -> jax.Array:
        return function(*(part(x) if isinstance(x, Word) else x for x in operands))

    low, middle = (bt.cast(of(partial(_field_of_low, n)), 128) for n in (0, 32))
    high = of(lambda x: x.high)
    return low + bt.shift_left(middle, 32) + Word(jnp.zeros_like(high), high)


def _field_of_low(low: int, x: Word) -> jax.Array:
    return _field(x.low, low, 32)


def _product(pairs: Sequence[tuple[jax.Array, jax.Array]], x_transposed: bool, y_transposed: bool) -> jax.Array:
    """The sum of [b, m, k] x [b, k, n] -> [b, m, n], where a transposed operand lies in memory the other way round."""
    x, y = pairs[0]
    m, k = x.shape[:0:-1] if x_transposed else x.shape[1:]
    n = y.shape[1] if y_transposed else y.shape[2]
    dtype = jnp.promote_types(x.dtype, y.dtype)
    limbs = _LIMBS.get()
    if k > 1 and limbs is None and native.register():  # an outer product is elementwise: XLA fuses it with what is near
        result = jax.ShapeDtypeStruct((x.shape[0], m, n), dtype)
        call = jax.ffi.ffi_call(native.MATMUL_TARGET, result, vmap_method="broadcast_all")
        z: jax.Array = call(*(v for pair in pairs for v in pair), x_transposed=x_transposed, y_transposed=y_transposed)
        return z

    def one(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = x.astype(dtype), y.astype(dtype)
        x, y = x.mT if x_transposed else x, y.mT if y_transposed else y
        return matmul_xla(x, y) if limbs is None else matmul_by_limbs(x, y, limbs)

    return reduce(lambda a, b: a + b, (one(x, y) for x, y in pairs))


@contextmanager
def by_limbs(kind: str) -> Iterator[None]:
    """Within the block products are traced for a device that has no native kernel, see `limbs.BY_LIMBS`."""
    token = _LIMBS.set(kind)
    try:
        yield
    finally:
        _LIMBS.reset(token)


def call_elsewhere(target: str, operands: Sequence[jax.Array], x_transposed: bool, y_transposed: bool) -> list[Any]:
    """The results of a call of the native kernel, without it; within `by_limbs`."""
    if target == native.MATMUL_TARGET:
        pairs = list(zip(operands[::2], operands[1::2]))
        return [_product(pairs, x_transposed, y_transposed)]
    x, y = (
        Word(*(v.mT if turned else v for v in pair))
        for pair, turned in ((operands[:2], x_transposed), (operands[2:], y_transposed))
    )
    z = dot_of_words_xla(x, y, (((2,), (1,)), ((0,), (0,))))
    return [z.low, z.high]


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


def _matmul_dimensions(x: Elements) -> DimensionNumbers:
    rank = len(x.shape)
    batch = tuple(range(rank - 2))
    return ((rank - 1,), (rank - 2,)), (batch, batch)


def _free(x: jax.Array, *taken: Sequence[int]) -> list[int]:
    return [axis for axis in range(x.ndim) if not any(axis in axes for axes in taken)]


def _size(x: jax.Array, axes: Sequence[int]) -> int:
    return math.prod(x.shape[axis] for axis in axes)
