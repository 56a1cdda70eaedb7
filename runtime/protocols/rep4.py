"""REP4: four parties, of which one may deviate in any way (malicious, with abort, honest majority: three are honest).

Replicated sharings as in Fantastic Four (Dalskov, Escudero and Keller, USENIX Security 2021): x = x_0 + x_1 + x_2 + x_3
modulo 2^k, or their exclusive or, and party i knows all components but x_i. Every value that is sent is known to two
parties: one sends it, the other confirms it (`joint_send`), by a tag that is compared before anything is revealed and
at the end of a program. So a party that sends something else, or computes with something else, is noticed by the
receiver before a result is seen; who it was is not told apart from the one who confirms. A party may choose its own
inputs. No message authentication codes and no preprocessing: the ring is Z_2^k itself.

Two parties know x_0 + x_1, the other two x_2 + x_3: comparisons and truncations start from these two summands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add, xor
from typing import Any

import jax

from spuvm.runtime.engine.primitives import confirm, random, send, uniform_opening
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.algebra import Sharing, Summands
from spuvm.runtime.protocols.protocol import (
    Kernel,
    Protocol,
    Setup,
    all_bits,
    and_constant,
    carries,
    carry_out,
    each,
    prefix_or,
    products_with_private,
    table,
    top_bit,
    xor_constant,
)
from spuvm.runtime.protocols.protocol import xor as xor_each
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

HOLDERS = tuple(frozenset(range(4)) - {i} for i in range(4))
FIRST, SECOND = (2, 3), (0, 1)  # who knows x_0 + x_1, and who x_2 + x_3

# Of each pair of components (i, j): who knows both, the one that sends and the one that confirms. Their joint value
# becomes a random word in component i, and the rest in component j, which i is sent. The terms x_i y_i are j's at one.
PAIRS = ((0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2), (0, 2, 1, 3), (1, 3, 2, 0))
WITH_SQUARE = 4  # the first four pairs take on the product of their first components


def joint_send(x: Elements, src: int, by: int, dst: int, bits: int | None = None) -> Elements:
    """x, which two parties know, at a third: one sends it, the other confirms it."""
    return confirm(send(x, src, dst, bits), by, dst)


def _random(holders: Any, like: Elements, bits: int) -> Elements:
    r = random(holders, like.shape, like.dtype)
    return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r


def _hidden(x: Elements, pair: tuple[int, int, int, int], boolean: bool, bits: int) -> tuple[Elements, Elements]:
    """A value that `src` and `by` know -> a random word, and the rest: components i and j of a sharing of it."""
    i, j, src, by = pair
    r = _random((j, src, by), x, bits)
    return r, joint_send(x ^ r if boolean else x - r, src, by, i, bits)


def _shared_by(x: Elements, knowing: tuple[int, int], boolean: bool = False, bits: int = 64) -> Sharing:
    """A value that two parties know -> [x]. One round, one element."""
    i, j = (p for p in range(4) if p not in knowing)
    parts = dict(zip((i, j), _hidden(x, (i, j, *knowing), boolean, bits)))
    return tuple(parts[c] if c in parts else bt.zeros_like(x) for c in range(4))


# Products --------------------------------------------------------------------------------------


def _products(x: Sharing, y: Sharing, times: Callable[[Elements, Elements], Elements], plus: Any) -> Sharing:
    """What pairs of parties multiply: the summands of x y, in the order of `PAIRS`. Local."""
    out = []
    for n, (i, j, _, _) in enumerate(PAIRS):
        factor = plus(y[i], y[j]) if n < WITH_SQUARE else y[j]
        out.append(plus(times(x[i], factor), times(x[j], y[i])))
    return tuple(out)


def _reshared(z: Sharing, boolean: bool, bits: int) -> Sharing:
    """Values that pairs of parties know -> a sharing of their sum. One round, an element for each pair."""
    parts: list[list[Elements]] = [[], [], [], []]
    for value, pair in zip(z, PAIRS):
        r, rest = _hidden(value, pair, boolean, bits)
        parts[pair[0]].append(r)
        parts[pair[1]].append(rest)
    return tuple(reduce(xor if boolean else add, p) for p in parts)


def product_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> six summands of x y, each known to two parties."""
    return _products(x, y, lambda p, q: p * q, add)


