"""Windows and pooling against JAX, forward and reverse gradients, and how often elements are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, names

import spuvm as spu
from spuvm.runtime.errors import EncodingError

RNG = np.random.default_rng(6)
X = jnp.asarray(RNG.normal(size=(7, 6)), jnp.float32)
V = jnp.asarray(RNG.normal(size=30), jnp.float32)
TIES = jnp.asarray(RNG.integers(0, 3, (6, 6)), jnp.float32)
I = jnp.asarray(RNG.integers(-99, 99, (5, 4)), jnp.int32)  # noqa: E741
T = jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32)

Case = tuple[Callable[..., Any], tuple[Any, ...]]

START = {lax.add: 0.0, lax.max: -jnp.inf, lax.min: jnp.inf, lax.mul: 1.0}


def window(op: Any, size: Any, strides: Any = None, padding: Any = "VALID", **options: Any) -> Callable[..., Any]:
    strides = strides or (1,) * len(size)
    return lambda x: lax.reduce_window(x, START[op], op, size, strides, padding, **options)


def each(*args: Any, **options: Any) -> Callable[..., Any]:
    """Sum, maximum and minimum over the same windows."""
    return lambda x: [window(op, *args, **options)(x) for op in (lax.add, lax.max, lax.min)]


def pair_max(x: Any, y: Any) -> Any:
    """max with its companion, as `lax.argmax` over windows would."""
    return jnp.maximum(x[0], y[0]), jnp.where(x[0] >= y[0], x[1], y[1])


WINDOWS: dict[str, Case] = {
    "valid": (each((2, 3)), (X,)),
    "tiles": (each((2, 2), (2, 2)), (X,)),
    "same": (each((3, 3), (2, 2), "SAME"), (X,)),
    "strides": (each((2, 2), (3, 1)), (X,)),
    "padding": (each((2, 3), (1, 2), [(1, 0), (2, 1)]), (X,)),
    "base dilation": (each((3, 2), (1, 2), [(0, 1), (1, 0)], base_dilation=(2, 1)), (X,)),
    "window dilation": (each((2, 2), (1, 2), "SAME", window_dilation=(3, 2)), (X,)),
    "long": (each((13,), (1,), "SAME"), (V,)),
    "long strides": (each((12,), (5,), "VALID"), (V,)),
    "cumulative": (each((30,), (1,), [(29, 0)]), (V,)),
    "one": (each((1, 1), (2, 3)), (X,)),
    "empty": (window(lax.add, (2, 9)), (X,)),
    "integers": (
        lambda i: (
            lax.reduce_window(i, np.int32(-(2**31)), lax.max, (2, 2), (1, 1), "SAME"),
            lax.reduce_window(i, 0, lax.add, (3, 1), (2, 2), "SAME"),
            lax.reduce_window(i, np.int32(-(2**31)), lax.max, (1, 1), (2, 1), [(0, 3), (1, 0)]),
        ),
        (I,),
    ),
    "bools": (
        lambda x: (
            lax.reduce_window(x > 0, False, lax.bitwise_or, (2, 2), (1, 1), "SAME"),
            lax.reduce_window(x > 0, True, lax.bitwise_and, (2, 2), (2, 1), "VALID"),
            lax.reduce_window(x > 0, False, lax.max, (2, 2), (1, 1), "SAME"),
        ),
        (X,),
    ),
    "products": (window(lax.mul, (2, 2), (1, 1), "SAME"), (X,)),
    "start that counts": (lambda x: lax.reduce_window(x, 5.0, lax.add, (2, 2), (1, 1), "VALID"), (X,)),
    "several operands": (
        lambda x: lax.reduce_window((x, x * 2), (np.float32(-9), np.float32(0)), pair_max, (2, 2), (1, 1), "SAME"),
        (X,),
    ),
    "mean pooling": (lambda x: window(lax.add, (2, 2), (2, 2))(x) / 4, (X,)),
    "vmapped": (jax.vmap(window(lax.max, (3,), (2,), "SAME")), (X,)),
    "counts": (lambda x: window(lax.add, (3, 1))((x > 0).astype(float)) * x[2:], (X,)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    fn, args = WINDOWS[name]
    agrees(fn, *args)


POOLS: dict[str, Callable[..., Any]] = {
    "tiles": window(lax.max, (2, 2), (2, 2)),
    "tiles with a rest": window(lax.max, (4, 4), (4, 4)),
    "overlapping": window(lax.max, (3, 3), (2, 2), "SAME"),
    "sliding": window(lax.max, (5, 3), (1, 1), "SAME"),
    "minimum": window(lax.min, (2, 3), (2, 1), [(1, 0), (0, 2)]),
    "gaps": window(lax.max, (1, 2), (3, 4)),
    "empty windows": lambda x: window(lax.add, (2, 2), (1, 3), [(0, 3), (2, 2)])(window(lax.max, (2, 2))(x)),
}


@pytest.mark.parametrize("values", [TIES, T], ids=["ties", "distinct"])
@pytest.mark.parametrize("name", POOLS)
def test_gradients(name: str, values: Any) -> None:
    pool = POOLS[name]
    agrees(jax.grad(lambda x: (pool(x) ** 2).sum()), values, units=64)


@pytest.mark.parametrize("values", [TIES, T], ids=["ties", "distinct"])
@pytest.mark.parametrize("name", POOLS)
def test_tangents(name: str, values: Any) -> None:
    agrees(lambda x, t: jax.jvp(POOLS[name], (x,), (t,)), values, T)


def test_second_derivatives() -> None:
    agrees(jax.hessian(lambda x: (POOLS["tiles"](x) ** 3).sum()), T[:2, :4], units=64)


def test_gradient_of_dilated_windows() -> None:
    fn = window(lax.max, (2, 2), (1, 1), "SAME", window_dilation=(2, 1))
    agrees(lambda x, t: jax.jvp(fn, (x,), (t,)), T, X[:6])


def test_the_gradient_repeats_no_comparison() -> None:
    pool = POOLS["overlapping"]
    forward = names(lowered(pool, T)).count("less")
    both = names(lowered(jax.value_and_grad(lambda x: (pool(x) ** 2).sum()), T)).count("less")
    assert forward == both == 4


def test_how_many_elements_are_compared() -> None:
    """Tiles of 2 x 2: 3 comparisons for each result. A long run: log2(window) for each element."""

    def compared(fn: Callable[..., Any], x: Any) -> int:
        return sum(op.output.type.size for op in lowered(fn, x).body.ops if op.name == "less")

    assert compared(POOLS["tiles"], T) == 27
    assert compared(window(lax.max, (16,)), V) <= 4 * 30


def test_sums_are_local() -> None:
    assert not {"mul", "dot", "trunc"} & set(names(lowered(window(lax.add, (3, 3), (1, 1), "SAME"), X)))


def test_windows_in_the_padding_alone() -> None:
    with pytest.raises(EncodingError, match=r"reduce_window_max.*padding altogether"):
        lowered(window(lax.max, (1, 1), (1, 1), [(0, 2), (0, 0)]), X)


@pytest.mark.parametrize("protocol", ["ref2k", "aby3"])
def test_protocols(protocol: str) -> None:
    def fn(x: Any) -> Any:
        pool = POOLS["overlapping"]
        return pool(x), jax.grad(lambda x: pool(x).sum())(x), window(lax.add, (2, 2))(x)

    got = spu.reveal(spu.jit(fn, protocol=protocol)(TIES))
    for a, b in zip(got, fn(TIES), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
