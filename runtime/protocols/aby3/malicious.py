"""ABY3 with three parties, one of which may deviate in any way: malicious, with abort, honest majority.

Replicated sharings and their products are ABY3's (Araki et al., CCS 2016). What a party that deviates can do:

* add an error to a product: products are proved in batches before anything is revealed and at the end, by random
  combinations over a Galois ring, those of bits over GF(2^64), folded (Boneh et al., CRYPTO 2019; Goyal and Song,
  CRYPTO 2020; see `machine/proofs.py`). It is noticed but with probability 2^-46;
* send another value than it should where a second party knows it, too: that one confirms it by a tag, as in REP4;
* choose its own inputs, which it may.

A component is known to two parties, so its bits are shared as they are, without a message: conversions add three shared
words. What party 0 deals for a truncation is proved.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from operator import xor as xor_of

import jax

from spuvm.runtime.engine.primitives import random, send, uniform_opening
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.aby3 import edge
from spuvm.runtime.protocols.aby3.products import HOLDERS, random_component
from spuvm.runtime.protocols.aby3.proved import and_bb, dot_aa, joint_send, mul_aa, placed, proved, sum_of_three
from spuvm.runtime.protocols.algebra import Sharing, Summands
from spuvm.runtime.protocols.protocol import (
    Kernel,
    Protocol,
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

NAME = "aby3_malicious"

# Truncation ------------------------------------------------------------------------------------


def trunc_a(x: Sharing, *, bits: int) -> Sharing:
    """[x] -> [x / 2^bits], floor or one more by chance, for every |x| < 2^(k-2). Three rounds.

    As ABY3's `trunc_d` (Dalskov, Escudero and Keller, arXiv 1910.12435, 3.2.2); what party 0 deals is proved.
    1. r = r_0 + r_1, two words that party 0 shares keys for with party 2 and party 1. Parties 1 and 2 exchange
       x_1 + r_1 and x_0 + r_0, which party 0 confirms; both know c = x + 2^(k-2) + r, which says nothing about x.
    2. Party 0 shares the word of carries of b_0 + b_1, b_i = r_i mod 2^(k-1), by exclusive or. Its bit j + 1 is the
       majority of the bits j of b_0, b_1 and itself: one `and` of words, proved. Of it are taken v, the carry out of
       b_0 + b_1, and e, the one into bit number `bits`. The top bit of r is t = v xor the top bits of r_0 and r_1.
    3. With s the top bit of c, w = s xor t is the carry of x + 2^(k-2) + (r mod 2^(k-1)) into the top bit. The result:
       ((c mod 2^(k-1)) >> bits) - 2^(k-2-bits) - (b_0 >> bits) - (b_1 >> bits) - e + (v + w) 2^(k-1-bits).
    """
    k = bt.width(x[0])
    top, below = k - 1, (1 << (k - 1)) - 1
    r0, r1 = random_component(0, x[0]), random_component(1, x[1])
    c = joint_send(x[0] + r0, 2, 0, 1) + joint_send(x[1] + r1, 1, 0, 2) + x[2] + bt.constant(x[2], 1 << (k - 2))
    b0, b1 = (r & bt.constant(r, below) for r in (r0, r1))
    carry = _carries_dealt(b0, b1)

    def bit_of(i: int) -> tuple[Elements, Elements]:
        return bt.shift_right(carry[0], i) & bt.constant(r0, 1), bt.shift_right(carry[1], i) & bt.constant(r1, 1)

    v0, v1 = bit_of(top)
    short = max(bits + 1, 32)
    v = _sum_of_bits(bt.cast(v0, short), bt.cast(v1, short))
    t = _sum_of_bits(*(bt.cast(a ^ bt.shift_right(r, top), short) for a, r in ((v0, r0), (v1, r1))))
    s = placed(bt.cast(bt.shift_right(c, top), short), 2)
    both = mul_aa(s, t)
    wraps = each(lambda a, b, d, e: a + b + d - bt.shift_left(e, 1), v, t, s, both)
    low = (bt.shift_right(b0, bits), bt.shift_right(b1, bits), bt.shift_right(c & bt.constant(c, below), bits))
    known = (-low[0], -low[1], low[2] - bt.constant(c, 1 << (k - 2 - bits)))
    rest = each(lambda a, w: a + bt.shift_left(bt.cast(w, k), k - 1 - bits), known, wraps)
    return each(lambda a, b: a - b, rest, _sum_of_bits(*bit_of(bits)))


def _carries_dealt(b0: Elements, b1: Elements) -> Sharing:
    """The word of carries of b_0 + b_1, both below 2^(k-1), which party 0 knows, shared by it and proved."""
    carry = (b0 + b1) ^ b0 ^ b1
    mask = random(HOLDERS[1], carry.shape, carry.dtype)
    even = (1 << bt.width(b0)) - 2  # nothing is carried into bit 0
    shared = and_constant((send(carry ^ mask, 0, 2), mask, bt.zeros_like(mask)), even)
    x, y = xor(shared, placed(b0, 0)), xor(shared, placed(b1, 1))
    z = xor(shared, each(lambda a: bt.shift_right(a, 1), shared))
    x, y, z = (and_constant(a, (1 << (bt.width(b0) - 1)) - 1) for a in (x, y, z))
    proved(x, y, z, "and")
    return shared


def _sum_of_bits(first: Elements, second: Elements) -> Sharing:
    """Bits of the holders of component 0 and of component 1, as words -> [their exclusive or]. One round."""
    p, q = placed(first, 0), placed(second, 1)
    return each(lambda a, b, c: a + b - bt.shift_left(c, 1), p, q, mul_aa(p, q))


def mul_trunc_aa(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x y / 2^bits]. Three rounds: the product is there when the carries are."""
    return trunc_a(mul_aa(x, y), bits=bits)


