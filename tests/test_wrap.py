"""Integers wrap around as JAX's do: where it matters, exactly, and nowhere else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, names

import spuvm as spu
from spuvm.compiler.ir.bounds import of_type
from spuvm.compiler.ir.in_the_clear import evaluate

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32")  # those that JAX has without x64
RNG = np.random.default_rng(3)


def numbers(dtype: str) -> np.ndarray[Any, Any]:
    """The ends of the type, numbers near zero, and some between."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    ends = [low, low + 1, high, high - 1, low // 2, high // 2, high // 2 + 1, 0, 1, 2, 3, 5]
    more = RNG.integers(low, high, 20, endpoint=True).tolist()
    return np.array(ends + more + ([-1, -2, -5] if low else []), dtype)


def everything(x: Any, y: Any) -> Any:
    """Results of every operation that looks at the high bits, of values that may have left their type."""
    wide, narrow = x + y, x * y - (y << 3)
    flags = (wide < x, narrow >= y, wide == narrow, wide == 0, narrow != x, -x < 0, wide > 0)
    bits = (
        wide & narrow,
        wide | 5,
        ~wide ^ narrow,
        wide >> 1,
        lax.shift_right_logical(narrow, jnp.asarray(2, x.dtype)),
    )
    counts = (lax.population_count(wide), lax.clz(narrow), jnp.maximum(wide, narrow), jnp.sort(wide))
    types = tuple((x * 3 - y).astype(t) for t in (*DTYPES, "bool"))
    sums = (jnp.cumsum(x).astype(x.dtype) < y, jnp.sum(x).astype(x.dtype) > 3, jnp.prod(x[:5] + 1).astype(x.dtype))
    looped = lax.fori_loop(0, 40, lambda i, s: jnp.where(s > y, s * 3, s + x), x)
    chosen = lax.cond(jnp.sum(x) > 3, lambda v: v + v, lambda v: v - 7, wide)
    return flags, bits, counts, types, sums, (wide // 7, narrow % 5, abs(wide), jnp.sign(narrow)), looped, chosen


def in_range(module: Any, results: list[Any]) -> bool:
    return all(
        low <= int(r.view(np.int64).min()) and int(r.view(np.int64).max()) <= high
        for r, v in zip(results, module.body.results)
        for low, high in [of_type(v.type, 64)]
    )


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32"])
def test_every_result_is_that_of_jax(dtype: str) -> None:
    x = numbers(dtype)
    y = RNG.permutation(x)
    module = lowered(everything, x, y)
    want = jax.tree.leaves(jax.jit(everything)(x, y))
    for jitter in (None, 5):
        raw = evaluate(module, [x, y], jitter=jitter)
        assert in_range(module, raw)
        for got, wanted in zip(raw, want, strict=True):
            np.testing.assert_array_equal(got.view(np.int64).astype(wanted.dtype), wanted)


def test_what_cannot_leave_its_type_is_not_wrapped() -> None:
    x, y = (RNG.integers(-5, 5, 7).astype(np.int32) for _ in range(2))

    def inside(x: Any, y: Any) -> Any:
        small = (x < y).astype(jnp.int32)
        counted = lax.fori_loop(0, 30, lambda i, n: n + small, small)
        return x < y, jnp.sum(small) > 2, counted > 4, (x >> 3) + (y >> 3) < 1, jnp.clip(x, 0, 9), jnp.argmax(x) + 1 < 3

    assert "wrap" not in names(lowered(inside, x, y))
    assert names(lowered(lambda x, y: (x + y < y, x + y > x), x, y)).count("wrap") == 1  # once for both


def test_long_loops_and_unknown_ones_are_wrapped_where_they_are_looked_at() -> None:
    x = np.array([2**30, -7, 1, 0], np.int32)

    def looped(x: Any) -> Any:
        many = lax.fori_loop(0, 500, lambda i, s: s + x, x)
        _, until = lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[1] * 3), (spu.reveal(x[2]), x))
        return many < 7, until > 0

    module = lowered(looped, x)
    want = jax.jit(looped)(x)
    for got, wanted in zip(evaluate(module, [x]), want):
        np.testing.assert_array_equal(got != 0, wanted)


