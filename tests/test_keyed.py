"""Comparisons by keys: what keys give and hide, natively, by arithmetic and by XLA; chosen where links are slow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from machine import (
    Case,
    assert_cost,
    both,
    cases,
    kernel_choreography,
    network,
    random_operands,
    shared_inputs,
    simulate,
)

import spuvm as spu
from spuvm.compiler.assemble.assemble import assemble
from spuvm.compiler.leakage.statement import failures
from spuvm.compiler.project.kernels import plan
from spuvm.compiler.quickest import weighed
from spuvm.runtime.engine import tier
from spuvm.runtime.engine.check import BadCode, check
from spuvm.runtime.engine.code import Loop
from spuvm.runtime.engine.keyed import make_keys, read_key
from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.dealer import Dealer
from spuvm.runtime.protocols.dealt import semi2k, semi2k_first_party_unsafe
from spuvm.runtime.protocols.preprocessing import total
from spuvm.runtime.protocols.protocol import KEYED, Kernel
from spuvm.runtime.ring import fixed_key, keyed, native
from spuvm.runtime.ring.keyed import COMPARISONS, Comparison

rng = np.random.default_rng(22)
EACH = [pytest.param(of, id=f"{of.relation}{of.bits}") for of in COMPARISONS]
KERNELS = [c for c in cases(semi2k(2)) if c.kernel.name.startswith(KEYED)]


def words(n: int) -> Any:
    return np.frombuffer(rng.bytes(8 * n), np.uint64)


@contextmanager
def by_arithmetic() -> Iterator[None]:
    """AES without the processor's instructions."""
    lib = native.library()
    if lib is None:
        pytest.skip("there is no native library")
    lib.spuvm_keyed_by_arithmetic(1)
    try:
        yield
    finally:
        lib.spuvm_keyed_by_arithmetic(0)


def thresholds(of: Comparison, n: int) -> tuple[Any, Any]:
    """r, and c beside it, equal to it, one bit from it, or anywhere; the edges of the range first."""
    most = np.uint64((1 << of.bits) - 1)
    r, c = words(n) & most, words(n) & most
    near = r.copy()
    near[::3] += np.uint64(1)
    near[1::3] ^= np.uint64(1) << rng.integers(0, of.bits, len(near[1::3]), np.uint64)
    c[::2] = near[::2] & most
    r[:6], c[:6] = [0, 0, most, most, 1, most - np.uint64(1)], [0, most, 0, most, 0, most]
    return r, c


def compared(r: Any, c: Any, of: Comparison, roots: tuple[Any, Any]) -> Any:
    with jax.enable_x64(True):
        key = make_keys(r, roots, of)
        return np.asarray(key), [np.asarray(read_key(c, key, root, of, i)) for i, root in enumerate(roots)]


def test_the_permutation_is_aes() -> None:
    x = words(2 * 5).reshape(5, 2)
    cipher = Cipher(algorithms.AES(fixed_key.KEY), modes.ECB()).encryptor()
    want = np.frombuffer(cipher.update(x.tobytes()), np.uint64).reshape(5, 2)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(fixed_key.permuted(jnp.asarray(x)), want)


@pytest.mark.parametrize("of", EACH)
def test_shares_of_the_comparison(of: Comparison) -> None:
    for n in (1, 7, 8, 1003):
        r, c = thresholds(of, max(n, 6))
        r, c = r[:n], c[:n]
        _, shares = compared(r, c, of, (words(2 * n), words(2 * n)))
        np.testing.assert_array_equal(shares[0] ^ shares[1], c < r if of.relation == "less" else c == r)


@pytest.mark.parametrize("of", EACH)
def test_the_same_bits_without_instructions(of: Comparison) -> None:
    r, c = thresholds(of, 11)
    roots = words(22), words(22)
    usual = compared(r, c, of, roots)
    with by_arithmetic():
        np.testing.assert_equal(compared(r, c, of, roots), usual)


def test_the_definition_gives_the_same_bits() -> None:
    """XLA's form, which is the definition; of the other relation below, in a stage."""
    if native.library() is None:
        pytest.skip("there is no native library")
    of = COMPARISONS[1]
    r, c = thresholds(of, 9)
    roots = words(18), words(18)
    key, shares = compared(r, c, of, roots)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(keyed.make, static_argnums=2)(r, roots, of), key)
        for i, share in enumerate(shares):
            got = jax.jit(keyed.read, static_argnums=(3, 4))(c, key, roots[i], of, i)
            np.testing.assert_array_equal(got, share)


