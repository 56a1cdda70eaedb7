"""Sorting by opened comparisons: right for every key, the same at all parties, and silent about equal keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from machine import (
    Case,
    Raw,
    Sent,
    both,
    interpret,
    module,
    network,
    random_words,
    shared_inputs,
    simulate,
    split,
    type_of,
    words,
)
from test_masks import leaks, seen_by

import spuvm as spu
from spuvm.compiler.expand.choreography import Call
from spuvm.compiler.expand.expand import expand
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.engine.random import permutations
from spuvm.runtime.machine import executor
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.protocols import ranking
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.aby3.sorting import before_aby3, shuffle_aby3
from spuvm.runtime.protocols.protocol import Kernel, Sharing
from spuvm.runtime.protocols.ref2k import ref2k

Ranges = tuple[tuple[int, int], ...]
RNG = np.random.default_rng(5)


# Who is compared with whom ---------------------------------------------------------------------------


def ranked(rows: int, length: int, wanted: Ranges = ()) -> tuple[Raw, Raw, list[int]]:
    """The values in the order found, in the right order, and the pairs of each step."""
    values = np.random.default_rng(length).permutation(rows * length)
    steps: list[int] = []

    def compare(first: Raw, second: Raw) -> Raw:
        assert (first // length == second // length).all(), "elements of different rows are compared"
        assert (first != second).all()
        steps.append(len(first))
        return (values[first] < values[second]).astype(np.uint8)

    found = values[ranking.ranking(rows, length, wanted, compare)].reshape(rows, length)
    right = np.sort(values.reshape(rows, length), 1)
    assert (np.sort(found, 1) == right).all()
    return found, right, steps


@pytest.mark.parametrize(
    ("rows", "length"), [(1, 0), (3, 1), (1, 2), (5, 8), (4, 9), (1, 20), (300, 13), (7, 100), (1, 3000), (1, 50_000)]
)
def test_rows_are_put_in_order(rows: int, length: int) -> None:
    found, right, steps = ranked(rows, length)
    np.testing.assert_array_equal(found, right)
    assert sum(steps) <= max(rows * length * (1.2 * np.log2(max(length, 2)) + 1), ranking.CHEAP_PAIRS)
    assert len(steps) <= 33


@pytest.mark.parametrize("length", [9, 40, 1000, 20_000])
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("width", [1, 2, 30])
def test_only_wanted_ranks_are_sought(length: int, where: float, width: int) -> None:
    low = int(where * length)
    high = min(low + width, length)
    found, right, steps = ranked(3, length, ((low, high),))
    np.testing.assert_array_equal(found[:, low:high], right[:, low:high])
    if length >= 1000:  # few elements for each, or few rounds
        assert sum(steps) < 3 * length * 4 + ranking.CHEAP_PAIRS
        assert len(steps) <= 21


def test_several_ranges_of_ranks() -> None:
    found, right, steps = ranked(1, 20_000, ((0, 1), (5000, 5002), (19_999, 20_000)))
    which = [0, 5000, 5001, 19_999]
    np.testing.assert_array_equal(found[0, which], right[0, which])
    assert sum(steps) < 20_000 * 12
    assert ranked(2, 100, ((0, 0),))[2] == []


# Shuffles --------------------------------------------------------------------------------------------


def test_permutations_are_drawn_uniformly() -> None:
    raw = np.frombuffer(np.random.default_rng(0).bytes(6000 * 3 * 16), np.uint8)
    order = permutations(raw, (6000, 3))
    counts = Counter(map(tuple, order.tolist()))
    assert len(counts) == 6
    assert sum((c - 1000) ** 2 / 1000 for c in counts.values()) < 30  # chi-squared of 5 degrees: once in 70,000


def test_equal_halves_are_decided_by_the_others() -> None:
    high, low = np.zeros((2, 5), np.uint64), np.array([[4, 3, 2, 1, 0], [0, 9, 1, 8, 2]], np.uint64)
    raw = np.concatenate([high, low]).view(np.uint8).reshape(-1)
    np.testing.assert_array_equal(permutations(raw, (2, 5)), [[4, 3, 2, 1, 0], [0, 2, 4, 3, 1]])
    halves = np.random.default_rng(1).integers(0, 1 << 64, (2, 3, 500), np.uint64)
    halves[0, 1] &= np.uint64(0xFF000000000001FF)  # the upper bits of many are equal, those with the index differ
    np.testing.assert_array_equal(permutations(halves.view(np.uint8).reshape(-1), (3, 500)), np.lexsort(halves[::-1]))


def test_a_shuffle_keeps_the_elements_and_its_messages_are_masked() -> None:
    """With permutations that stay the same, everything that a party is sent is uniform."""
    samples = 1024
    rng = np.random.default_rng(3)
    raws: list[Raw] = [np.full((samples, 1), 7, np.uint64), np.full((samples, 1), 1, np.uint8)]
    parts = [c for raw, k in zip(raws, "ab") for c in split(raw[:1], k, ABY3.algebra, rng, 1 if k == "b" else 64)]
    inputs = [np.broadcast_to(c, (samples, 1)) for c in parts]

    def flat(*arrays: Any) -> Any:
        return [c for x in shuffle_aby3([arrays[:3], arrays[3:]], "ab") for c in x]

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(flat)(*(jax.ShapeDtypeStruct(c.shape, c.dtype) for c in inputs))
    for party in range(3):
        sent: list[Sent] = []

        def draw(holders: Holders, shape: tuple[int, ...], dtype: str, party: int = party) -> Raw:
            if dtype == PERMUTATION:
                return np.zeros(shape, np.int64)
            n = 1 if party in holders else samples
            return np.broadcast_to(np.frombuffer(rng.bytes(n * np.dtype(dtype).itemsize), dtype).reshape(n, 1), shape)

        with jax.enable_x64(True):
            out = [np.asarray(x) for x in interpret(closed.jaxpr, closed.consts, inputs, draw, sent)]
        assert (out[0] + out[1] + out[2] == 7).all()
        assert (out[3] ^ out[4] ^ out[5] == 1).all()
        mine = [Sent(m.src, m.dst, 1 if m.data.dtype == np.uint8 else 64, m.data) for m in sent if m.dst == party]
        assert len(mine) == 4  # of two of the three steps, two operands each
        assert list(leaks(mine)) == []


# Comparisons -----------------------------------------------------------------------------------------


def _before(x: Sharing, y: Sharing, v: Sharing, w: Sharing) -> Sharing:
    """Of a bool, a long word and a short one."""

    def words_of(a: Sharing, b: Sharing) -> tuple[Sharing, ...]:
        return tuple(c.astype(np.uint8) & 1 for c in b), a, tuple(c.astype(np.uint32) for c in b)

    return before_aby3(words_of(x, y), words_of(v, w), "baa")


def test_every_message_of_a_comparison_is_masked() -> None:
    case = Case(Kernel("before", _before, "aaaa", "b"), (), 64)
    for party in range(3):
        assert list(leaks(seen_by(case, ABY3, {party}, samples=2048))) == []


def sorting(widths: Sequence[int], operands: int, wanted: Ranges = ()) -> Callable[..., Sequence[Value]]:
    def build(b: Builder, *xs: Value) -> list[Value]:
        return b.ops("sort", xs, widths=tuple(widths), wanted=wanted)

    return build


@pytest.mark.parametrize(
    ("protocol", "n"), [(ABY3, 40), (ABY3, 7), (ref2k(2), 40)], ids=lambda p: getattr(p, "name", p)
)
def test_words_decide_in_turn_and_parties_agree(protocol: Any, n: int) -> None:
    """Simulated and networked shares are the same; differences reach the whole width of their word."""
    rows = 3
    rng = np.random.default_rng(0)
    high = words([-(2**62), 2**62 - 1, 0, -1, 1])[rng.integers(0, 5, (rows, n))]
    low = np.stack([rng.permutation(n).astype(np.uint64) for _ in range(rows)])
    flags, payload = rng.integers(0, 2, (rows, n)).astype(np.uint8), random_words(rng, rows * n).reshape(rows, n)
    types = [type_of(e, (rows, n)) for e in ("bool", "fxp18", "int64", "fxp18", "bool", "int64")]
    made = module(sorting((1, 64, 7), 3), *types)
    got = both(made, protocol, [flags, high, low, high, flags, payload])
    order = np.lexsort((low, high.view(np.int64), flags), axis=-1)
    operands: tuple[Raw, ...] = (high, flags, payload)
    for found, operand in zip(got, operands):
        np.testing.assert_array_equal(found, np.take_along_axis(operand, order, 1))


def test_equal_keys_come_in_an_order_that_says_nothing() -> None:
    """What is opened, the order of the shuffled elements, is uniform whether keys are equal or not."""
    rows, n = 1200, 4
    position = np.broadcast_to(np.arange(n, dtype=np.uint64), (rows, n))
    made = expand(module(sorting((64, 8), 1), *[type_of("int64", (rows, n))] * 3), ABY3)
    for key in (np.zeros((rows, n), np.uint64), np.broadcast_to(words([3, 3, -1, 8]), (rows, n))):
        seen: list[Raw] = []

        def watched(*args: Any, seen: list[Raw] = seen) -> Raw:
            seen.append(ranking.ranking(*args))
            return seen[-1]

        with patch.object(executor, "ranking", watched):
            simulate(made, shared_inputs(made, [key, position, position]))
        counts = Counter(map(tuple, (seen[0].reshape(rows, n) % n).tolist()))
        assert len(counts) == 24
        assert sum((c - 50) ** 2 / 50 for c in counts.values()) < 65  # 23 degrees: once in 150,000


def test_the_rounds_do_not_depend_on_equal_keys() -> None:
    """Every party is sent as much for equal keys as for different ones, but for the chance of the shuffle."""
    n = 60
    made = expand(module(sorting((64, 8), 1), *[type_of("int64", (1, n))] * 3), ABY3)
    position = np.arange(n, dtype=np.uint64)[None]
    sent = []
    for key in (np.zeros((1, n), np.uint64), position[:, ::-1]):
        _, counters = network(made, shared_inputs(made, [key, position, position]))
        sent.append([c.rounds for c in counters])
    assert sent[0] == sent[1]  # the same streams draw the same shuffle, so here exactly


# From JAX --------------------------------------------------------------------------------------------

X = np.round(RNG.uniform(-50, 50, (4, 30)).astype(np.float32), 1)
SMALL = RNG.integers(-3, 4, (3, 25)).astype(np.int8)
BIG = np.array([2**63 - 1, -(2**63), 0, -1, 2**63 - 1, 5, -(2**63), 7], np.int64)
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (lambda x: (jnp.sort(x, 1), jnp.sort(x, 0, descending=True)), (X,)),
    "argsort": (lambda x, i: (jnp.argsort(x, 0), jnp.argsort(i, 1)), (X, SMALL)),
    "two keys": (lambda i, x: lax.sort((i, x, x > 0), num_keys=2), (SMALL[:2].reshape(-1), X.reshape(-1)[:50])),
    "bool key": (lambda x: lax.sort((x > 0, x), dimension=0, num_keys=1), (X,)),
    "int64": (lambda i: lax.sort((i, jnp.arange(8)), num_keys=1), (BIG,)),
    "uint64": (lambda i: jnp.sort(i), (BIG.view(np.uint64),)),
    "top_k": (lambda x, i: (lax.top_k(x, 4), lax.top_k(i, 2)), (X, SMALL)),
    "median": (lambda x: (jnp.median(x, 0), jnp.quantile(x, jnp.array([0.1, 0.77]), axis=1)), (X,)),
}


@pytest.mark.parametrize("protocol", ["aby3", "ref2k"])
@pytest.mark.parametrize("name", CASES)
def test_sorts_of_jax(name: str, protocol: str) -> None:
    f, args = CASES[name]
    with jax.enable_x64(True):
        want = f(*args)
        got = spu.reveal(spu.jit(f, protocol=protocol)(*args))
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=3e-5 if w.dtype.kind == "f" else 0)


BOOLS: Any = (X > 0, X, (7 * X).astype(np.int32) << 20, X > 9)


def by_bool(key: Any, *payload: Any) -> Any:
    return lax.sort((key, *payload), dimension=1, num_keys=1), jnp.sort(key, 1)


@pytest.mark.parametrize("machine", [{}, {"protocol": "semi2k"}, {"ring": 128}, {"ring": 32, "fxp_fraction_bits": 10}])
@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_bools_are_sorted_without_a_comparison(machine: dict[str, Any], rows: int) -> None:
    """By their places, opened once they are shuffled, or by a network: stable, exact for every payload."""
    args = [x[:, :rows] for x in BOOLS]
    f = spu.jit(by_bool, **machine)
    assert not {"less", "equal"} & {op.name for op in f.compile(*args).module.body.walk()}
    got = spu.reveal(f(*args))
    error = 2e-3 if machine.get("ring") == 32 else 3e-5
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(by_bool(*args)), strict=True):
        np.testing.assert_allclose(g, w, atol=error if w.dtype.kind == "f" else 0)


def test_places_are_opened_after_the_shuffle() -> None:
    program = spu.jit(by_bool).compile(*BOOLS)
    calls = [s for s in program.choreography.block.steps if isinstance(s, Call)]
    shuffles = [s for s in calls if s.spec.name == "shuffle"]
    opened = [s for s in calls if s.spec.name == "reveal_a"]
    assert len(shuffles) == len(opened) == 2
    for shuffle, reveal in zip(shuffles, opened):
        assert set(map(id, reveal.inputs)) <= set(map(id, shuffle.outputs))
    assert program.cost.rounds <= 8


def test_known_keys_are_sorted_where_they_are_known() -> None:
    """Public keys, or one party's, need no comparison: what they order may be secret."""

    def f(key: Any, x: Any) -> Any:
        return x[jnp.argsort(key)], lax.sort((key, x), num_keys=1)[1]

    key, x = SMALL[0].astype(np.float32), X.reshape(-1)[:25]
    program = spu.jit(f).compile(spu.public(key), spu.secret(x))
    assert program.cost.rounds == 0
    mine = spu.jit(f, protocol="semi2k").compile(spu.private(key, "party1"), spu.private(x, "party1"))
    assert mine.cost.rounds == 0
    got = spu.reveal(spu.jit(f, protocol="semi2k")(spu.public(key), x))
    for g, w in zip(got, f(key, x)):
        np.testing.assert_allclose(g, w, atol=3e-5)


