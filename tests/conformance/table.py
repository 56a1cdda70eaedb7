"""What a case of the conformance table is: a primitive, how to call it, its operands, and its stated error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.functions.precision import STATED, Stated

Shape = tuple[int, ...]

FLOATS = ("float32", "float64", "float16", "bfloat16")
SIGNED = ("int32", "int8", "int16", "int64")
UNSIGNED = ("uint32", "uint8", "uint16", "uint64")
INTS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTS
BOOL = ("bool",)
ALL = NUMBERS + BOOL

EXACT = Stated("all", units=0)
UNIT = Stated("a result that fits")
FEW = Stated("results and intermediate ones that fit", relative=1e-5, units=16)
MANY = Stated("results and intermediate ones that fit", relative=1e-4, units=128)


@dataclass(frozen=True)
class Operand:
    """How to draw an operand. `dtype`: None for the case's own; `fixed`: known when compiling, whatever else is."""

    draw: Callable[[np.random.Generator, Shape, str], Any]
    dtype: str | None = None


@dataclass(frozen=True)
class Case:
    """`shapes` has one entry for each call: the shapes of the operands. `stated` bounds the error of floats."""

    primitive: str
    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    shapes: tuple[tuple[Shape, ...], ...]
    dtypes: tuple[str, ...] = FLOATS
    stated: Stated = EXACT
    note: str = ""


# operands --------------------------------------------------------------------------------------------------


def _whole(rng: np.random.Generator, shape: Shape, low: int, high: int, dtype: str) -> Any:
    return rng.integers(low, high, shape, np.int64).astype(dtype)


def uniform(low: float, high: float, whole: tuple[int, int] | None = None) -> Operand:
    """Floats of a grid of 2^-6 in a range; integers in the same or another one, bools by chance."""

    def draw(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
        if dtype == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if jnp.issubdtype(dtype, jnp.integer):
            a, b = whole or (int(low), int(high) + 1)
            return _whole(rng, shape, max(a, 0) if dtype.startswith("u") else a, b, dtype)
        steps = rng.integers(int(np.ceil(low * 64)), int(high * 64) + 1, shape)
        return np.asarray(steps / 64.0).astype(jnp.dtype(dtype))

    return Operand(draw)


def any_number(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
    """Floats in [-4, 4]; integers of all sizes, so that sums and products wrap around; bools."""
    if jnp.issubdtype(dtype, jnp.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return ANY_SMALL.draw(rng, shape, dtype)


def index(limit: int) -> Operand:
    return Operand(lambda rng, shape, dtype: rng.integers(0, limit, shape).astype("int32"), "int32")


def anywhere(limit: int) -> Operand:
    """Indices within, before the beginning and beyond the end of an axis; also the ends of int32."""
    ends = np.iinfo(np.int32)

    def draw(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
        near = rng.integers(-2 * limit - 1, 2 * limit + 2, shape)
        far = rng.choice([ends.min, ends.max - limit + 1, ends.max], shape)
        return np.where(rng.integers(0, 8, shape) == 0, far, near).astype("int32")

    return Operand(draw, "int32")


def given(dtype: str, operand: Operand) -> Operand:
    """An operand of a dtype of its own."""
    return Operand(lambda rng, shape, _: operand.draw(rng, shape, dtype), dtype)


def matrix(kind: str) -> Operand:
    """Well-conditioned matrices: general, positive definite, symmetric, lower triangular."""

    def draw(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
        n = shape[-1]
        a = rng.uniform(-1, 1, shape) + 2 * np.eye(shape[-2], n)
        if kind == "definite":
            a = a @ a.swapaxes(-1, -2) / n + np.eye(n)
        if kind == "symmetric":
            a = a + a.swapaxes(-1, -2)
        if kind == "lower":
            a = np.tril(a)
        return np.asarray(np.rint(a * 64) / 64, jnp.dtype(dtype))

    return Operand(draw)


def distinct(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
    """Numbers that differ, in any order: what is sorted, or has a largest, has one answer."""
    order = rng.permutation(int(np.prod(shape, dtype=int))).reshape(shape)
    if dtype == "bool":
        return order % 2 == 0
    return (order - (0 if dtype.startswith("u") else order.size // 2)).astype(jnp.dtype(dtype))


ANY_SMALL = uniform(-4, 4, (-5, 6))
ANY = Operand(any_number)
POSITIVE = uniform(0.125, 8, (1, 9))
NONZERO = Operand(
    lambda rng, shape, dtype: (
        POSITIVE.draw(rng, shape, dtype)
        * (1 if dtype.startswith("u") else rng.choice([-1, 1], shape).astype(jnp.dtype(dtype)))
    )
)
WITHIN_ONE = uniform(-0.9375, 0.9375)
FROM_ONE = uniform(1.0, 9.0)
BOOLS = given("bool", uniform(0, 1))
DISTINCT = Operand(distinct)

# shapes ----------------------------------------------------------------------------------------------------

SCALAR, EMPTY, ODD = (), (0, 3), (3, 5)


def alike(n: int, *shapes: Shape) -> tuple[tuple[Shape, ...], ...]:
    return tuple((s,) * n for s in shapes)


def elementwise(n: int) -> tuple[tuple[Shape, ...], ...]:
    """Scalars, nothing at all, odd sizes, and two shapes that are broadcast."""
    mixed: tuple[tuple[Shape, ...], ...] = (((3, 1), *((1, 7),) * (n - 1)),) if n > 1 else ()
    return (*alike(n, SCALAR, EMPTY, ODD), *mixed)


def broadcast(function: Callable[..., Any]) -> Callable[..., Any]:
    """A primitive for operands of different shapes."""
    return lambda *xs: function(*jnp.broadcast_arrays(*xs))


def unary(
    name: str, function: Any, operand: Operand, dtypes: Sequence[str] = FLOATS, stated: Any = None, note: str = ""
) -> Case:
    bound = STATED.get(name, EXACT) if stated is None else stated
    return Case(name, function, (operand,), elementwise(1), tuple(dtypes), bound, note)


def binary(
    name: str, function: Any, x: Operand, y: Operand, dtypes: Sequence[str] = FLOATS, stated: Any = None
) -> Case:
    bound = STATED.get(name, EXACT) if stated is None else stated
    return Case(name, broadcast(function), (x, y), elementwise(2), tuple(dtypes), bound)
