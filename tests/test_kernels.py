"""The analysis of kernels: who owns what, which stage, which messages, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import (
    Raw,
    assert_cost,
    assert_same_shares,
    cases,
    kernel_choreography,
    network,
    predicted_cost,
    shapes_of,
    simulate,
)

from spuvm.compiler.cache import disk
from spuvm.compiler.expand import choreography as ch
from spuvm.compiler.expand.choreography import KernelSpec
from spuvm.compiler.project import kernels
from spuvm.compiler.project.kernel_plan import KernelPlan
from spuvm.compiler.project.kernels import analyse, plan
from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.errors import ProtocolError
from spuvm.runtime.protocols.aby3.protocol import ABY3

U64 = "uint64"


def spec(
    function: Callable[..., Any],
    holders: Sequence[set[int]],
    out_holders: Sequence[set[int]],
    dtypes: Sequence[str] = (),
    name: str = "",
    elementwise: bool = True,
) -> KernelSpec:
    return KernelSpec(
        name=name or f"test {function.__qualname__}",
        params=(),
        shapes=(None,) * len(holders),
        dtypes=tuple(dtypes) or (U64,) * len(holders),
        holders=tuple(map(frozenset, holders)),
        out_holders=tuple(map(frozenset, out_holders)),
        elementwise=elementwise,
        communicates=True,
        function=function,
    )


def run(kernel: KernelSpec, inputs: Sequence[Raw], out_dtypes: Sequence[str] = (), runs: int = 1) -> list[Raw]:
    """Simulated and as three parties; the results that everybody agrees on."""
    shape = inputs[0].shape
    slots = [ch.Slot(shape, d, h) for d, h in zip(kernel.dtypes, kernel.holders)]
    outs = [
        ch.Slot(shape, d, h)
        for d, h in zip(out_dtypes or (U64,) * len(kernel.out_holders), kernel.out_holders, strict=True)
    ]
    everyone = ch.Slot((), U64, frozenset({0, 1, 2}))
    block = ch.Block(slots, [ch.Call(kernel, slots, outs)], outs, [(everyone, np.array(0, np.uint64))])
    ports = [[ch.Port("p", None, (s,)) for s in ss] for ss in (slots, outs)]
    choreography = ch.Choreography(block, *ports)
    whole = simulate(choreography, list(inputs))
    parties, counters = network(choreography, list(inputs))
    assert_same_shares(choreography, whole, parties)
    assert_cost(predicted_cost(choreography), counters)
    return whole


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of tests have no version: they must not meet their older selves."""
    monkeypatch.setattr(disk, "read", lambda name: None)
    monkeypatch.setattr(disk, "write", lambda name, content: None)


X = np.arange(5, dtype=np.uint64) + np.uint64(10)
Y = np.array([3, 2**63, 1, 0, 7], np.uint64)


# What is refused ------------------------------------------------------------------------------------------


def test_a_sender_must_know_what_it_sends() -> None:
    with pytest.raises(ProtocolError, match=r"party 1 cannot send what only \[0, 2\] know"):
        analyse(spec(lambda x: (send(x, 1, 2),), [{0, 2}], [{2}]), 8)


def test_a_sender_must_know_it_in_time() -> None:
    """Party 1 knows the first operand, but gets the second one only where it is sent to."""
    with pytest.raises(ProtocolError, match="cannot send"):
        analyse(spec(lambda x, y: (send(x + send(y, 0, 2), 1, 2),), [{1, 2}, {0}], [{2}]), 8)


def test_a_holder_must_be_able_to_compute_its_component() -> None:
    with pytest.raises(ProtocolError, match=r"parties \[2\] should hold component 0 but cannot"):
        analyse(spec(lambda x: (send(x, 0, 1),), [{0}], [{1, 2}], name="too few"), 8)


