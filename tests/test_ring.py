"""Products modulo 2^32 and 2^64, natively and in XLA, against NumPy, which wraps too."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.typing import NDArray

from spuvm.runtime.ring import arithmetic, native
from spuvm.runtime.ring.elements import Word

Array = NDArray[np.unsignedinteger[Any]]
LEVELS = range(-1, 1 + (lib.spuvm_ring_set_level(99) if (lib := native.library()) is not None else -1))

SHAPES = [  # m, k, n
    (2, 1, 2),
    (3, 5, 2),
    (17, 33, 9),
    (530, 40, 540),  # more than one block of rows and of columns
    (8, 600, 16),  # more than one block of depth
    (37, 300, 2),  # a narrow result: the kernel works on its transpose
    (2, 300, 37),
    (129, 257, 31),
    (1, 20, 30),
    (30, 20, 1),
    (1, 20, 1),
    (3, 0, 4),
    (0, 3, 4),
    (3, 4, 0),
]


@pytest.fixture(autouse=True)
def _x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Every instruction set of the native kernel that this processor has, and -1: pure XLA."""
    lib = native.library()
    if request.param < 0 or lib is None:
        monkeypatch.setattr(native, "register", lambda: False)
        yield request.param
        return
    assert lib.spuvm_ring_set_level(request.param) == request.param
    yield request.param
    lib.spuvm_ring_set_level(99)


def uniform(shape: tuple[int, ...], dtype: type = np.uint64, seed: int = 0) -> Array:
    words = np.random.default_rng([seed, *shape]).integers(0, 2**64 - 1, shape, np.uint64, endpoint=True)
    return words.astype(dtype)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_matmul(m: int, k: int, n: int, dtype: type) -> None:
    x, y = uniform((m, k), dtype), uniform((k, n), dtype, seed=1)
    z = jax.jit(lambda x, y: arithmetic.matmul(x, y))(x, y)
    assert z.dtype == dtype
    np.testing.assert_array_equal(z, x @ y)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("batch", [(3,), (2, 3), (0,)])
@pytest.mark.parametrize(("m", "k", "n"), [(4, 50, 6), (1, 7, 6), (40, 3, 20), (40, 9, 3)])
def test_batches(batch: tuple[int, ...], m: int, k: int, n: int) -> None:
    x, y = uniform((*batch, m, k)), uniform((*batch, k, n), seed=1)
    np.testing.assert_array_equal(jax.jit(lambda x, y: arithmetic.matmul(x, y))(x, y), x @ y)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(
    ("x_shape", "y_shape", "dimension_numbers"),
    [
        ((20, 5), (20, 6), (((0,), (0,)), ((), ()))),  # x.T @ y, the gradient of a linear layer
        ((5, 20), (6, 20), (((1,), (1,)), ((), ()))),  # x @ y.T
        ((20, 5), (6, 20), (((0,), (1,)), ((), ()))),
        ((3, 20, 5), (3, 6, 20), (((1,), (2,)), ((0,), (0,)))),
        ((4, 5, 6), (6, 4, 7), (((0, 2), (1, 0)), ((), ()))),  # two contracted axes, one of them moved
        ((4, 5, 6), (4, 6, 7), (((0, 2), (0, 1)), ((), ()))),
        ((4, 2, 5, 3), (3, 7, 4, 2), (((0,), (2,)), ((3, 1), (0, 3)))),  # batch axes in any order
        ((5, 6), (7, 3), (((), ()), ((), ()))),  # nothing contracted: an outer product
        ((5, 0), (0, 3), (((1,), (0,)), ((), ()))),
        ((9,), (9,), (((0,), (0,)), ((), ()))),
        ((9, 4), (9,), (((0,), (0,)), ((), ()))),
        ((3, 9), (3, 9), (((1,), (1,)), ((0,), (0,)))),
        ((), (4,), (((), ()), ((), ()))),
    ],
)
def test_dot_general(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], dimension_numbers: arithmetic.DimensionNumbers
) -> None:
    x, y = uniform(x_shape), uniform(y_shape, seed=1)
    z = jax.jit(lambda x, y: arithmetic.dot_general(x, y, dimension_numbers))(x, y)
    expected = lax.dot_general(x, y, dimension_numbers)
    assert z.shape == expected.shape
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("limbs", [1, 2])
@pytest.mark.parametrize(
    ("x_shape", "y_shape", "dimension_numbers"),
    [
        ((90,), (90,), (((0,), (0,)), ((), ()))),
        ((3, 9), (3, 9), (((1,), (1,)), ((0,), (0,)))),
        ((9, 3), (9, 3), (((0,), (0,)), ((1,), (1,)))),
        ((4, 9, 3), (4, 9, 3), (((0, 2), (0, 2)), ((1,), (1,)))),
        ((2, 3, 5), (2, 3, 5), (((2,), (2,)), ((1, 0), (1, 0)))),  # not in one pass: the batch is turned
        ((4, 5), (5, 4), (((0, 1), (1, 0)), ((), ()))),
        ((0,), (0,), (((0,), (0,)), ((), ()))),
        ((6, 9), (9, 5), (((1,), (0,)), ((), ()))),  # no inner products, these
        ((9,), (9, 4), (((0,), (0,)), ((), ()))),
        ((9, 4), (9,), (((0,), (0,)), ((), ()))),
    ],
)
def test_sums_of_products(
    limbs: int, x_shape: tuple[int, ...], y_shape: tuple[int, ...], dimension_numbers: arithmetic.DimensionNumbers
) -> None:
    """Of two pairs in one go as one after the other, in words and in words of two limbs."""

    def operand(shape: tuple[int, ...], seed: int) -> Any:
        found = [jnp.asarray(uniform(shape, seed=seed + 10 * i)) for i in range(limbs)]
        return found[0] if limbs == 1 else Word(*found)

    pairs = [(operand(x_shape, i), operand(y_shape, i + 2)) for i in (1, 5)]
    both = jax.jit(lambda pairs: arithmetic.dot_sum(pairs, dimension_numbers))(pairs)
    one, other = (arithmetic.dot_general(x, y, dimension_numbers) for x, y in pairs)
    for z, want in zip(jax.tree.leaves(both), jax.tree.leaves(one + other), strict=True):
        assert z.shape == want.shape
        np.testing.assert_array_equal(z, want)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 5, 2), (37, 600, 2), (2, 300, 37), (150, 40, 170)])
