"""REP4: programs run on it, and whatever one party does to its messages, no honest party is shown a wrong result."""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from deviations import MANIPULATIONS, Deviations, dropped, flipped, last_word
from machine import (
    all_slots,
    assert_cost,
    assert_same_shares,
    network,
    predicted_cost,
    run_parties,
    shared_inputs,
    simulate,
    values,
)

import spuvm as spu
from spuvm.compiler.expand.choreography import Check, Choreography
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError, DeviationError, LinkError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.memory_link import MemoryLink
from spuvm.runtime.machine.checks import Checks
from spuvm.runtime.machine.session import Session
from spuvm.runtime.protocols.registered import protocol_of
from spuvm.runtime.protocols.rep4 import HOLDERS, REP4

pytestmark = pytest.mark.usefixtures("preloaded")

X = np.array([1.5, -2.25, 0.5, 3.0, 0.0, 1.0, -1.0, 8.0], np.float32)  # so many that no byte of a message is padded
Y = np.array([0.75, 4.0, 0.5, -1.0, 1.0, 1.0, 2.0, 0.25], np.float32)


def small(x: Any, y: Any) -> Any:
    """Products, truncations, comparisons, selections, bits; two reveals, the second of what came after the first."""
    z = x * y
    first = spu.reveal(jnp.where(x < y, z, y))
    return first, spu.reveal(z == x), spu.reveal((z + x).sum())


@cache
def choreography() -> tuple[Choreography, list[Any]]:
    made = spu.jit(small, protocol="rep4").compile(X, Y).choreography
    raws = [np.rint(v * 2.0**18).astype(np.int64).view(np.uint64) for v in (X, Y)]
    return made, shared_inputs(made, raws, algebra=REP4.algebra)


def test_simulated_and_networked_are_the_same() -> None:
    made, inputs = choreography()
    whole = simulate(made, inputs)
    parties, counters = network(made, inputs, n=4)
    assert_same_shares(made, whole, parties)
    assert_cost(predicted_cost(made, 4), counters)
    got = values(made, whole, REP4.algebra)
    np.testing.assert_allclose(got[0].view(np.int64) * 2.0**-18, np.where(X < Y, X * Y, Y), atol=1e-5)
    np.testing.assert_array_equal(got[1], X * Y == X)


def test_nothing_is_revealed_before_a_check() -> None:
    made, _ = choreography()
    unchecked = False
    for step in made.block.steps:
        spec = getattr(step, "spec", None)
        if isinstance(step, Check):
            unchecked = False
        elif spec is not None and spec.shows:
            assert not unchecked, step
            unchecked = True
        elif spec is not None:
            unchecked |= spec.communicates
    assert not unchecked


# A party that deviates --------------------------------------------------------------------------------------


@cache
def deviations() -> Deviations:
    return Deviations(small, (X, Y), "rep4", REP4.algebra, 4)


@pytest.mark.parametrize("manipulate", MANIPULATIONS, ids=lambda f: f.__name__)
def test_every_changed_message_stops_all_before_a_wrong_result(manipulate: Any) -> None:
    step = 1 if manipulate is flipped else 4  # others a quarter of them each
    chosen = deviations().messages[MANIPULATIONS.index(manipulate) % step :: step]
    assert sum(not deviations().unseen(cheater, at, manipulate) for cheater, at in chosen) > 20


def test_a_dropped_message_stops_all() -> None:
    """Who waits for it says so in time; nobody is shown a wrong result."""
    chosen = deviations().messages[1::16]
    assert sum(not deviations().unseen(cheater, at, dropped) for cheater, at in chosen) > 0


@pytest.mark.parametrize("count", [100, 1500])
def test_long_arrays_are_confirmed_as_short_ones_are(count: int) -> None:
    """Of kernels that run on several blocks of elements, too, every message is."""
    long = Deviations(lambda x, y: x * y < x, (np.resize(X, count), np.resize(Y, count)), "rep4", REP4.algebra, 4)
    for cheater in range(4):
        _, cheat = long.run(cheater, -1)
        for at in range(0, cheat.count, 5):
            assert not long.unseen(cheater, at, flipped)


def test_what_a_liar_is_told_is_random_to_it() -> None:
    """A word that is too large makes a product wrong by so much times the other factor: no tag of that is shown."""
    checks = sum(isinstance(step, Check) for step in choreography()[0].block.steps)
    for cheater in range(4):
        hidden = [deviations().hidden(cheater, at) for at in range(deviations().run(cheater, -1)[1].count)]
        assert hidden.count(False) == 6 * checks, hidden  # what is told itself, twice to each of the three others


