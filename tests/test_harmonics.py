"""Sums of harmonics: circles and recurrences, the lowering of their sums, and what sin, erf and others make of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from machine import Raw, Sent, interpret, signed
from scipy import special

import spuvm as spu
from spuvm.compiler.functions import harmonics
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.protocols.aby3 import harmonics as hm
from spuvm.runtime.ring.harmonics import harmonics as harmonics_of

RNG = np.random.default_rng(0)
ANGLES = np.concatenate(
    [
        np.arange(64, dtype=np.uint64) << np.uint64(58),
        (np.arange(64, dtype=np.uint64) << np.uint64(58)) - np.uint64(1),
        RNG.integers(0, 2**64 - 1, 50_000, np.uint64, endpoint=True),
    ]
)


@pytest.mark.parametrize("step", [1, 2])
def test_circles_and_recurrences(step: int) -> None:
    angle = ANGLES * (2 * np.pi * 2.0**-64)
    with jax.enable_x64(True):
        for i, (c, s) in enumerate(harmonics_of(jnp.asarray(ANGLES), 18, step)):
            m = 1 + i * step
            error = 2.0**-30 * (12 + m) * m
            assert np.abs(signed(c) * 2.0**-30 - np.cos(m * angle)).max() < error
            assert np.abs(signed(s) * 2.0**-30 - np.sin(m * angle)).max() < error


def lowered(total: int, bits: int, left_out: int | None = None) -> tuple[Raw, Raw, list[Raw], list[Sent]]:
    """4000 sums of two random words, lowered: the words, the components of the results, and what is sent."""
    a = RNG.integers(0, 2**64 - 1, 4000, np.uint64, endpoint=True)
    a[:4] = [0, 2**63 - 1, 2**63, 2**64 - 1]
    b = np.uint64(total % 2**64) - a
    numbers, sent = count(), list[Sent]()

    def draw(holders: Holders, shape: tuple[int, ...], dtype: str) -> Raw:
        raw = np.frombuffer(RNG.bytes(4000 * np.dtype(dtype).itemsize), dtype)
        return np.zeros(shape, dtype) if next(numbers) == left_out else raw

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda a, b: hm.lowered(a, b, bits))(a, b)
        out = interpret(closed.jaxpr, closed.consts, [a, b], draw, sent)
    return a, b, [np.asarray(x) for x in out], sent


@pytest.mark.parametrize("bits", [1, 31, 39, 43, 53, 61])
@pytest.mark.parametrize("total", [0, 1, -1, 2**61 + 12345, -(2**61) + 7, 2**62 - 1, -(2**62)])
def test_lowering_is_at_most_one_unit_off(total: int, bits: int) -> None:
    _, _, parts, _ = lowered(total, bits)
    got = signed(parts[0] + parts[1] + parts[2])
    assert np.abs(got - total / 2.0**bits).max() <= 1


def test_lowering_tells_neither_party_the_other_word() -> None:
    """The top bit of one word says where the other is; the sum of the components that a party holds, the value."""

    def told(left_out: int | None) -> tuple[bool, bool, bool, bool]:
        a, b, parts, sent = lowered(2**61 + 12345, 43, left_out)
        one_bit = {m.src: m.data for m in sent if m.bits == 1}
        words = {1: a, 2: b + np.uint64(1 << 62)}
        agree = [np.mean(one_bit[i] == words[i] >> np.uint64(63)) for i in (1, 2)]
        few = [len(np.unique(parts[2] + parts[i])) < 4 for i in (0, 1)]
        return agree[0] == 1, agree[1] == 1, few[0], few[1]

    assert told(None) == (False,) * 4
    assert told(0) == (True, False, False, False)
    assert told(1) == (False, True, False, False)
    assert told(4) == (False, False, False, True)
    assert told(5) == (False, False, True, False)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], float]] = {
    "sigmoid": (jax.nn.sigmoid, special.expit, 16.0),
    "tanh": (jnp.tanh, np.tanh, 9.0),
    "erf": (lax.erf, special.erf, 5.0),
    "sin": (jnp.sin, np.sin, 50.0),
    "cos": (jnp.cos, np.cos, 50.0),
}
ERRORS = {"sigmoid": 3.4e-6, "tanh": 3.1e-6, "erf": 2.7e-6, "sin": 3e-7, "cos": 3e-7}  # and one unit


@pytest.mark.parametrize("f", [8, 18, 22])
@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_all_of_their_domain(name: str, protocol: str, f: int) -> None:
    function, truth, span = FUNCTIONS[name]
    x = np.concatenate([RNG.integers(-int(span * 2**f), int(span * 2**f), 30_000), [0, 1, -1]])
    edges = [s * (round(t.edge * 2**f) + d) for t in TABLES for s in (1, -1) for d in (-1, 0, 1)]
    huge = [s * 2**k for s in (1, -1) for k in range(f, 61)]
    x = np.concatenate([x, edges, huge]) / 2.0**f
    with jax.enable_x64(True):
        got = np.asarray(spu.reveal(spu.jit(function, protocol=protocol, fxp_fraction_bits=f)(x)))
    assert np.abs(got - truth(x)).max() <= ERRORS[name] + 3e-7 + 2.0**-f


TABLES = (harmonics.SIGMOID, harmonics.TANH, harmonics.ERF)


@pytest.mark.parametrize(("table", "truth"), list(zip(TABLES, (special.expit, np.tanh, special.erf))))
def test_tables(table: harmonics.Sines, truth: Callable[..., Any]) -> None:
    x = np.linspace(-table.edge, table.edge, 100_001)
    sines = (c * np.sin((2 * i + 1) * np.pi / 2 * x / table.edge) for i, c in enumerate(table.coefficients))
    assert np.abs(table.middle + sum(sines) - truth(x)).max() < 1.5e-6


def test_costs() -> None:
    x = np.zeros(1000, np.float32)
    for function, rounds, each in (
        (jnp.sin, 5, 75),
        (lax.erf, 9, 245),
        (jax.nn.sigmoid, 9, 345),
        (jnp.tanh, 9, 359),
    ):
        cost = spu.jit(function).cost(x)
        assert cost.rounds == rounds
        assert cost.bytes_sent.sum() <= each * len(x)