@pytest.mark.parametrize("transposed", [False, True])
def test_three_products_are_summed_by_one_call(m: int, k: int, n: int, dtype: type, transposed: bool) -> None:
    def turned(x: Array) -> Array:
        return np.ascontiguousarray(x.T) if transposed else x

    pairs = [(uniform((m, k), dtype, i), uniform((k, n), dtype, i + 9)) for i in range(3)]
    axis = int(transposed)
    dims = (((1 - axis,), (axis,)), ((), ()))
    dot_sum = jax.jit(lambda *pairs: arithmetic.dot_sum(pairs, dims))
    arguments = [(turned(x), turned(y)) for x, y in pairs]
    calls = str(jax.make_jaxpr(dot_sum)(*arguments)).count(native.MATMUL_TARGET)
    assert calls == int(native.register())
    np.testing.assert_array_equal(dot_sum(*arguments), sum(x @ y for x, y in pairs))


def test_a_sum_of_products_widens_bytes() -> None:
    x, y = np.arange(200, 250, dtype=np.uint8), uniform((50,))
    np.testing.assert_array_equal(arithmetic.dot_sum([(x, y)], (((0,), (0,)), ((), ()))), x.astype(np.uint64) @ y)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_an_operand_in_bytes(m: int, k: int, n: int) -> None:
    """uint8 beside uint64, on either side and transposed, is what it is when widened."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (m, k), np.uint8), rng.integers(0, 2**64 - 1, (k, n), np.uint64)
    want = x.astype(np.uint64) @ y
    np.testing.assert_array_equal(jax.jit(arithmetic.matmul)(x, y), want)
    np.testing.assert_array_equal(jax.jit(arithmetic.matmul)(y.T, x.T), want.T)
    left = jax.jit(lambda x, y: arithmetic.dot_general(x, y, (((0,), (0,)), ((), ()))))(x.T, y)
    np.testing.assert_array_equal(left, want)


def words(shape: tuple[int, ...], seed: int = 0) -> Word:
    return Word(*(jnp.asarray(uniform(shape, seed=seed + i)) for i in (10, 20)))


def integers(x: Word) -> Any:
    """Its elements as Python's."""
    return np.asarray(x.low).astype(object) + (np.asarray(x.high).astype(object) << 64)


