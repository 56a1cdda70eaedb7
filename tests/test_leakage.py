"""What parties learn: kernels of all protocols are proved, those that leak refused, programs say what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from machine import Case, cases, kernel_choreography, shapes_of

import spuvm as spu
from spuvm.compiler.expand.choreography import Call, KernelSpec, Ranks
from spuvm.compiler.leakage.statement import UNPROVED, failures, shuffles
from spuvm.runtime.engine.primitives import permutation, random, send
from spuvm.runtime.protocols.aby3.products import HOLDERS, product_aa
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.dealt import semi2k
from spuvm.runtime.protocols.protocol import Kernel, Protocol
from spuvm.runtime.protocols.registered import PROTOCOLS
from spuvm.runtime.ring import bits as bt

EDGE = ("share", "reveal")  # kernels that parties who do not compute take part in


def spec_of(case: Case, protocol: Protocol) -> KernelSpec:
    (call,) = kernel_choreography(case, protocol, shapes_of(case, 64)).block.steps
    assert isinstance(call, Call)
    kernel = case.kernel
    return replace(call.spec, shows=kernel.output in "pvc" and not set(kernel.inputs) <= {"v"})


def chosen(protocol: Protocol) -> list[Case]:
    """One choice of parameters a kernel, and all owners."""
    found: dict[Any, Case] = {}
    for case in cases(protocol):
        params = dict(case.params)
        own = protocol.world_size + (protocol.others if case.kernel.name.startswith(EDGE) else 0)
        if params.get("owner", 0) < own:
            found.setdefault((case.kernel.name, params.get("owner")), case)
    return list(found.values())


@pytest.mark.parametrize(
    ("name", "others"), [(n, 0) for n in PROTOCOLS] + [(n, 1) for n in PROTOCOLS if n not in ("rep4", "aby3_malicious")]
)  # they have no guests
def test_every_kernel_is_proved(name: str, others: int) -> None:
    protocol = PROTOCOLS[name].build(PROTOCOLS[name].parties, others)
    wanted = [c for c in chosen(protocol) if not others or c.kernel.name.startswith(EDGE)]
    for case in wanted:
        spec = spec_of(case, protocol)
        for coalition in protocol.coalitions:
            assert failures(spec, coalition) == (), f"{case} to {set(coalition)}"


def test_of_three_parties_two_may_collude() -> None:
    protocol = semi2k(3)
    for case in chosen(protocol):
        if case.kernel.name in ("mul_aa", "trunc_a", "and_bb", "bit2a", "mul_vma", "share_v", "reveal_a_to"):
            for coalition in protocol.coalitions:
                assert failures(spec_of(case, protocol), coalition) == (), f"{case} to {set(coalition)}"


# Kernels that leak -----------------------------------------------------------------------------------------


def _mask(holders: Any, like: Any) -> Any:
    return random(holders, like.shape, like.dtype)


def _resent(parts: Any) -> Sharing:
    return tuple(send(parts[i], i, (i - 1) % 3) for i in range(3))


def no_zero_share(x: Sharing, y: Sharing) -> Sharing:
    return _resent(product_aa(x, y))


def half_a_zero_share(x: Sharing, y: Sharing) -> Sharing:
    z = product_aa(x, y)
    return _resent([z[i] + _mask(HOLDERS[i], z[i]) for i in range(3)])


def and_without_zero_share(x: Sharing, y: Sharing) -> Sharing:
    return _resent([(x[i] & (y[i] ^ y[(i + 1) % 3])) ^ (x[(i + 1) % 3] & y[i]) for i in range(3)])


def raw_component(x: Sharing) -> Sharing:
    return (x[0], x[1] + send(x[0], 0, 1) * np.uint64(0), x[2])


def mask_used_twice(x: Sharing, y: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (-r, send(x[0] + r, 0, 1) + send(y[0] + r, 0, 1), x[2])


def mask_used_twice_rotated(x: Sharing, y: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    turned = bt.shift_left(r, 1) ^ bt.shift_right(r, 63)
    return (r, send(x[0] ^ r, 0, 1) ^ send(y[0] ^ turned, 0, 1), x[2])


def mask_used_twice_negated(x: Sharing, y: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (r, send(x[0] + r, 0, 1) + send(y[0] - r, 0, 1), x[2])


def short_mask(x: Sharing) -> Sharing:
    r = random((0, 2), x[0].shape, np.dtype(np.uint32)).astype(np.uint64)
    return (r, send(x[0] + r, 0, 1), x[2])


def even_mask(x: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (r, send(x[0] + bt.shift_left(r, 1), 0, 1), x[2])


def mask_of_few_bits(x: Sharing) -> Sharing:
    r = _mask((0, 2), x[0]) & bt.constant(x[0], 255)
    return (r, send(x[0] ^ r, 0, 1), x[2])


def mask_sent_after(x: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (x[0], send(x[0] + r, 0, 1) - send(r, 2, 1), x[2])


def mask_sent_doubled(x: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (x[0], send(x[0] + r, 0, 1) - send(r + r, 2, 1), x[2])


def mask_of_the_receiver(x: Sharing) -> Sharing:
    r = _mask((0, 1), x[0])
    return (r, send(x[0] - r, 0, 1), x[2])


def to_the_wrong_party(x: Sharing, *, owner: int) -> Sharing:
    r = _mask(HOLDERS[(owner + 1) % 3], x[0])
    rest = send(send(x[0] - r, owner, (owner - 1) % 3), owner, (owner + 1) % 3)
    parts = {owner: rest, (owner + 1) % 3: r, (owner + 2) % 3: bt.zeros_like(r)}
    return tuple(parts[i] for i in range(3))


def shared_without_a_mask(x: Sharing, *, owner: int) -> Sharing:
    rest = send(send(x[0], owner, (owner - 1) % 3), owner, (owner + 1) % 3)
    return tuple(rest if i == 0 else bt.zeros_like(rest) for i in range(3))


def opened_without_masks(x: Sharing, y: Sharing) -> Sharing:
    """Beaver's product on values that are not masked."""
    e = send(send(x[0], 0, 1), 0, 2) + send(x[1], 1, 2) + x[2]
    return (x[0], x[1], e * send(y[0], 0, 2))


