"""SEMI2K with a dealer: two or more parties, semi-honest, all but one of which may collude, and one process more.

The dealer (`dealer.py`) is semi-honest, and must not collude with any party. It sees no input and no opened value, but
learns the program and its public control: which branch of a `cond` is taken, and how often a `while` runs.
`semi2k_first_party_unsafe` is the same with party 0 as the dealer, and without a process more. Party 0
knows all masks and sees what is opened: it can compute every secret, and nobody notices. It gives up
everything but this: the other parties learn nothing. For tests, and where party 0 may see all anyway.

Comparisons have a way of their own, as a dealer gives out masks together with their bits (edaBits: Escudero, Ghosh,
Keller, Rachuri and Scholl, CRYPTO 2020). A value x is opened under a mask, c = x + r; its bits need the borrows of
c - r, a public word and shared bits, however many parties there are. The first level of the circuit for these
multiplies neighbouring bits of r with public factors: the dealer gives their products, too, as products of masks are
dealt in ABY2.0 (Patra, Schneider, Suresh and Yalame, USENIX Security 2021). So that level is local.

The opened c is part of what is computed; it is uniform, as r is, and r is used once. Two parties have a second way,
of one round and many more bytes (`keyed.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.dealer import Dealer
from spuvm.runtime.protocols.guests import with_others
from spuvm.runtime.protocols.keyed import PARTIES, Keyed
from spuvm.runtime.protocols.preprocessing import halves
from spuvm.runtime.protocols.protocol import (
    Protocol,
    all_bits,
    and_constant,
    carries,
    comparisons_with_public,
    each,
    folded,
    top_bit,
    xor,
)
from spuvm.runtime.protocols.semi2k import Semi2k, among
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

FIRST_PARTY = "semi2k_first_party_unsafe"


class Dealt(Semi2k):
    """SEMI2K's kernels over a dealer."""

    source: Dealer

    def _opened_up(self, x: Sharing, arrange: Callable[[Elements], Elements]) -> tuple[Elements, Sharing, Sharing]:
        """[x] -> c = x + r, opened and arranged, with the bits of r and the products of their halves. One round."""
        r, bits, products = self.source.opened_up(x[0], arrange)
        return arrange(self.open(tuple(p + q for p, q in zip(x, r)))), bits, products

    def msb_a(self, x: Sharing) -> Sharing:
        """[x] -> its most significant bit. log2 k rounds.

        1. Open c = x + r. 2. The bit is c's, r's and the borrow into that place, exclusively or.
        """
        return self._sign(*self._opened_up(x, bt.bit_reverse_indices))

    def _sign(self, c: Elements, r: Sharing, products: Sharing) -> Sharing:
        """The top bit of c - r; all in the order of `bit_reverse_indices`. The top place passes on what comes to it."""
        half = bt.width(c) // 2
        top, rest = 1 << (2 * half - 1), (1 << (2 * half - 1)) - 1
        below = and_constant(products, (1 << (half - 1)) - 1)
        g, p = _borrows(c & bt.constant(c, rest), and_constant(r, rest), below)
        sign = top_bit(_plus(r, c & bt.constant(c, top)))
        return xor(sign, folded(self.and_bb, g, p, half))

    def a2b(self, x: Sharing) -> Sharing:
        """[x] -> its bits as a boolean sharing. log2 k rounds.

        1. Open c = x + r. 2. x = c xor r xor the borrows from the places below.
        """
        k = bt.width(x[0])
        sides = partial(bt.swap_digits, low=0, high=(k - 1).bit_length() - 1)  # odd bits in the upper half; its inverse
        c, r, products = self._opened_up(x, sides)
        g, p = _borrows(c, r, products)
        free = ~c
        even = bt.constant(c, (1 << k // 2) - 1)
        generate = each(lambda a, b: sides((a & free & even) | bt.shift_left(bt.cast(b, k), k // 2)), r, g)
        passing = each(lambda a, b: sides((a & even) | bt.shift_left(bt.cast(b, k), k // 2)), _plus(r, free), p)
        borrows = carries(self.and_bb, generate, passing, first=1)
        return xor(each(sides, _plus(r, c)), each(lambda a: bt.shift_left(a, 1), borrows))

    def below_a(self, x: Sharing, *limits: Sharing) -> Sharing:
        """[x], public y_i -> whether x is below each y_i: the top bit of x - y_i is bit i of a byte. log2 k rounds.

        1. Open c = x + r, once. 2. The sign of (c - y_i) - r for each i, with the bits of one r.
        """
        r, bits, products = self.source.opened_up(x[0], bt.bit_reverse_indices)
        c = self.open(tuple(p + q for p, q in zip(x, r)))
        signs = [self._sign(bt.bit_reverse_indices(c - y), bits, products) for (y,) in limits]
        out = signs[0]
        for i, sign in enumerate(signs[1:], 1):
            out = xor(out, each(lambda a, i=i: bt.shift_left(a, i), sign))
        return out

    def eqz_a(self, x: Sharing) -> Sharing:
        """[x] -> whether x is zero. log2 k rounds: of two parties by their components, else whether x + r is r."""
        if self.n == 2:
            return super().eqz_a(x)
        c, r, products = self._opened_up(x, lambda word: word)
        _, same = _borrows(c, r, products)
        return all_bits(self.and_bb, same, bt.width(c) // 2)


def _plus(x: Sharing, public: Elements) -> Sharing:
    """Exclusively or with a public word."""
    return (x[0] ^ public, *x[1:])


def _borrows(c: Elements, r: Sharing, products: Sharing) -> tuple[Sharing, Sharing]:
    """Whether pairs of bits of c - r make a borrow, and pass one on, from the products of the pairs of r. Local.

    A bit makes a borrow, g = r and not c, or passes it on, p = not (r xor c). A pair, 1 above 0: g1 xor p1 g0, p1 p0.
    """
    (r0, r1) = zip(*map(halves, r))
    n0, n1 = halves(~c)
    g = each(lambda low, high, both: (n1 & high) ^ (n0 & ((n1 & low) ^ both)), r0, r1, products)
    p = each(lambda low, high, both: (n1 & low) ^ (n0 & high) ^ both, r0, r1, products)
    return g, _plus(p, n0 & n1)


def semi2k(world_size: int, others: int = 0) -> Protocol:
    """The protocol for `world_size` parties, and a dealer whose rank leaves room for `others`."""
    _check(world_size, "semi2k")
    protocol = _over(Dealer(world_size, world_size + others), "semi2k", "a dealer that colludes with nobody")
    return with_others(protocol, others)


def semi2k_first_party_unsafe(world_size: int, others: int = 0) -> Protocol:
    """The same among parties of which the first is the dealer, and can compute every secret."""
    _check(world_size, FIRST_PARTY)
    protocol = _over(Dealer(world_size, 0), FIRST_PARTY, "UNSAFE: party 0, the dealer, can compute every secret")
    return with_others(protocol, others)


def _over(source: Dealer, name: str, trust: str) -> Protocol:
    kernels = Dealt(source)
    keyed = Keyed(source, kernels).table() if source.n == PARTIES else ()
    return among(source, name, trust, kernels, (*comparisons_with_public(kernels.below_a), *keyed))


def _check(world_size: int, name: str) -> None:
    if world_size < 2:
        raise ConfigError(f"`protocol` {name!r} needs two parties or more, got {world_size}.")
