"""Words with one bit p < 63, and a sign in bit 63: as a power of two, and as the place of the bit, in the clear."""

from __future__ import annotations

import numpy as np

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

PLACE = 56  # the place of the bit has so many fraction bits, modulo 256
TOP = (1 << 63) - 1


def reversed_bits(x: Elements) -> Elements:
    """Bit p < 63 at place 62 - p; bit 63 is dropped."""
    for distance in (1, 2, 4, 8, 16, 32):
        low = sum(1 << i for i in range(64) if not i & distance)
        x = bt.shift_left(x & bt.constant(x, low), distance) | (bt.shift_right(x, distance) & bt.constant(x, low))
    return bt.shift_right(x, 1) & bt.constant(x, TOP)


def sign(x: Elements) -> Elements:
    """-1 for a bit that is set, 1 for one that is not, as ring elements."""
    wide = x.astype(np.uint64)
    return bt.constant(wide, 1) - bt.shift_left(wide, 1)


def power(x: Elements) -> Elements:
    """2^(62 - p), negative if bit 63 is set; 0 if no lower bit is."""
    return reversed_bits(x) * sign(bt.shift_right(x, 63))


def position(x: Elements) -> Elements:
    """p with 56 fraction bits, 0 if there is no bit."""
    total = bt.zeros_like(x)
    for digit in range(6):
        mask = sum(1 << p for p in range(63) if p >> digit & 1)
        total = total + bt.shift_left(bt.parity(x, mask).astype(np.uint64), PLACE + digit)
    return total
