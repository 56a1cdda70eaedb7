"""A party that changes messages by a plan stops everybody, or has changed nothing: REP4, malicious ABY3."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from adaptive import STRATEGIES, outcome
from deviations import Deviations

import spuvm as spu
from spuvm.runtime.protocols.registered import PROTOCOLS

X = np.array([1.5, -2.25, 0.5, 3.0], np.float32)
Y = np.array([0.75, 4.0, 0.5, -1.0], np.float32)


def _program(x: Any, y: Any) -> Any:
    z = x * y
    return spu.reveal(z), jnp.where(x < y, z, y)


@pytest.mark.parametrize("name", ["rep4", "aby3_malicious"])
def test_planned_deviations_are_noticed(name: str) -> None:
    """Of every strategy and party some pairs of messages, among them the last, in which tags are opened."""
    protocol = PROTOCOLS[name].build(PROTOCOLS[name].parties, 0)
    run = Deviations(_program, (X, Y), name, protocol.algebra, protocol.world_size)
    rng = np.random.default_rng(22)
    found: Counter[str] = Counter()
    for cheater in range(run.n):
        count = sum(p == cheater for p, _ in run.messages)
        pairs = list(combinations(range(count), 2))
        for strategy in STRATEGIES:
            for pick in (-1, *rng.integers(0, len(pairs), 5).tolist()):
                seen = outcome(run, cheater, strategy, pairs[pick], int(rng.integers(1, 2**62)))
                assert seen in ("stopped", "nothing"), f"party {cheater}, {strategy}, messages {pairs[pick]}: {seen}"
                found[seen] += 1
    assert found["stopped"] > found["nothing"]