def test_known_answers() -> None:
    """Other keys would make parties of different versions give noise."""
    r, roots = np.arange(3, dtype=np.uint64) << np.uint64(30), (np.arange(6, dtype=np.uint64), np.full(6, 7, np.uint64))
    found = hashlib.sha256()
    for of in COMPARISONS:
        key, shares = compared(r, r + np.uint64(1), of, roots)
        found.update(key.tobytes() + shares[0].tobytes() + shares[1].tobytes())
    assert found.hexdigest() == "da95994becfdc3b96263eae42e233426ef372429aa43732b86817e56426aa447"


@pytest.mark.parametrize("of", EACH)
def test_a_key_says_nothing_of_the_threshold(of: Comparison) -> None:
    """Of keys with the same r and the same root of one party, every bit, and every pair of words, is fair."""
    n = 4096
    for party in (0, 1):
        roots = [words(2 * n), words(2 * n)]
        roots[party] = np.tile(roots[party][:2], n)
        key, _ = compared(np.full(n, 5 << 20, np.uint64), np.zeros(n, np.uint64), of, (roots[0], roots[1]))
        table = key.reshape(n, of.words)
        for columns in (table, table ^ np.roll(table, 1, 1), table ^ np.roll(table, 2, 1)):
            ones = np.unpackbits(np.ascontiguousarray(columns).view(np.uint8), axis=1).sum(0, dtype=np.int64)
            assert np.abs(ones - n / 2).max() < 7 * np.sqrt(n) / 2


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_simulated_as_parties_and_as_predicted(case: Any) -> None:
    protocol = semi2k(2)
    shapes = [(70,)] + [()] * (len(case.kernel.inputs) - 1)
    operands = random_operands(case, shapes, seed=5)
    (got,) = both(kernel_choreography(case, protocol, shapes), protocol, operands, case.width)
    x: Any = operands[0].view(np.int64)
    name = case.kernel.name.removeprefix(KEYED).rstrip("p")
    with np.errstate(over="ignore"):
        want = x < 0 if name == "msb_a" else x == 0
        if name == "below_a":
            want = sum((x - y.view(np.int64) < 0).astype(int) << i for i, y in enumerate(operands[1:]))
    np.testing.assert_array_equal(got, want)


def test_one_round_and_a_word_to_each_party() -> None:
    for case in KERNELS:
        (call,) = kernel_choreography(case, semi2k(2), [(64,)] * len(case.kernel.inputs)).block.steps
        made = plan(call.spec, 64)  # type: ignore[union-attr]
        assert made.rounds == 1
        assert [(s.src, s.dst, s.shape) for s in made.sent if s.src != 2] == [(0, 1, (64,)), (1, 0, (64,))]


def test_the_checker_proves_them() -> None:
    """Masked by a root that a party lacks; and not if one root were used twice, or known."""
    for protocol in (semi2k(2), semi2k_first_party_unsafe(2)):
        for case in KERNELS:
            (call,) = kernel_choreography(case, protocol, [(64,)] * len(case.kernel.inputs)).block.steps
            for coalition in protocol.coalitions:
                assert failures(call.spec, coalition) == ()  # type: ignore[union-attr]


def test_the_checker_refuses_a_root_that_is_used_twice() -> None:
    source, of = Dealer(2, 2), Comparison("equal", 64)

    def kernel(x: Any, *, times: int) -> Any:
        roots = tuple(random({i, 2}, (2 * x[0].size,), np.uint64) for i in (0, 1))
        out = [jnp.zeros(x[0].shape, jnp.uint8)] * 2
        for _ in range(times):
            r = source.random(x[0])
            common = make_keys(total(r), (roots[0], roots[1]), of)
            common = send(send(common, 2, 0), 2, 1)
            opened = send(x[0] + r[0], 0, 1)
            out = [o ^ read_key(opened, common, root, of, i) for i, (o, root) in enumerate(zip(out, roots))]
        return tuple(out)

    for times in (1, 2):
        case = Case(Kernel("twice", kernel, "a", "b"), (("times", times),), 1)
        (call,) = kernel_choreography(case, semi2k(2), [(64,)]).block.steps
        assert bool(failures(call.spec, frozenset({1}))) == (times == 2)  # type: ignore[union-attr]