def reshare_d(z: Sharing) -> Sharing:
    """Products are shared again as they are made: kind d is kind a."""
    return z


# A private value with a secret: its masked form is a sharing of it.


def mask_v(x: Sharing, *, owner: int, ring: int) -> Sharing:
    """The owner's x -> [x], as `share_v`."""
    return edge.share_v((bt.cast(x[0], ring),), owner=owner)


def product_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
    """A private x with [y] -> [x y]."""
    return mul_aa(m, y)


def dot_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product."""
    return dot_aa(m, y, dims=dims)


def dot_avm(y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the private operand on the right."""
    return dot_aa(y, m, dims=dims)


# Between arithmetic and boolean ------------------------------------------------------------------


def _two_words(x: Sharing) -> tuple[Sharing, Sharing]:
    """Two shared words whose sum is x: each component is shared as it is. One round."""
    return sum_of_three(*(placed(x[i], i) for i in range(3)))


def _added(x: Sharing, y: Sharing) -> Sharing:
    generate, propagate = and_bb(x, y, bits=bt.width(x[0])), xor(x, y)
    return xor(propagate, each(lambda a: bt.shift_left(a, 1), carries(and_bb, generate, propagate)))


def msb_a(x: Sharing) -> Sharing:
    """[x] -> its most significant bit. 2 + log2 k rounds."""
    first, second = _two_words(x)
    g, p = and_bb(first, second, bits=bt.width(x[0])), xor(first, second)
    top = 1 << (bt.width(x[0]) - 1)
    carry = carry_out(and_bb, and_constant(g, ~top), xor_constant(and_constant(p, ~top), top))
    return xor(top_bit(p), carry)


def eqz_a(x: Sharing) -> Sharing:
    """[x] -> whether x is zero. 2 + log2 k rounds.

    Words a and b add up to 0 if and only if, bit by bit, a xor b is what a or b carries from one bit to the next.
    """
    a, b = _two_words(x)
    both = and_bb(a, b, bits=bt.width(x[0]))
    carried = each(lambda p, q, r: bt.shift_left(p ^ q ^ r, 1), a, b, both)
    return all_bits(and_bb, xor_constant(xor(xor(a, b), carried), -1))


def a2b(x: Sharing) -> Sharing:
    """[x] -> its bits as a boolean sharing. 2 + log2 k rounds."""
    return _added(*_two_words(x))


def b2a(x: Sharing) -> Sharing:
    """A shared word [x] -> arithmetic [x]. 3 + log2 k rounds.

    1. Components 0 and 1 are random words y_0 and y_1; their holders share -y_0 and -y_1 by exclusive or, as they are.
    2. The boolean sum of the three is component 2, opened to parties 1 and 2, who hold it: x - y_0 - y_1, of which
       party 1 lacks y_0 and party 2 lacks y_1, so that it is uniform to either. Party 0 confirms what they send.
    """
    y0, y1 = random_component(0, x[0]), random_component(1, x[0])
    z = _added(*sum_of_three(x, placed(-y0, 0), placed(-y1, 1)))
    y2 = jax.tree.map(uniform_opening, joint_send(z[0], 2, 0, 1) ^ joint_send(z[1], 1, 0, 2) ^ z[2])
    return y0, y1, y2


