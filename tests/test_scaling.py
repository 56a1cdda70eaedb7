"""x 2^y of secret x and y: the kernel, its last mask, and quotients on all of their domain."""

from __future__ import annotations

from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import Raw, interpret, signed, split
from sweeps import SWEEPS

import spuvm as spu
from spuvm.compiler.functions.precision import STATED, Stated
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.protocols.aby3 import times_power as sc
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.ring import times_power as clear

RNG = np.random.default_rng(0)


def scaled(x: Raw, y: Raw, left_out: int | None = None) -> list[Raw]:
    """The components of the result."""
    numbers = count()

    def draw(holders: Holders, shape: tuple[int, ...], dtype: str) -> Raw:
        raw = np.frombuffer(RNG.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
        return np.zeros_like(raw) if next(numbers) == left_out else raw

    components = [c for v in (x, y) for c in split(v.view(np.uint64), "a", ABY3.algebra, RNG)]
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda *a: sc.scaled_aby3(a[:3], a[3:]))(*components)
        return [np.asarray(z) for z in interpret(closed.jaxpr, closed.consts, components, draw, [])]


def test_scaling_by_all_powers() -> None:
    """Relative 1.2e-6 and one unit, and from the least power on."""
    x = np.exp2(RNG.uniform(0, 61.99, 50_000)).astype(np.int64) * RNG.choice([-1, 1], 50_000)
    x[:6] = [0, 1, -1, 2**62 - 1, -(2**62) + 1, 2**61]
    room = np.minimum(61.9 - np.log2(np.maximum(np.abs(x), 1)), 60)
    y = np.rint(RNG.uniform(clear.LEAST, room) * 2.0**57).astype(np.int64)
    y[:10:2] = clear.LEAST << 57
    want = x * np.exp2(y * 2.0**-57)
    z = scaled(x, y)
    with jax.enable_x64(True):
        plain = clear.times_power(jnp.asarray(x.view(np.uint64)), jnp.asarray(y.view(np.uint64)))
    for got in (z[0] + z[1] + z[2], plain):
        assert (np.abs(signed(got) - want) <= 1 + 1.2e-6 * np.abs(want)).all()


@pytest.mark.parametrize("left_out", [None, 6, 7])
def test_neither_party_has_the_other_half(left_out: int | None) -> None:
    """The sum of the components that a party holds says nothing, unless a mask is left out."""
    x, y = np.full(2000, 1000, np.int64), np.full(2000, 5 << 56, np.int64)
    z = scaled(x, y, left_out)
    few = [len(np.unique(z[2] + z[i])) < 4 for i in (0, 1)]  # party 2 holds components 2 and 0, party 1 1 and 2
    assert few == {None: [False, False], 6: [False, True], 7: [True, False]}[left_out]


@pytest.mark.parametrize("f", [8, 18, 22])
@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
def test_quotients_on_all_of_their_domain(protocol: str, f: int) -> None:
    """Of 8 fraction bits they go by another way."""
    x, y = (v / 2.0**f for v in SWEEPS["div"].points(f, 40_000, 62))
    want = x / y
    fits = np.abs(want) < 2.0 ** (62 - f)
    x, y, want = x[fits], y[fits], want[fits]
    with jax.enable_x64(True):
        divided = spu.jit(lambda x, y: x / y, protocol=protocol, fxp_fraction_bits=f)
        got: Any = np.asarray(spu.reveal(divided(x, y)))
        by_zero = np.asarray(spu.reveal(divided(x[:100], np.zeros(100))))
    allowed = STATED["div"] if f == 8 else Stated("", relative=2e-6, units=1.3)
    assert (np.abs(got - want) <= allowed.allowed(want, 2.0**-f)).all()
    assert not by_zero.any()


def test_costs() -> None:
    x = np.zeros(1000, np.float32)
    cost = spu.jit(lambda x, y: x / y).cost(x, x)
    assert cost.rounds == 22
    assert cost.bytes_sent.sum() <= 584 * len(x)
