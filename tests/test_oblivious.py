"""Oblivious transfer: the check, correlations exactly, programs of two parties, simulated and over links."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import assert_cost, network, predicted_cost, shared_inputs, values

import spuvm as spu
from spuvm.compiler.cost import OFFLINE
from spuvm.runtime.config import Config
from spuvm.runtime.engine.correlated import BLOCK, OPERANDS, RESULTS, Family, Kind
from spuvm.runtime.errors import ConfigError, DeviationError, SpuError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.machine.executor import Streams
from spuvm.runtime.oblivious import correlations, extension, plan, rows, silent
from spuvm.runtime.oblivious.plan import offline
from spuvm.runtime.oblivious.streams import read
from spuvm.runtime.protocols.registered import protocol_of
from spuvm.runtime.ring import native

pytestmark = pytest.mark.usefixtures("preloaded")

pytest.importorskip("rbcl")


def both(function: Callable[[int, Any], Any]) -> tuple[list[Any], list[Any]]:
    """A function at two parties with a link between them; what it gave or raised, and the links."""
    links = memory_links(("alice", "bob"), timeout=300)

    def run(rank: int) -> Any:
        try:
            return function(rank, links[rank])
        except SpuError as error:
            links[rank].abort(error)
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2))), list(links)


def swapping(rank: int, link: Any) -> extension.Swap:
    def swap(body: bytes, size: int) -> bytes:
        got = np.empty(size, np.uint8)
        link.exchange({1 - rank: [memoryview(body)]} if body else {}, {1 - rank: [got]} if size else {})
        return got.tobytes()

    return swap


CHOICES = np.random.default_rng(5).integers(0, 2, 1000).astype(np.uint8)


def extended(rank: int, link: Any) -> Any:
    if rank == 0:
        sender = extension.Sender(swapping(rank, link))
        return sender.extend(1000)[0], sender.extend(1000)[0], sender.delta
    receiver = extension.Receiver(swapping(rank, link))
    return receiver.extend(CHOICES), receiver.extend(CHOICES ^ np.uint8(1))


def test_rows_of_both_belong_together() -> None:
    ((first, second, delta), mine), _ = both(extended)
    for q, t, choices in zip((first, second), mine, (CHOICES, CHOICES ^ 1)):
        np.testing.assert_array_equal(q, t ^ choices[:, None] * np.frombuffer(delta, np.uint8))
    assert len(np.unique(np.concatenate(mine), axis=0)) == 2000
    assert abs(np.unpackbits(first).mean() - 0.5) < 0.01


def test_a_receiver_that_cheats_is_found() -> None:
    """Other choices in half of the columns, each time."""

    def cheated(rank: int, link: Any) -> Any:
        if rank == 0:
            return extension.Sender(swapping(rank, link)).extend(1000)
        swap = swapping(rank, link)

        def wrong(body: bytes, size: int) -> bytes:
            if len(body) == extension.padded(1000) * 16:
                columns = np.frombuffer(body, np.uint8).reshape(128, -1).copy()
                columns[::2, 3] ^= 4
                body = columns.tobytes()
            return swap(body, size)

        receiver = extension.Receiver(swap)
        receiver.swap = wrong
        receiver.extend(CHOICES)
        return link.exchange({}, {0: [np.empty(1, np.uint8)]})

    for _ in range(3):
        (sender, receiver), _ = both(cheated)
        assert isinstance(sender, DeviationError)
        assert "choices" in str(sender)
        assert isinstance(receiver, SpuError)


def test_native_and_numpy_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("without native kernels there is one way only")
    rng = np.random.default_rng(1)
    columns = rng.integers(0, 256, (128, 48), np.uint8)
    factors, words = rng.integers(0, 256, (9, 16), np.uint8), rng.integers(0, 256, (5, 9, 16), np.uint8)

    def everything() -> list[Any]:
        made = rows.rows_of(columns)
        return [
            made,
            rows.hashed(made, bytes(range(16)), 11, 77),
            rows.hashed(made, bytes(16), 1, 5),
            rows.sums(factors, words),
        ]

    fast = everything()
    bits = np.unpackbits(columns, axis=1, bitorder="little")
    np.testing.assert_array_equal(np.unpackbits(fast[0], axis=1, bitorder="little"), bits.T)
    monkeypatch.setattr(native, "library", lambda: None)
    for x, y in zip(fast, everything(), strict=True):
        np.testing.assert_array_equal(x, y)


FAMILIES = [
    *(Family(kind, width) for kind in (Kind.MUL, Kind.AND, Kind.SQUARE, Kind.BIT, Kind.WORD) for width in (8, 64)),
    Family(Kind.BIT, 32),
    Family(Kind.AND, 8, (1,)),
    Family(Kind.TRUNC, 64, (18,)),
    Family(Kind.TRUNC, 32, (31 - 4,)),
    Family(Kind.DOT, 64, (2, 3, 5, 4)),
    Family(Kind.DOT, 32, (1, 1, 3, 1)),
    Family(Kind.DOT, 64, (1, 16, 17, 15)),  # by ring-LWE
    Family(Kind.DOT, 32, (2, 20, 13, 30)),
]


def drawn(family: Family, units: int) -> dict[Any, int]:
    size = family.unit_blocks if family.kind is Kind.DOT else lambda c: 4
    components = range(OPERANDS[family.kind] + RESULTS[family.kind])
    return {family.holders(p, c): units * size(c) for p in (0, 1) for c in components}


def opened(family: Family, streams: Any, start: Any, draws: Any) -> list[Any]:
    """Words of each component of one party."""
    out = []
    for c in range(OPERANDS[family.kind] + RESULTS[family.kind]):
        name = family.holders(streams.party, c)
        out.append(read(streams.stream(name), family, start[name], draws[name] * BLOCK * 8 // family.width))
    return out


def checked(family: Family, shares: list[list[Any]], units: int) -> None:
    n = OPERANDS[family.kind]
    size = [family.unit_blocks(c) * BLOCK * 8 // family.width if family.kind is Kind.DOT else None for c in range(3)]
    for unit in range(units if family.kind is Kind.DOT else 1):

        def part(party: int, c: int, at: int = unit) -> Any:
            words = shares[party][c]
            return words if size[0] is None else words[at * size[c] : at * size[c] + family.units[c]]  # type: ignore[operator]

        mask = (1 << family.parameters[0]) - 1 if family.kind is Kind.AND and family.parameters else -1
        expected = correlations.combined(family, [[part(p, c) for c in range(n)] for p in (0, 1)])
        for i, value in enumerate(expected):
            a, b = (part(p, n + i) for p in (0, 1))
            got = a ^ b if family.kind is Kind.AND else a + b
            both_ways = [v.astype(family.dtype).astype(np.int64) & mask for v in (got, value)]
            np.testing.assert_array_equal(both_ways[0], both_ways[1])


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_correlations_are_exact(family: Family) -> None:
    exact(family, 3)


def test_batches_are_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in batches of trees, the last one without, of which two at a time share their rounds."""
    monkeypatch.setattr(plan, "BATCH_ROWS", 1 << 13)
    monkeypatch.setattr(plan, "GROUP_BATCHES", 2)
    family, units = Family(Kind.MUL, 64), 42
    made = plan.groups(drawn(family, units))
    assert [len(group) for group in made] == [2, 2, 2]
    depths = [silent.depth_for(plan.rows_of(batch)) for group in made for batch in group]
    assert None not in depths[:-1] and depths[-1] is None
    exact(family, units)


