"""Whole programs and approximations in rings of 32 and 128 bits, and of 64 with other fraction bits."""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import assert_cost, assert_same_shares, key, run_parties

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.compiler.functions import chebyshev, division, exp, log, saturating, sqrt, trig
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Value
from spuvm.compiler.ir.ops import parse_element
from spuvm.compiler.ir.text import parse, to_text
from spuvm.devices import FIELD_NAMES
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, Config
from spuvm.runtime.errors import CompileError, ConfigError, EncodingError
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.ring.encodings import decode, encode

RNG = np.random.default_rng(7)

# Approximations: of 2000 random operands each, by the plain evaluator with the protocols' rounding --------

N = 2000
FORMATS = [(32, 8), (64, 18), (64, 24), (128, 26), (128, 40)]
# Beside the units: what errors may be in relation to the result.
RELATIVE = {(32, 8): 2**-7, (64, 18): 1e-5, (64, 24): 2e-5, (128, 26): 1e-9, (128, 40): 1e-11}
UNITS = {(128, 40): 8.0}


def _powers(low: float, high: float, signs: bool = False) -> Any:
    """Numbers of all magnitudes from 2^low to 2^high."""
    x = 2.0 ** RNG.uniform(low, high, N)
    return x * RNG.choice([-1, 1], N) if signs else x


def _wide(k: int, f: int) -> float:
    """log2 of what fixed point holds."""
    return k - 2 - f - 0.01


FUNCTIONS: dict[str, tuple[Callable[..., Value], Callable[..., Any], Callable[[int, int], list[Any]]]] = {
    "log": (log.log, np.log, lambda k, f: [_powers(-f, _wide(k, f))]),
    "reciprocal": (
        division.reciprocal,
        lambda x: 1 / x,
        lambda k, f: [_powers(max(-f, 1 - _wide(k, f)), min(_wide(k, f), 40), True)],
    ),
    "div": (
        division.div,
        lambda x, y: x / y,
        lambda k, f: [_powers(-4, min(20, _wide(k, f) - 3), True), _powers(-2, 8, True)],
    ),
    "sqrt": (sqrt.sqrt, np.sqrt, lambda k, f: [_powers(-f, _wide(k, f))]),
    "rsqrt": (sqrt.rsqrt, lambda x: 1 / np.sqrt(x), lambda k, f: [_powers(-f, _wide(k, f))]),
    "exp": (exp.exp, np.exp, lambda k, f: [RNG.uniform(-16, min(20, 0.69 * (_wide(k, f) - 1)), N)]),
    "sigmoid": (saturating.sigmoid, lambda x: 1 / (1 + np.exp(-x)), lambda k, f: [RNG.uniform(-35, 35, N)]),
    "tanh": (saturating.tanh, np.tanh, lambda k, f: [RNG.uniform(-20, 20, N)]),
    "erf": (saturating.erf, np.vectorize(erf), lambda k, f: [RNG.uniform(-7, 7, N)]),
    "sin": (trig.sin, np.sin, lambda k, f: [RNG.uniform(-50, 50, N)]),
    "cos": (trig.cos, np.cos, lambda k, f: [RNG.uniform(-50, 50, N)]),
    "pow": (sqrt.pow_, np.power, lambda k, f: [_powers(-2, 2), RNG.uniform(-2, 2, N)]),
    "by 3.1": (
        lambda b, x: division.div_public(b, x, np.float32(3.1)),
        lambda x: x / float(np.float32(3.1)),
        lambda k, f: [_powers(-4, _wide(k, f), True)],
    ),
    "by 1000": (
        lambda b, x: division.div_public(b, x, 1000.0),
        lambda x: x / 1000,
        lambda k, f: [_powers(-4, _wide(k, f), True)],
    ),
}


@pytest.mark.parametrize(("k", "f"), FORMATS)
def test_approximations(k: int, f: int) -> None:
    for name, (function, real, operands) in FUNCTIONS.items():
        raws = [encode(x, f, ring_bits=k) for x in operands(k, f)]
        b = Builder(f, k)
        b.region.params = [Value(parse_element(f"fxp{f}").with_(shape=(N,))) for _ in raws]
        b.region.results = [function(b, *b.region.params)]
        (out,) = evaluate(b.region, raws, jitter=1, ring=k)
        want = real(*(decode(raw, "fxp", f, np.float64) for raw in raws))
        error = np.abs(decode(out, "fxp", f, np.float64) - want)
        allowed = UNITS.get((k, f), 3.0) * 2.0**-f + RELATIVE[k, f] * np.maximum(1.0, np.abs(want))
        assert (error <= allowed).all(), f"{name}: {(error / allowed).max():.2f} times what is allowed"


