"""Nothing leaks but what a program reveals: every message is masked, and no mask is used twice.

A kernel is evaluated on many elements at once that all have the same inputs. The randomness that a
party knows is the same in every element too; only what it does not know varies. Then all
that it is sent must be uniform, jointly: whatever it could compute from its messages says nothing
about the inputs. A leak shows as a bit that is not a fair coin, or as two messages whose sum, difference
or exclusive or is not, or as any combination of message bits by exclusive or that is constant (the
rank over GF(2) is not full), which a mask used twice gives. Kernels are taken from the protocol's
table, so a new one is covered as it is registered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations, count, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import (
    Case,
    Components,
    Raw,
    Sent,
    cases,
    interpret,
    kernel_choreography,
    module,
    network,
    random_operands,
    run_parties,
    shapes_of,
    shared_inputs,
    simulate,
    split,
    traced,
    type_of,
)
from machine import key as stream_key

from spuvm.compiler.expand.expand import expand
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Region, Value
from spuvm.compiler.project.kernel_plan import KernelPlan
from spuvm.compiler.project.kernels import analyse
from spuvm.runtime.config import Config
from spuvm.runtime.engine.primitives import random, random_p, send, send_p
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.link.memory_link import MemoryLink
from spuvm.runtime.machine.executor import Streams
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.machine.session import Session
from spuvm.runtime.protocols.aby3 import products as aby3
from spuvm.runtime.protocols.aby3.products import HOLDERS
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.dealt import semi2k, semi2k_first_party_unsafe
from spuvm.runtime.protocols.protocol import Kernel, Protocol, Sharing
from spuvm.runtime.ring import bits as bt

SAMPLES = 1024  # more than the bits of any party's messages
SIGMAS = 6.5  # of some 10^5 statistics of a fair run none comes near
REVEALS = "pv"  # a kernel whose result somebody knows in the clear shows it: the program says so

MASKED = [pytest.param(c, id=str(c)) for c in cases(ABY3) if c.kernel.output not in REVEALS]
SHOWN = [pytest.param(c, id=str(c)) for c in cases(ABY3) if c.kernel.output in REVEALS]


# What a party sees -----------------------------------------------------------------------------------


def views(
    case: Case,
    protocol: Protocol,
    known: Callable[[Holders], bool],
    left_out: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[Sent]:
    """The messages of many runs on the same inputs; streams that are `known` never vary.

    The random value number `left_out` is replaced by zero.
    """
    rng = np.random.default_rng(seed)
    numbers = count()
    shapes = shapes_of(case, samples)
    components: Components = []
    for i, (kind, shape) in enumerate(zip(case.kernel.inputs, shapes)):
        one = random_operands(case, [(20,)] * len(shapes))[i][15:16]
        parts = split(one, kind, protocol.algebra, rng, case.width)
        components += [np.broadcast_to(p, shape) for p in parts]

    def draw(holders: Holders, shape: tuple[int, ...], dtype: str) -> Raw:
        n = 1 if known(holders) else int(np.prod(shape))
        words = np.frombuffer(rng.bytes(n * np.dtype(dtype).itemsize), dtype)
        if next(numbers) == left_out:
            words = np.zeros_like(words)
        return np.broadcast_to(words, shape) if n == 1 else words.reshape(shape)

    sent: list[Sent] = []
    with jax.enable_x64(True):
        closed = traced(case, protocol, shapes)
        interpret(closed.jaxpr, closed.consts, components, draw, sent)
    return sent


def seen_by(
    case: Case,
    protocol: Protocol,
    parties: Iterable[int],
    left_out: int | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[Sent]:
    """What parties who tell each other all that they know are sent by the others; what goes to two, once."""
    mine = set(parties)
    whole = views(case, protocol, lambda holders: not mine.isdisjoint(holders), left_out, samples, seed)
    sent = [word for m in whole for word in _words(m, samples)]
    return list({(m.src, m.data.tobytes()): m for m in sent if m.dst in mine and m.src not in mine}.values())


def _words(message: Sent, samples: int) -> list[Sent]:
    """Of keys (`keyed.py`) some words, each a message: the first block, the last, one between (test_keyed has all)."""
    count = message.data.size // samples
    if count <= 1:
        return [message]
    columns = message.data.reshape(samples, count)
    return [replace(message, data=columns[:, i]) for i in sorted({0, 1, count // 2, count - 2, count - 1})]


# Whether it is uniform -------------------------------------------------------------------------------


def bits_of(data: Raw, bits: int) -> Raw:
    """[samples, bits] of 0 and 1."""
    octets = np.ascontiguousarray(data.reshape(-1, 1)).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, :bits]


def biased(data: Raw, bits: int) -> bool:
    octets = np.ascontiguousarray(data.reshape(-1, 1)).view(np.uint8)[:, : -(-bits // 8)]
    counts = np.stack([np.bincount(column, minlength=256) for column in octets.T])
    excess = np.abs((counts @ BITS_OF_OCTETS).reshape(-1)[:bits] - len(data) / 2)
    return bool((excess > SIGMAS * np.sqrt(len(data)) / 2).any())


BITS_OF_OCTETS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def rank(matrix: Raw) -> int:
    """Of a matrix over GF(2): columns that no combination of those before them gives."""
    basis: dict[int, int] = {}
    for packed in np.packbits(matrix.T, axis=1):
        column = int.from_bytes(packed.tobytes(), "big")
        while column and (first := column.bit_length()) in basis:
            column ^= basis[first]
        if column:
            basis[column.bit_length()] = column
    return len(basis)


def biases(messages: list[Sent]) -> Iterator[str]:
    for i, m in enumerate(messages):
        if (m.data >> m.data.dtype.type(m.bits - 1) >> m.data.dtype.type(1)).any():
            yield f"message {i} has bits above its {m.bits}"
        if biased(m.data, m.bits):
            yield f"message {i} is biased"


def combined(messages: list[Sent]) -> Iterator[str]:
    if messages:
        enough = sum(m.bits for m in messages) + 65  # samples that tell a constant from chance
        matrix = np.concatenate([bits_of(m.data.reshape(-1)[:enough], m.bits) for m in messages], axis=1)
        assert len(matrix) == enough, "too few samples to tell a constant from chance"
        if (missing := matrix.shape[1] - rank(matrix ^ matrix[:1])) > 0:
            yield f"{missing} combinations of message bits are constant"


def paired(messages: list[Sent]) -> Iterator[str]:
    for (i, x), (j, y) in combinations(enumerate(messages), 2):
        a, b = x.data.astype(np.uint64), y.data.astype(np.uint64)
        for name, z in (("sum", a + b), ("difference", a - b), ("exclusive or", a ^ b)):
            if biased(z, min(x.bits, y.bits)):
                yield f"the {name} of messages {i} and {j} is biased"


CHECKS = (biases, combined, paired)  # the quick ones first


def leaks(messages: list[Sent]) -> Iterator[str]:
    """What is wrong with messages that should be uniform and independent; nothing if they are."""
    for check in CHECKS:
        yield from check(messages)


@pytest.mark.parametrize("case", MASKED)
def test_every_message_is_masked(case: Case) -> None:
    for party in range(3):
        assert list(leaks(seen_by(case, ABY3, {party}))) == []


FOR_64_BITS = {
    "exp2_ab",
    "exp2_abb",
    "harmonics_a",
    "scaled_aa",
    "power_b",
    "position_b",
}  # kernels that other rings do not call


@pytest.mark.parametrize("ring", [32, 128])
def test_every_message_of_other_rings_is_masked(ring: int) -> None:
    """ABY3 against each party, SEMI2K against a coalition of all but one."""
    for protocol, coalitions in ((ABY3, ({0}, {1}, {2})), (semi2k(3), ({0, 2},))):
        samples = 20 * ring if protocol is ABY3 else 40 * ring
        for case in cases(protocol, ring):
            skipped = case.kernel.name in FOR_64_BITS or case.kernel.output in REVEALS
            if skipped or not (protocol is ABY3 or case.kernel.elementwise):
                continue
            for coalition in coalitions:
                found = list(leaks(seen_by(case, protocol, coalition, samples=max(SAMPLES, samples))))
                assert found == [], f"{protocol.name}, {ring} bits: {case}"


@pytest.mark.parametrize(("n", "coalition"), [(2, {0}), (2, {1}), (3, {2}), (3, {0, 1}), (3, {0, 2}), (3, {1, 2})])
def test_messages_to_a_coalition_are_masked(n: int, coalition: set[int]) -> None:
    """SEMI2K: all parties but one may put together what they see. (A matrix product is `mul_aa` of blocks.)"""
    protocol = semi2k(n)
    for case in cases(protocol):
        owner = dict(case.params).get("owner", 0)
        if case.kernel.output not in REVEALS and case.kernel.elementwise and owner < n:
            found = list(leaks(seen_by(case, protocol, coalition, samples=4096)))
            assert found == [], str(case)


@pytest.mark.parametrize("n", [2, 3])
def test_the_first_party_as_the_dealer_sees_all_and_the_others_nothing(n: int) -> None:
    protocol = semi2k_first_party_unsafe(n)
    for case in cases(protocol):
        owner = dict(case.params).get("owner", 0)
        if case.kernel.output in REVEALS or not case.kernel.elementwise or owner >= n:
            continue
        others = set(range(1, n))
        assert list(leaks(seen_by(case, protocol, others, samples=4096))) == [], str(case)
    (product,) = (c for c in cases(protocol) if c.kernel.name == "mul_aa")
    assert list(leaks(seen_by(product, protocol, {0}))) != []


@pytest.mark.parametrize("case", SHOWN)
def test_a_reveal_sends_the_missing_components_alone(case: Case) -> None:
    """To each receiver one message, the component that it lacks: nothing beyond the value itself."""
    sent = views(case, ABY3, lambda holders: True)
    holders = ABY3.components(case.kernel.output, dict(case.params).get("owner"))[0]
    assert {m.dst for m in sent} == set(holders)
    assert len(sent) == len(holders)
    for m in sent:
        (lacking,) = [i for i, h in enumerate(HOLDERS) if m.dst not in h]
        assert m.src in HOLDERS[lacking]


# Kernels that leak must be caught --------------------------------------------------------------------


def _no_zero_share(x: Sharing, y: Sharing) -> Sharing:
    z = aby3.product_aa(x, y)
    return tuple(send(z[i], i, (i - 1) % 3) for i in range(3))


def _half_a_zero_share(x: Sharing, y: Sharing) -> Sharing:
    """A mask that the receiver knows: party i - 1 holds the stream of component i."""
    z = aby3.product_aa(x, y)
    rho = [random(HOLDERS[i], z[0].shape, z[0].dtype) for i in range(3)]
    return tuple(send(z[i] + rho[i], i, (i - 1) % 3) for i in range(3))


def _raw_component(x: Sharing) -> Sharing:
    return (x[0], x[1] + send(x[0], 0, 1) * 0, x[2])


def _mask_used_twice(x: Sharing, y: Sharing) -> Sharing:
    r = random((0, 2), x[0].shape, x[0].dtype)
    u, v = send(x[0] + r, 0, 1), send(y[0] + r, 0, 1)
    return (-r, u + v, x[2])


def _mask_used_twice_shifted(x: Sharing, y: Sharing) -> Sharing:
    """No pair of words gives it away: the second message uses the mask one bit higher."""
    r = random((0, 2), x[0].shape, x[0].dtype)
    u, v = send(x[0] ^ r, 0, 1), send(y[0] ^ bt.shift_left(r, 1) ^ bt.shift_right(r, 63), 0, 1)
    return (r, u ^ v, x[2])


def _and_without_zero_share(x: Sharing, y: Sharing) -> Sharing:
    z = [(x[i] & (y[i] ^ y[(i + 1) % 3])) ^ (x[(i + 1) % 3] & y[i]) for i in range(3)]
    return tuple(send(z[i], i, (i - 1) % 3) for i in range(3))


def _short_mask(x: Sharing) -> Sharing:
    """A mask of 32 bits for a word of 64."""
    r = random((0, 2), x[0].shape, np.dtype(np.uint32)).astype(np.uint64)
    return (r, send(x[0] + r, 0, 1), x[2])


def _trunc_without_mask(x: Sharing) -> Sharing:
    """Step 2 of the truncation with u_1 left out."""
    u0 = random((0, 2), x[0].shape, x[0].dtype)
    c = send(x[0] + u0, 0, 1) + send(x[1] + jnp.zeros_like(u0), 1, 2)
    return (u0, c, x[2])


BROKEN = {
    "no zero share": (Kernel("broken_1", _no_zero_share, "aa", "a"), "biased"),
    "half a zero share": (Kernel("broken_2", _half_a_zero_share, "aa", "a"), "biased"),
    "no zero share in and": (Kernel("broken_3", _and_without_zero_share, "bb", "b"), "biased"),
    "a raw component": (Kernel("broken_4", _raw_component, "a", "a"), "message 0 is biased"),
    "a mask used twice": (Kernel("broken_5", _mask_used_twice, "aa", "a"), "difference of messages 0 and 1"),
    "a mask used twice, shifted": (Kernel("broken_6", _mask_used_twice_shifted, "bb", "b"), "64 combinations"),
    "a short mask": (Kernel("broken_7", _short_mask, "a", "a"), "biased"),
    "truncation without a mask": (Kernel("broken_8", _trunc_without_mask, "a", "a"), "biased"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_leak_is_found(name: str) -> None:
    kernel, message = BROKEN[name]
    found = [x for party in range(3) for x in leaks(seen_by(Case(kernel, (), 64), ABY3, {party}))]
    assert any(message in x for x in found), found


# Without it a message is the other summand of a product that its receiver has a part of: test_exponential.py. Or it
# says whether a sum of which its receiver has the other summand wraps around: test_harmonics.py.
BEYOND_LINEAR = {("exp2_ab", 5), ("exp2_abb", 8), ("scaled_aa", 7), *(("harmonics_a", i) for i in (12, 13, 16, 17))}


@pytest.mark.parametrize("case", MASKED)
def test_a_mask_left_out_of_a_real_kernel_is_found(case: Case) -> None:
    """Every single random value is needed: with any one of them zero somebody sees too much.

    Of the mask of one bit that may take several runs: what it hides may be masked by what the party knows by chance.
    """
    primitives = [e.primitive for e in traced(case, ABY3, shapes_of(case, 8)).eqns]
    randoms = primitives.count(random_p)
    assert (randoms > 0) == (send_p in primitives)
    for out in range(randoms):
        if (case.kernel.name, out) in BEYOND_LINEAR:
            continue
        runs = ([seen_by(case, ABY3, {party}, out, seed=seed) for party in range(3)] for seed in range(8))
        found = (x for views in runs for check in CHECKS for view in views for x in check(view))
        assert next(found, None), f"without random value {out}"


# No random value is drawn twice -----------------------------------------------------------------------


def randoms_of(plan: KernelPlan) -> set[tuple[Holders, int, int]]:
    """(stream, first block, bytes) of every random value of a kernel, at any party."""
    stages = [s for stages in plan.stages.values() for s in stages]
    return {(r.holders, r.offset, r.nbytes) for s in stages for r in s.randoms}


def overlap(intervals: Iterable[tuple[int, int]]) -> bool:
    """Whether any two intervals [start, end) have a block in common."""
    ordered = sorted(intervals)
    return any(start < end for (_, end), (start, _) in pairwise(ordered))


@pytest.mark.parametrize("length", [64, 1024])
def test_randoms_of_a_kernel_do_not_overlap(length: int) -> None:
    for case in cases(ABY3):
        (call,) = kernel_choreography(case, ABY3, shapes_of(case, length)).block.steps
        plan = analyse(call.spec, length if case.kernel.elementwise else None)  # type: ignore[union-attr]
        by_stream = defaultdict(list)
        for holders, offset, nbytes in randoms_of(plan):
            by_stream[holders].append((offset, offset + -(-nbytes // 16)))
        for holders, intervals in by_stream.items():
            assert not overlap(intervals), f"{case}: {holders}"
            assert max(end for _, end in intervals) <= plan.draws[holders]


class Recorded(Streams):
    """Streams that note which blocks of which stream were read in which straight piece."""

    def __init__(self, party: int | None) -> None:
        super().__init__(stream_key, party)
        self.piece = -1
        self.reserved: list[tuple[int, Holders, int, int]] = []
        self.read: list[tuple[int, Holders, int, int]] = []

    def advance(self, draws: Any) -> dict[Holders, int]:
        self.piece += 1
        start = super().advance(draws)
        self.reserved += [(self.piece, h, start[h], start[h] + n) for h, n in draws.items() if n]
        return start

    def blocks(self) -> set[tuple[int, Holders, int]]:
        """Every block read, however many at once."""
        return {(piece, holders, i) for piece, holders, start, end in self.read for i in range(start, end)}

    def stream(self, holders: Holders) -> Any:
        return _Noted(self, holders, super().stream(holders))


class _Noted:
    def __init__(self, record: Recorded, holders: Holders, stream: Stream) -> None:
        self.record, self.holders, self.inner = record, holders, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fill(self, out: Raw, first_block: int) -> None:
        end = first_block + -(-out.nbytes // 16)
        self.record.read.append((self.record.piece, self.holders, first_block, end))
        self.inner.fill(out, first_block)


def looping(b: Builder, x: Value, y: Value) -> list[Value]:
    """A product and comparison in a loop, between ones before and after it."""
    body = Region([Value(x.type), Value(y.type)])
    with b.inside(body):
        c, k = body.params
        body.results = [b.add(c, b.mul(c, k))]
    z = b.mul(x, y)
    (out,) = b.ops("loop", [y, z], [_swapped(body)], trips=3, carries=1, constants=1, reverse=False)
    return [b.select(b.less(out, x), b.mul(out, y), b.mul(out, x))]


def _swapped(body: Region) -> Region:
    """Constants come before carries."""
    body.params.reverse()
    return body


@pytest.fixture(scope="module")
def program() -> Any:
    return expand(module(looping, type_of("fxp18", (100,)), type_of("fxp18", (100,))), ABY3)


def inputs_of(program: Any) -> Components:
    rng = np.random.default_rng(0)
    raws = [rng.integers(-(2**19), 2**19, 100).astype(np.uint64) for _ in range(2)]
    return shared_inputs(program, raws)


def test_counters_never_go_back(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs with a loop: simulated, each block of a keystream is read at most once."""
    monkeypatch.setattr("spuvm.runtime.machine.executor.PREFETCH_BYTES", 0)
    streams = Recorded(None)
    simulate(program, inputs_of(program), streams, runs=2)
    assert streams.piece + 1 >= 2 * (1 + 3 + 1)
    for holders in {h for _, h, _, _ in streams.reserved}:
        assert not overlap((s, e) for _, h, s, e in streams.reserved if h == holders)
        assert not overlap((s, e) for _, h, s, e in streams.read if h == holders)
    inside = {(p, h): (s, e) for p, h, s, e in streams.reserved}
    for piece, holders, start, end in streams.read:
        assert inside[piece, holders][0] <= start
        assert end <= inside[piece, holders][1]


