"""Truncation, at most one unit off (ABY3)."""

from __future__ import annotations

from spuvm.runtime.engine.primitives import send
from spuvm.runtime.protocols.aby3.products import product_aa, random_pair
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


def _send_low(x: Elements, src: int, dst: int, bits: int) -> Elements:
    """`send`, where only the low `bits` count: of words of 32 bits 16, 20 or 24 are sent if that is enough."""
    if bt.width(x) != 32 or bits > 24:
        return send(x, src, dst)
    low = bt.cast(send(bt.cast(x, 16), src, dst), 32)
    if bits <= 16:
        return low
    mask = bt.constant(x, 15 if bits <= 20 else 255)
    high = send(bt.cast(bt.shift_right(x, 16) & mask, 8), src, dst, 4 if bits <= 20 else 8)
    return low | bt.shift_left(bt.cast(high, 32), 16)


def trunc_d(z: Sharing, *, bits: int) -> Sharing:
    """Local summands of x -> [x / 2^bits], at most one unit off, for every |x| < 2^(k-2). Two rounds.

    The error is that of floor(x / 2^bits) or floor(x / 2^bits) + 1, with the probability of the
    dropped fraction: no catastrophic case (Dalskov, Escudero and Keller, arXiv 1910.12435,
    3.2.2; eprint 2025/200, algorithm 4). Party 2 plays the dealer, which is safe as it sees no
    opened value.

    1. u_0 is known to parties 0 and 2, u_1 to parties 1 and 2. Put r = u_0 + u_1 - z_2: party 2
       knows r, and to the others it is uniform.
    2. Parties 0 and 1 exchange z_0 + 2^(k-2) + u_0 and z_1 + u_1; both know c = x + 2^(k-2) + r.
    3. Party 2 shares h = (r mod 2^(k-1)) >> bits and t = r >> (k-1) between parties 0 and 1: h_0 and
       t_0 are random words that party 0 knows, party 1 is sent the rest.
       As 0 <= x + 2^(k-2) < 2^(k-1), its carry into the top bit is v = t xor s with s = c >> (k-1),
       and y = ((c mod 2^(k-1)) >> bits) - 2^(k-2-bits) - h + v 2^(k-1-bits).
    4. v = s + (1 - 2 s) t counts modulo 2^(bits + 1) only. Parties 0 and 1 know (1 - 2 s) t_0 and
       (1 - 2 s) t_1; they reshare these short words: a and b are random, and known to party 2.
    5. The components: a 2^(k-1-bits) - h_0 at parties 0 and 2; b 2^(k-1-bits) - h_1 at parties 1
       and 2; at parties 0 and 1 what they know of y, with the opened (1 - 2 s) t - a - b.

    The opened word c is part of what is computed: alone it is uniform, but it and r decide how the result is rounded.
    Whoever sees many revealed results of one x learns the dropped bits from their mean (see docs/security.md).
    """
    k = bt.width(z[0])
    u0, u1 = random_pair(0, 2, z[0]), random_pair(1, 2, z[0])
    m0 = send(z[0] + bt.constant(z[0], 1 << (k - 2)) + u0, 0, 1)
    m1 = send(z[1] + u1, 1, 0)
    c = m0 + m1
    r = u0 + u1 - z[2]
    short = max(bits + 1, 32)
    top = bt.cast(bt.shift_right(r, k - 1), short)
    high = bt.shift_right(r & bt.constant(r, (1 << (k - 1)) - 1), bits)
    h0, t0 = random_pair(0, 2, high), random_pair(0, 2, top)
    h1, t1 = send(high - h0, 2, 1), _send_low(top - t0, 2, 1, bits + 1)
    s = bt.shift_right(c, k - 1)
    sign = bt.cast(bt.constant(c, 1) - bt.shift_left(s, 1), short)
    a, b = random_pair(0, 2, top), random_pair(1, 2, top)
    carry = _send_low(t0 * sign - a, 0, 1, bits + 1) + _send_low(t1 * sign - b, 1, 0, bits + 1)
    low = bt.shift_right(c & bt.constant(c, (1 << (k - 1)) - 1), bits) - bt.constant(c, 1 << (k - 2 - bits))

    def at_carry(v: Elements) -> Elements:
        return bt.shift_left(bt.cast(v, k), k - 1 - bits)

    return at_carry(a) - h0, low + bt.shift_left(s, k - 1 - bits) + at_carry(carry), at_carry(b) - h1


def trunc_a(x: Sharing, *, bits: int) -> Sharing:
    """[x] -> [x / 2^bits] as `trunc_d`."""
    return trunc_d(x, bits=bits)


def mul_trunc_aa(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x y / 2^bits]: the local product goes straight into `trunc_d`. Two rounds."""
    return trunc_d(product_aa(x, y), bits=bits)
