"""What a protocol needs to sort by opened comparisons: a secret shuffle, and a comparison of several words.

The protocols that have both are in `SORTING`; the others sort by a network. ABY3's shuffle is that of
Laur, Willemson and Zhang (ISC 2011), in the form for replicated sharings of Asharov et al. (CCS 2022):
each pair of parties in turn applies a permutation that the third does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime import aby3
from spuvm.runtime import bits as bt
from spuvm.runtime.primitives import permutation, random, send
from spuvm.runtime.protocol import And, Sharing, and_constant, each, xor, xor_constant


@dataclass(frozen=True)
class Sorting:
    """`shuffle(sharings, kinds)`: arrays of shape [rows, n], kind `a` or `b` each, in the same order anew.

    `precedes(xs, ys)`: words of decreasing weight, the last ones different where all others are equal,
    no two of one place 2^(bits - 1) or more apart; whether x comes before y, opened to all.
    """

    shuffle: Callable[[Sequence[Sharing], str], list[Sharing]]
    precedes: Callable[[Sequence[Sharing], Sequence[Sharing]], Sharing]


# Circuits --------------------------------------------------------------------------------------------


def group_carry(and_: And, generate: Sharing, propagate: Sharing) -> tuple[Sharing, Sharing]:
    """The carry out of all positions of a sum without carry in, and whether a carry in would come out.

    As `carry_out`, but the last level keeps both bits.
    """
    g, p = each(bt.bit_reverse_indices, generate), each(bt.bit_reverse_indices, propagate)
    width = g[0].dtype.itemsize * 8
    while width > 1:
        half = width // 2
        (g0, g1), (p0, p1) = _halves(g, half), _halves(p, half)
        both = each(lambda a, h=half: a | bt.shift_left(a, h), p1)
        other = each(lambda a, b, h=half: a | bt.shift_left(b, h), g0, p0)
        gp, pp = _halves(and_(both, other, bits=width), half)
        g, p = (each(lambda a, h=half: a.astype(bt.word_dtype(h)), v) for v in (xor(g1, gp), pp))
        width = half
    return g, p


def _halves(x: Sharing, half: int) -> tuple[Sharing, Sharing]:
    low = each(lambda a: a & bt.constant(a, (1 << half) - 1), x)
    return low, each(lambda a: bt.shift_right(a, half), x)


def negative(and_: And, generate: Sharing, propagate: Sharing, carry: Sharing | None) -> Sharing:
    """The top bit of a sum with a carry in, from its generate and propagate bits."""
    top = propagate[0].dtype.itemsize * 8 - 1
    # The top position passes on the carry of the one below: generate 0, propagate 1.
    g = and_constant(generate, ~(1 << top))
    p = xor_constant(and_constant(propagate, ~(1 << top)), 1 << top)
    out, through = group_carry(and_, g, p)
    if carry is not None:
        out = xor(out, and_(through, carry, bits=1))
    return xor(each(lambda a: bt.shift_right(a, top).astype(np.uint8), propagate), out)


# ABY3 --------------------------------------------------------------------------------------------------


def shuffle_aby3(xs: Sequence[Sharing], kinds: str) -> list[Sharing]:
    """Sharings [x] -> of the same rows, each in an order that no party knows. Three rounds, 6 n words in all.

    For each pair of parties, with the third one outside:
    1. The pair draws a permutation for each row from its common key, unknown to the third.
    2. x = u + v, where one of them knows u, the other v; both permute theirs.
    3. They reshare: the components that the outsider holds are random words from keys common with it; of the
       remaining one, which only the pair holds, each tells the other its part, masked by those words.
    """
    for pair in ((0, 1), (1, 2), (2, 0)):
        order = permutation(pair, xs[0][0].shape)
        xs = [_permuted(x, order, pair, kind == "b") for x, kind in zip(xs, kinds)]
    return list(xs)


def _permuted(x: Sharing, order: jax.Array, pair: tuple[int, int], boolean: bool) -> Sharing:
    a, b = pair
    outside = 3 - a - b
    both, first, second = (aby3.HOLDERS.index(frozenset(h)) for h in ({a, b}, {a, outside}, {b, outside}))
    u = _at(x[both] ^ x[first] if boolean else x[both] + x[first], order)
    v = _at(x[second], order)
    r, s = (_mask(aby3.HOLDERS[i], x[i], boolean) for i in (first, second))
    parts = (u ^ r, v ^ s) if boolean else (u - r, v - s)
    sent = send(parts[0], a, b), send(parts[1], b, a)
    y = {both: sent[0] ^ sent[1] if boolean else sent[0] + sent[1], first: r, second: s}
    return tuple(y[i] for i in range(3))


def _at(x: jax.Array, order: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, order, axis=1, mode="promise_in_bounds")


def _mask(holders: frozenset[int], like: jax.Array, boolean: bool) -> jax.Array:
    """A random word; a random bit for a bool, which is 0 or 1 in a byte."""
    r = random(holders, like.shape, like.dtype)
    return r & bt.constant(r, 1) if boolean and like.dtype == np.uint8 else r


def precedes_aby3(xs: Sequence[Sharing], ys: Sequence[Sharing]) -> Sharing:
    """`before_aby3`, opened to all."""
    return aby3.reveal_b(before_aby3(xs, ys), bits=1)


def before_aby3(xs: Sequence[Sharing], ys: Sequence[Sharing]) -> Sharing:
    """Whether (x_1, x_2, ...) < (y_1, y_2, ...) in lexicographic order. Nine rounds for two words.

    With d = x_1 - y_1 and c = [the rest of x precedes that of y]: the first word decides unless d = 0, so the
    answer is [d < 0] if not c and [d <= 0] if c: the sign of (d - 1) + (1 - c), a sum with a carry in.
    """
    before: Sharing | None = None
    for x, y in zip(reversed(xs), reversed(ys)):
        d = tuple(a - b for a, b in zip(x, y))
        if before is not None:
            d = (d[0] - bt.constant(d[0], 1), *d[1:])
        carry = None if before is None else xor_constant(before, 1)
        before = negative(aby3.and_bb, *aby3.sum_bits(d), carry)
    assert before is not None
    return before


# REF2K -------------------------------------------------------------------------------------------------


def precedes_ref2k(xs: Sequence[Sharing], ys: Sequence[Sharing]) -> Sharing:
    """The same on plain values."""
    before = None
    for (x,), (y,) in zip(reversed(xs), reversed(ys)):
        top = x.dtype.itemsize * 8 - 1
        less = bt.shift_right(x - y, top).astype(np.uint8)
        before = less if before is None else less | ((x == y).astype(np.uint8) & before)
    assert before is not None
    return (before,)


SORTING: dict[str, Sorting] = {
    "aby3": Sorting(shuffle_aby3, precedes_aby3),
    "ref2k": Sorting(lambda xs, kinds: list(xs), precedes_ref2k),
}