def test_counters_are_the_same_at_every_party(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties reserve alike, read only streams that they hold, and the same blocks as the simulation."""
    monkeypatch.setattr("spuvm.runtime.machine.executor.PREFETCH_BYTES", 0)
    whole = Recorded(None)
    simulate(program, inputs_of(program), whole, runs=2)
    mine = [Recorded(party) for party in range(3)]
    network(program, inputs_of(program), runs=2, streams=mine.__getitem__)
    for party, streams in enumerate(mine):
        assert streams.reserved == whole.reserved
        assert all(party in holders for _, holders, _, _ in streams.read)
        assert streams.blocks() <= whole.blocks()
    for holders in HOLDERS:  # whatever masks a value is known to both its holders
        stream = tuple(sorted(holders))
        a, b = ({r for r in mine[p].blocks() if r[1] == stream} for p in holders)
        assert a | b == {r for r in whole.blocks() if r[1] == stream}


def test_sessions_of_one_link_have_different_keys() -> None:
    """Two machines over the same connections would else use the same keystreams from their start."""
    configs = [Config(parties=("a", "b", "c"), fxp_fraction_bits=f) for f in (18, 20, 18)]

    def keys(rank: int, link: MemoryLink) -> list[bytes]:
        sessions = [Session(c, rank, link) for c in configs]
        return [s._key((0, 1)) for s in sessions] if rank < 2 else []

    zero, one, _ = run_parties(keys)
    assert zero == one
    assert len(set(zero)) == 3