@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
def test_on_shares(protocol: str) -> None:
    x = numbers("int32")
    y = RNG.permutation(x)
    small = numbers("int8")
    u = numbers("uint16")

    def f(x: Any, y: Any, small: Any, u: Any) -> Any:
        shown = spu.reveal(x * y), spu.reveal(small * small), spu.reveal(u - y[0].astype(u.dtype), to="party1")
        return x + y < y, x * y, (x + y) & 255, small * 3 > small, u * u, x + y == 0, x * 5 < 0, shown[:2], shown[2] + 1

    got, want = spu.reveal(spu.jit(f, protocol=protocol)(x, y, small, u)), jax.jit(f)(x, y, small, u)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_costs() -> None:
    x = jax.ShapeDtypeStruct((1000,), jnp.int32)
    rounds = {
        "x < y": (lambda x, y: x < y, 7),
        "x + y < y": (lambda x, y: x + y < y, 18),
        "x + y == y": (lambda x, y: x + y == y, 7),
        "x + y < 0": (lambda x, y: x + y < 0, 7),
        "reveal": (lambda x, y: spu.reveal(x * y), 2),
    }
    for name, (f, want) in rounds.items():
        assert spu.jit(f).cost(x, x).rounds == want, name


def test_a_reveal_shows_no_more_than_the_type_has() -> None:
    """The components that are sent are words modulo 2^32: 4 bytes each, whatever the product."""
    cost = spu.jit(lambda x, y: spu.reveal(x * y)).cost(*[jax.ShapeDtypeStruct((1000,), jnp.int32)] * 2)
    assert cost.bytes_sent.sum() == 3 * 1000 * (8 + 4)


def test_floats_in_short_integers_are_the_nearest() -> None:
    x = np.array([300.5, -300.5, 127.9, -128.5, 3.5, -3.5, 70000.0], np.float32)

    def f(x: Any) -> Any:
        return x.astype(jnp.int8), x.astype(jnp.uint8), jnp.floor(x).astype(jnp.int16), x.astype(jnp.uint16)

    got, want = spu.reveal(spu.jit(f, protocol="ref2k")(x)), jax.jit(f)(x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_words_of_64_bits_compare_at_their_ends() -> None:
    ends = [-(2**63), 2**63 - 1, -(2**62), 2**62, -1, 0, 1, 2**63 - 2]
    with jax.enable_x64(True):
        x, y = (a.reshape(-1) for a in np.meshgrid(np.array(ends), np.array(ends)))
        for a, b in ((x, y), (x.view(np.uint64), y.view(np.uint64))):
            got = spu.reveal(spu.jit(lambda x, y: (x < y, x <= y, x == y, jnp.maximum(x, y)))(a, b))
            for g, w in zip(got, (a < b, a <= b, a == b, np.maximum(a, b))):
                np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_floats_that_do_not_fit_become_the_nearest_integer(dtype: str) -> None:
    """As in JAX; the ends cost a comparison each, and only where a number may be beyond them."""
    x = np.array([3e9, -3e9, 2.0**31, -(2.0**31), 2.0**31 - 1, 1e12, -1.5, 0.5, 300.0, -7.0, 2.0**43, -(2.0**43)])
    with jax.enable_x64(True):
        agrees(lambda x: (x.astype(dtype), (x * 2).astype(dtype)), jnp.asarray(x))
        i = jnp.arange(7).astype(dtype) - (dtype[0] != "u") * 3
        module = agrees(lambda i: i.astype(jnp.float64).astype(dtype), i)
    assert ("less" in names(module)) == (dtype == "uint64")  # which may be 2^63 and more
    assert "less" not in names(agrees(lambda b: b.sum(dtype=jnp.float32).astype(jnp.int32), jnp.ones(9, bool)))