def exact(family: Family, units: int) -> None:
    """Of random operands, in two pieces; simulated and made, and what is made costs what was said."""
    draws = drawn(family, units)
    held: dict[Any, bytes] = {}

    class Watched(Streams):
        def __init__(self, party: int | None) -> None:
            super().__init__(lambda h: held.setdefault(h, np.random.default_rng(len(held)).bytes(16)), party)
            self.party = party

    def make(rank: int, link: Any) -> Any:
        streams = Watched(rank)
        streams.link = link
        first = opened(family, streams, streams.advance(draws), draws)
        return first, opened(family, streams, streams.advance(draws), draws)

    found, links = both(make)
    for piece in (0, 1):
        checked(family, [found[p][piece] for p in (0, 1)], units)
    rounds, sent = offline(draws)
    for rank, link in enumerate(links):
        assert sum(link.counters.bytes_sent.values()) == 2 * sent[rank]
        assert link.counters.rounds == 2 * rounds
    whole = Watched(None)
    start = whole.advance(draws)
    shares = []
    for party in (0, 1):
        whole.party = party
        shares.append(opened(family, whole, start, draws))
    checked(family, shares, units)


# Programs ----------------------------------------------------------------------------------------------------


def everything(x: Any, y: Any, m: Any) -> Any:
    """Products, truncations, comparisons, bits, matrices, functions, a loop and a sort."""
    z = jax.lax.fori_loop(0, 2, lambda _, v: v * y + 1, x)
    best = jnp.where(x < y, z, y)
    return best, (x * y == x), m @ x, jnp.exp(-x), jnp.sort(x), (x * x).sum(), jnp.einsum("ij,kj->ik", m, m)