WANTED: dict[str, tuple[Callable[..., Any], Ranges]] = {
    "median": (jnp.median, ((50, 51),)),
    "third smallest": (lambda x: jnp.sort(x)[2], ((2, 3),)),
    "ends": (lambda x: (jnp.sort(x)[:2], jnp.sort(x)[-1]), ((0, 2), (100, 101))),
    "all": (lambda x: jnp.sort(x) * 2, ()),
    "one of each row": (lambda x: jnp.sort(x.reshape(1, 101), 1)[:, 7], ((7, 8),)),
    "secret index": (lambda x: jnp.sort(x)[x[0].astype(jnp.int32)], ()),
    "reversed": (lambda x: jnp.sort(x)[::-1][:3], ((98, 101),)),
}


@pytest.mark.parametrize("name", WANTED)
def test_selection_seeks_what_is_read(name: str) -> None:
    f, wanted = WANTED[name]
    x = np.arange(101, dtype=np.float32)
    ops = [op for op in spu.jit(f).compile(x).module.body.walk() if op.name == "sort"]
    assert [op.attrs["wanted"] for op in ops] == [wanted]


def test_keys_of_any_word_are_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums beyond the range wrap around. What is opened is an order all the same: it does not say which did."""
    opened: list[dict[tuple[int, int], int]] = []

    def spying(rows: int, length: int, wanted: Any, compare: Any) -> Any:
        seen: dict[tuple[int, int], int] = {}
        opened.append(seen)

        def noted(first: Any, second: Any) -> Any:
            bits = compare(first, second)
            seen.update(((int(i), int(j)), int(b)) for i, j, b in zip(first, second, bits))
            return bits

        return ranking.ranking(rows, length, wanted, noted)

    monkeypatch.setattr("spuvm.runtime.machine.executor.ranking", spying)
    a = np.array([2**43.99, -(2**43.99), 1.0, 2.0, 3.0], np.float32)
    f = spu.jit(lambda a, b: spu.reveal(jnp.sort(a + b)[2]))
    for secret in (0.0, 3e11, 1e12, 2**43.99):
        f(a, np.array([secret, 0, 0, 0, -secret], np.float32))
        score = [0] * 5
        for (i, j), first in opened[-1].items():
            score[j if first else i] += 1
        assert sorted(score) == list(range(5))
