"""SEMI2K: two or more parties, semi-honest, dishonest majority (all but one may collude), with a dealer.

Additive sharings: party i alone knows component i. Products use Beaver triples (Beaver, CRYPTO
1991), and conversions doubly shared randomness (Escudero et al., CRYPTO 2020), which come from a
source of correlated randomness (`preprocessing.py`): a dealer (`dealt.py`), or oblivious transfer (`oblivious.py`).
"""

from __future__ import annotations

import jax

from spuvm.runtime.engine.primitives import random, send, uniform_opening
from spuvm.runtime.protocols.algebra import Summands
from spuvm.runtime.protocols.preprocessing import WHOLE, Product, Source, Triple, parity, total
from spuvm.runtime.protocols.protocol import (
    Kernel,
    Protocol,
    Sharing,
    all_bits,
    and_constant,
    carries,
    carry_out,
    each,
    prefix_or,
    products_with_private,
    table,
    top_bit,
    xor,
    xor_constant,
)
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


class Semi2k:
    """The kernels for the parties of `source`."""

    def __init__(self, source: Source) -> None:
        self.n = source.n
        self.source = source

    def open(self, x: Sharing, boolean: bool = False, bits: int = WHOLE) -> Elements:
        """A masked value, opened: every party sends its component to all others."""
        out = []
        for i, component in enumerate(x):
            for j in range(self.n):
                if j != i:
                    component = send(component, i, j, bits)
            out.append(component)
        return parity(tuple(out)) if boolean else total(tuple(out))

    # Products ----------------------------------------------------------------------------------

    def _beaver(self, x: Sharing, y: Sharing, times: Product) -> Sharing:
        """[x], [y] -> [x y] for a bilinear product. One round.

        1. Take a triple [a], [b], [c], c = a b.
        2. Open e = x - a and f = y - b. 3. z = c + e b + a f + e f, the last term at party 0.
        """
        return self.with_triple(self.source.triple(x[0], y[0], times), x, y, times)

    def with_triple(self, triple: Triple, x: Sharing, y: Sharing, times: Product) -> Sharing:
        """Steps 2 and 3 of `_beaver`."""
        a, b, c = triple
        e = self.open(tuple(p - q for p, q in zip(x, a)))
        f = self.open(tuple(p - q for p, q in zip(y, b)))
        z = [ci + times(e, bi) + times(ai, f) for ai, bi, ci in zip(a, b, c)]
        return (z[0] + times(e, f), *z[1:])

    def mul_aa(self, x: Sharing, y: Sharing) -> Sharing:
        """[x], [y] -> [x y] with a Beaver triple. One round, two words to each other party."""
        return self._beaver(x, y, lambda p, q: p * q)

    def square_a(self, x: Sharing) -> Sharing:
        """[x] -> [x^2]. One round, one word to each other party.

        1. Take [a] and [c], c = a^2. 2. Open e = x - a. 3. z = c + 2 e a + e^2, the last term at party 0.
        """
        a, c = self.source.square(x[0])
        e = self.open(tuple(p - q for p, q in zip(x, a)))
        z = [ci + bt.shift_left(e * ai, 1) for ai, ci in zip(a, c)]
        return (z[0] + e * e, *z[1:])

    def dot_aa(self, x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
        """The generalised matrix product with a matrix triple: each operand is opened once."""
        return self._beaver(x, y, lambda p, q: arithmetic.dot_general(p, q, dims))

    def mask_v(self, x: Sharing, *, owner: int, ring: int) -> Sharing:
        """The owner's x -> m = (e, a): a is a mask that the owner knows, e = x - a opened to the parties."""
        value = bt.cast(x[0], ring)
        a = self.source.mask(owner, value)
        e = value - a
        for j in range(self.n):
            if j != owner:
                e = send(e, owner, j)
        return e, a

    def _product_vma(self, m: Sharing, y: Sharing, owner: int, times: Product) -> Sharing:
        """A private x as (e, a) with [y] -> [x y], as `_beaver` with an x that is opened already. One round.

        1. Take [b] and [c], c = a b. 2. Open f = y - b. 3. z = c + e [y], and a f at the owner.
        """
        e, a = m
        b, c = self.source.times_mask(a, owner, y[0], times)
        f = self.open(tuple(p - q for p, q in zip(y, b)))
        z = [ci + times(e, yi) for ci, yi in zip(c, y)]
        z[owner] = z[owner] + times(a, f)
        return tuple(z)

    def product_vma(self, x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
        """A private x with [y] -> [x y]. One round, one word to each other party."""
        return self._product_vma(m, y, owner, lambda p, q: p * q)

    def dot_vma(self, x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
        """The generalised matrix product: y alone is opened."""
        return self._product_vma(m, y, owner, lambda p, q: arithmetic.dot_general(p, q, dims))

    def dot_avm(self, y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
        """The same with the private operand on the right."""
        return self._product_vma(m, y, owner, lambda p, q: arithmetic.dot_general(q, p, dims))

    def and_bb(self, x: Sharing, y: Sharing, *, bits: int) -> Sharing:
        """[x], [y] -> [x & y] on words of `bits` significant bits. One round."""
        a, b, c = self.source.conjunction(x[0], bits)
        e, f = (self.open(xor(p, q), boolean=True, bits=bits) for p, q in ((x, a), (y, b)))
        z = [ci ^ (e & bi) ^ (ai & f) for ai, bi, ci in zip(a, b, c)]
        return (z[0] ^ (e & f), *z[1:])

    # Truncation ----------------------------------------------------------------------------------

    def trunc_a(self, x: Sharing, *, bits: int) -> Sharing:
        """[x] -> [x / 2^bits], at most one unit off, for every |x| < 2^(k-2). One round.

        As in ABY3's `trunc_d` (Dalskov, Escudero and Keller, arXiv 1910.12435, 3.2.2):
        1. Take [r], [h] for h = (r mod 2^(k-1)) >> bits, and [t] for t = r >> (k-1).
        2. Open c = x + 2^(k-2) + r.
        3. y = ((c mod 2^(k-1)) >> bits) - h + (t xor c >> (k-1)) 2^(k-1-bits) - 2^(k-2-bits).
        The opened c is part of what is computed: uniform alone, it decides with r how the result is rounded.
        """
        k = bt.width(x[0])
        r, h, t = self.source.truncation(x[0], bits)
        masked = [p + q for p, q in zip(x, r)]
        c = self.open((masked[0] + bt.constant(x[0], 1 << (k - 2)), *masked[1:]))
        top = bt.shift_right(c, k - 1)
        sign = bt.constant(c, 1) - bt.shift_left(top, 1)
        y = [bt.shift_left(bt.cast(ti, k) * sign, k - 1 - bits) - hi for hi, ti in zip(h, t)]
        low = bt.shift_right(c & bt.constant(c, (1 << (k - 1)) - 1), bits)
        opened = low + bt.shift_left(top, k - 1 - bits) - bt.constant(c, 1 << (k - 2 - bits))
        return (y[0] + opened, *y[1:])

    def mul_trunc_aa(self, x: Sharing, y: Sharing, *, bits: int) -> Sharing:
        """[x], [y] -> [x y / 2^bits]. Two rounds."""
        return self.trunc_a(self.mul_aa(x, y), bits=bits)

    def square_trunc_a(self, x: Sharing, *, bits: int) -> Sharing:
        """[x] -> [x^2 / 2^bits]. Two rounds."""
        return self.trunc_a(self.square_a(x), bits=bits)

    # Between arithmetic and boolean ------------------------------------------------------------------

    def _trivial(self, i: int, word: Elements) -> Sharing:
        """A word that party i knows, as a boolean sharing."""
        return tuple(word if j == i else bt.zeros_like(word) for j in range(self.n))

    def _two_summands(self, x: Sharing) -> tuple[Sharing, Sharing]:
        """Boolean sharings of two words with the sum x: carry-save addition of the n components."""
        words = [self._trivial(i, c) for i, c in enumerate(x)]
        while len(words) > 2:
            p, q, r = words[:3]
            either = xor(p, q)
            # The majority of three bits is p xor (p xor q)(p xor r).
            majority = xor(p, self.and_bb(either, xor(p, r), bits=WHOLE))
            words = [xor(either, r), each(lambda a: bt.shift_left(a, 1), majority), *words[3:]]
        return words[0], words[1]

    def _sum_bits(self, x: Sharing) -> tuple[Sharing, Sharing]:
        s, t = self._two_summands(x)
        return self.and_bb(s, t, bits=WHOLE), xor(s, t)

    def msb_a(self, x: Sharing) -> Sharing:
        """[x] -> its most significant bit. 1 + log2 k rounds for two parties."""
        g, p = self._sum_bits(x)
        top = 1 << (bt.width(x[0]) - 1)
        carry = carry_out(self.and_bb, and_constant(g, ~top), xor_constant(and_constant(p, ~top), top))
        return xor(top_bit(p), carry)

    def a2b(self, x: Sharing) -> Sharing:
        """[x] -> its bits as a boolean sharing. 1 + log2 k rounds for two parties."""
        return self._added(*self._sum_bits(x))

    def _added(self, generate: Sharing, propagate: Sharing) -> Sharing:
        carry = carries(self.and_bb, generate, propagate)
        return xor(propagate, each(lambda a: bt.shift_left(a, 1), carry))

    def eqz_a(self, x: Sharing) -> Sharing:
        """[x] -> whether x is zero. log2 k rounds for two parties: x_0 = -x_1 needs no sum."""
        if self.n == 2:
            bits = (x[0], -x[1])
        else:
            bits = self.a2b(x)
        return all_bits(self.and_bb, xor_constant(bits, -1))

    def b2a(self, x: Sharing) -> Sharing:
        """A shared word [x] -> arithmetic [x]: open x + r, uniform as r is, r shared doubly. 2 + log2 k rounds."""
        r, r_bits = self.source.doubly_shared(x[0])
        g, p = self.and_bb(x, r_bits, bits=WHOLE), xor(x, r_bits)
        opened = jax.tree.map(uniform_opening, self.open(self._added(g, p), boolean=True))
        return (opened - r[0], *(-ri for ri in r[1:]))

    def bit2a(self, x: Sharing, *, ring: int) -> Sharing:
        """A shared bool [b] -> arithmetic [b] mod 2^ring with a daBit (Rotaru and Wood, 2019). One round, one bit."""
        beta, word = self.source.bit(x[0], ring)
        e = bt.cast(self.open(xor(x, beta), boolean=True, bits=1), ring)
        sign = bt.constant(e, 1) - bt.shift_left(e, 1)
        y = [w * sign for w in word]
        return (y[0] + e, *y[1:])

    def prefix_or_b(self, x: Sharing) -> Sharing:
        """Shared words: bit i becomes the or of bits i and above. log2 k rounds."""
        return prefix_or(self.and_bb, x)

    # In and out ------------------------------------------------------------------------------------------

    def share_v(self, x: Sharing, *, owner: int) -> Sharing:
        """The owner's value -> [x]: the others' components come from keys shared with it. No message."""
        parts = {j: random((owner, j), x[0].shape, x[0].dtype) for j in range(self.n) if j != owner}
        rest = x[0]
        for r in parts.values():
            rest = rest - r
        return tuple(rest if i == owner else parts[i] for i in range(self.n))

    def share_vb(self, x: Sharing, *, owner: int, bits: int) -> Sharing:
        """The owner's word -> boolean [x], as `share_v`."""
        mask = bt.constant(x[0], (1 << bits) - 1)
        parts = {j: random((owner, j), x[0].shape, x[0].dtype) & mask for j in range(self.n) if j != owner}
        rest = x[0]
        for r in parts.values():
            rest = rest ^ r
        return tuple(rest if i == owner else parts[i] for i in range(self.n))

    def reveal_a(self, x: Sharing) -> Sharing:
        """[x] -> x at every party. A reveal of the program."""
        return (self.open(x),)

    def reveal_b(self, x: Sharing, *, bits: int) -> Sharing:
        """Boolean [x] -> x at every party."""
        return (self.open(x, boolean=True, bits=bits),)

    def reveal_a_to(self, x: Sharing, *, owner: int) -> Sharing:
        """[x] -> x at one party."""
        return (total(tuple(c if i == owner else send(c, i, owner) for i, c in enumerate(x))),)

    def reveal_b_to(self, x: Sharing, *, owner: int, bits: int) -> Sharing:
        """Boolean [x] -> x at one party."""
        return (parity(tuple(c if i == owner else send(c, i, owner, bits) for i, c in enumerate(x))),)

    # To the source -------------------------------------------------------------------------------------

    def tell(self, x: Sharing) -> Sharing:
        """Public control, which all parties know -> known to the source's own process as well: party 0 sends it."""
        assert self.source.rank is not None
        return (send(x[0], 0, self.source.rank),)


def _coalitions(source: Source) -> tuple[frozenset[int], ...]:
    """All parties but one, and those that give out the randomness; a party that gives it out is in none."""
    inside = [i for i in range(source.n) if i not in source.givers]
    allowed = [frozenset(inside) - {i} for i in range(source.n)]
    return tuple(c for c in dict.fromkeys([*allowed, source.givers - set(range(source.n))]) if c)


def among(
    source: Source, name: str, trust: str, kernels: Semi2k | None = None, more: tuple[Kernel, ...] = ()
) -> Protocol:
    """The protocol of that name over a source of correlated randomness; `trust` says what has to be believed of it.

    `kernels` where a source has some of its own, and `more` that others have not.
    """
    k = kernels or Semi2k(source)
    holders = tuple(frozenset({i}) for i in range(source.n))
    told = () if source.rank is None else (Kernel("tell_p", k.tell, "p", "c"),)
    return Protocol(
        name=name,
        security=f"semi-honest, dishonest majority, with {trust}",
        world_size=source.n,
        algebra=Summands(source.n),
        coalitions=_coalitions(source),
        dealer=source.rank,
        holders={"a": holders, "b": holders, "d": holders},
        masked=lambda owner: (frozenset(range(source.n)), source.knows_mask(owner)),
        kernels=table(
            Kernel("mask_v", k.mask_v, "v", "m"),
            Kernel("product_vma", k.product_vma, "vma", "d"),
            Kernel("dot_vma", k.dot_vma, "vma", "d", elementwise=False),
            Kernel("dot_avm", k.dot_avm, "avm", "d", elementwise=False),
            *products_with_private(k.product_vma, lambda z: z, k.trunc_a),
            Kernel("product_aa", k.mul_aa, "aa", "d"),
            Kernel("dot_aa", k.dot_aa, "aa", "d", elementwise=False),
            Kernel("reshare_d", lambda x: x, "d", "a"),
            Kernel("mul_aa", k.mul_aa, "aa", "a"),
            Kernel("square_d", k.square_a, "a", "d"),
            Kernel("square_a", k.square_a, "a", "a"),
            Kernel("trunc_d", k.trunc_a, "d", "a"),
            Kernel("trunc_a", k.trunc_a, "a", "a"),
            Kernel("mul_trunc_aa", k.mul_trunc_aa, "aa", "a"),
            Kernel("square_trunc_a", k.square_trunc_a, "a", "a"),
            Kernel("and_bb", k.and_bb, "bb", "b"),
            Kernel("msb_a", k.msb_a, "a", "b"),
            *more,
            Kernel("eqz_a", k.eqz_a, "a", "b"),
            Kernel("a2b", k.a2b, "a", "b"),
            Kernel("b2a", k.b2a, "b", "a"),
            Kernel("bit2a", k.bit2a, "b", "a"),
            Kernel("prefix_or_b", k.prefix_or_b, "b", "b"),
            Kernel("share_v", k.share_v, "v", "a"),
            Kernel("share_vb", k.share_vb, "v", "b"),
            Kernel("reveal_a", k.reveal_a, "a", "p"),
            Kernel("reveal_b", k.reveal_b, "b", "p"),
            Kernel("reveal_a_to", k.reveal_a_to, "a", "v"),
            Kernel("reveal_b_to", k.reveal_b_to, "b", "v"),
            *told,
        ),
    )
