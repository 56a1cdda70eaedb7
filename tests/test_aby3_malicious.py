"""ABY3 with a party that may deviate: programs run on it, and whatever one does, nobody is shown a wrong result."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deviations import MANIPULATIONS, Deviations, dropped, flipped
from machine import (
    assert_cost,
    assert_same_shares,
    cases,
    interpret,
    network,
    predicted_cost,
    random_operands,
    shapes_of,
    simulate,
    split,
    traced,
    values,
)
from test_protocols import assert_right

import spuvm as spu
from spuvm.compiler.expand.choreography import Check, Loop
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError, DeviationError
from spuvm.runtime.machine import claims, proofs
from spuvm.runtime.machine.proofs import Proofs
from spuvm.runtime.protocols.aby3.malicious import ABY3_MALICIOUS
from spuvm.runtime.protocols.registered import protocol_of, secured
from spuvm.runtime.protocols.sharings import reconstruct
from spuvm.runtime.ring.extension import MOST_ROWS, Field, Galois

X = np.array([1.5, -2.25, 0.5, 3.0, 0.0, 1.0, -1.0, 8.0], np.float32)
Y = np.array([0.75, 4.0, 0.5, -1.0, 1.0, 1.0, 2.0, 0.25], np.float32)


def small(x: Any, y: Any) -> Any:
    """Products, truncations, comparisons, selections, bits, matrices; two reveals, the second of what came later."""
    z = x * y
    first = spu.reveal(jnp.where(x < y, z, y))
    outer = x.reshape(4, 2) @ y.reshape(2, 4)
    return first, spu.reveal(z == x), spu.reveal((z + x).sum()), outer


@cache
def deviations() -> Deviations:
    return Deviations(small, (X, Y), "aby3_malicious", ABY3_MALICIOUS.algebra, 3)


def test_simulated_and_networked_are_the_same() -> None:
    made, inputs = deviations().made, deviations().inputs
    whole = simulate(made, inputs)
    parties, counters = network(made, inputs, n=3)
    assert_same_shares(made, whole, parties)
    assert_cost(predicted_cost(made, 3), counters)
    first, same, total, outer = values(made, whole, ABY3_MALICIOUS.algebra)
    np.testing.assert_allclose(first.view(np.int64) * 2.0**-18, np.where(X < Y, X * Y, Y), atol=1e-5)
    np.testing.assert_array_equal(same, X * Y == X)
    np.testing.assert_allclose(total.view(np.int64) * 2.0**-18, (X * Y + X).sum(), atol=1e-4)
    np.testing.assert_allclose(outer.view(np.int64) * 2.0**-18, X.reshape(4, 2) @ Y.reshape(2, 4), atol=1e-5)


@pytest.mark.parametrize("manipulate", MANIPULATIONS, ids=lambda f: f.__name__)
def test_every_changed_message_stops_all_before_a_wrong_result(manipulate: Any) -> None:
    step = 1 if manipulate is flipped else 6
    chosen = deviations().messages[MANIPULATIONS.index(manipulate) % step :: step]
    assert sum(not deviations().unseen(cheater, at, manipulate) for cheater, at in chosen) > 20


def test_a_dropped_message_stops_all() -> None:
    chosen = deviations().messages[1::40]
    assert sum(not deviations().unseen(cheater, at, dropped) for cheater, at in chosen) > 0


def test_what_a_liar_is_told_is_random_to_it() -> None:
    """What others make of lies in openings may depend on secrets, and is hidden. Errors in products are sharings of
    something else, which the liar knows: they need not be."""
    lies = Deviations(
        lambda x, y: x @ y, (X.reshape(2, 4), Y.reshape(4, 2)), "aby3_malicious", ABY3_MALICIOUS.algebra, 3
    )
    for cheater in range(3):
        hidden = [lies.hidden(cheater, at) for at in range(lies.run(cheater, -1)[1].count)]
        assert sum(hidden) >= 4, hidden
        assert hidden[-5]  # the reveal, before what is told, twice to both others


def test_long_arrays_are_proved_as_short_ones_are() -> None:
    arguments = np.resize(X, 1500), np.resize(Y, 1500)
    long = Deviations(lambda x, y: x * y < x, arguments, "aby3_malicious", ABY3_MALICIOUS.algebra, 3)
    for cheater in range(3):
        _, cheat = long.run(cheater, -1)
        for at in range(0, cheat.count, 6):
            assert not long.unseen(cheater, at, flipped)


@pytest.mark.parametrize(("how", "over"), [("mul", Galois), ("and", Field)])
def test_an_error_made_up_for_in_its_proof_is_noticed(how: str, over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows the first weights tells of its row what a wrong product asks for: only the second check fails."""
    cheater, wrong, checked = 1, np.array([[1 << 63]], np.uint64), []
    add, met, check = Proofs.add, proofs._Words.met, proofs._Words.check
    first = {cheater: 4, cheater - 1: 5}  # by party, where component 1 of the product is

    def added(self: Proofs, claim: Any, components: Any) -> None:
        components = [np.array(c) for c in components]
        if claim.how == how and components[0].dtype == np.uint64 and self.rank in first:
            components[first.pop(self.rank)].flat[0] ^= wrong[0, 0]
        add(self, claim, components)

    def told(self: Any, coin: Any) -> Any:
        mine = met(self, coin)
        if self._p.rank == cheater and isinstance(self._over, over) and self._over.dtype == np.uint64:
            mine[0, 0] = self._over.add(mine[0, 0], self._over.weighed(wrong, self._weights[:1])[0])
        return mine

    def reached(self: Any, opened: Any) -> None:
        checked.append(self._p.rank)
        check(self, opened)

    run = Deviations(lambda x, y: x * y, (X, Y), "aby3_malicious", ABY3_MALICIOUS.algebra, 3)
    monkeypatch.setattr(Proofs, "add", added)
    monkeypatch.setattr(proofs._Words, "met", told)
    monkeypatch.setattr(proofs._Words, "check", reached)
    results, _ = run.run(cheater, -1)
    assert not first
    assert set(checked) == {0, 1, 2}
    assert all(isinstance(results[rank], DeviationError) for rank in (0, 2))


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in cases(ABY3_MALICIOUS)])
def test_meaning(case: Any) -> None:
    """Every kernel over all components, sends and randoms taken literally, against integers."""
    shapes = shapes_of(case, 96)
    operands = random_operands(case, shapes)
    rng = np.random.default_rng(2)
    components = []
    for kind, x in zip(case.kernel.inputs, operands):
        components += split(x, kind, ABY3_MALICIOUS.algebra, rng, case.width)

    def draw(holders: Any, shape: Any, dtype: Any) -> Any:
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)

    with jax.enable_x64(True):
        closed = traced(case, ABY3_MALICIOUS, shapes)
        out = interpret(closed.jaxpr, closed.consts, components, draw, [])
    assert_right(case, operands, reconstruct(ABY3_MALICIOUS.algebra, case.kernel.output, out))