def truncation_without_a_mask(x: Sharing) -> Sharing:
    u0 = _mask((0, 2), x[0])
    return (u0, send(x[0] + u0, 0, 1) + send(x[1] + jnp.zeros_like(u0), 1, 2), x[2])


def product_of_mask_and_secret(x: Sharing) -> Sharing:
    """Zero where the secret is zero."""
    r = _mask((0, 2), x[0])
    return (r, send(x[0] * r, 0, 1), x[2])


def mask_and_secret(x: Sharing, y: Sharing) -> Sharing:
    r = _mask((0, 2), x[0])
    return (r, send(x[0] & r, 0, 1), x[2])


def mask_of_another_element(x: Sharing) -> Sharing:
    """Two sums with one mask, in another order: their difference is one of elements."""
    r = _mask((0, 2), x[0])
    return (r, send(x[0] + r, 0, 1) + send(x[0] + jnp.flip(r), 0, 1), x[2])


def one_mask_for_all(x: Sharing) -> Sharing:
    r = jnp.broadcast_to(random((0, 2), (1,), np.uint64), x[0].shape)
    return (r, send(x[0] + r, 0, 1), x[2])


def opened_to_more(x: Sharing, *, owner: int) -> Sharing:
    """Shown to its owner, and a component more to the next."""
    i = (owner + 2) % 3
    whole = x[owner] + x[(owner + 1) % 3] + send(x[i], i, owner)
    return (whole + send(x[owner], owner, (owner + 1) % 3) * np.uint64(0),)


def comparison_in_the_clear(x: Sharing) -> Sharing:
    bit = send(bt.cast(bt.shift_right(x[0] + x[1], 63), 8), 0, 2, 1)
    return (bit, bt.zeros_like(bit), bt.zeros_like(bit))


