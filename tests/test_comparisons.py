"""Comparisons of one secret value with several public ones, which one kernel makes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu

SIZES = (0, 1, 7, 5000, 140_000)  # stacked while they are small, in blocks when they are large


def _of_numbers(x: Any, public: Any) -> Sequence[Any]:
    return [x < 3, x > 3, x <= 3, x >= 3, x != 3, jnp.clip(x, -1, 1), (x > public) & (x < 4)]


def _first_above(x: Any, public: Any) -> Sequence[Any]:
    return [public < x, x < public, x > -20, x < 20]


def _of_integers(x: Any, public: Any) -> Sequence[Any]:
    k = x.astype(jnp.int32)
    bits = k > -10
    for limit in (-3, 0, 1, 2, 5, 7, 9, 11, 2**20):
        bits ^= k < limit
    return [bits, (k < 5) | (k > 100), k <= public.astype(jnp.int32)]


def _in_a_loop(x: Any, public: Any) -> Sequence[Any]:
    def body(i: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        inside = (x > i) & (x < public)
        return state[0] + inside, jnp.clip(state[1] + 1, -1, 5)

    out: Sequence[Any] = jax.lax.fori_loop(0, 3, body, (jnp.zeros(x.shape, jnp.int32), x))
    return out


@pytest.mark.parametrize("ring", [32, 64, 128])
@pytest.mark.parametrize("protocol", ["aby3", "semi2k", "ref2k"])
@pytest.mark.parametrize("function", [_of_numbers, _first_above, _of_integers, _in_a_loop])
def test_as_jax(function: Any, protocol: str, ring: int) -> None:
    rng = np.random.default_rng(0)
    for n in SIZES if ring == 64 else (7,):
        x, public = (np.round(rng.uniform(-20, 20, n) * 4).astype(np.float32) / 4 for _ in range(2))
        x[::5] = public[::5]  # equal
        x[:1] = 3
        got = spu.reveal(spu.jit(function, protocol=protocol, ring=ring)(x, spu.public(public)))
        for out, expected in zip(got, function(x, public), strict=True):
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("limits", "dealt", "others"), [(2, 298, 122), (3, 327, 183), (4, 356, 244)])
def test_what_is_dealt_once(limits: int, dealt: int, others: int) -> None:
    """All products of the bits of a group; for each limit, 29 bits more."""
    x = np.zeros(8000, np.float32)
    cost = spu.jit(lambda x: [x < i for i in range(limits)]).compile(x).cost
    assert cost.bytes_sent.tolist() == [1000 * others, 1000 * dealt, 1000 * others]
    assert cost.rounds == 6


def test_four_limits_at_most_go_together() -> None:
    x = np.zeros(8000, np.float32)
    costs = [spu.jit(lambda x, n=n: [x < i for i in range(n)]).compile(x).cost for n in (1, 4, 5)]
    assert (costs[0].bytes_sent + costs[1].bytes_sent).tolist() == costs[2].bytes_sent.tolist()
    assert costs[0].bytes_sent.tolist() == [157_000, 125_000, 125_000]
    assert [cost.rounds for cost in costs] == [7, 6, 7]


def test_words_of_the_rings_width_are_compared_one_by_one() -> None:
    """Their differences overflow."""
    with jax.enable_x64(True):
        k = np.array([-(2**63), 2**63 - 1, 0, 7], np.int64)
        low, low_or_7, high = spu.reveal(spu.jit(lambda k: (k < -(2**62), k <= 7, k > 2**62))(k))
    assert (low.tolist(), low_or_7.tolist()) == ([True, False, False, False], [True, False, True, True])
    assert high.tolist() == [False, True, False, False]
