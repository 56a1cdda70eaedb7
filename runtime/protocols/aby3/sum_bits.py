"""The bits of a sum of two words, one known to one party and the other to two (ABY3).

Neighbouring bits are taken together first, as `sign` does, so that the prefix network spans half as many positions; a
last `and` gives the carries between the bits of a pair. (The idea is Brent and Kung's, of one level.)
"""

from __future__ import annotations

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.sign import generated, high_half, low_half, random_word, two_halves
from spuvm.runtime.protocols.protocol import And, Sharing, carries, each, xor
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


def bits_of_sum(and_: And, x: Sharing) -> Sharing:
    """[x] -> its bits as a boolean sharing. 2 + log2 k rounds; 2 k log2 k / 4 + 5/4 k bits a party.

    1. Party 0 deals the bits of s = x_0 + x_1, the even ones in the lower half, and the products of each pair.
    2. Parties 1 and 2 know t = x_2: what each pair generates and propagates, and each even bit generates, is masked
       and exchanged.
    3. The carries out of the pairs (`carries`), and those out of their lower bits.
    """
    half = bt.width(x[0]) // 2
    s, t = even_bits_first(x[0] + x[1]), even_bits_first(x[2])
    product = low_half(s) & high_half(s)
    masks = random((0, 1), s.shape, s.dtype), random_word((0, 1), product, half)
    dealt = send(s ^ masks[0], 0, 2), send(product ^ masks[1], 0, 2, half)
    t0, t1 = low_half(t), high_half(t)

    def part(word: Elements, product: Elements, both: Elements) -> tuple[Elements, Elements]:
        s0, s1 = low_half(word), high_half(word)
        generate, propagate = generated(s0, s1, product, t0, t1)
        return two_halves(generate, propagate ^ both, s), s0 & t0

    mine, theirs = part(*masks, t0 & t1), part(*dealt, bt.zeros_like(t0))
    pairs, lower_bits = (_exchanged(a, b, n) for a, b, n in zip(mine, theirs, (2 * half, half)))
    bits = (dealt[0], masks[0], t)
    out = carries(and_, each(low_half, pairs), each(high_half, pairs))
    even = each(lambda a: bt.shift_left(a, 1) & bt.constant(a, (1 << half) - 1), out)
    odd = xor(lower_bits, and_(each(low_half, bits), even, bits=half))
    carry = each(lambda a, b: two_halves(a, b, s), even, odd)
    return each(in_order, xor(bits, carry))


def _exchanged(a: Elements, b: Elements, bits: int) -> Sharing:
    """a at party 1 and b at party 2 -> [a xor b]."""
    z0, z1 = random_word((0, 2), a, bits), random_word((0, 1), a, bits)
    return z0, z1, send(a ^ z1, 1, 2, bits) ^ send(b ^ z0, 2, 1, bits)


def even_bits_first(x: Elements) -> Elements:
    """Bit 2 i at place i, bit 2 i + 1 at place i of the upper half."""
    for digit in range(bt.width(x).bit_length() - 2):
        x = bt.swap_digits(x, digit, digit + 1)
    return x


def in_order(x: Elements) -> Elements:
    """The inverse of `even_bits_first`."""
    for digit in reversed(range(bt.width(x).bit_length() - 2)):
        x = bt.swap_digits(x, digit, digit + 1)
    return x