def test_somebody_must_know_all_operands() -> None:
    with pytest.raises(ProtocolError, match="no party knows all inputs of `add`"):
        analyse(spec(lambda x, y: (x + y,), [{0}, {1}], [{0}]), 8)


def test_errors_name_the_kernel() -> None:
    with pytest.raises(ProtocolError, match="kernel `my kernel`"):
        analyse(spec(lambda x: (send(x, 1, 2),), [{0}], [{2}], name="my kernel"), 8)


# What is sent, and when ---------------------------------------------------------------------------------------


def test_a_relay() -> None:
    kernel = spec(lambda x: (send(send(x, 0, 1), 1, 2),), [{0}], [{2}], name="relay")
    assert analyse(kernel, 8).rounds == 2
    assert [(s.src, s.dst, s.stage) for s in analyse(kernel, 8).sent] == [(0, 1, 0), (1, 2, 1)]
    np.testing.assert_array_equal(run(kernel, [X])[0], X)


def test_what_the_receiver_knows_is_not_sent() -> None:
    made = analyse(spec(lambda x: (send(x, 0, 1) + np.uint64(1),), [{0, 1}], [{0, 1}]), 8)
    assert made.rounds == 0
    assert made.sent == ()


def test_what_nobody_needs_is_not_sent() -> None:
    def wasteful(x: Any, y: Any) -> Any:
        send(x * y, 0, 1)
        return (send(y, 0, 1),)

    made = analyse(spec(wasteful, [{0}, {0}], [{1}]), 8)
    assert len(made.sent) == 1
    assert made.rounds == 1


def test_one_value_to_two_parties() -> None:
    kernel = spec(lambda x: (send(send(x + x, 0, 1), 0, 2),), [{0}], [{0, 1, 2}], name="to both")
    made = analyse(kernel, 8)
    assert made.rounds == 1
    assert {(s.src, s.dst) for s in made.sent} == {(0, 1), (0, 2)}
    np.testing.assert_array_equal(run(kernel, [X])[0], X + X)


def test_the_stage_is_each_partys_own() -> None:
    """Party 2 can go on at once with what party 1 must wait for: both directions share a round."""

    def swap(x: Any, y: Any) -> Any:
        return send(x, 1, 2) + send(y, 2, 1), send(x * x, 1, 0), send(y * y, 2, 0)

    kernel = spec(swap, [{1}, {2}], [{1, 2}, {0}, {0}], name="swap")
    assert analyse(kernel, 8).rounds == 1
    both, first, second = run(kernel, [X, Y])
    np.testing.assert_array_equal(both, X + Y)
    np.testing.assert_array_equal(first, X * X)
    np.testing.assert_array_equal(second, Y * Y)


def test_every_kernel_has_a_stage_more_than_rounds() -> None:
    for case in cases(ABY3):
        (call,) = kernel_choreography(case, ABY3, shapes_of(case, 64)).block.steps
        made = analyse(call.spec, 64 if case.kernel.elementwise else None)  # type: ignore[union-attr]
        assert {p: len(s) for p, s in made.stages.items()} == {None: 1} | dict.fromkeys(range(3), made.rounds + 1)
        for party in range(3):
            held = [party in h for h in call.spec.out_holders]  # type: ignore[union-attr]
            assert [v is not None for v in made.outputs[party]] == held


# Odd results ---------------------------------------------------------------------------------------------------


def test_results_that_are_operands_constants_or_randoms() -> None:
    def odd(x: Any, y: Any) -> Any:
        r = random((0, 1), x.shape, x.dtype)
        return x, jnp.zeros_like(x), r, x, send(y, 2, 0), r + x, jnp.full_like(x, 7)

    holders = [{0, 1}, {0, 1, 2}, {0, 1}, {0}, {0, 2}, {0}, {2}]
    out = run(spec(odd, [{0, 1}, {2}], holders, name="odd results"), [X, Y])
    for got, want in zip(out, [X, 0 * X, out[2], X, Y, out[2] + X, 0 * X + np.uint64(7)], strict=True):
        np.testing.assert_array_equal(got, want)