def dot_aa(x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product."""
    return _products(x, y, lambda p, q: arithmetic.dot_general(p, q, dims), add)


def reshare_d(z: Sharing) -> Sharing:
    """Six summands -> [x]. One round, six elements in all."""
    return _reshared(z, False, 64)


def mul_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> [x y] (Fantastic Four, section 3.2). One round, six elements in all."""
    return reshare_d(product_aa(x, y))


def and_bb(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x & y] on words of `bits` significant bits. One round."""
    return _reshared(_products(x, y, lambda p, q: p & q, xor), True, bits)


# A private value with a secret: its masked form is a sharing of it.


def mask_v(x: Sharing, *, owner: int, ring: int) -> Sharing:
    """The owner's x -> [x], as `share_v`."""
    return share_v((bt.cast(x[0], ring),), owner=owner)


def product_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
    """A private x with [y] -> summands of x y."""
    return product_aa(m, y)


def dot_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the ring's generalised matrix product."""
    return dot_aa(m, y, dims=dims)


def dot_avm(y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The same with the private operand on the right."""
    return dot_aa(y, m, dims=dims)


# Truncation ------------------------------------------------------------------------------------


def trunc_a(x: Sharing, *, bits: int) -> Sharing:
    """[x] -> [x / 2^bits], at most one unit off, for every |x| < 2^(k-2). Three rounds.

    As ABY3's `trunc_d` (Dalskov, Escudero and Keller, arXiv 1910.12435, 3.2.2), with two parties in the place of each:
    1. Parties 2 and 3 know s = x_0 + x_1 and a random r; they tell 0 and 1 s + 2^(k-2) + r. These know x_2 + x_3,
       and so c = x + 2^(k-2) + r, which says nothing about x, as they do not know r.
    2. 2 and 3 share t 2^(k-1-bits) - h with t = r >> (k-1), h = (r mod 2^(k-1)) >> bits, and t; 0 and 1 share
       u = c >> (k-1), and ((c mod 2^(k-1)) >> bits) + u 2^(k-1-bits) - 2^(k-2-bits).
    3. The result is the sum of these less 2^(k-bits) t u: a product in words of `bits` bits.
    """
    k = bt.width(x[0])
    s, theirs = x[0] + x[1], x[2] + x[3]
    r = random(FIRST, s.shape, s.dtype)
    masked = s + bt.constant(s, 1 << (k - 2)) + r
    c = joint_send(joint_send(masked, 2, 3, 0), 3, 2, 1) + theirs
    t, u = bt.shift_right(r, k - 1), bt.shift_right(c, k - 1)
    below = bt.constant(r, (1 << (k - 1)) - 1)
    mine = bt.shift_left(t, k - 1 - bits) - bt.shift_right(r & below, bits)
    low = bt.shift_right(c & below, bits) + bt.shift_left(u, k - 1 - bits) - bt.constant(c, 1 << (k - 2 - bits))
    t, u = bt.cast(t, max(bits, 8)), bt.cast(u, max(bits, 8))
    both = mul_aa(_shared_by(t, FIRST), _shared_by(u, SECOND))
    y = each(add, _shared_by(mine, FIRST), _shared_by(low, SECOND))
    return each(lambda a, b: a - bt.shift_left(bt.cast(b, k), k - bits), y, both)


def trunc_d(z: Sharing, *, bits: int) -> Sharing:
    """Summands of x -> [x / 2^bits]. Four rounds."""
    return trunc_a(reshare_d(z), bits=bits)


def mul_trunc_aa(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x y / 2^bits]. Four rounds."""
    return trunc_d(product_aa(x, y), bits=bits)


# Between arithmetic and boolean ------------------------------------------------------------------


def _summands(x: Sharing, negated: bool = False) -> tuple[Sharing, Sharing]:
    """Boolean sharings of x_0 + x_1 and x_2 + x_3 (or of what is to be equal if x is zero). One round."""
    s, t = x[0] + x[1], x[2] + x[3]
    return _shared_by(s, FIRST, True), _shared_by(-t if negated else t, SECOND, True)


def _sum_bits(x: Sharing) -> tuple[Sharing, Sharing]:
    s, t = _summands(x)
    return and_bb(s, t, bits=64), xor_each(s, t)


def _added(generate: Sharing, propagate: Sharing) -> Sharing:
    carry = carries(and_bb, generate, propagate)
    return xor_each(propagate, each(lambda a: bt.shift_left(a, 1), carry))


def msb_a(x: Sharing) -> Sharing:
    """[x] -> its most significant bit. 2 + log2 k rounds."""
    g, p = _sum_bits(x)
    top = 1 << (bt.width(x[0]) - 1)
    carry = carry_out(and_bb, and_constant(g, ~top), xor_constant(and_constant(p, ~top), top))
    return xor_each(top_bit(p), carry)


def eqz_a(x: Sharing) -> Sharing:
    """[x] -> whether x is zero. 1 + log2 k rounds."""
    return all_bits(and_bb, xor_constant(xor_each(*_summands(x, negated=True)), -1))


def a2b(x: Sharing) -> Sharing:
    """[x] -> its bits as a boolean sharing. 2 + log2 k rounds."""
    return _added(*_sum_bits(x))


def b2a(x: Sharing) -> Sharing:
    """A shared word [x] -> arithmetic [x]. 4 + log2 k rounds.

    1. Parties 2 and 3 know a random r and share its bits; the boolean sum x + r is opened to 0 and 1, to whom it is
       uniform, as they do not know r.
    2. x is what they share of it, less what 2 and 3 share of r.
    """
    r = random(FIRST, x[0].shape, x[0].dtype)
    bits = _shared_by(r, FIRST, True)
    z = _added(and_bb(x, bits, bits=64), xor_each(x, bits))
    first, second = joint_send(z[0], 2, 3, 0), joint_send(z[1], 3, 2, 1)
    opened = jax.tree.map(uniform_opening, first ^ second ^ z[2] ^ z[3])
    return each(add, _shared_by(opened, SECOND), _shared_by(-r, FIRST))


def bit2a(x: Sharing, *, ring: int) -> Sharing:
    """A shared bool [b] -> arithmetic [b] mod 2^ring: p + q - 2 p q, p known to 2 and 3, q to 0 and 1. Two rounds."""
    p = _shared_by(bt.cast(x[0] ^ x[1], ring), FIRST)
    q = _shared_by(bt.cast(x[2] ^ x[3], ring), SECOND)
    return each(lambda a, b, c: a + b - bt.shift_left(c, 1), p, q, mul_aa(p, q))


def prefix_or_b(x: Sharing) -> Sharing:
    """Shared words: bit i becomes the or of bits i and above. log2 k rounds."""
    return prefix_or(and_bb, x)


# In and out --------------------------------------------------------------------------------------


def share_v(x: Sharing, *, owner: int) -> Sharing:
    """The owner's value -> [x]. One round, two elements.

    Two components are random, the owner's own one is zero, and the fourth is the rest: the two that get it compare it.
    """
    return _input(x[0], owner, False, 64)


def share_vb(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """The owner's word -> boolean [x], as `share_v`."""
    return _input(x[0], owner, True, bits)


def _input(x: Elements, owner: int, boolean: bool, bits: int) -> Sharing:
    last, a, b = ((owner + i) % 4 for i in (1, 2, 3))
    parts = {i: _random(HOLDERS[i], x, bits) for i in (a, b)}
    rest = x ^ parts[a] ^ parts[b] if boolean else x - parts[a] - parts[b]
    rest = confirm(send(send(rest, owner, a, bits), owner, b, bits), a, b)
    parts |= {last: rest, owner: bt.zeros_like(rest)}
    return tuple(parts[i] for i in range(4))


def _missing(x: Sharing, i: int, bits: int | None = None) -> Elements:
    """The component that party i lacks, at party i."""
    return joint_send(x[i], (i + 1) % 4, (i + 2) % 4, i, bits)


def reveal_a(x: Sharing) -> Sharing:
    """[x] -> x at every party: each is sent the component that it lacks. A reveal of the program."""
    return (reduce(add, (_missing(x, i) for i in range(4))),)


def reveal_b(x: Sharing, *, bits: int) -> Sharing:
    """Boolean [x] -> x at every party."""
    return (reduce(xor, (_missing(x, i, bits) for i in range(4))),)


def reveal_a_to(x: Sharing, *, owner: int) -> Sharing:
    """[x] -> x at one party, which is sent the component that it lacks."""
    return (reduce(add, (_missing(x, i) if i == owner else x[i] for i in range(4))),)


def reveal_b_to(x: Sharing, *, owner: int, bits: int) -> Sharing:
    """Boolean [x] -> x at one party."""
    return (reduce(xor, (_missing(x, i, bits) if i == owner else x[i] for i in range(4))),)


def _same_keys(channel: Setup) -> None:
    """A key of three parties comes from one of them: the three compare what they were given, or it could differ."""
    for holders in HOLDERS:
        if channel.rank in holders:
            channel.confirm_key(holders)


REP4 = Protocol(
    name="rep4",
    security="four parties, one of which may deviate in any way: malicious, with abort, honest majority",
    world_size=4,
    algebra=Summands(4, masked=4, products=len(PAIRS)),
    coalitions=tuple(frozenset({i}) for i in range(4)),
    verified=True,
    setup=_same_keys,
    holders={"a": HOLDERS, "b": HOLDERS, "d": tuple(frozenset(pair[2:]) for pair in PAIRS)},
    masked=lambda owner: HOLDERS,
    masked_in_shared=lambda owner: (0, 1, 2, 3),
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
        Kernel("eqz_a", eqz_a, "a", "b"),
        Kernel("a2b", a2b, "a", "b"),
        Kernel("b2a", b2a, "b", "a"),
        Kernel("bit2a", bit2a, "b", "a"),
        Kernel("prefix_or_b", prefix_or_b, "b", "b"),
        Kernel("share_v", share_v, "v", "a"),
        Kernel("share_vb", share_vb, "v", "b"),
        Kernel("reveal_a", reveal_a, "a", "p"),
        Kernel("reveal_b", reveal_b, "b", "p"),
        Kernel("reveal_a_to", reveal_a_to, "a", "v"),
        Kernel("reveal_b_to", reveal_b_to, "b", "v"),
    ),
)


def rep4(world_size: int, others: int = 0) -> Protocol:
    """The protocol, among its four parties."""
    if others:
        raise ConfigError(
            "`protocol` 'rep4' has four parties and no others: what one that does not compute brings could not be "
            "checked. Let it share its values through one of the four."
        )
    return REP4