@cache
def product_of_integers(m: int, k: int, n: int) -> Any:
    """The same at every level."""
    return (integers(words((m, k))) @ integers(words((k, n), 1)) + np.zeros((m, n), object)) % 2**128


@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_words(m: int, k: int, n: int, level: int) -> None:
    """Modulo 2^128: the native kernel, where it pays, and its twin give what Python's integers give.

    Without native products the twin is what `matmul` is; with them it is the same code at every level.
    """
    x, y = words((m, k)), words((k, n), 1)
    dims = (((1,), (0,)), ((), ()))
    assert (integers(jax.jit(arithmetic.matmul)(x, y)) == product_of_integers(m, k, n)).all()
    if level == max(LEVELS):
        twin = jax.jit(lambda x, y: arithmetic.dot_of_words_xla(x, y, dims))(x, y)
        assert (integers(twin) == product_of_integers(m, k, n)).all()


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(
    ("x_shape", "y_shape", "dimension_numbers"),
    [
        ((20, 3), (20, 5), (((0,), (0,)), ((), ()))),
        ((3, 20, 5), (3, 6, 20), (((1,), (2,)), ((0,), (0,)))),
        ((4, 2, 5, 3), (3, 7, 4, 2), (((0,), (2,)), ((3, 1), (0, 3)))),
        ((4, 5, 6), (6, 4, 7), (((0, 2), (1, 0)), ((), ()))),
        ((5, 6), (7, 3), (((), ()), ((), ()))),
    ],
)
def test_dot_general_of_words(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], dimension_numbers: arithmetic.DimensionNumbers
) -> None:
    x, y = words(x_shape), words(y_shape, 1)
    got = jax.jit(lambda x, y: arithmetic.dot_general(x, y, dimension_numbers))(x, y)
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    of_x, of_y = list(range(len(x_shape))), [len(x_shape) + i for i in range(len(y_shape))]
    for i, j in zip([*x_sum, *x_batch], [*y_sum, *y_batch]):
        of_y[j] = of_x[i]
    free = [[a for i, a in enumerate(of_x) if i not in {*x_sum, *x_batch}], [a for a in of_y if a not in of_x]]
    axes = [*(of_x[i] for i in x_batch), *free[0], *free[1]]
    want = np.einsum(integers(x), of_x, integers(y), of_y, axes) % 2**128
    assert got.low.shape == want.shape
    assert (integers(got) == want).all()


def test_vmap_is_a_batch() -> None:
    x, y = uniform((3, 4, 50)), uniform((50, 6), seed=1)
    z = jax.vmap(lambda x, y: arithmetic.matmul(x, y), in_axes=(0, None))(x, y)
    np.testing.assert_array_equal(z, x @ y)


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 48, 100])
def test_matmul_xla_pads_the_depth(depth: int) -> None:
    x, y = uniform((2, 7, depth)), uniform((2, depth, 5), seed=1)
    np.testing.assert_array_equal(jax.jit(arithmetic.matmul_xla)(x, y), x @ y)


def test_concurrent_products() -> None:
    """More products at once than the pool has threads: none waits for a free one."""
    x = uniform((12, 200, 200))
    f = jax.jit(lambda x: [arithmetic.matmul(x[i], x[i - 1]) for i in range(12)])
    for i, z in enumerate(f(x)):
        np.testing.assert_array_equal(z, x[i] @ x[i - 1])


def test_refuses_other_types() -> None:
    x = jnp.ones((2, 2), np.int64)
    with pytest.raises(TypeError, match="int64"):
        arithmetic.matmul(x, x)
    with pytest.raises(TypeError, match="uint32 and uint64"):
        arithmetic.matmul(x.astype(np.uint32), x.astype(np.uint64))


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
def test_transposed_operands_are_not_copied() -> None:
    x = uniform((20, 5))
    dims = ((0,), (0,)), ((), ())
    text = jax.jit(lambda x, y: arithmetic.dot_general(x, y, dims)).lower(x, x).compile().as_text()
    assert text is not None
    assert native.MATMUL_TARGET in text
    assert "transpose(" not in text
    assert "copy(" not in text
