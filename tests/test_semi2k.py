"""SEMI2K: the same programs among any number of parties, the dealer as one more rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import (
    assert_cost,
    assert_same_shares,
    both,
    cases,
    kernel_choreography,
    key,
    module,
    predicted_cost,
    run_parties,
    shapes_of,
    signed,
    split,
    type_of,
    values,
)

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.compiler.project.kernels import plan
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.protocols.algebra import Summands
from spuvm.runtime.protocols.dealt import semi2k, semi2k_first_party_unsafe
from spuvm.runtime.protocols.preprocessing import Source, Triple
from spuvm.runtime.protocols.protocol import KEYED
from spuvm.runtime.protocols.semi2k import among
from spuvm.runtime.ring import bits as bt

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
    components = [c for port, raw in zip(ports, raws) for c in split(raw, port.kind, Summands(len(port.slots)), rng)]
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


def test_the_dealer_keeps_nothing_that_it_has_put() -> None:
    program = spu.jit(PROGRAMS["functions"][0], protocol="semi2k").compile(X, Y)
    (step,) = program.party(2).block.steps
    rounds = [r for r in step.rounds if r.sends]
    assert rounds
    for round_ in rounds:
        assert round_.passing == {m.register for ms in round_.sends.values() for m in ms}
    (step,) = program.party(0).block.steps  # a party adds what it opened to what it kept
    assert any(not r.passing for r in step.rounds if r.sends)


def test_one_party_is_too_few() -> None:
    with pytest.raises(ConfigError, match="two"):
        spu.jit(lambda x: x, protocol="semi2k", world_size=1)


# What the dealer sends ------------------------------------------------------------------------------------

# Bits per element, of a word of 64, to the last party: what is made up of others is counted as such.
DEALT: dict[str, Callable[..., int]] = {
    "mul_aa": lambda: 64,
    "square_a": lambda: 64,
    "square_trunc_a": lambda bits: 64 + _truncation(bits),
    "mul_trunc_aa": lambda bits: 64 + _truncation(bits),
    "product_vma": lambda owner: 64,
    "mul_trunc_vma": lambda owner, bits: 64 + _truncation(bits),
    "trunc_a": lambda bits: _truncation(bits),
    "and_bb": lambda bits: bits,
    "bit2a": lambda ring: ring,
    "msb_a": lambda: 64 + 32 + 32 + 16 + 8 + 4 + 1,  # a mask's bits, and their products in pairs; of the last one half
    **{f"below_a{'p' * n}": lambda n=n: 64 + 32 + n * 61 for n in (2, 3, 4)},
    "eqz_a": lambda: 63,
    "keyed_msb_a": lambda: 2 * 128 * 57 + 1,  # to both a block for each of 56 bits, one for 7; the first bit
    **{f"keyed_below_a{'p' * n}": lambda: 2 * 128 * 57 + 1 for n in (2, 3, 4)},
    "keyed_eqz_a": lambda: 2 * 128 * 58,
    "prefix_or_b": lambda: 6 * 32,
    "a2b": lambda: 64 + 32 + 4 * 64 + 32,
    "b2a": lambda: 64 + 64 + 5 * 64 + 32,
    "reshare_d": lambda: 0,
    "mask_v": lambda owner, ring: 0,
    "share_v": lambda owner: 0,
    "share_vb": lambda owner, bits: 0,
    "reveal_a": lambda: 0,
    "reveal_b": lambda bits: 0,
    "reveal_a_to": lambda owner: 0,
    "reveal_b_to": lambda owner, bits: 0,
    "tell_p": lambda: 0,
}
SAME = {"product_aa": "mul_aa", "square_d": "square_a", "trunc_d": "trunc_a", "mul_vma": "product_vma"}


def _truncation(bits: int) -> int:
    """A word, and the top bit as a number modulo 2^(bits + 1) at least."""
    return 64 + (32 if bits < 32 else 64)


def test_all_parties_but_the_last_have_a_seed() -> None:
    """The dealer's messages go to the last party; as many bits as the table says, however many parties there are."""
    for n in (2, 3, 5):
        protocol = semi2k(n)
        seen = set()
        for case in cases(protocol):
            owner = dict(case.params).get("owner", 0)
            if owner >= n or not case.kernel.elementwise:
                continue
            choreography = kernel_choreography(case, protocol, shapes_of(case, 1000))
            (call,) = choreography.block.steps
            made = plan(call.spec, 64)  # type: ignore[union-attr]
            keyed = case.kernel.name.startswith(KEYED)  # keys go to both
            assert {s.dst for s in made.sent if s.src == n} <= ({0, 1} if keyed else {n - 1}), case
            assert case.kernel.name == "tell_p" or all(s.dst != n for s in made.sent), case
            assert all(s.stage == 0 for s in made.sent if s.src == n), case  # it waits for nothing
            name = SAME.get(case.kernel.name, case.kernel.name)
            seen.add(name)
            if n == 2 or name != "eqz_a":  # two parties compare their components
                sent = predicted_cost(choreography, n + 1).bytes_sent[n]
                assert sent == 125 * DEALT[name](**dict(case.params)), case
        assert seen == {name for name in DEALT if n == 2 or not name.startswith(KEYED)}