@pytest.mark.parametrize(("how", "bits"), [("mul", 32), ("mul", 64), ("and", 64)])
def test_all_products_have_a_place(how: str, bits: int) -> None:
    for products in (1, 15, 16, 100, 10**4, 2**20 - 1, 2**20, 10**7):
        sizes = claims.batches(products)
        assert sum(sizes) == products
        for batch in set(sizes):
            table = claims.table_of(how, bits, batch)
            assert table.rows * table.n >= batch
            assert table.rows <= MOST_ROWS


def descent(x: Any, y: Any) -> Any:
    def step(w: Any, _: Any) -> Any:
        return w - 0.125 * x.T @ (x @ w - y), w > 0

    return jax.lax.scan(step, jnp.zeros(8), None, length=3)


def shown(x: Any, y: Any) -> Any:
    """Each trip reveals what the one before multiplied, and multiplies once more; so does what comes after."""
    z, seen = jax.lax.scan(lambda z, _: (z * y[:, 0], spu.reveal(z)), x[:, 0] * x[:, 1], None, length=2)
    return seen, jax.lax.cond(spu.reveal(z.sum() > 0), lambda: z * z, lambda: z)


@pytest.mark.parametrize(("program", "within"), [(descent, False), (shown, True)])
def test_loops_are_proved_before_what_they_show(program: Any, within: bool) -> None:
    """Trip by trip if they show anything, else once, at their end."""
    arguments = (X.reshape(4, 2), Y.reshape(4, 2)) if within else (np.resize(X, (4, 8)), Y[:4])
    loop = Deviations(program, arguments, "aby3_malicious", ABY3_MALICIOUS.algebra, 3)
    (step,) = [s for s in loop.made.block.walk() if isinstance(s, Loop)]
    assert isinstance(step.body.steps[-1], Check) == within
    _, counters = network(loop.made, loop.inputs, n=3)
    if (predicted := predicted_cost(loop.made, 3)).exact:
        assert_cost(predicted, counters)
    for cheater in range(3):
        _, cheat = loop.run(cheater, -1)
        chosen = range(cheater, cheat.count, 9)
        missed = sum(loop.unseen(cheater, at, flipped, padded=within) for at in chosen)
        assert missed <= within * len(chosen) // 2


def test_one_setting() -> None:
    names = ["alice", "bob", "carol"]
    spu.init(parties=names, address="local")
    device = spu.SPU(spu.utils.testing.cluster_def(names), security="malicious")
    assert "may deviate" in device.security
    x = spu.PYU("alice")(lambda: np.array([1.5, -2.0], np.float32))()
    y = spu.PYU("carol")(lambda: np.array([4.0, 0.5], np.float32))()
    product, less = spu.reveal(device(lambda a, b: (a * b, a < b))(x, y))
    np.testing.assert_allclose(product, [6.0, -1.0], atol=1e-4)
    assert less.tolist() == [True, True]


def test_who_has_the_setting() -> None:
    assert secured("aby3", "malicious") == "aby3_malicious"
    assert secured("rep4", "malicious") == "rep4"
    assert secured("aby3_malicious", "semi-honest") == secured("aby3", None) == "aby3"
    with pytest.raises(ConfigError, match="'semi2k' does not hold against parties that deviate"):
        secured("semi2k", "malicious")
    with pytest.raises(ConfigError, match="must be 'semi-honest' or 'malicious'"):
        secured("aby3", "covert")
    with pytest.raises(ConfigError, match="rings of 32 and 64 bits"):
        protocol_of(Config("aby3_malicious", ring_bits=128, fxp_fraction_bits=26))
    with pytest.raises(ConfigError, match="no others"):
        protocol_of(Config("aby3_malicious", others=("dave",)))


def test_large_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted is what is sent, and what one of them has wrong is noticed."""
    monkeypatch.setattr(claims, "BATCH", 100)
    arguments = np.resize(X, 200), np.resize(Y, 200)
    cut = Deviations(lambda x, y: x * y, arguments, "aby3_malicious", ABY3_MALICIOUS.algebra, 3)
    _, counters = network(cut.made, cut.inputs, n=3)
    predicted = predicted_cost(cut.made, 3)
    assert_cost(predicted, counters)
    assert claims.batches(201) == [101, 100]
    assert predicted.rounds > 20
    _, cheat = cut.run(1, -1)
    for at in range(0, cheat.count, 4):
        assert not cut.unseen(1, at, flipped)