def test_nested_functions_are_inlined() -> None:
    """`jnp.where` and the like are calls inside of the jaxpr; so are the user's own, twice the same one."""

    @jax.jit
    def inner(x: Any, y: Any) -> Any:
        z = send(y, 0, 1)
        return jnp.where(x > z, x, z), x

    def outer(x: Any, y: Any) -> Any:
        a, b = inner(x, y)
        c, _ = inner(a, b)
        return c, b

    out, same = run(spec(outer, [{0, 1}, {0}], [{0, 1}, {1}], name="nested"), [X, Y])
    np.testing.assert_array_equal(out, np.maximum(np.maximum(X, Y), X))
    np.testing.assert_array_equal(same, X)


def test_a_random_of_two_stages_is_one_value() -> None:
    """The mask is added before the message and taken off by its receiver's answer two rounds later."""

    def there_and_back(x: Any, y: Any) -> Any:
        r = random((0, 2), x.shape, x.dtype)
        back = send(send(x + r, 0, 1) + y, 1, 0)
        return back - r, send(back, 0, 2) - r

    kernel = spec(there_and_back, [{0}, {1}], [{0}, {2}], name="there and back")
    assert analyse(kernel, 8).rounds == 3
    for out in run(kernel, [X, Y]):
        np.testing.assert_array_equal(out, X + Y)


# Small messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 5, 8, 63, 64, 1001])
def test_messages_below_a_byte_are_packed(bits: int, n: int) -> None:
    def relay(x: Any) -> Any:
        y = send(x, 0, 1, bits)
        return send(y ^ np.uint8(1), 1, 2, bits), y, x

    kernel = spec(relay, [{0}], [{2}, {0, 1}, {0}], ["uint8"], name=f"relay of {bits} bits")
    x = np.random.default_rng(n).integers(0, 2**bits, n, np.uint8)
    out, same, _ = run(kernel, [x], ["uint8"] * 3)
    np.testing.assert_array_equal(out, x ^ np.uint8(1))
    np.testing.assert_array_equal(same, x)
    for message in analyse(kernel, 64).sent:
        assert message.shape == (64 * bits // 8,)


def test_a_packed_message_that_is_known_is_not_sent() -> None:
    made = analyse(spec(lambda x: (send(x, 0, 1, 1),), [{0, 1}], [{1}], ["uint8"]), 64)
    assert made.sent == ()


# Plans from disk --------------------------------------------------------------------------------------------------


def test_a_stored_plan_is_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache gives back is equal in all but the functions, and those compute the same."""
    stored: dict[str, bytes] = {}
    monkeypatch.setattr(disk, "read", stored.get)
    monkeypatch.setattr(disk, "write", stored.__setitem__)
    for case in cases(ABY3):
        (call,) = kernel_choreography(case, ABY3, shapes_of(case, 64)).block.steps
        length = 64 if case.kernel.elementwise else None
        kernel = call.spec  # type: ignore[union-attr]
        plan.__wrapped__(kernel, length)
        again = plan.__wrapped__(kernel, length)
        assert described(again) == described(analyse(kernel, length))
    assert len(stored) == len(cases(ABY3))


def described(made: KernelPlan) -> Any:
    stages = {
        p: [(s.inputs, s.randoms, s.outputs, [(a.shape, a.dtype) for a in s.avals]) for s in stages]
        for p, stages in made.stages.items()
    }
    return made.key, made.rounds, made.draws, made.sent, made.outputs, stages


def test_keys_tell_kernels_apart() -> None:
    made = []
    for case in cases(ABY3):
        for n in (64, 1024):
            (call,) = kernel_choreography(case, ABY3, shapes_of(case, n)).block.steps
            made.append(kernels._key(call.spec, n if case.kernel.elementwise else None))  # type: ignore[union-attr]
    assert len(set(made)) == len(made)
