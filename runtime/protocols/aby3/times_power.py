"""x 2^y of secret x and y in two rounds: quotients, with 2^-y a divisor. Numbers modulo M as in exponential.py.

A word x, |x| < 2^62, is s + t - 2^62 with s and t modulo 2^64 known to one party and to two. Their sum wraps around if
and only if either has its top bit, g or h, as its own top bit is clear: over the integers it is s + t - 2^64 (g + h -
g h). With 2^y = A B as in exponential.py, A and g known to the one and B and h to the two, that is

    x A B = B ((s - 2^62 - 2^64 g) A + (t - 2^64 h) A + 2^64 h (g A)).

The one deals additive shares of the three factors that are its own. (Source: ours.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from spuvm.runtime.protocols.aby3.exponential import shared
from spuvm.runtime.protocols.aby3.harmonics import joined
from spuvm.runtime.protocols.protocol import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.exponential import FRACTION
from spuvm.runtime.ring.rotations import Long, difference, selected, times_short, total
from spuvm.runtime.ring.times_power import SHIFT, short_significand, times_whole_power, times_word


def scaled_aby3(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y], fixed point of 57 fraction bits modulo 128 -> [x 2^y], |x 2^y| < 2^62, -23 <= y. Two rounds, 64 bytes.

    Error: relative 1.2e-6 (2^-21 of A and of B, 7.5e-8 of each significand) and one unit.

    1. Party 0 knows s and A, parties 1 and 2 know t and B. Of each of its three factors, r is known to parties 0 and 1,
       the rest goes to party 2.
    2. Parties 1 and 2 compute their parts of the sum, times B; the upper halves are masked and exchanged.
    """
    shift = bt.constant(y[0], SHIFT << FRACTION)
    exponent, t, theirs = y[0] + y[1] + shift, x[2], y[2]
    s = x[0] + x[1] + bt.constant(t, 1 << 62)
    m, g, h = short_significand(exponent), bt.shift_right(s, 63), bt.shift_right(t, 63)
    zero = jnp.zeros_like(s)
    factors = (
        times_short(difference((zero, s), (g, zero + bt.constant(s, 1 << 62))), m),
        (zero, m),
        (g * m, zero),
    )
    mine, others = zip(*(shared(times_whole_power(factor, exponent)) for factor in factors))

    def part(own: Long, product: Long, both: Long) -> jax.Array:
        wrapped = difference(both, (product[1], product[0]))  # times 2^64: the halves change places
        sum_of_all = total(total(own, times_word(product, t)), selected(h, wrapped))
        return times_whole_power(times_short(sum_of_all, short_significand(theirs)), theirs)[0]

    return joined(part(*mine), part(*others) + bt.constant(t, 1))  # of two units, to the middle