@pytest.mark.parametrize("f", [1, 4, 8, 11, 12])
def test_quotients_in_32_bits(f: int) -> None:
    """All sizes of numerators, divisors and quotients; 0 by a divisor of 0."""
    n = 100_000
    y = (2.0 ** RNG.uniform(0, 29.99, n)).astype(np.int64)
    top = np.minimum(29.99, 29.99 - f + np.log2(y))
    x = np.minimum(2.0 ** (RNG.uniform(0, 1, n) ** 0.3 * top), 2**30 - 1).astype(np.int64)
    x, y = x * RNG.choice([-1, 1], n), y * RNG.choice([-1, 1], n)
    b = Builder(f, 32)
    b.region.params = [Value(parse_element(f"fxp{f}").with_(shape=(n,))) for _ in range(2)]
    b.region.results = [division.div(b, *b.region.params)]
    (out,) = evaluate(b.region, [x, y], jitter=1, ring=32)
    want = x * 2.0**f / y
    assert (np.abs(out.view(np.int32) - want) <= 2 + 2.0**-8 * np.abs(want)).all()
    (zero,) = evaluate(b.region, [x, 0 * y], jitter=1, ring=32)
    assert not zero.any()


def test_fits_keep_their_promise() -> None:
    """Coefficients are the same at every call, odd functions odd, and edges those of whole units of 2^-8."""
    assert chebyshev.normalized.__wrapped__("log", 20) == chebyshev.normalized("log", 20)
    u = np.linspace(-0.5, 0.5, 1001)
    for bits in (12, 20, 30, 40):
        value = np.polynomial.polynomial.polyval(u, chebyshev.normalized("log", bits))
        assert np.abs(value - np.log(0.75 + u / 2)).max() < 2.0**-bits
    edges, pieces, tail = chebyshev.pieces("tanh", 30, 9)
    assert tail == 1.0
    assert all(e * 256 == int(e * 256) for e in edges)
    starts = [-edges[0], *edges]
    for low, high, (centre, coefficients) in zip(starts, edges, pieces):
        x = np.linspace(low, high, 101)
        error = np.polynomial.polynomial.polyval(x - centre, coefficients) - np.tanh(x)
        assert np.abs(error).max() < 2.0**-30 + 1e-15


# Programs ------------------------------------------------------------------------------------------------

X = RNG.uniform(-4, 4, (4, 5)).astype(np.float32)
Y = RNG.uniform(0.5, 4, (4, 5)).astype(np.float32)