def bit2a(x: Sharing, *, ring: int) -> Sharing:
    """A shared bool [b] -> arithmetic [b] mod 2^ring: the exclusive or of three bits. Two rounds."""
    b0, b1, b2 = (bt.cast(b, ring) for b in x)
    p, q = _sum_of_bits(b0, b1), placed(b2, 2)
    return each(lambda a, b, c: a + b - bt.shift_left(c, 1), p, q, mul_aa(p, q))


def prefix_or_b(x: Sharing) -> Sharing:
    """Shared words: bit i becomes the or of bits i and above. log2 k rounds."""
    return prefix_or(and_bb, x)


# Out ---------------------------------------------------------------------------------------------


def _missing(x: Sharing, i: int, bits: int | None = None) -> Elements:
    """Component i at the party that lacks it: of its holders the one that comes before sends it."""
    return joint_send(x[i], (i - 1) % 3, i, (i + 1) % 3, bits)


def reveal_a(x: Sharing) -> Sharing:
    """[x] -> x at every party: each is sent the component that it lacks. A reveal of the program."""
    return (reduce(add, (_missing(x, i) for i in range(3))),)


def reveal_b(x: Sharing, *, bits: int) -> Sharing:
    """Boolean [x] -> x at every party."""
    return (reduce(xor_of, (_missing(x, i, bits) for i in range(3))),)


def reveal_a_to(x: Sharing, *, owner: int) -> Sharing:
    """[x] -> x at one party, which is sent the component that it lacks."""
    i = (owner - 1) % 3
    return (x[owner] + x[(owner + 1) % 3] + _missing(x, i),)


def reveal_b_to(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """Boolean [x] -> x at one party."""
    i = (owner - 1) % 3
    return (x[owner] ^ x[(owner + 1) % 3] ^ _missing(x, i, bits),)


ABY3_MALICIOUS = Protocol(
    name=NAME,
    security="three parties, one of which may deviate in any way: malicious, with abort, honest majority",
    world_size=3,
    algebra=Summands(3, masked=3),
    coalitions=tuple(frozenset({i}) for i in range(3)),
    verified=True,
    proved=True,
    holders=dict.fromkeys("abd", HOLDERS),
    masked=lambda owner: HOLDERS,
    masked_in_shared=lambda owner: (0, 1, 2),
    kernels=table(
        Kernel("mask_v", mask_v, "v", "m"),
        Kernel("product_vma", product_vma, "vma", "d"),
        Kernel("dot_vma", dot_vma, "vma", "d", elementwise=False),
        Kernel("dot_avm", dot_avm, "avm", "d", elementwise=False),
        *products_with_private(product_vma, reshare_d, trunc_a),
        Kernel("product_aa", mul_aa, "aa", "d"),
        Kernel("dot_aa", dot_aa, "aa", "d", elementwise=False),
        Kernel("reshare_d", reshare_d, "d", "a", local=True),
        Kernel("mul_aa", mul_aa, "aa", "a"),
        Kernel("trunc_d", trunc_a, "d", "a"),
        Kernel("trunc_a", trunc_a, "a", "a"),
        Kernel("mul_trunc_aa", mul_trunc_aa, "aa", "a"),
        Kernel("and_bb", and_bb, "bb", "b"),
        Kernel("msb_a", msb_a, "a", "b"),
        Kernel("eqz_a", eqz_a, "a", "b"),
        Kernel("a2b", a2b, "a", "b"),
        Kernel("b2a", b2a, "b", "a"),
        Kernel("bit2a", bit2a, "b", "a"),
        Kernel("prefix_or_b", prefix_or_b, "b", "b"),
        Kernel("share_v", edge.share_v, "v", "a"),
        Kernel("share_vb", edge.share_vb, "v", "b"),
        Kernel("reveal_a", reveal_a, "a", "p"),
        Kernel("reveal_b", reveal_b, "b", "p"),
        Kernel("reveal_a_to", reveal_a_to, "a", "v"),
        Kernel("reveal_b_to", reveal_b_to, "b", "v"),
    ),
)


def aby3_malicious(world_size: int, others: int = 0) -> Protocol:
    """The protocol, among its three parties."""
    if others:
        raise ConfigError(
            f"`protocol` '{NAME}' has three parties and no others: what one that does not compute brings could not be "
            "checked. Let it share its values through one of the three."
        )
    return ABY3_MALICIOUS
