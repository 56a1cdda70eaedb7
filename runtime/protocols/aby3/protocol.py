"""ABY3: three parties, semi-honest, honest majority (no two parties collude).

Replicated sharings (Araki et al., CCS 2016; Mohassel and Rindal, ABY3, CCS 2018): x is
x_0 + x_1 + x_2 mod 2^k, or the exclusive or of three words. Component i is known to parties i
and i-1, so party i knows x_i and x_{i+1}, and lacks one. Each neighbouring pair shares a key, so
a random value for component i costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.aby3.below_public import below
from spuvm.runtime.protocols.aby3.exponential import exp2_aby3
from spuvm.runtime.protocols.aby3.harmonics import harmonics_aby3
from spuvm.runtime.protocols.aby3.one_bit import position_aby3, power_aby3
from spuvm.runtime.protocols.aby3.sign import negative
from spuvm.runtime.protocols.aby3.sum_bits import bits_of_sum
from spuvm.runtime.protocols.aby3.times_power import scaled_aby3
from spuvm.runtime.protocols.protocol import (
    Kernel,
    Protocol,
    Sharing,
    all_bits,
    carries,
    comparisons_with_public,
    each,
    prefix_or,
    products_with_private,
    table,
    xor,
    xor_constant,
)
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

HOLDERS = tuple(frozenset({i, (i - 1) % 3}) for i in range(3))


def _random(component: int, like: Elements) -> Elements:
    """A random word like `like`, known to the holders of the component."""
    return random(HOLDERS[component], like.shape, like.dtype)


def _random_bits(component: int, like: Elements, bits: int) -> Elements:
    """The same with only the low `bits` set."""
    r = _random(component, like)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r


def _pair(i: int, j: int, like: Elements) -> Elements:
    return random((i, j), like.shape, like.dtype)


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


# Products -------------------------------------------------------------------------------------


def _factors(x: Sharing, y: Sharing) -> tuple[list[tuple[Elements, Elements]], ...]:
    """[x], [y] -> what each party multiplies, pair by pair; all products together sum to x y. Local.

    Party 1 takes on all that it can, in one product; x_0 y_0 is left to party 2. Five are the least modulo 2^k: with
    one product at party i, x_i y_i and x_{i+1} y_{i+1} both have odd coefficients there, so its neighbours need two.
    """
    return [(x[0], y[1]), (x[1], y[0])], [(x[1] + x[2], y[1] + y[2])], [(x[2], y[0]), (x[0], y[2] + y[0])]


def product_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> local summands of x y; two products a party, one at party 1."""
    return tuple(reduce(add, (p * q for p, q in pairs)) for pairs in _factors(x, y))