def mixture(x: Any, y: Any) -> Any:
    i = (x * 10).astype(jnp.int32)
    return {
        "sum": x + y,
        "product": x * y,
        "matrices": x @ y.T,
        "third": x / 3,
        "less": (x < y, (x > 0) & (y > 1), i == i[::-1]),
        "max": (jnp.max(x, 0), jnp.argmax(x, 1), jnp.sort(x, 0)),
        "integers": (i * 3 // 7, i % 5, i ^ 3, i >> 1, i.astype(jnp.uint8)),
        "parts": (jnp.floor(x), jnp.cumsum(x, 0), x[jnp.array([3, 1])]),
        "scatter": jnp.zeros(6).at[jnp.array([1, 2, 1, 5])].add(x[:, 0]),
        "secret index": x[jnp.argmax(x[:, 0])],
        "scan": jax.lax.scan(lambda c, t: (c * 0.5 + t, c), x[0], x)[1],
        "functions": (jnp.exp(x / 4), jnp.sqrt(y), jax.nn.sigmoid(x), x / y),
    }


@pytest.mark.parametrize("protocol", ["ref2k", "aby3", "semi2k"])
@pytest.mark.parametrize("ring", [32, 128])
def test_programs(protocol: str, ring: int) -> None:
    """Without compiling: what programs compute, not how fast."""
    shown = spu.reveal(spu.jit(mixture, protocol=protocol, ring=ring)(X, Y))
    want = mixture(jnp.asarray(X), jnp.asarray(Y))
    unit = 2.0 ** -DEFAULT_FRACTION_BITS[ring]
    for path, expected in jax.tree_util.tree_leaves_with_path(want):
        got = shown
        for step in path:
            got = got[getattr(step, "key", getattr(step, "idx", None))]
        expected, got = np.asarray(expected), np.asarray(got)
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        allowed = 12 * unit + 3e-6 if expected.dtype.kind == "f" else 0
        assert np.abs(got.astype(float) - expected.astype(float)).max() <= allowed, path


def small(x: Any, y: Any) -> Any:
    return jnp.maximum(x * y, x), x[:2] @ y[:2].T


@pytest.mark.parametrize("ring", [32, 128])
def test_parties_and_dealer_hold_the_simulators_shares(ring: int) -> None:
    config = Config("semi2k", ring, DEFAULT_FRACTION_BITS[ring], ("alice", "bob"))
    program = compile_function(small, (X, Y), ("secret", "secret"), config)
    slots = [s for port in program.choreography.inputs for s in port.slots]
    inputs = [RNG.integers(0, 2**31, s.shape, np.uint64).astype(s.dtype) for s in slots]

    def party(rank: int, link: Any) -> Any:
        mine = [c if rank in s.holders else None for c, s in zip(inputs, slots)]
        return Executor(Streams(key, rank), link).run(program.party(rank), mine), link.counters

    whole = Executor(Streams(key, None)).run(program.party(None), inputs)
    results = run_parties(party, n=3)
    assert_same_shares(program.choreography, [np.asarray(x) for x in whole], [r for r, _ in results])
    assert_cost(program.cost, [c for _, c in results])


def test_messages_follow_the_ring() -> None:
    """A product and its truncation: 6, 10.5 and 20 bytes a party and element (24 with more than 31 fraction bits)."""
    n = jax.ShapeDtypeStruct((1024,), np.float32)
    for ring, frac, size in ((32, 8, 6), (64, 18, 10.5), (128, 26, 20), (128, 40, 24)):
        cost = spu.jit(lambda x, y: x * y, ring=ring, fxp_fraction_bits=frac).cost(n, n)
        assert cost.bytes_sent.tolist() == [1024 * size] * 3
        assert cost.rounds == 2


# Boundaries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [32, 128])
def test_text_and_files(ring: int, tmp_path: Path) -> None:
    """Constants of one word and of many, negative and large ones; a saved program runs."""
    table = np.linspace(-3, 3, 40, dtype=np.float32)

    def function(x: Any) -> Any:
        return x * table + jnp.float32(-1000.25) + table[::-1]

    program = spu.jit(function, ring=ring).compile(table)
    module = parse(program.text)
    assert to_text(module) == program.text
    program.save(tmp_path / "p.spux")
    again = spu.load(tmp_path / "p.spux")
    (out,) = evaluate(again.module, [encode(table, DEFAULT_FRACTION_BITS[ring], ring_bits=ring)])
    got = decode(out, "fxp", DEFAULT_FRACTION_BITS[ring], np.float64)
    assert again.hash == program.hash
    assert np.abs(got - function(table)).max() < 4 * 2.0 ** -DEFAULT_FRACTION_BITS[ring] + 1e-4


def test_complements_of_64_bits_in_128() -> None:
    x = np.array([0, 5, 2**64 - 1], np.uint64)
    with jax.enable_x64(True):
        got = spu.reveal(spu.jit(lambda x: (~x, x.astype(np.int64)), protocol="ref2k", ring=128)(x))
    np.testing.assert_array_equal(got[0], ~x)
    np.testing.assert_array_equal(got[1], x.astype(np.int64))


def test_large_numbers_in_128_bits() -> None:
    got = spu.reveal(spu.jit(lambda x: x * x, ring=128)(np.float32(2.0**30)))
    assert got == 2.0**60


def test_what_a_ring_does_not_hold_is_refused() -> None:
    with jax.enable_x64(True), pytest.raises(CompileError, match="ring of 32 bits does not hold int64"):
        spu.jit(lambda x: x + 1, ring=32).compile(np.int64(1))
    with pytest.raises(EncodingError, match=r"below 4\.1943e\+06"):
        spu.jit(lambda x: x + 1, ring=32)(np.float32(2**22))
    with pytest.raises(ConfigError, match=r"`ring` must be one of \(32, 64, 128\), got 48"):
        Config(ring_bits=48)
    with pytest.raises(ConfigError, match="between 1 and 12"):
        Config(ring_bits=32, fxp_fraction_bits=13)


@pytest.mark.parametrize(("field", "bits"), [("FM32", 32), ("FM64", 64), ("FM128", 128)])
def test_fields_of_devices(field: str, bits: int) -> None:
    assert FIELD_NAMES[field] == bits
    spu.init(parties=["a", "b", "c"], address="local")
    device = spu.SPU({**spu.utils.testing.cluster_def(["a", "b", "c"]), "runtime_config": {"field": field}})
    shown = device(lambda x: x + 1)(spu.PYU("a")(lambda: 1.5)())
    assert f"aby3/{bits}>" in repr(shown)
    assert spu.reveal(shown) == 2.5