BROKEN: dict[Callable[..., Sharing], tuple[str, str]] = {
    no_zero_share: ("aa", "a"),
    half_a_zero_share: ("aa", "a"),
    and_without_zero_share: ("bb", "b"),
    raw_component: ("a", "a"),
    mask_used_twice: ("aa", "a"),
    mask_used_twice_rotated: ("bb", "b"),
    mask_used_twice_negated: ("aa", "a"),
    short_mask: ("a", "a"),
    even_mask: ("a", "a"),
    mask_of_few_bits: ("b", "b"),
    mask_sent_after: ("a", "a"),
    mask_sent_doubled: ("a", "a"),
    mask_of_the_receiver: ("a", "a"),
    to_the_wrong_party: ("v", "a"),
    shared_without_a_mask: ("v", "a"),
    opened_without_masks: ("aa", "a"),
    truncation_without_a_mask: ("a", "a"),
    product_of_mask_and_secret: ("a", "a"),
    mask_and_secret: ("bb", "b"),
    mask_of_another_element: ("a", "a"),
    one_mask_for_all: ("a", "a"),
    opened_to_more: ("a", "v"),
    comparison_in_the_clear: ("a", "b"),
}


def broken_spec(function: Callable[..., Sharing], inputs: str, output: str) -> KernelSpec:
    """With results at whoever has them: what is looked at is what is sent."""
    params = (("owner", 0),) if "v" in inputs + output else ()
    holders = tuple(h for kind in inputs for h in ABY3.components(kind, 0))
    count = 1 if output == "v" else 3

    def flat(*arrays: Any) -> Sharing:
        sizes = [1 if kind == "v" else 3 for kind in inputs]
        groups = [arrays[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
        return function(*groups, **dict(params))

    return KernelSpec(
        function.__name__,
        params,
        (None,) * len(holders),
        ("uint64",) * len(holders),
        holders,
        (frozenset({0}) if output == "v" else frozenset(),) * count,
        True,
        True,
        flat,
        shows=output == "v",
    )


@pytest.mark.parametrize("function", BROKEN, ids=lambda f: f.__name__)
def test_a_kernel_that_leaks_is_refused(function: Callable[..., Sharing]) -> None:
    spec = broken_spec(function, *BROKEN[function])
    assert any(failures(spec, coalition) for coalition in ABY3.coalitions)


def test_a_dealer_that_receives_is_refused() -> None:
    def told(x: Sharing) -> Sharing:
        return (send(x[0], 0, 2), x[1])

    kernel = Kernel("told", told, "a", "a")
    protocol = semi2k(2)
    dealer: Ranks = frozenset({2})
    assert failures(spec_of(Case(kernel, (), 64), protocol), dealer)


def test_a_permutation_that_a_party_knows_is_no_shuffle() -> None:
    def by(*pairs: tuple[int, int]) -> KernelSpec:
        def shuffle(*x: Any) -> Sharing:
            for pair in pairs:
                order = permutation(pair, x[0].shape)
                x = tuple(jnp.take_along_axis(c, order, axis=1) for c in x)
            return x

        return KernelSpec(f"by {pairs}", (), ((1, 8),) * 3, ("uint64",) * 3, HOLDERS, HOLDERS, False, True, shuffle)

    all_pairs = by((0, 1), (1, 2), (0, 2))
    assert all(shuffles(all_pairs, c) for c in ABY3.coalitions)
    assert not shuffles(by((0, 1), (1, 2)), frozenset({1}))
    assert not shuffles(by(), frozenset({0}))


# Programs ------------------------------------------------------------------------------------------------------


def shown(x: Any, y: Any) -> Any:
    total = spu.reveal(jnp.sum(x * y))
    return jnp.sort(x), total


def test_a_program_says_what_it_shows() -> None:
    x = np.linspace(-1, 1, 8).astype(np.float32)
    program = spu.jit(shown).compile(x, x)
    learns = program.learns
    assert learns.refused == ()
    assert {k.kind for k in learns.of("party1")} == {"reveal", "order"}
    text = str(learns)
    assert "comparisons of elements in a secret random order" in text
    assert "are proved to say nothing to: party0; party1; party2" in text
    assert all(item["kind"] != UNPROVED for items in learns.as_dict()["learns"].values() for item in items)
