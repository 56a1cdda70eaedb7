"""SEMI2K: the same programs among any number of parties, the dealer as one more rank."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import assert_cost, assert_same_shares, key, run_parties, split

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.executor import Executor, Streams

UNIT = 2.0**-18
RNG = np.random.default_rng(5)
X, Y = RNG.uniform(-8, 8, (2, 70)).astype(np.float32)

PROGRAMS: dict[str, tuple[Any, float]] = {
    "product": (lambda x, y: x * y, 2 * UNIT + 1e-4),
    "comparison": (lambda x, y: (x < y, x == y, jnp.maximum(x, y)), 2 * UNIT),
    "matrices": (lambda x, y: x.reshape(7, 10) @ y.reshape(10, 7), 1e-3),
    "division": (lambda x, y: (x / 3, 1 / (1 + y * y)), 5e-5),
    "functions": (lambda x, y: (jnp.exp(x / 4), jax.nn.sigmoid(y)), 5e-5),
    "integers": (lambda x, y: x.astype(jnp.int32) * 3 // 7, 0),
    "sort": (lambda x, y: jnp.sort(x), 2 * UNIT),
    "loop": (lambda x, y: jax.lax.scan(lambda c, t: (c * 0.5 + t, c), 0.0, x[:8]), 1e-4),
}


@pytest.mark.parametrize(
    ("name", "n"), [*((name, 2) for name in PROGRAMS), ("comparison", 3), ("division", 3), ("comparison", 4)]
)
def test_programs_agree_with_jax(name: str, n: int) -> None:
    fn, tolerance = PROGRAMS[name]
    shown = spu.reveal(spu.jit(fn, protocol="semi2k", world_size=n)(X, Y))
    for got, want in zip(jax.tree.leaves(shown), jax.tree.leaves(fn(jnp.asarray(X), jnp.asarray(Y)))):
        assert np.asarray(got).shape == want.shape
        assert np.abs(np.asarray(got, float) - np.asarray(want, float)).max() <= tolerance


@pytest.mark.parametrize("name", ["comparison", "functions", "loop", "matrices"])
def test_parties_and_dealer_hold_the_simulators_shares(name: str) -> None:
    config = Config("semi2k", 64, 18, ("alice", "bob"))
    program = compile_function(PROGRAMS[name][0], (X, Y), ("secret", "secret"), config)
    ports = program.choreography.inputs
    raws = [np.rint(v * 2.0**18).astype(np.int64).view(np.uint64) for v in (X, Y)]
    rng = np.random.default_rng(1)
    components = [c for port, raw in zip(ports, raws) for c in split(raw, port.kind, len(port.slots), rng)]
    slots = [s for port in ports for s in port.slots]
    whole = Executor(Streams(key, None)).run(program.party(None), components)

    def party(rank: int, link: Any) -> Any:
        mine = [c if rank in s.holders else None for c, s in zip(components, slots)]
        return Executor(Streams(key, rank), link).run(program.party(rank), mine), link.counters

    results = run_parties(party, n=3)
    assert all(r is None for r in results[2][0]), "the dealer holds nothing"
    assert_same_shares(program.choreography, whole, [r for r, _ in results])
    assert_cost(program.cost, [c for _, c in results])


def test_the_dealer_hears_nothing() -> None:
    program = spu.jit(PROGRAMS["functions"][0], protocol="semi2k").compile(X, Y)
    for step in program.party(2).block.steps:
        assert not any(r.receives for r in step.rounds)


def test_one_party_is_too_few() -> None:
    with pytest.raises(ConfigError, match="two"):
        spu.jit(lambda x: x, protocol="semi2k", world_size=1)
