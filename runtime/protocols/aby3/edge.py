"""In and out: sharing the value of a party, and reveals (ABY3)."""

from __future__ import annotations

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.products import HOLDERS, random_bits
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.ring import bits as bt


def share_v(x: Sharing, *, owner: int) -> Sharing:
    """The owner's value -> [x]: (x - r, r, 0) from its own component on. One word from the owner."""
    r = random(HOLDERS[(owner + 1) % 3], x[0].shape, x[0].dtype)
    rest = send(x[0] - r, owner, (owner - 1) % 3)
    parts = {owner: rest, (owner + 1) % 3: r, (owner + 2) % 3: bt.zeros_like(r)}
    return tuple(parts[i] for i in range(3))


def share_vb(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """The owner's word -> boolean [x], as `share_v`."""
    r = random_bits((owner + 1) % 3, x[0], bits)
    rest = send(x[0] ^ r, owner, (owner - 1) % 3, bits)
    parts = {owner: rest, (owner + 1) % 3: r, (owner + 2) % 3: bt.zeros_like(r)}
    return tuple(parts[i] for i in range(3))


def reveal_a(x: Sharing) -> Sharing:
    """[x] -> x at every party: each is sent the component that it lacks. A reveal of the program."""
    y = [send(x[i], i, (i + 1) % 3) for i in range(3)]
    return (y[0] + y[1] + y[2],)


def reveal_b(x: Sharing, *, bits: int) -> Sharing:
    """Boolean [x] -> x at every party."""
    y = [send(x[i], i, (i + 1) % 3, bits) for i in range(3)]
    return (y[0] ^ y[1] ^ y[2],)


def reveal_a_to(x: Sharing, *, owner: int) -> Sharing:
    """[x] -> x at one party, which is sent the component that it lacks."""
    i = (owner + 2) % 3
    return (x[owner] + x[(owner + 1) % 3] + send(x[i], i, owner),)


def reveal_b_to(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """Boolean [x] -> x at one party."""
    i = (owner + 2) % 3
    return (x[owner] ^ x[(owner + 1) % 3] ^ send(x[i], i, owner, bits),)
