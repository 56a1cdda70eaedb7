"""A shared word with one bit set becomes a power of two, or the place of the bit: scaling by secret powers (ABY3).

The word is beta xor gamma, with beta known to party 0 and gamma to parties 1 and 2. If they differ in bit j alone,
beta - gamma is 2^j or -2^j, and 2^j if beta has the bit, that is, if beta and not gamma has odd parity.
The place is a number below 64: words of one byte do for it. (Source: ours.)
"""

from __future__ import annotations

import numpy as np

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.harmonics import joined
from spuvm.runtime.protocols.protocol import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements
from spuvm.runtime.ring.one_bit import PLACE, TOP, reversed_bits, sign


def power_aby3(x: Sharing) -> Sharing:
    """[x], a word with bit p < 63 -> [2^(62 - p)], negative if bit 63 is set; 0 if no lower bit is. Three rounds.

    1. Party 0 knows beta = x_0 xor x_1, parties 1 and 2 gamma = x_2, their bits below 63 reversed. Party 0 deals beta
       as a sum and by exclusive or, with bit 63. Now D = A + B and the sign is g h, where A and g = 1 or -1 are party
       1's, B and h party 2's.
    2. h A and g B: party 0 knows a word p and a bit q with one party each, and shares p q between them. They exchange
       the word less p, and the sign times q.
    3. What each has of the sum is masked by a word that party 0 knows, and exchanged.
    """
    dealt, known = x[0] ^ x[1], x[2]
    beta, gamma = reversed_bits(dealt), reversed_bits(known)
    r = random((0, 1), beta.shape, beta.dtype)
    first, second = r - gamma, send(beta - r, 0, 2)
    signed, mask = beta | (dealt & ~bt.constant(dealt, TOP)), random((0, 1), beta.shape, beta.dtype)
    other = send(signed ^ mask, 0, 2)
    counted = ~gamma  # with bit 63
    g = bt.parity(mask & counted, -1)
    h = bt.parity(other & counted, -1) ^ bt.cast(bt.shift_right(known, 63), 8) ^ np.uint8(1)
    mine, theirs = _times_sign(first * sign(g), h, 1, 2)
    theirs_too, mine_too = _times_sign(second * sign(h), g, 2, 1)
    return joined(mine + mine_too, theirs + theirs_too)


def _times_sign(x: Elements, bit: Elements, i: int, j: int) -> tuple[Elements, Elements]:
    """x, known to party i, times the sign of a bit that party j knows: parts at i and j. Party 0 helps."""
    p = random((0, i), x.shape, x.dtype)
    q = random((0, j), bit.shape, bit.dtype) & np.uint8(1)
    part = random((0, 1), x.shape, x.dtype)
    rest = send(p * sign(q) - part, 0, 2)
    less, flipped = send(x - p, i, j), sign(send(bit ^ q, j, i, 1))
    at_one, at_two = flipped * part, flipped * rest
    return (at_one, less * sign(bit) + at_two) if j == 2 else (at_two, less * sign(bit) + at_one)


def position_aby3(x: Sharing) -> Sharing:
    """[x], a word with bit p < 63 -> [p] with 56 fraction bits, 0 if there is none. Two rounds, in words of 8 bits.

    A digit of p is a parity of bits, hence d = beta_d + gamma_d (1 - 2 beta_d) with shares of beta_d from party 0.
    """
    dealt, known = x[0] ^ x[1], x[2]
    parts: list[Elements] = [np.uint8(0), np.uint8(0)]
    for digit in range(6):
        mask = sum(1 << p for p in range(63) if p >> digit & 1)
        beta, gamma = bt.parity(dealt, mask), bt.parity(known, mask)
        r = random((0, 1), beta.shape, beta.dtype)
        rest = send(beta - r, 0, 2)
        sign = np.uint8(1) - bt.shift_left(gamma, 1)
        shares = r * sign, rest * sign + gamma
        parts = [total + bt.shift_left(share, digit) for total, share in zip(parts, shares)]
    return tuple(bt.shift_left(z.astype(np.uint64), PLACE) for z in joined(*parts))
