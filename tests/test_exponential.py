"""2^y by rotation: its arithmetic modulo 2^128 - 1, and what exp makes of it under ABY3."""

from __future__ import annotations

from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import Raw, Sent, interpret

import spuvm as spu
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.protocols.aby3 import exponential as ex
from spuvm.runtime.ring import exponential as clear
from spuvm.runtime.ring import rotations as rt

M = 2**128 - 1
RNG = np.random.default_rng(0)
EDGES = [0, 1, 2**32 - 1, 2**64 - 1, 2**64, 2**96, 2**127, M - 1, M]
LONGS = EDGES + [int.from_bytes(RNG.bytes(16), "big") for _ in range(200)]


def halves(xs: list[int]) -> tuple[Any, Any]:
    return tuple(jnp.asarray(np.array([x >> s & 2**64 - 1 for x in xs], np.uint64)) for s in (64, 0))  # type: ignore[return-value]


def joined(x: tuple[Any, Any]) -> list[int]:
    return [(int(h) << 64 | int(low)) % M for h, low in zip(*map(np.asarray, x))]


def words(xs: list[int]) -> Raw:
    return np.array(xs, np.uint64)


def test_arithmetic_modulo_the_long_number() -> None:
    others = LONGS[::-1]
    with jax.enable_x64(True):
        x, y = halves(LONGS), halves(others)
        assert joined(rt.difference(x, y)) == [(a - b) % M for a, b in zip(LONGS, others)]
        assert joined(rt.difference(x, x)) == [0] * len(LONGS)
        for m in (1, 2**32 - 1, 2**31 + 12345):
            short = jnp.full(len(LONGS), m, np.uint64)
            assert joined(rt.times_short(x, short)) == [a * m % M for a in LONGS]
        for bits in (0, 1, 31, 63, 64, 65, 100, 127):
            by = jnp.full(len(LONGS), bits, np.uint64)
            assert joined(rt.rotated(x, by)) == [a * 2**bits % M for a in LONGS]


def test_significand() -> None:
    t = RNG.integers(0, 2**64 - 1, 100_000, np.uint64, endpoint=True)
    t[:2] = [0, 2**57 - 1]
    with jax.enable_x64(True):
        got = np.asarray(clear.significand(jnp.asarray(t)))
    assert got.max() < 2**32
    want = np.exp2(31 + (t & np.uint64(2**57 - 1)) * 2.0**-57)
    assert np.abs(got / want - 1).max() < 8e-8


@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
def test_exponential_on_all_of_its_domain(protocol: str) -> None:
    """Within the range that fits relative 2e-7 plus a unit, below it 0, above it the largest number."""
    x = np.concatenate([np.linspace(-16, 30.5, 100_000), [-(2.0**43), -1e6, -40, 40, 1e6, 2.0**43]])
    x = np.round(x * 2**18) / 2**18
    with jax.enable_x64(True):
        got = np.asarray(spu.reveal(spu.jit(jnp.exp, protocol=protocol)(x)))
        powers = np.asarray(spu.reveal(spu.jit(lambda x: jnp.exp2(x), protocol=protocol)(np.minimum(x, 43.875))))
    for found, want in ((got, np.exp(np.minimum(x, 50))), (powers, np.exp2(np.minimum(x, 43.875)))):
        fits = (want < 2.0**44) & (want > 2.0**-19)
        assert (np.abs(found - want) <= 2e-7 * want + 1.001 * 2.0**-18)[fits].all()
        assert (found[want < 2.0**-19.01] == 0).all()
    assert (got[-3:] == 2.0**44 - 2.0**14).all()


@pytest.mark.parametrize("left_out", [None, 5])
def test_a_summand_of_the_product_is_masked(left_out: int | None) -> None:
    """Party 2 could add what party 1 sends to its own half of the product; the mask keeps the sum uniform."""
    n = 4000
    y = [np.broadcast_to(RNG.integers(0, 2**64 - 1, 1, np.uint64), n) for _ in range(3)]
    bit = [np.full(n, b, np.uint8) for b in (1, 0, 0)]
    numbers, sent = count(), list[Sent]()

    def draw(holders: Holders, shape: tuple[int, ...], dtype: str) -> Raw:
        raw = np.frombuffer(RNG.bytes(8 * n), np.uint64)
        return np.zeros(shape, np.uint64) if next(numbers) == left_out else raw

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda *x: ex.exp2_aby3(x[:3], x[3:], factors=(1,), tops=(0,)))(*y, *bit)
        interpret(closed.jaxpr, closed.consts, [*y, *bit], draw, sent)
        *_, rest_high, rest_low = [jnp.asarray(m.data) for m in sent if (m.src, m.dst) == (0, 2)]
        (half,) = [m.data for m in sent if (m.src, m.dst) == (1, 2)]
        total = half + np.asarray(clear.upper_product((rest_high, rest_low), jnp.asarray(y[2])))
    several = len(np.unique(total))
    assert several <= 3 if left_out else several > n / 2


@pytest.mark.parametrize("n", [1000, 10_000])
def test_an_exponential_costs_eight_rounds(n: int) -> None:
    cost = spu.jit(jnp.exp).cost(np.zeros(n, np.float32))
    assert cost.rounds == 8
    assert cost.bytes_sent.sum() <= 120.1 * n
