"""Parties that do not compute: they bring values and are shown results, nothing else.

Their ranks follow those of the computing parties. They hold no component of any sharing, so the
security of a protocol is what it is among the computing parties. Kernels at the edge of a protocol,
the sharing of a value and its reveal, are the same for all protocols whose components add up; they are written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.protocol import Kernel, Protocol, Sharing, table
from spuvm.runtime.ring import bits as bt

Combine = Callable[[Any, Any], Any]  # of words


def with_others(protocol: Protocol, count: int) -> Protocol:
    """The protocol, whose components add up, with `count` more parties that do not compute."""
    if not count:
        return protocol
    edge = _Edge(protocol, count)
    replaced = table(
        Kernel("share_v", edge.share_v, "v", "a"),
        Kernel("share_vb", edge.share_vb, "v", "b"),
        Kernel("reveal_a", edge.reveal_a, "a", "p"),
        Kernel("reveal_b", edge.reveal_b, "b", "p"),
        Kernel("reveal_a_to", edge.reveal_a_to, "a", "v"),
        Kernel("reveal_b_to", edge.reveal_b_to, "b", "v"),
    )
    guests = frozenset(range(protocol.world_size, protocol.world_size + count))
    coalitions = tuple(c | guests if min(c) < protocol.world_size else c for c in protocol.coalitions)
    return replace(protocol, coalitions=coalitions, others=count, kernels={**protocol.kernels, **replaced})


class _Edge:
    """The kernels at the edge of a protocol with others."""

    def __init__(self, protocol: Protocol, count: int) -> None:
        self.protocol = protocol
        self.n = protocol.world_size
        self.members = range(self.n + count)

    # In ------------------------------------------------------------------------------------------------

    def share_v(self, x: Sharing, *, owner: int) -> Sharing:
        """The value of a party that does not compute -> [x]. One word to each holder of the first component.

        1. Every other component is a random word that the owner shares a key for with its holders.
        2. The first is the rest, sent to those that hold it.
        """
        if owner < self.n:
            return self.protocol.kernels["share_v"].function(x, owner=owner)
        return self._share(x[0], "a", owner, 64)

    def share_vb(self, x: Sharing, *, owner: int, bits: int) -> Sharing:
        """The owner's word -> boolean [x], as `share_v`."""
        if owner < self.n:
            return self.protocol.kernels["share_vb"].function(x, owner=owner, bits=bits)
        return self._share(x[0], "b", owner, bits)

    def _share(self, x: Any, kind: str, owner: int, bits: int) -> Sharing:
        first, *others = self.protocol.holders[kind]
        rest, parts = x, []
        for holders in others:
            r = _random((*holders, owner), x, bits)
            rest = rest - r if kind == "a" else rest ^ r
            parts.append(r)
        for party in sorted(first):
            rest = send(rest, owner, party, bits)
        return (rest, *parts)

    # Out -----------------------------------------------------------------------------------------------

    def reveal_a(self, x: Sharing) -> Sharing:
        """[x] -> x at every party, those that do not compute too. A reveal of the program. One round.

        As these hold no component, what they are sent must be fresh: see `_summands`.
        """
        return (self._opened(self._summands(x, 64, _add, _subtract), self.members, 64, _add),)

    def reveal_b(self, x: Sharing, *, bits: int) -> Sharing:
        """Boolean [x] -> x at every party."""
        return (self._opened(self._summands(x, bits, _xor, _xor), self.members, bits, _xor),)

    def reveal_a_to(self, x: Sharing, *, owner: int) -> Sharing:
        """[x] -> x at one party. To one that does not compute every component is sent, made fresh."""
        if owner < self.n:
            return self.protocol.kernels["reveal_a_to"].function(x, owner=owner)
        return (self._opened(self._summands(x, 64, _add, _subtract), (owner,), 64, _add),)

    def reveal_b_to(self, x: Sharing, *, owner: int, bits: int) -> Sharing:
        """Boolean [x] -> x at one party."""
        if owner < self.n:
            return self.protocol.kernels["reveal_b_to"].function(x, owner=owner, bits=bits)
        return (self._opened(self._summands(x, bits, _xor, _xor), (owner,), bits, _xor),)

    def _summands(self, x: Sharing, bits: int, add: Combine, subtract: Combine) -> Sharing:
        """The components, number i at party i, with a sharing of zero added: whoever gets all of them learns
        their sum and no more. (Components alone can: two reveals may have one in common.)
        """
        z = list(x)
        for i in range(len(z)):
            for j in range(i):
                r = _random((i, j), x[0], bits)
                z[i], z[j] = add(z[i], r), subtract(z[j], r)
        return tuple(z)

    def _opened(self, z: Sharing, to: range | tuple[int, ...], bits: int, add: Combine) -> Any:
        total = None
        for i, component in enumerate(z):
            known = {i} if len(z) > 1 else set(range(self.n))  # a single component is everybody's
            for party in to:
                if party not in known:
                    component = send(component, i, party, bits)
            total = component if total is None else add(total, component)
        assert total is not None
        return total


def _random(holders: tuple[int, ...], like: Any, bits: int) -> Any:
    r = random(holders, like.shape, like.dtype)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r


def _add(x: Any, y: Any) -> Any:
    return x + y


def _subtract(x: Any, y: Any) -> Any:
    return x - y


def _xor(x: Any, y: Any) -> Any:
    return x ^ y