def test_xla_runs_them_too() -> None:
    (case,) = (c for c in cases(semi2k(2), 32) if c.kernel.name == KEYED + "eqz_a")
    choreography = kernel_choreography(case, semi2k(2), [(3,)])
    inputs = shared_inputs(choreography, [np.array([0, 1, 2**31], np.uint32)])
    usual = simulate(choreography, inputs)
    with tier.use("xla"):
        np.testing.assert_equal(simulate(choreography, inputs), usual)


def test_code_that_would_read_beyond_a_key_is_refused() -> None:
    """The engine trusts what passed: a key in a word's place, a part of a key, one element for all."""
    of, n = COMPARISONS[3], 64

    def read(c: Any, key: Any, root: Any) -> Any:
        return read_key(c, key, root, of, 0)

    with jax.enable_x64(True):
        avals = [jax.ShapeDtypeStruct((n * words,), np.uint64) for words in (1, of.words, 2)]
        code = assemble(jax.make_jaxpr(read)(*avals).jaxpr, (), [False] * 3, scales=True)
    (loop,) = code.segments
    assert isinstance(loop, Loop)
    (step,) = loop.code
    c, key, root = step.operands
    for operands in (
        (key, c, root),
        (c, root, key),
        (c, key._replace(step=8), root),
        (c, key._replace(mode="scalar"), root),
    ):
        wrong = step._replace(operands=operands)
        with pytest.raises(BadCode):
            check(replace(code, segments=(loop._replace(code=(wrong,)),)))


# Chosen ---------------------------------------------------------------------------------------------------------


def _less(x: Any, y: Any) -> Any:
    return x < y


def test_few_elements_take_one_round_and_many_the_circuit() -> None:
    few, many = jnp.zeros(100, jnp.float32), jax.ShapeDtypeStruct((50_000,), np.float32)
    usual = {n: spu.jit(_less, protocol="semi2k").cost(x, x).rounds for n, x in ((100, few), (50_000, many))}
    quick = spu.jit(_less, protocol="semi2k", optimize="latency")
    assert usual[100] == usual[50_000] == quick.cost(many, many).rounds == 6
    assert quick.cost(few, few).rounds == 1
    assert spu.jit(_less, protocol="semi2k", optimize="bandwidth").cost(few, few).rounds == 6
    assert spu.jit(_less, protocol="semi2k", world_size=3, optimize="latency").cost(few, few).rounds > 1
    assert weighed("auto") is None


@pytest.mark.parametrize("ring", [32, 64, 128])
def test_programs_give_the_same(ring: int) -> None:
    x = np.array([0.5, -1.25, 3.0, 0.0, 2.5, -0.5, 1e-2], np.float32)
    y = np.array([0.5, 2.0, -3.0, 0.0, 2.25, -0.75, 0.0], np.float32)

    def f(x: Any, y: Any) -> Any:
        return x < y, x == y, jnp.where(x > y, x, y), jnp.clip(x, -0.75, 2.75), jnp.argmax(x)

    options: Any = {"protocol": "semi2k", "ring": ring, "optimize": "latency"}
    for got, want in zip(spu.reveal(spu.jit(f, **options)(x, y)), f(x, y)):
        np.testing.assert_allclose(np.asarray(got, float), np.asarray(want, float), atol=2**-7)


def test_scalars_and_no_elements() -> None:
    for shape in ((), (0,), (2, 0), (2, 3)):
        x, y = np.full(shape, 1.5, np.float32), np.full(shape, 2.5, np.float32)
        got = spu.reveal(spu.jit(_less, protocol="semi2k", optimize="latency")(x, y))
        assert np.asarray(got).shape == shape
        assert np.asarray(got).all()


def test_parties_and_dealer_exchange_what_is_predicted() -> None:
    """A program with both kinds of comparison, one of them in a loop."""
    x = np.linspace(-2, 2, 40, dtype=np.float32)

    def f(x: Any) -> Any:
        return jax.lax.fori_loop(0, 2, lambda _, z: jnp.where(z < 0, z + 1, z), x), jnp.sort(x[:4])

    program = spu.jit(f, protocol="semi2k", optimize="latency").compile(x)
    inputs = shared_inputs(program.choreography, [np.rint(x * 2.0**18).astype(np.int64).view(np.uint64)])
    _, counters = network(program.choreography, inputs, n=3)
    assert_cost(program.cost, counters)