def dot_aa(x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product."""
    return tuple(arithmetic.dot_sum(pairs, dims) for pairs in _factors(x, y))


def reshare_d(z: Sharing) -> Sharing:
    """Local summands -> replicated sharing. One round, one word a party.

    1. Party i adds rho_i - rho_{i+1}, a sharing of zero: rho_i is known to parties i and i-1.
    2. It sends the sum to party i-1, which thereby knows components i-1 and i.
    """
    rho = [_random(i, z[i]) for i in range(3)]
    return tuple(send(z[i] + rho[i] - rho[(i + 1) % 3], i, (i - 1) % 3) for i in range(3))


def mul_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> [x y]. One round, one word a party (Araki et al., CCS 2016)."""
    return reshare_d(product_aa(x, y))


def and_bb(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x & y] on words of `bits` significant bits. One round, `bits` a party."""
    rho = [_random_bits(i, x[i], bits) for i in range(3)]
    z = []
    for i in range(3):
        j = (i + 1) % 3
        zi = (x[i] & (y[i] ^ y[j])) ^ (x[j] & y[i]) ^ rho[i] ^ rho[j]
        z.append(send(zi, i, (i - 1) % 3, bits))
    return tuple(z)


# Products with a private value ------------------------------------------------------------------


def mask_v(x: Sharing, *, owner: int, ring: int) -> Sharing:
    """The owner's x -> m = (x - r, r) at the owner's two neighbours. One word from the owner.

    r is known to the owner and the party after it; the party before it is sent x - r. With a third
    component of zero this is a replicated sharing of x, of which nobody needs to keep two components.
    """
    value = bt.cast(x[0], ring)
    r = random(HOLDERS[(owner + 1) % 3], value.shape, value.dtype)
    return send(value - r, owner, (owner - 1) % 3), r


def _product_vma(x: Sharing, m: Sharing, y: Sharing, owner: int, times: Callable[..., Elements]) -> Sharing:
    """x, m, [y] -> local summands of x y, with i the owner's rank: one product a party.

    x (y_i + y_{i+1}) at the owner, r y_{i+2} at the party after it, (x - r) y_{i+2} at the one before.
    """
    i, j, k = owner, (owner + 1) % 3, (owner + 2) % 3
    z = {i: times(x[0], y[i] + y[j]), j: times(m[1], y[k]), k: times(m[0], y[k])}
    return tuple(z[party] for party in range(3))


def product_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
    """A private x with [y] -> local summands of x y. Local, one product each."""
    return _product_vma(x, m, y, owner, lambda p, q: bt.cast(p, bt.width(q)) * q)


def dot_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product. The owner's x may be of uint8."""
    return _product_vma(x, m, y, owner, lambda p, q: arithmetic.dot_sum([(p, q)], dims))


def dot_avm(y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the private operand on the right."""
    return _product_vma(x, m, y, owner, lambda p, q: arithmetic.dot_sum([(q, p)], dims))


# Truncation -----------------------------------------------------------------------------------


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
    """
    k = bt.width(z[0])
    u0, u1 = _pair(0, 2, z[0]), _pair(1, 2, z[0])
    m0 = send(z[0] + bt.constant(z[0], 1 << (k - 2)) + u0, 0, 1)
    m1 = send(z[1] + u1, 1, 0)
    c = m0 + m1
    r = u0 + u1 - z[2]
    short = max(bits + 1, 32)
    top = bt.cast(bt.shift_right(r, k - 1), short)
    high = bt.shift_right(r & bt.constant(r, (1 << (k - 1)) - 1), bits)
    h0, t0 = _pair(0, 2, high), _pair(0, 2, top)
    h1, t1 = send(high - h0, 2, 1), _send_low(top - t0, 2, 1, bits + 1)
    s = bt.shift_right(c, k - 1)
    sign = bt.cast(bt.constant(c, 1) - bt.shift_left(s, 1), short)
    a, b = _pair(0, 2, top), _pair(1, 2, top)
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


# Between arithmetic and boolean ------------------------------------------------------------------


def _summands(x: Sharing) -> tuple[Sharing, Elements]:
    """Party 0 shares s = x_0 + x_1 as a word; parties 1 and 2 know x_2: x = s + x_2. One word sent.

    s is (s xor r, r, 0) where r is known to parties 0 and 1 and party 0 sends s xor r to party 2.
    """
    s = x[0] + x[1]
    r = _pair(0, 1, s)
    return (send(s ^ r, 0, 2), r, bt.zeros_like(r)), x[2]


def msb_a(x: Sharing) -> Sharing:
    """[x] -> its most significant bit, see `sign`. 1 + log2 k rounds, two for the first level."""
    return negative(and_bb, x)


def below_ap(x: Sharing, *limits: Sharing) -> Sharing:
    """[x], public y_i -> whether x < y_i, as bit i of bytes: see `limits`. log2 k rounds."""
    signs = below(and_bb, x, [y for (y,) in limits])
    placed = (each(lambda a, i=i: bt.shift_left(a, i), sign) for i, sign in enumerate(signs))
    return reduce(xor, placed)


def eqz_a(x: Sharing) -> Sharing:
    """[x] -> whether x is zero, that is s = -x_2: no sum needed. 1 + log2 k rounds."""
    s, t = _summands(x)
    return all_bits(and_bb, xor_constant((s[0], s[1], -t), -1))


def a2b(x: Sharing) -> Sharing:
    """[x] -> its bits as a boolean sharing, see `sums`. 2 + log2 k rounds."""
    return bits_of_sum(and_bb, x)


def b2a(x: Sharing) -> Sharing:
    """A shared word [x] -> arithmetic [x]. 2 + log2 k rounds.

    1. Components 0 and 1 are random words; party 0 knows both and shares sigma = -(y_0 + y_1).
    2. The boolean sum x + sigma is component 2, opened to parties 1 and 2, who hold it.
    """
    y0, y1 = _random(0, x[0]), _random(1, x[0])
    sigma = -(y0 + y1)
    r = _pair(0, 1, sigma)
    s = (send(sigma ^ r, 0, 2), r, bt.zeros_like(r))
    g, p = and_bb(x, s, bits=bt.width(x[0])), xor(x, s)
    z = xor(p, each(lambda a: bt.shift_left(a, 1), carries(and_bb, g, p)))
    y2 = send(z[0], 2, 1) ^ send(z[1], 1, 2) ^ z[2]
    return y0, y1, y2


def bit2a(x: Sharing, *, ring: int) -> Sharing:
    """A shared bool [b] -> arithmetic [b] mod 2^ring (bit injection). Two rounds, one word a party.

    1. Party 0 knows beta = b_0 xor b_1; parties 1 and 2 know b_2: b = b_2 + beta (1 - 2 b_2).
    2. beta = r + m: r is known to parties 0 and 1, party 0 sends m to party 2.
    3. Party 1 knows r (1 - 2 b_2), party 2 knows m (1 - 2 b_2) + b_2; they mask and exchange them.
    """
    beta, bit = bt.cast(x[0] ^ x[1], ring), bt.cast(x[2], ring)
    sign = bt.constant(bit, 1) - bt.shift_left(bit, 1)
    r = _pair(0, 1, beta)
    m = send(beta - r, 0, 2)
    y0, y1 = _pair(0, 2, beta), _pair(0, 1, beta)
    y2 = send(r * sign - y1, 1, 2) + send(m * sign + bit - y0, 2, 1)
    return y0, y1, y2


# In and out -----------------------------------------------------------------------------------


def share_v(x: Sharing, *, owner: int) -> Sharing:
    """The owner's value -> [x]: (x - r, r, 0) from its own component on. One word from the owner."""
    r = random(HOLDERS[(owner + 1) % 3], x[0].shape, x[0].dtype)
    rest = send(x[0] - r, owner, (owner - 1) % 3)
    parts = {owner: rest, (owner + 1) % 3: r, (owner + 2) % 3: bt.zeros_like(r)}
    return tuple(parts[i] for i in range(3))


def share_vb(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """The owner's word -> boolean [x], as `share_v`."""
    r = _random_bits((owner + 1) % 3, x[0], bits)
    rest = send(x[0] ^ r, owner, (owner - 1) % 3, bits)
    parts = {owner: rest, (owner + 1) % 3: r, (owner + 2) % 3: bt.zeros_like(r)}
    return tuple(parts[i] for i in range(3))


def reveal_a(x: Sharing) -> Sharing:
    """[x] -> x at every party: each is sent the component that it lacks. A reveal of the program."""
    y = [send(x[i], i, (i + 1) % 3) for i in range(3)]
    return (y[0] + y[1] + y[2],)


def reveal_b(x: Sharing, *, bits: int) -> Sharing:
    """Boolean [x] -> x at every party."""
    y = [send(x[i], i, (i + 1) % 3, bits) for i in range(3)]
    return (y[0] ^ y[1] ^ y[2],)


def reveal_a_to(x: Sharing, *, owner: int) -> Sharing:
    """[x] -> x at one party, which is sent the component that it lacks."""
    i = (owner + 2) % 3
    return (x[owner] + x[(owner + 1) % 3] + send(x[i], i, owner),)


def reveal_b_to(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """Boolean [x] -> x at one party."""
    i = (owner + 2) % 3
    return (x[owner] ^ x[(owner + 1) % 3] ^ send(x[i], i, owner, bits),)


def prefix_or_b(x: Sharing) -> Sharing:
    """Shared words: bit i becomes the or of bits i and above. log2 k rounds."""
    return prefix_or(and_bb, x)


ABY3 = Protocol(
    name="aby3",
    security="three parties, semi-honest, honest majority",
    world_size=3,
    holders={"a": HOLDERS, "b": HOLDERS, "d": tuple(frozenset({i}) for i in range(3))},
    masked=lambda owner: (frozenset({(owner - 1) % 3}), frozenset({(owner + 1) % 3})),
    masked_in_shared=lambda owner: (owner, (owner + 1) % 3),
    kernels=table(
        Kernel("mask_v", mask_v, "v", "m"),
        Kernel("product_vma", product_vma, "vma", "d", local=True),
        Kernel("dot_vma", dot_vma, "vma", "d", elementwise=False, local=True),
        Kernel("dot_avm", dot_avm, "avm", "d", elementwise=False, local=True),
        *products_with_private(product_vma, reshare_d, trunc_d),
        Kernel("product_aa", product_aa, "aa", "d", local=True),
        Kernel("dot_aa", dot_aa, "aa", "d", elementwise=False, local=True),
        Kernel("reshare_d", reshare_d, "d", "a"),
        Kernel("mul_aa", mul_aa, "aa", "a"),
        Kernel("trunc_d", trunc_d, "d", "a"),
        Kernel("trunc_a", trunc_a, "a", "a"),
        Kernel("mul_trunc_aa", mul_trunc_aa, "aa", "a"),
        Kernel("and_bb", and_bb, "bb", "b"),
        Kernel("msb_a", msb_a, "a", "b"),
        *comparisons_with_public(below_ap),
        Kernel("eqz_a", eqz_a, "a", "b"),
        Kernel("a2b", a2b, "a", "b"),
        Kernel("b2a", b2a, "b", "a"),
        Kernel("bit2a", bit2a, "b", "a"),
        Kernel("prefix_or_b", prefix_or_b, "b", "b"),
        Kernel("exp2_ab", exp2_aby3, "ab", "a"),
        Kernel("exp2_abb", exp2_aby3, "abb", "a"),
        Kernel("harmonics_a", harmonics_aby3, "a", "a"),
        Kernel("scaled_aa", scaled_aby3, "aa", "a"),
        Kernel("power_b", power_aby3, "b", "a"),
        Kernel("position_b", position_aby3, "b", "a"),
        Kernel("share_v", share_v, "v", "a"),
        Kernel("share_vb", share_vb, "v", "b"),
        Kernel("reveal_a", reveal_a, "a", "p"),
        Kernel("reveal_b", reveal_b, "b", "p"),
        Kernel("reveal_a_to", reveal_a_to, "a", "v"),
        Kernel("reveal_b_to", reveal_b_to, "b", "v"),
    ),
)
