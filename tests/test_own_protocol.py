"""A protocol in one file, of another algebra than the package's own: it compiles, runs, and is caught when it leaks.

ASTRA (Chaudhari et al., CCSW 2019), three parties, semi-honest, honest majority: x = m - l_0 - l_1; parties 0 and 1
know m, and party 2 knows l_0 with party 0 and l_1 with party 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from machine import Case, both, kernel_choreography, module, shapes_of, type_of

import spuvm as spu
from spuvm.compiler.expand.choreography import Call
from spuvm.compiler.leakage.statement import failures
from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.algebra import Algebra, Sharing
from spuvm.runtime.protocols.protocol import Kernel, Protocol, and_constant, carry_out, table, top_bit, xor_constant
from spuvm.runtime.protocols.registered import PROTOCOLS, Registered
from spuvm.runtime.ring import bits as bt

HOLDERS = (frozenset({0, 1}), frozenset({0, 2}), frozenset({1, 2}))


class Masked(Algebra):
    def linear(self, kind: str, function: Callable[..., Any], *xs: Sharing) -> Sharing:
        return tuple(function(*components) for components in zip(*xs, strict=True))

    def join(self, kind: str, function: Callable[..., Any], x: Sharing, y: Any) -> Sharing:
        return (function(x[0], y), *x[1:])

    def summands(self, x: Sharing) -> Sharing:
        return x

    def public(self, kind: str, x: Any) -> Sharing:
        return (x, x ^ x, x ^ x)

    def split(self, kind: str, x: Any, draw: Callable[[], Any]) -> Sharing:
        a, b = draw(), draw()
        return (x ^ a ^ b if kind == "b" else x + a + b, a, b)

    def uniform(self, kind: str, draw: Callable[[int], Any]) -> Sharing:
        return tuple(draw(i) for i in range(3))

    def reconstruct(self, kind: str, x: Sharing) -> Any:
        return x[0] ^ x[1] ^ x[2] if kind == "b" else x[0] - x[1] - x[2]


def _random(holders: Any, like: Any, bits: int = 64) -> Any:
    r = random(holders, like.shape, like.dtype)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r


def mul_aa(x: Sharing, y: Sharing, leaky: bool = False) -> Sharing:
    """Party 2 shares l_x l_y between the others, which exchange their parts of m_z under the new masks."""
    l0, l1, c0 = (_random(h, x[0]) for h in (HOLDERS[1], HOLDERS[2], HOLDERS[1]))
    c1 = send((x[1] + x[2]) * (y[1] + y[2]) - c0, 2, 1)
    first = c0 - x[0] * y[1] - x[1] * y[0] + (bt.zeros_like(l0) if leaky else l0)
    second = c1 + x[0] * y[0] - x[0] * y[2] - x[2] * y[0] + l1
    m = send(first, 0, 1) + send(second, 1, 0)
    return m, (bt.zeros_like(l0) if leaky else l0), l1


def and_bb(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    l0, l1, c0 = (_random(h, x[0], bits) for h in (HOLDERS[1], HOLDERS[2], HOLDERS[1]))
    c1 = send(((x[1] ^ x[2]) & (y[1] ^ y[2])) ^ c0, 2, 1, bits)
    first = c0 ^ (x[0] & y[1]) ^ (x[1] & y[0]) ^ l0
    second = c1 ^ (x[0] & y[0]) ^ (x[0] & y[2]) ^ (x[2] & y[0]) ^ l1
    return send(first, 0, 1, bits) ^ send(second, 1, 0, bits), l0, l1


def msb_a(x: Sharing) -> Sharing:
    """The sign of s + t, with s = m - l_0 known to party 0 and t = -l_1 to parties 1 and 2."""
    s, t = x[0] - x[1], -x[2]
    r = _random(HOLDERS[1], s)
    mine = (send(s ^ r, 0, 1), r, bt.zeros_like(r))
    theirs = (bt.zeros_like(t), bt.zeros_like(t), t)
    g = and_bb(mine, theirs, bits=64)
    p = tuple(a ^ b for a, b in zip(mine, theirs))
    top = 1 << (bt.width(s) - 1)
    carry = carry_out(and_bb, and_constant(g, ~top), xor_constant(and_constant(p, ~top), top))
    return tuple(a ^ b for a, b in zip(top_bit(p), carry))


def share_v(x: Sharing, *, owner: int) -> Sharing:
    a, b = (_random({*h, owner}, x[0]) for h in HOLDERS[1:])
    m = x[0] + a + b
    for party in (0, 1):
        m = send(m, owner, party)
    return m, a, b


def reveal_a(x: Sharing) -> Sharing:
    return (send(x[0], 0, 2) - send(x[1], 0, 1) - send(x[2], 1, 0),)


def reveal_b(x: Sharing, *, bits: int) -> Sharing:
    return (send(x[0], 0, 2, bits) ^ send(x[1], 0, 1, bits) ^ send(x[2], 1, 0, bits),)


ASTRA = Protocol(
    name="astra",
    security="three parties, semi-honest, honest majority",
    world_size=3,
    algebra=Masked(),
    coalitions=tuple(frozenset({i}) for i in range(3)),
    holders={"a": HOLDERS, "b": HOLDERS, "d": HOLDERS},
    masked=lambda owner: HOLDERS,
    kernels=table(
        Kernel("mul_aa", mul_aa, "aa", "a"),
        Kernel("product_aa", mul_aa, "aa", "d"),
        Kernel("reshare_d", lambda z: z, "d", "a"),
        Kernel("and_bb", and_bb, "bb", "b"),
        Kernel("msb_a", msb_a, "a", "b"),
        Kernel("share_v", share_v, "v", "a"),
        Kernel("reveal_a", reveal_a, "a", "p"),
        Kernel("reveal_b", reveal_b, "b", "p"),
    ),
)


def test_it_runs_simulated_and_networked() -> None:
    """Sums with a public value and with a sharing, products, comparisons; shares and costs are compared by `both`."""
    types = [type_of("fxp0", (9,))] * 2

    def build(b: Any, x: Any, y: Any) -> list[Any]:
        return [b.add(b.mul_raw(x, y), x), b.less(x, y), b.sub(b.const(np.full(9, 5), "fxp0"), x)]

    rng = np.random.default_rng(0)
    x, y = (rng.integers(-(2**30), 2**30, 9).astype(np.int64) for _ in range(2))
    z, less, rest = both(module(build, *types), ASTRA, [x.view(np.uint64), y.view(np.uint64)])
    np.testing.assert_array_equal(z.view(np.int64), x * y + x)
    np.testing.assert_array_equal(less, x < y)
    np.testing.assert_array_equal(rest.view(np.int64), 5 - x)


def kernels() -> Iterator[Case]:
    for kernel in ASTRA.kernels.values():
        params = {"and_bb": (("bits", 64),), "reveal_b": (("bits", 64),), "share_v": (("owner", 2),)}
        yield Case(kernel, params.get(kernel.name, ()), 64)


def proved(case: Case) -> bool:
    (call,) = kernel_choreography(case, ASTRA, shapes_of(case, 64)).block.steps
    assert isinstance(call, Call)
    shows = case.kernel.output == "p"
    return not any(failures(replace(call.spec, shows=shows), c) for c in ASTRA.coalitions)


@pytest.mark.parametrize("case", list(kernels()), ids=str)
def test_its_kernels_are_proved(case: Case) -> None:
    assert proved(case)


def test_a_mask_left_out_is_caught() -> None:
    leaky = Kernel("leaky", lambda x, y: mul_aa(x, y, leaky=True), "aa", "a")
    assert not proved(Case(leaky, (), 64))


def test_one_line_registers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "astra", Registered(lambda n, others: ASTRA, 3))
    f = spu.jit(lambda x, y: x < y, protocol="astra")
    x, y = np.array([1.0, 2.0, -3.0], np.float32), np.array([2.0, 1.0, 0.5], np.float32)
    np.testing.assert_array_equal(spu.reveal(f(x, y)), x < y)