X = np.array([1.5, -2.25, 0.5, 3.0], np.float32)
Y = np.array([0.75, 4.0, 1.0, -1.0], np.float32)
M = np.arange(12, dtype=np.float32).reshape(3, 4) / 4


def right(found: Any) -> None:
    for got, want in zip(found, everything(X, Y, M)):
        np.testing.assert_allclose(got, want, atol=2e-3)


def test_programs_simulated() -> None:
    right(spu.reveal(spu.jit(everything, protocol="semi2k_ot")(X, Y, M)))


def test_programs_of_two_parties_over_a_link() -> None:
    """Whole numbers are equal to the simulation's, and rounds and bytes are those that were said."""
    config = Config("semi2k_ot", parties=("alice", "bob"))
    made = spu.jit(lambda x, y, m: spu.reveal(everything(x, y, m)[:4]), protocol="semi2k_ot").compile(X, Y, M)
    raws = [np.rint(v * 2.0**18).astype(np.int64).view(np.uint64) for v in (X, Y, M)]
    inputs = shared_inputs(made.choreography, raws, algebra=protocol_of(config).algebra)
    parties, counters = network(made.choreography, inputs, n=2)
    assert_cost(predicted_cost(made.choreography, 2), counters)
    for party in parties:
        got = values(made.choreography, party, protocol_of(config).algebra)
        np.testing.assert_allclose(got[0].view(np.int64) * 2.0**-18, everything(X, Y, M)[0], atol=1e-3)
        np.testing.assert_array_equal(got[1], X * Y == X)
    names = {row.op for row in made.cost.by_op()}
    assert OFFLINE in names


def test_who_is_in_it() -> None:
    with pytest.raises(ConfigError, match="for two parties, got 3"):
        protocol_of(Config("semi2k_ot", parties=("a", "b", "c")))
    with pytest.raises(ConfigError, match="rings of 32 and 64 bits"):
        spu.jit(lambda x, y: x * y, protocol="semi2k_ot", ring=128).cost(X, Y)


SCRIPT = """
import sys
import jax.numpy as jnp
import numpy as np
import spuvm as spu
spu.init(party=sys.argv[1], config=sys.argv[2])
alice, bob = spu.PYU("alice"), spu.PYU("bob")
both = spu.utils.testing.cluster_def(["alice", "bob"], {"protocol": "SEMI2K"})
dev = spu.SPU(both, preprocessing="ot", stored=sys.argv[3])
x = alice(lambda: np.arange(6, dtype=np.float32).reshape(2, 3))()
y = bob(lambda: np.ones((3, 2), np.float32) * 0.5)()
fn = dev(lambda a, b: (a @ b, jnp.where(a > 1.5, a * a, 0)))
cost = fn.cost(x, y)
link = dev.vm.session.link
dev.prepare(fn.compile(x, y))
before = sum(link.counters.bytes_sent.values())
found = fn(x, y)
after = sum(link.counters.bytes_sent.values())
online = cost.online[1][link.rank]
print(after - before == online < cost.bytes_sent[link.rank], [np.round(v, 3).tolist() for v in spu.reveal(found)])
"""


def test_two_processes(tmp_path: Path) -> None:
    """What they need is made ahead, into a folder."""
    config = make_cluster(tmp_path, ("alice", "bob"), timeout_seconds=240, protocol="semi2k_ot")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, p, str(config), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in ("alice", "bob")
    ]
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert out == "True [[[1.5, 1.5], [6.0, 6.0]], [[0.0, 0.0, 4.0], [9.0, 16.0, 25.0]]]\n"
    finally:
        for process in started:
            process.kill()
