"""Private values masked at the other parties: products with secrets, alone and from call to call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import Raw, both, module, predicted_cost, signed, type_of

import spuvm as spu
from spuvm.compiler.expand import choreography as ch
from spuvm.compiler.expand.expand import expand
from spuvm.compiler.ir import text
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Region, Value
from spuvm.compiler.project.kernels import analyse
from spuvm.runtime.errors import InputError, IRError
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.dealt import semi2k
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.ring import arithmetic

PROTOCOLS = {"aby3": ABY3, "ref2k": ref2k(3), "semi2k": semi2k(2), "semi2k of 3": semi2k(3)}
A_TIMES_G, G_TIMES_A = (((0,), (0,)), ((), ())), (((0,), (0,)), ((), ()))


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


def operands(*shapes: tuple[int, ...], frac: int = 18) -> list[Raw]:
    rng = np.random.default_rng(3)
    return [(rng.integers(-(2**frac), 2**frac, s)).astype(np.int64).view(np.uint64) for s in shapes]


def kernels(program: ch.Choreography) -> list[str]:
    return [step.spec.name for step in program.block.walk() if isinstance(step, ch.Call)]


# One program --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [0, 1])
@pytest.mark.parametrize("left", [True, False])
def test_dot_with_a_private_matrix(protocol: Protocol, owner: int, left: bool) -> None:
    """Simulated and as parties: the same shares, the predicted cost, the exact integers."""

    def build(b: Builder, a: Value, g: Value) -> list[Value]:
        return [b.op("dot", *((a, g) if left else (g, a)), dims=A_TIMES_G)]

    types = type_of("int64", (9, 5), owner), type_of("int64", (9, 3))
    a, g = operands((9, 5), (9, 3))
    (got,) = both(module(build, *types), protocol, [a, g])
    want = a.T @ g if left else g.T @ a
    np.testing.assert_array_equal(got, want)
    assert kernels(expand(module(build, *types), protocol))[:2] == ["mask_v", "dot_vma" if left else "dot_avm"]


@pytest.mark.parametrize("owner", [0, 1])
def test_mul_with_a_private_array(protocol: Protocol, owner: int) -> None:
    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        return [b.mul(x, y), b.op("mul", y, x), b.sub(b.op("mul", x, y), b.op("mul", y, y))]

    x, y = operands((50,), (50,))
    got = both(module(build, type_of("fxp18", (50,), owner), type_of("fxp18", (50,))), protocol, [x, y])
    error = signed(got[0]) - (signed(x * y) >> 18)
    assert ((error >= 0) & (error <= 1)).all()
    np.testing.assert_array_equal(got[1], x * y)
    np.testing.assert_array_equal(got[2], x * y - y * y)


def test_what_is_shared_anyway_is_not_masked_again() -> None:
    """One message of a word an element, whether a private value is multiplied, added, or both."""

    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        return [b.op("mul", x, y), b.add(x, y), b.op("dot", x, y, dims=(((0,), (0,)), ((), ())))]

    program = expand(module(build, type_of("int64", (10,), 0), type_of("int64", (10,))), ABY3)
    assert [k for k in kernels(program) if k in ("share_v", "mask_v")] == ["share_v"]
    assert predicted_cost(program).bytes_sent.tolist() == [8 * (10 + 10 + 1), 8 * (10 + 1), 8 * (10 + 1)]


def test_two_private_matrices_of_different_owners(protocol: Protocol) -> None:
    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        return [b.op("dot", x, y, dims=(((1,), (0,)), ((), ())))]

    x, y = operands((4, 6), (6, 2))
    types = type_of("int64", (4, 6), 1), type_of("int64", (6, 2), 0)
    (got,) = both(module(build, *types), protocol, [x, y])
    np.testing.assert_array_equal(got, x @ y)


def test_a_loop_multiplies_what_was_masked_before_it(protocol: Protocol) -> None:
    def build(b: Builder, a: Value, g: Value) -> list[Value]:
        body = Region([Value(a.type), Value(g.type)])
        with b.inside(body):
            product = b.op("dot", body.params[0], body.params[1], dims=(((1,), (0,)), ((), ())))
            body.results = [product]
        return b.ops("loop", [a, g], [body], trips=3, carries=1, constants=1, reverse=False)

    a, g = operands((4, 4), (4, 2), frac=8)
    types = type_of("int64", (4, 4), 0), type_of("int64", (4, 2))
    (got,) = both(module(build, *types), protocol, [a, g])
    np.testing.assert_array_equal(got, a @ (a @ (a @ g)))
    program = expand(module(build, *types), protocol)
    outside = [s.spec.name for s in program.block.steps if isinstance(s, ch.Call)]
    assert outside.count("mask_v") == 1
    assert kernels(program).count("mask_v") == 1


def test_each_party_computes_one_matrix_product() -> None:
    """Under ABY3; two shared operands take five in all."""

    def count(visibility: int | str) -> list[int]:
        def build(b: Builder, a: Value, g: Value) -> list[Value]:
            return [b.op("dot", a, g, dims=A_TIMES_G)]

        types = type_of("int64", (9, 5), visibility), type_of("int64", (9, 3))
        calls = [s for s in expand(module(build, *types), ABY3).block.walk() if isinstance(s, ch.Call)]
        (dot,) = [c for c in calls if c.spec.name.startswith("dot")]
        made = []
        for party in range(3):
            (stage,) = analyse(dot.spec, None).stages[party]
            equations = jax.make_jaxpr(stage.function)(*stage.avals).eqns
            products = [e for e in equations if e.primitive.name in ("ffi_call", "dot_general", "reduce_sum")]
            made.append(sum(max(1, len(e.invars) // 2) for e in products))  # a call may sum those of several pairs
        return made

    with jax.enable_x64(True):
        assert count(1) == [1, 1, 1]
        assert count("secret") == [2, 1, 2]


# Masked from program to program --------------------------------------------------------------------------


def masked(b: Builder, x: Value) -> list[Value]:
    return [b.op("mask", x)]


def test_the_form_at_the_edge_of_a_program(protocol: Protocol) -> None:
    """The owner keeps the value alone, a bool as a byte; the others hold words."""
    program = module(masked, type_of("bool", (3, 4), 1))
    (port,) = expand(program, protocol).outputs
    assert port.kind == "h"
    assert (port.slots[0].dtype, port.slots[0].holders) == ("uint8", frozenset({1}))
    assert all(s.dtype == "uint64" for s in port.slots[1:])
    if protocol is ABY3:
        assert [s.holders for s in port.slots[1:]] == [{0}, {2}]
    (got,) = both(program, protocol, [np.arange(12).reshape(3, 4) % 2])
    np.testing.assert_array_equal(got, np.arange(12).reshape(3, 4) % 2)


def test_a_masked_input_costs_nothing_but_the_result(protocol: Protocol) -> None:
    def build(b: Builder, a: Value, g: Value) -> list[Value]:
        indicators = b.op("transpose", b.convert(a, "fxp0"), perm=(1, 0))
        return [b.op("dot", indicators, g, dims=(((1,), (0,)), ((), ()))), b.op("rev", a, axes=(0,))]

    bins = type_of("bool", (9, 5), 0).with_(masked=True)
    program = module(build, bins, type_of("fxp18", (9, 3)))
    a = np.random.default_rng(0).integers(0, 2, (9, 5), np.uint64)
    (g,) = operands((9, 3))
    got = both(program, protocol, [a, g])
    np.testing.assert_array_equal(got[0], a.T @ g)
    np.testing.assert_array_equal(got[1], a[::-1])
    made = expand(program, protocol)
    assert made.outputs[1].kind == "h"
    assert "mask_v" not in kernels(made)
    if protocol is ABY3:
        assert predicted_cost(made).bytes_sent.tolist() == [8 * 15] * 3
        assert predicted_cost(made).rounds == 1


def test_text_and_checker() -> None:
    made = module(masked, type_of("fxp18", (3,), 2))
    made.input_dtypes = made.output_dtypes = ("float32",)
    assert "private(2) masked" in text.to_text(made)
    assert text.to_text(text.parse(text.to_text(made))) == text.to_text(made)
    for visibility in ("secret", "public"):
        with pytest.raises(IRError, match="only a private value can be masked"):
            module(masked, type_of("fxp18", (3,), visibility))


# From Python -----------------------------------------------------------------------------------------------


@pytest.fixture
def devices() -> Iterator[Any]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield spu.PYU("alice"), spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
    spu.shutdown()


def histogram(a: Any, g: Any) -> Any:
    return a.astype(jnp.float32).T @ g


def test_training_steps_send_the_results_alone(devices: Any) -> None:
    alice, dev = devices
    rng = np.random.default_rng(1)
    bins, g = rng.integers(0, 2, (40, 6)).astype(bool), rng.normal(size=(40, 3)).astype(np.float32)
    a = dev(spu.masked)({"bins": alice(lambda: bins)()})["bins"]
    assert repr(a) == "<SPUObject bool[40,6] private(alice) masked aby3/64>"
    assert [c.dtype.name for c in a.components] == ["uint8", "uint64", "uint64"]
    np.testing.assert_array_equal(spu.reveal(a), bins)
    secret = spu.PYU("bob")(lambda: g)().to(dev)
    cost = dev(histogram).cost(a, secret)
    assert (cost.rounds, cost.bytes_sent.tolist()) == (1, [8 * 18] * 3)
    sums = spu.reveal(dev(histogram)(a, secret))
    np.testing.assert_allclose(sums, bins.astype(np.float32).T @ g, atol=2.0**-12)
    with patch.object(arithmetic, "dot_general", side_effect=AssertionError):  # compiled once, for objects like these
        np.testing.assert_array_equal(spu.reveal(dev(histogram)(a, secret)), sums)
    transposed = dev(lambda x: x.T)(a)
    assert transposed.type.masked
    np.testing.assert_array_equal(transposed.to("alice").value, bins.T)


def test_masked_numbers_are_private_as_before(devices: Any) -> None:
    alice, dev = devices
    x = dev(lambda x: spu.masked(x * 2))(alice(lambda: np.arange(4.0))())
    assert x.visibility == "private(alice)"
    free = dev(lambda x: jnp.exp(x / 4) + x)
    assert free.cost(x).rounds == 0
    np.testing.assert_allclose(spu.reveal(free(x)), np.exp(np.arange(4) / 2) + np.arange(4) * 2, atol=1e-4)
    both_ways = dev(lambda x, y: x * y + x)(x, x.vm.convert([x], "share", "secret")[0])
    np.testing.assert_allclose(spu.reveal(both_ways), (np.arange(4) * 2) ** 2 + np.arange(4) * 2, atol=1e-4)


def test_revealed_to_one_party_it_is_private_from_there_on(devices: Any) -> None:
    """What a party is shown inside a function it computes with for free, and it can be masked."""
    alice, dev = devices
    secret = spu.PYU("bob")(lambda: np.array([0.5, -1.0, 2.0], np.float32))().to(dev)

    def step(x: Any) -> Any:
        mine = spu.reveal(x * 2, to="alice")
        positive = mine > 0
        return spu.masked(positive), jnp.exp(mine), positive.astype(jnp.float32) * x

    cost = dev(step).cost(secret)
    assert {row.op for row in cost.by_op() if row.bytes.sum()} == {"reveal", "mask", "mul"}
    positive, powers, kept = dev(step)(secret)
    assert (positive.visibility, positive.type.masked, powers.visibility) == ("private(alice)", True, "private(alice)")
    np.testing.assert_allclose(spu.reveal(kept), [0.5, 0, 2], atol=1e-4)
    np.testing.assert_array_equal(positive.to(alice).value, [True, False, True])
    np.testing.assert_allclose(powers.to("alice").value, np.exp([1, -2, 4]), rtol=1e-3)


def test_what_is_not_private_stays_as_it_is() -> None:
    out = spu.jit(spu.masked)({"secret": jnp.ones(3), "public": spu.public(2.0)})
    assert (out["secret"].visibility, out["public"].visibility) == ("secret", "public")


def test_refused(devices: Any) -> None:
    alice, dev = devices
    with pytest.raises(InputError, match="belongs into a jitted function"):
        spu.masked(np.ones(3))
    a = dev(spu.masked)(alice(lambda: np.ones(3))())
    with pytest.raises(InputError, match="`x` is taken masked"):
        dev.vm.run(dev(lambda x: x).compile(a), [np.ones(3)])
