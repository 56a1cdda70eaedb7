"""`spu.random`: values that no party knows. The statistical limits are passed but once in 10^6 runs or so."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import lowered, names

import spuvm as spu
from spuvm.compiler.expand.choreography import Call
from spuvm.runtime.errors import InputError, UnsupportedError
from spuvm.runtime.protocols.registered import protocol_of

N = 20_000


def deviation(x: Any, cumulative: Any) -> float:
    """The Kolmogorov-Smirnov statistic times sqrt(n): above 2.7 with probability 10^-6."""
    ordered = np.sort(np.asarray(x, np.float64))
    want = cumulative(ordered)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max((steps[1:] - want).max(), (want - steps[:-1]).max())) * math.sqrt(len(ordered))


def bell(x: Any) -> Any:
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def far(successes: int, trials: int, p: float) -> float:
    """By how many standard deviations a count differs from its mean."""
    return abs(successes - trials * p) / math.sqrt(trials * p * (1 - p))


@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
def test_distributions(protocol: str) -> None:
    random = spu.random

    def draw(p: Any) -> Any:
        looped = lax.fori_loop(0, 4, lambda i, a: a.at[i].set(random.uniform((2,))), jnp.zeros((4, 2)))
        numbers = random.uniform(N), random.normal(N), random.uniform(N, -2.0, 3.0)
        bools = random.bernoulli(shape=N), random.bernoulli(0.3, N), random.bernoulli(p)
        return numbers, bools, random.bits(N, jnp.uint8), looped, random.uniform(4), random.uniform(4)

    f = spu.jit(draw, protocol=protocol)
    p = np.linspace(0, 1, N).astype(np.float32)
    numbers, bools, octets, looped, one, other = spu.reveal(f(p))
    for x, cumulative in zip(numbers, (lambda v: v, bell, lambda v: (v + 2) / 5)):
        assert deviation(x, cumulative) < 2.7
    uniform, normal, wide = (np.asarray(v, np.float64) for v in numbers)
    assert uniform.min() >= 0 and uniform.max() < 1 and wide.min() >= -2 and wide.max() < 3
    assert abs(normal.mean()) < 5 / math.sqrt(N) and abs(normal.var() - 1) < 5 * math.sqrt(2 / N)
    assert far(bools[0].sum(), N, 0.5) < 5 and far(bools[1].sum(), N, 0.3) < 5
    half = p < 0.5
    assert far(bools[2][half].sum(), N // 2, 0.25) < 5 and not bools[2][0]
    counts = np.bincount(octets, minlength=256)
    assert octets.dtype == np.uint8 and ((counts - N / 256) ** 2 / (N / 256)).sum() < 255 + 5 * math.sqrt(2 * 255) + 25
    drawn = np.concatenate([looped.reshape(-1), one, other, spu.reveal(f(p))[4]])
    assert len(np.unique(drawn)) > len(drawn) - 2  # each iteration, call and run draws anew


def test_permutations() -> None:
    f = spu.jit(lambda: spu.random.permutation(200))
    first, second = spu.reveal(f()), spu.reveal(f())
    assert sorted(first.tolist()) == list(range(200)) and (first != second).sum() > 150
    rows = spu.reveal(spu.jit(lambda x: spu.random.permutation(x), protocol="ref2k")(np.arange(12.0).reshape(4, 3)))
    assert sorted(map(tuple, rows.tolist())) == [tuple(range(3 * i, 3 * i + 3)) for i in range(4)]
    orders = spu.reveal(spu.jit(lambda: [spu.random.permutation(3) for _ in range(60)], protocol="ref2k")())
    assert len({tuple(o.tolist()) for o in orders}) == 6  # missing one: probability 10^-4


@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
def test_no_partys_view_determines_a_value(protocol: str) -> None:
    """Each party lacks a component, and what it has is as likely with either value."""
    f = spu.jit(lambda: (spu.random.bernoulli(shape=N), spu.random.bits(4)), protocol=protocol)
    program = f.compile()
    drawn = [s for s in program.choreography.block.steps if isinstance(s, Call) and s.spec.name == "random"]
    world = range(program.config.world_size)
    assert len(drawn) == 2
    for call in drawn:
        assert all(any(party not in slot.holders for slot in call.outputs) for party in world)
        assert all(slot.holders for slot in call.outputs)
    bools = f()[0]
    value = spu.reveal(bools)
    for held in (
        [c for c, h in zip(bools.components, protocol_of(program.config).holders["b"]) if i in h] for i in world
    ):
        known = np.bitwise_xor.reduce([np.asarray(c) for c in held])
        assert far(int((known != value).sum()), N, 0.5) < 5
    assert spu.jit(lambda: spu.random.bernoulli(shape=N), protocol=protocol).cost().rounds == 0


def test_draws_are_not_merged_moved_or_folded() -> None:
    def f(x: Any) -> Any:
        a, b = spu.random.uniform(3), spu.random.uniform(3)
        return lax.fori_loop(0, 5, lambda i, s: s * 0.5 + x * spu.random.uniform(3), a * b)

    module = lowered(f, np.ones(3, np.float32))
    assert names(module).count("random") == 3
    (loop,) = [op for op in module.body.ops if op.name == "loop"]
    assert any(op.name == "random" for op in loop.regions[0].ops)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"spu\.jit"):
        spu.random.uniform(3)
    with pytest.raises(UnsupportedError, match=r"test_secret_random\.py"):
        spu.jit(jax.grad(jax.checkpoint(lambda x: (jnp.sin(x) * spu.random.uniform(3)).sum())), protocol="ref2k")(
            np.ones(3, np.float32)
        )
    with pytest.raises(InputError, match="dtype"):
        spu.random.bits(3, jnp.float32)


def test_public_keys_give_the_numbers_of_jax() -> None:
    def f(x: Any) -> Any:
        a, b, c = jax.random.split(jax.random.key(7), 3)
        folded = jax.random.fold_in(a, 3)
        numbers = jax.random.uniform(a, (5,)), jax.random.normal(b, (5,)), jax.random.randint(c, (5,), -9, 9)
        return (
            [n + x.astype(n.dtype) for n in numbers],
            jax.random.bernoulli(folded, 0.3, (5,)),
            jax.random.permutation(a, x),
        )

    x = np.zeros(5, np.float32)
    got, want = spu.reveal(spu.jit(f, protocol="ref2k")(x)), jax.jit(f)(x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=2.0**-18)