@pytest.mark.parametrize("n", [2, 3])
def test_matrices_and_convolutions_cost_the_dealer_their_result(n: int) -> None:
    def cost(f: Any, *shapes: tuple[int, ...]) -> list[int]:
        with jax.enable_x64(True):
            sent = spu.jit(f, protocol="semi2k", world_size=n).cost(
                *(jax.ShapeDtypeStruct(s, np.int64) for s in shapes)
            )
            return list(sent.bytes_sent.tolist())

    assert cost(lambda x, y: x @ y, (20, 30), (30, 7)) == [8 * (n - 1) * (600 + 210)] * n + [8 * 140]
    assert cost(lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID"), (1, 2, 9, 9), (3, 2, 3, 3))[n] == 8 * 3 * 7 * 7
    assert cost(lambda x: x * x, (1000,)) == [8000 * (n - 1)] * n + [8000]
    assert cost(lambda x: x * (x + 1), (1000,)) == [16000 * (n - 1)] * n + [8000]


def test_a_square_opens_one_value() -> None:
    v = np.array([-(2**31), -3, 0, 5, 2**31 - 1], np.int32)
    np.testing.assert_array_equal(spu.reveal(spu.jit(lambda x: x * x, protocol="semi2k")(v)), v * v)
    shown = spu.reveal(spu.jit(lambda x: jnp.sum(x * x) + x**2, protocol="semi2k", world_size=3)(X))
    np.testing.assert_allclose(shown, np.sum(X * X) + X**2, rtol=1e-5)


# Public control -------------------------------------------------------------------------------------------


def _while(x: Any, y: Any) -> Any:
    def small(s: Any) -> Any:
        return spu.reveal(jnp.sum(s[0]) < 100.0)

    return jax.lax.while_loop(small, lambda s: (s[0] * 1.5 + y, s[1] + 1), (x, jnp.int32(0)))


def _switch(x: Any, y: Any) -> Any:
    return jax.lax.switch(
        spu.reveal(jnp.argmax(x)) - 1, [lambda a: a * y, lambda a: a + y, lambda a: a * a * y, lambda a: a], x
    )


def _nested(x: Any, y: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        more = spu.reveal(jnp.sum(c) < 60.0)
        return jax.lax.cond(more, lambda a: a * y, lambda a: a, c), None

    return jax.lax.scan(body, x, None, length=4)[0]


@pytest.mark.parametrize("function", [_while, _switch, _nested])
@pytest.mark.parametrize(("n", "others"), [(2, ()), (3, ("zoe",))])
def test_the_dealer_follows_public_control(function: Any, n: int, others: tuple[str, ...]) -> None:
    """It is told by party 0, in as few bytes as say which way; all shares are the simulator's."""
    x, y = np.array([1.0, 5, 2], np.float32), np.array([2.0, 3, 4], np.float32)
    config = Config("semi2k", 64, 18, ("alice", "bob", "carol")[:n], others)
    program = compile_function(function, (x, y), ("secret", "secret"), config)
    ports = program.choreography.inputs
    rng = np.random.default_rng(1)
    raws = [np.rint(v * 2.0**18).astype(np.int64).view(np.uint64) for v in (x, y)]
    components = [c for port, raw in zip(ports, raws) for c in split(raw, port.kind, Summands(len(port.slots)), rng)]
    slots = [s for port in ports for s in port.slots]
    whole = Executor(Streams(key, None)).run(program.party(None), components)
    dealer = n + len(others)

    def party(rank: int, link: Any) -> Any:
        mine = [c if rank in s.holders else None for c, s in zip(components, slots)]
        return Executor(Streams(key, rank), link).run(program.party(rank), mine), link.counters

    results = run_parties(party, n=dealer + 1)
    assert_same_shares(program.choreography, whole, [r for r, _ in results])
    told = {_while: 5, _switch: 4, _nested: 16}[function]  # a byte a test, or a number of 4
    assert results[dealer][1].bytes_received == {r: told * (r == 0) for r in range(dealer)}
    want = jax.tree.leaves(jax.jit(lambda x, y: _in_the_clear(function, x, y))(x, y))
    for got, w in zip(values(program.choreography, whole), want, strict=True):
        scale = 1 if w.dtype == np.int32 else 2.0**18
        np.testing.assert_allclose(signed(got) / scale, w, rtol=1e-4)


def _in_the_clear(function: Any, x: Any, y: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spu, "reveal", lambda x: x)
        return function(x, y)


def test_the_dealer_is_not_told_what_it_does_not_need() -> None:
    def local(x: Any) -> Any:
        shown = spu.reveal(jnp.sum(x))
        return jax.lax.cond(shown > 0, lambda a: a + 1, lambda a: a - 1, x), jax.lax.while_loop(
            lambda v: v < 100, lambda v: v + v, jnp.abs(shown) + 1
        )

    program = spu.jit(local, protocol="semi2k").compile(np.array([1, 2, 3], np.int32))
    assert "tell_p" not in str(program.emit("choreography"))


# Other sources --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["comparison", "functions", "division", "sort", "matrices"])
def test_the_first_party_as_the_dealer(name: str) -> None:
    fn, tolerance = PROGRAMS[name]
    jitted = spu.jit(fn, protocol="semi2k_first_party_unsafe", world_size=2 + (name == "comparison"))
    assert len(jitted.cost(X, Y).parties) == 2 + (name == "comparison")
    for got, want in zip(
        jax.tree.leaves(spu.reveal(jitted(X, Y))), jax.tree.leaves(fn(jnp.asarray(X), jnp.asarray(Y)))
    ):
        assert np.abs(np.asarray(got, float) - np.asarray(want, float)).max() <= tolerance


def test_the_first_party_is_never_the_dealer_by_default() -> None:
    assert "UNSAFE" not in semi2k(2).security
    assert semi2k(2).dealer == 2
    unsafe = semi2k_first_party_unsafe(2)
    assert "UNSAFE: party 0, the dealer, can compute every secret" in unsafe.security
    assert unsafe.dealer is None
    assert "tell_p" not in unsafe.kernels


class _Zeros(Source):
    """Right and useless: every sharing is of zeros, and known to all."""

    name = "zeros"
    rank = None

    def _zero(self, like: Any) -> Any:
        return (bt.zeros_like(like),) * self.n

    def triple(self, x: Any, y: Any, times: Any) -> Triple:
        return Triple(self._zero(x), self._zero(y), self._zero(times(x, y)))

    def square(self, like: Any) -> Any:
        return self._zero(like), self._zero(like)

    def mask(self, owner: int, like: Any) -> Any:
        return bt.zeros_like(like)

    def knows_mask(self, owner: int) -> frozenset[int]:
        return frozenset(range(self.n))

    def times_mask(self, a: Any, owner: int, y: Any, times: Any) -> Any:
        return self._zero(y), self._zero(times(bt.zeros_like(a), bt.zeros_like(y)))

    def truncation(self, like: Any, bits: int) -> Triple:
        top = self._zero(bt.cast(like, max(bits + 1, 32)))
        return Triple(self._zero(like), self._zero(like), top)

    def conjunction(self, like: Any, bits: int) -> Triple:
        return Triple(*(self._zero(like),) * 3)

    def doubly_shared(self, like: Any) -> Any:
        return self._zero(like), self._zero(like)

    def bit(self, like: Any, ring: int) -> Any:
        return self._zero(like), self._zero(bt.cast(like, ring))


@pytest.mark.parametrize("n", [2, 3])
def test_another_source_is_one_more_class(n: int) -> None:
    protocol = among(_Zeros(n), "semi2k of zeros", "no security at all")
    x, y = np.array([3, -5, 2**40, 0], np.int64).view(np.uint64), np.array([7, 9, -3, 1], np.int64).view(np.uint64)

    def build(b: Any, x: Any, y: Any) -> Any:
        return b.mul(x, y), b.op("less", x, y), b.mul(x, x)

    product, less, square = both(module(build, *[type_of("int64", (4,))] * 2), protocol, [x, y])
    np.testing.assert_array_equal(signed(product), signed(x) * signed(y))
    np.testing.assert_array_equal(less, signed(x) < signed(y))
    np.testing.assert_array_equal(signed(square), signed(x) ** 2)
