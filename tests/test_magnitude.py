"""Roots, reciprocals and logarithms by harmonics: on all of their domain, under ABY3 and REF2K."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sweeps import magnitudes, signed

import spuvm as spu
from spuvm.compiler.front.trace import trace
from spuvm.compiler.functions import by_logarithm
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, Config

UNIT_RELATIVE = 3e-7


def revealed(function: Callable[..., Any], x: Any, protocol: str, f: int) -> Any:
    with jax.enable_x64(True):
        return np.asarray(spu.reveal(spu.jit(function, protocol=protocol, fxp_fraction_bits=f)(x)))


POWERS: dict[str, tuple[Callable[..., Any], float]] = {
    "sqrt": (lax.sqrt, 0.5),
    "rsqrt": (lax.rsqrt, -0.5),
    "reciprocal": (lambda x: 1 / x, -1.0),
}


@pytest.mark.parametrize("f", [8, 18, 22])
@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
@pytest.mark.parametrize("name", POWERS)
def test_powers_on_all_of_their_domain(name: str, protocol: str, f: int) -> None:
    function, power = POWERS[name]
    positive = magnitudes(61.99, 20_000) / 2.0**f
    x = signed(positive) if name == "reciprocal" else positive
    want = np.sign(x) * np.abs(x) ** power
    error = np.abs(revealed(function, x, protocol, f) - want)
    assert (error <= UNIT_RELATIVE * np.abs(want) + 1.01 * 2.0**-f).all()


@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
@pytest.mark.parametrize("name", POWERS)
def test_powers_of_what_has_none_are_zero(name: str, protocol: str) -> None:
    x = np.zeros(1) if name == "reciprocal" else -np.concatenate([[0.0], magnitudes(61.9, 300) / 2.0**18])
    assert not revealed(POWERS[name][0], x, protocol, 18).any()


@pytest.mark.parametrize("f", [8, 18, 22])
@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
def test_logarithms_on_all_of_their_domain(protocol: str, f: int) -> None:
    x = magnitudes(61.99, 20_000) / 2.0**f
    assert np.abs(revealed(jnp.log, x, protocol, f) - np.log(x)).max() <= 1.2e-7 + 2.0**-f
    none = -np.concatenate([[0.0], x[:300]])
    assert np.abs(revealed(jnp.log, none, protocol, f) + (f + 1) * np.log(2)).max() <= 1.2e-7 + 2.0**-f


@pytest.mark.parametrize("table", [by_logarithm.LOG2, by_logarithm.LOG2_OR_LESS])
def test_tables(table: by_logarithm.Harmonics) -> None:
    def value(c: Any) -> Any:
        terms = zip(table.sines, table.cosines)
        return table.constant + sum(
            a * np.sin(m * np.pi * c) + b * np.cos(m * np.pi * c) for m, (a, b) in enumerate(terms, 1)
        )

    c = np.linspace(0.5, 1, 100_001)
    assert np.abs(value(c) - np.log2(c)).max() < 6e-8
    if table is by_logarithm.LOG2_OR_LESS:
        assert abs(value(0.0) + 2) < 1e-9


def test_costs() -> None:
    x = np.zeros(1000, np.float32)
    for function, rounds, each in (
        (lax.sqrt, 22, 411),
        (lax.rsqrt, 22, 411),
        (POWERS["reciprocal"][0], 22, 427),
        (jnp.log, 24, 463),
    ):
        cost = spu.jit(function).cost(x)
        assert cost.rounds == rounds
        assert cost.bytes_sent.sum() <= each * len(x)


@pytest.mark.parametrize(("protocol", "ring"), [("aby3", 64), ("semi2k", 64), ("semi2k", 32)])
def test_logarithms_to_another_base(protocol: str, ring: int) -> None:
    """One kernel with another factor; to base 2 under every protocol."""
    f = DEFAULT_FRACTION_BITS[ring]
    raw = magnitudes(ring - 2.01, 5000)
    for base in (2.0, 3.0) if protocol == "aby3" else (2.0,):

        def function(x: Any, base: float = base) -> Any:
            return jnp.log2(x) if base == 2.0 else jnp.log(x) / np.float32(math.log(base))

        struct = jax.ShapeDtypeStruct(raw.shape, jnp.float32)
        module = run_passes(lower(trace(function, [struct]), ["secret"], Config(protocol, ring, f, ("a", "b", "c"))))
        (out,) = evaluate(module, [raw], jitter=5)
        error = np.abs(out.view(f"int{ring}") / 2.0**f - np.log(raw / 2.0**f) / math.log(base))
        assert error.max() <= (1e-6 if protocol == "aby3" else 3e-6 if ring == 64 else 2.0**-7) + 1.01 * 2.0**-f
        assert protocol != "aby3" or [op.name for op in module.body.walk()].count("harmonics") == 1
