"""Replicated sharings (ABY3), and their products: of two secrets, and of a secret with a private value."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

HOLDERS = tuple(frozenset({i, (i - 1) % 3}) for i in range(3))


def random_component(component: int, like: Elements) -> Elements:
    """A random word like `like`, known to the holders of the component."""
    return random(HOLDERS[component], like.shape, like.dtype)


def random_bits(component: int, like: Elements, bits: int) -> Elements:
    """The same with only the low `bits` set."""
    r = random_component(component, like)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r


def random_pair(i: int, j: int, like: Elements) -> Elements:
    return random((i, j), like.shape, like.dtype)


# Of two secrets -------------------------------------------------------------------------------


def _factors(x: Sharing, y: Sharing) -> tuple[list[tuple[Elements, Elements]], ...]:
    """[x], [y] -> what each party multiplies, pair by pair; all products together sum to x y. Local.

    Party 1 takes on all that it can, in one product; x_0 y_0 is left to party 2. Five are the least modulo 2^k: with
    one product at party i, x_i y_i and x_{i+1} y_{i+1} both have odd coefficients there, so its neighbours need two.
    """
    return [(x[0], y[1]), (x[1], y[0])], [(x[1] + x[2], y[1] + y[2])], [(x[2], y[0]), (x[0], y[2] + y[0])]


def product_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> local summands of x y; two products a party, one at party 1."""
    return tuple(reduce(add, (p * q for p, q in pairs)) for pairs in _factors(x, y))


def dot_aa(x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product."""
    return tuple(arithmetic.dot_sum(pairs, dims) for pairs in _factors(x, y))


def reshare_d(z: Sharing) -> Sharing:
    """Local summands -> replicated sharing. One round, one word a party.

    1. Party i adds rho_i - rho_{i+1}, a sharing of zero: rho_i is known to parties i and i-1.
    2. It sends the sum to party i-1, which thereby knows components i-1 and i.
    """
    rho = [random_component(i, z[i]) for i in range(3)]
    return tuple(send(z[i] + rho[i] - rho[(i + 1) % 3], i, (i - 1) % 3) for i in range(3))


def mul_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> [x y]. One round, one word a party (Araki et al., CCS 2016)."""
    return reshare_d(product_aa(x, y))


def and_bb(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x & y] on words of `bits` significant bits. One round, `bits` a party."""
    rho = [random_bits(i, x[i], bits) for i in range(3)]
    z = []
    for i in range(3):
        j = (i + 1) % 3
        zi = (x[i] & (y[i] ^ y[j])) ^ (x[j] & y[i]) ^ rho[i] ^ rho[j]
        z.append(send(zi, i, (i - 1) % 3, bits))
    return tuple(z)


# With a private value -------------------------------------------------------------------------


def mask_v(x: Sharing, *, owner: int, ring: int) -> Sharing:
    """The owner's x -> m = (x - r, r) at the owner's two neighbours. One word from the owner.

    r is known to the owner and the party after it; the party before it is sent x - r. With a third
    component of zero this is a replicated sharing of x, of which nobody needs to keep two components.
    """
    value = bt.cast(x[0], ring)
    r = random(HOLDERS[(owner + 1) % 3], value.shape, value.dtype)
    return send(value - r, owner, (owner - 1) % 3), r


def _product_vma(x: Sharing, m: Sharing, y: Sharing, owner: int, times: Callable[..., Elements]) -> Sharing:
    """x, m, [y] -> local summands of x y, with i the owner's rank: one product a party.

    x (y_i + y_{i+1}) at the owner, r y_{i+2} at the party after it, (x - r) y_{i+2} at the one before.
    """
    i, j, k = owner, (owner + 1) % 3, (owner + 2) % 3
    z = {i: times(x[0], y[i] + y[j]), j: times(m[1], y[k]), k: times(m[0], y[k])}
    return tuple(z[party] for party in range(3))


def product_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
    """A private x with [y] -> local summands of x y. Local, one product each."""
    return _product_vma(x, m, y, owner, lambda p, q: bt.cast(p, bt.width(q)) * q)


def dot_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product. The owner's x may be of uint8."""
    return _product_vma(x, m, y, owner, lambda p, q: arithmetic.dot_sum([(p, q)], dims))


def dot_avm(y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the private operand on the right."""
    return _product_vma(x, m, y, owner, lambda p, q: arithmetic.dot_sum([(q, p)], dims))
