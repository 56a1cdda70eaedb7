"""Whether one secret is below each of several public limits (ABY3): what costs most is dealt only once.

As in `sign`, the first level of the carry tree needs no product between shares, but for groups of four bits. With s
known to the dealer and t to its neighbours, what a group does to a carry is linear in the products of its bits of s,
with coefficients made of t alone, and only t depends on the limit. So the dealer shares the fifteen products of the
bits of each group; for each limit words of k/4 bits are left. (For a single limit `sign` deals the three
products of two bits: all fifteen would cost the dealer more than the others save.)
"""

from __future__ import annotations

from collections.abc import Sequence

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.sign import carry_out, generated, high_half, low_half, without
from spuvm.runtime.protocols.protocol import And, Sharing, each, xor
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

DEALER = 1  # party 0 is the one that deals exponentials, which often follow
NEXT, LAST = (DEALER + 1) % 3, (DEALER + 2) % 3  # they know t

Pair = tuple[Elements, Elements, Elements]  # of two neighbouring bits: the lower, the upper, their product


def below(and_: And, x: Sharing, limits: Sequence[Elements]) -> list[Sharing]:
    """[x], public y_i -> the most significant bit of each x - y_i.

    log2 k rounds. Bits for n limits: the dealer sends 15 k/4 + (k/2 - 3) n, the others (k - 3) n.
    """
    shares = _dealt(x[DEALER] + x[NEXT])
    return [_sign(and_, shares, x[LAST] - y) for y in limits]


def _dealt(s: Elements) -> tuple[list[Elements], list[Elements]]:
    """The two shares of words that hold all products of the bits of each group; the dealer knows both."""
    s = bt.bit_reverse_indices(s)
    a, b, c, d = _quarters(s)
    d = without(d, _last(d))  # the sign is no part of a carry
    ab, cd = a & b, c & d
    words = [s, _word(ab, a & c, b & c, ab & c), _word(a & d, b & d, ab & d, cd), _joined(a & cd, b & cd), ab & cd]
    masks = [random((DEALER, NEXT), w.shape, w.dtype) for w in words]
    return masks, [send(w ^ mask, DEALER, LAST) for w, mask in zip(words, masks)]


def _products(share: Sequence[Elements]) -> tuple[Pair, Pair, tuple[Pair, Pair, Pair]]:
    """The two lower bits of each group, the two upper, and each of these three times the lower."""
    s, first, second, third, ab_cd = share
    a, b, c, d = _quarters(s)
    ab, ac, bc, ab_c = _quarters(first)
    ad, bd, ab_d, cd = _quarters(second)
    mixed = (ac, bc, ab_c), (ad, bd, ab_d), (low_half(third), high_half(third), ab_cd)
    return (a, b, ab), (c, without(d, _last(d)), cd), mixed


def _sign(and_: And, shares: tuple[list[Elements], list[Elements]], t: Elements) -> Sharing:
    """The top bit of s + t: that without a carry, and the carry out of all groups."""
    t = bt.bit_reverse_indices(t)
    top = _placed(shares[1][0], shares[0][0], t)
    z = _first_level(shares, t)
    carry = carry_out(and_, each(low_half, z), each(high_half, z), bt.width(t) // 4, None)
    return xor(each(lambda a: bt.cast(bt.shift_right(a, bt.width(t) - 1), 8), top), carry)


def _first_level(shares: tuple[list[Elements], list[Elements]], t: Elements) -> Sharing:
    """Whether each group generates a carry (lower half of the word) or passes one on (upper half).

    The dealer's neighbours compute their parts, mask them by words that it knows, and exchange them.
    """
    t0, t1, t2, t3 = _quarters(t)
    t3 = t3 | _last(t3)  # the top position passes on the carry of the one below: no bit of s, but one of t
    low, high = t0 & t1, t2 & t3

    def combined(one: Elements, c: Elements, d: Elements, cd: Elements) -> Elements:
        return (high & one) ^ (t3 & c) ^ (t2 & d) ^ cd

    def part(share: Sequence[Elements]) -> tuple[Elements, Elements]:
        lower, upper, mixed = _products(share)
        generate, propagate = zip(*(generated(*pair, t0, t1) for pair in (lower, *mixed)))
        passing = [propagate[0], *(p ^ (low & u) for p, u in zip(propagate[1:], upper))]
        return generated(*upper, t2, t3)[0] ^ combined(*generate), combined(*passing)

    generate, propagate = part(shares[0])
    first, second = _joined(generate, propagate ^ (low & high)), _joined(*part(shares[1]))
    z0 = random((DEALER, LAST), first.shape, first.dtype)
    z1 = random((DEALER, NEXT), first.shape, first.dtype)
    return _placed(z0, z1, send(first ^ z1, NEXT, LAST) ^ send(second ^ z0, LAST, NEXT))


def _placed(first: Elements, second: Elements, third: Elements) -> Sharing:
    """A sharing of what the dealer and the last party know, the dealer and the next, and these two."""
    components = {DEALER: first, NEXT: second, LAST: third}
    return tuple(components[i] for i in range(3))


def _quarters(x: Elements) -> tuple[Elements, Elements, Elements, Elements]:
    """Of words with their bits reordered: the lowest bits of all groups of four, the second lowest, and so on."""
    even, odd = low_half(x), high_half(x)
    return low_half(even), low_half(odd), high_half(even), high_half(odd)


def _word(a: Elements, b: Elements, c: Elements, d: Elements) -> Elements:
    """The inverse of `_quarters`."""
    return _joined(_joined(a, c), _joined(b, d))


def _joined(low: Elements, high: Elements) -> Elements:
    k = bt.width(low)
    return bt.cast(low, 2 * k) | bt.shift_left(bt.cast(high, 2 * k), k)


def _last(x: Elements) -> bt.Scalar:
    """The highest bit of a word."""
    return bt.constant(x, 1 << (bt.width(x) - 1))
