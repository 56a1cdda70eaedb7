"""The sign of a sum of two words, one known to one party and the other to two (ABY3).

The first level of the carry tree needs no product between shares. With s known to party 0 and t to parties 1
and 2, what two neighbouring bits do to a carry is linear in s_0, s_1 and s_1 s_0, with coefficients made of t:

    generate   s_1 t_1 ^ s_1 s_0 t_0 ^ t_1 t_0 s_0
    propagate  s_1 s_0 ^ s_1 t_0 ^ t_1 s_0 ^ t_1 t_0

so party 0 shares the three between parties 1 and 2, each of them computes its part, and they reshare. (In place
of a sharing of s, an `and` with t and one of the tree's levels: two thirds of the messages, a round less.)
"""

from __future__ import annotations

from dataclasses import dataclass

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.protocol import And, Sharing, each, xor
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


def negative(and_: And, x: Sharing, carry: Sharing | None = None) -> Sharing:
    """[x] -> its most significant bit, of x + 1 if the shared bit `carry` is set.

    For k bits log2 k + 1 rounds, one more with a carry. Bits sent by party 0: 5 k/2 - 3; by the others: 2 k - 3.
    """
    return _sign(and_, _dealt(x[0] + x[1]), x[2], carry)


@dataclass(frozen=True)
class _Dealt:
    """Of s, its bits reordered: the word, and of half the length s_1 s_0 of each pair of bits.

    Each is a mask that parties 0 and 1 know, and the masked value at party 2.
    """

    word: tuple[Elements, Elements]
    product: tuple[Elements, Elements]


def _dealt(s: Elements) -> _Dealt:
    """Party 0 reorders the bits of s: neighbours in significance stand in opposite halves, and so on recursively."""
    half = bt.width(s) // 2
    s = bt.bit_reverse_indices(s)
    product = low_half(s) & without(high_half(s), bt.constant(low_half(s), 1 << (half - 1)))
    masks = random((0, 1), s.shape, s.dtype), random_word((0, 1), product, half)
    return _Dealt((masks[0], send(s ^ masks[0], 0, 2)), (masks[1], send(product ^ masks[1], 0, 2, half)))


def _sign(and_: And, dealt: _Dealt, t: Elements, carry: Sharing | None = None) -> Sharing:
    top, generate, propagate = _first_level(dealt, t)
    return xor(top, carry_out(and_, generate, propagate, bt.width(t) // 2, carry))


def _first_level(dealt: _Dealt, t: Elements) -> tuple[Sharing, Sharing, Sharing]:
    """s + t: its top bit without a carry; whether each pair of positions generates or passes on a carry.

    Parties 1 and 2 compute their parts, mask them by words that party 0 knows, and exchange them.
    """
    half = bt.width(t) // 2
    t = bt.bit_reverse_indices(t)
    last = bt.constant(low_half(t), 1 << (half - 1))
    t0, t1 = low_half(t), high_half(t) | last  # the top position passes on the carry of the one below: s_1 = 0, t_1 = 1
    both = t1 & t0

    def part(i: int) -> tuple[Elements, Elements]:
        word = dealt.word[i]
        return generated(low_half(word), without(high_half(word), last), dealt.product[i], t0, t1)

    generate, propagate = part(0)
    first = two_halves(generate, propagate ^ both, t)
    second = two_halves(*part(1), t)
    z0, z1 = random((0, 2), t.shape, t.dtype), random((0, 1), t.shape, t.dtype)
    z = (z0, z1, send(first ^ z1, 1, 2) ^ send(second ^ z0, 2, 1))
    top = each(lambda a: bt.cast(bt.shift_right(a, 2 * half - 1), 8), (dealt.word[1], dealt.word[0], t))
    return top, each(low_half, z), each(high_half, z)


def generated(s0: Elements, s1: Elements, product: Elements, t0: Elements, t1: Elements) -> tuple[Elements, Elements]:
    """A party's part of what pairs of bits generate and, but for t_1 t_0, propagate."""
    return (t1 & s1) ^ (t0 & product) ^ (t1 & t0 & s0), product ^ (t0 & s1) ^ (t1 & s0)


def carry_out(and_: And, g: Sharing, p: Sharing, width: int, carry: Sharing | None) -> Sharing:
    """The rest of the tree: (g, p) := (g1 ^ p1 g0, p1 p0), where 1 is the more significant half.

    The last p is needed only where there is a carry in.
    """
    while width > 1:
        half = width // 2
        (g0, g1), (p0, p1) = _split(g, half), _split(p, half)
        if half == 1 and carry is None:
            return xor(g1, and_(p1, g0, bits=1))
        both = each(lambda a, h=half: a | bt.shift_left(a, h), p1)
        other = each(lambda a, b, h=half: a | bt.shift_left(b, h), g0, p0)
        gp, pp = _split(and_(both, other, bits=width), half)
        g, p = (each(lambda a, h=half: bt.cast(a, h), v) for v in (xor(g1, gp), pp))
        width = half
    return g if carry is None else xor(g, and_(p, carry, bits=1))


def _split(x: Sharing, half: int) -> tuple[Sharing, Sharing]:
    """The lower and upper halves of words of 2 `half` bits, in words of the same length."""
    low = each(lambda a: a & bt.constant(a, (1 << half) - 1), x)
    return low, each(lambda a: bt.shift_right(a, half), x)


def low_half(x: Elements) -> Elements:
    """The lower half of each word, as a word of half the length; of 8 bits, 4 in 8."""
    half = bt.width(x) // 2
    return bt.cast(x & bt.constant(x, (1 << half) - 1), half)


def high_half(x: Elements) -> Elements:
    half = bt.width(x) // 2
    return bt.cast(bt.shift_right(x, half), half)


def two_halves(low: Elements, high: Elements, like: Elements) -> Elements:
    """The inverse of `low_half` and `high_half`."""
    k = bt.width(like)
    return bt.cast(low, k) | bt.shift_left(bt.cast(high, k), k // 2)


def without(x: Elements, bit: bt.Scalar) -> Elements:
    """Without this bit."""
    return x & ~bit


def random_word(holders: tuple[int, int], like: Elements, bits: int) -> Elements:
    r = random(holders, like.shape, like.dtype)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r