def test_who_speaks_last_cannot_make_the_sum_zero() -> None:
    for cheater in range(4):
        for at in range(cheater, deviations().run(cheater, -1)[1].count, 7):
            assert not deviations().unseen(cheater, at, flipped, compare=last_word)


def test_what_is_told_of_equal_tags_adds_up_to_zero_and_nothing_else() -> None:
    """Four parties, of which each two share keys; what each tells is masked by what the three others know."""
    drawn = np.random.default_rng(2)
    keys = {p: drawn.bytes(1000) for p in itertools.combinations(range(4), 2)}

    class Link:
        def __init__(self, rank: int) -> None:
            self.rank = rank

    def told(value: int) -> list[Any]:
        out = []
        for rank in range(4):
            at = dict.fromkeys(keys, 0)

            def draw(peer: int, nbytes: int, rank: int = rank, at: Any = at) -> Any:
                pair = (min(rank, peer), max(rank, peer))
                at[pair] += nbytes
                return np.frombuffer(keys[pair][at[pair] - nbytes : at[pair]], np.uint8)

            checks = Checks(Link(rank), draw)  # type: ignore[arg-type]
            if rank in (1, 2):
                checks.record(3 - rank, rank == 1, np.array([value if rank == 2 else 5], np.uint64))
            out.append(checks.told([p for p in range(4) if p != rank]))
        return out

    assert not np.bitwise_xor.reduce(told(5)).any()
    assert np.bitwise_xor.reduce(told(4)).any()
    assert len({x.tobytes() for x in told(5)}) == 4


SCRIPT = """
import sys
import numpy as np
import spuvm as spu
spu.init(party=sys.argv[1], config=sys.argv[2])
names = ["alice", "bob", "carol", "dave"]
dev = spu.SPU({"nodes": [{"party": p} for p in names]})
x = spu.PYU("alice")(lambda: np.array([1.5, -2.0], np.float32))()
y = spu.PYU("dave")(lambda: np.array([4.0, 0.5], np.float32))()
z = dev(lambda a, b: (a * b, a < b))(x, y)
print(dev, [np.round(v.astype(float), 3).tolist() for v in spu.reveal(z)])
"""


def test_four_processes(tmp_path: Path) -> None:
    names = ("alice", "bob", "carol", "dave")
    config = make_cluster(tmp_path, names, timeout_seconds=240, protocol="rep4")
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", SCRIPT, p, str(config)], **pipes) for p in names]
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert out == "<SPU rep4/64 of alice, bob, carol, dave> [[6.0, -1.0], [1.0, 1.0]]\n"
    finally:
        for process in started:
            process.kill()


def test_keys_are_the_same_at_all_who_hold_them() -> None:
    """The party that gives out a key of three gives one of them another."""
    config = Config("rep4", parties=("a", "b", "c", "d"))

    def keys(rank: int, link: MemoryLink) -> list[bytes]:
        session = Session(config, rank, link)
        return [session._key(tuple(sorted(h))) for h in HOLDERS if rank in h]

    assert len({k for found in run_parties(keys, 4) for k in found}) == 4

    def cheating(rank: int, link: MemoryLink) -> None:
        send = link._send_control

        def changed(peer: int, kind: Any, body: bytes) -> None:
            other = kind.name == "KEY" and body.startswith(b"0,1,2") and peer == 2
            send(peer, kind, body[:-1] + bytes([body[-1] ^ 1]) if other else body)

        if rank == 0:
            link._send_control = changed  # type: ignore[method-assign]
        Session(config, rank, link)

    with pytest.raises(DeviationError, match="another session key"):
        run_parties(cheating, 4)


def test_who_is_in_it() -> None:
    with pytest.raises(ConfigError, match="runs among 4 parties, got 3"):
        protocol_of(Config("rep4", parties=("a", "b", "c")))
    with pytest.raises(ConfigError, match="no others"):
        protocol_of(Config("rep4", parties=("a", "b", "c", "d"), others=("e",)))
    assert issubclass(DeviationError, LinkError)
    assert {0, 1, 2, 3} == set().union(*(s.holders for s in all_slots(choreography()[0].block)))
