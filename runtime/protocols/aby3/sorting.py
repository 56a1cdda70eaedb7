"""Sorting by opened comparisons (ABY3): the shuffle of Laur, Willemson and Zhang (ISC 2011), in the form for replicated
sharings of Asharov et al. (CCS 2022): each pair of parties in turn applies a permutation that the third does not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.runtime.engine.primitives import permutation, random, send
from spuvm.runtime.protocols.aby3.edge import reveal_b
from spuvm.runtime.protocols.aby3.products import HOLDERS, and_bb
from spuvm.runtime.protocols.aby3.sign import negative
from spuvm.runtime.protocols.protocol import Sharing, xor, xor_constant
from spuvm.runtime.ring import bits as bt


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
    both, first, second = (HOLDERS.index(frozenset(h)) for h in ({a, b}, {a, outside}, {b, outside}))
    u = _at(x[both] ^ x[first] if boolean else x[both] + x[first], order)
    v = _at(x[second], order)
    r, s = (random(HOLDERS[i], x[i].shape, x[i].dtype) for i in (first, second))
    if boolean and u.dtype == np.uint8:  # a bool: one bit
        u, v, r, s = (w & bt.constant(w, 1) for w in (u, v, r, s))
    parts = (u ^ r, v ^ s) if boolean else (u - r, v - s)
    sent = send(parts[0], a, b), send(parts[1], b, a)
    y = {both: sent[0] ^ sent[1] if boolean else sent[0] + sent[1], first: r, second: s}
    return tuple(y[i] for i in range(3))


def _at(x: jax.Array, order: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, order, axis=1, mode="promise_in_bounds")


def opened_aby3(x: Sharing) -> Sharing:
    """A shared bool, opened to the three."""
    return reveal_b(x, bits=1)


def before_aby3(xs: Sequence[Sharing], ys: Sequence[Sharing], kinds: str) -> Sharing:
    """Whether (x_1, x_2, ...) < (y_1, y_2, ...) in lexicographic order. Eight rounds for two words, a bool one more.

    With d = x_1 - y_1 and c = [the rest of x precedes that of y]: the first word decides unless d = 0, so the
    answer is [d < 0] if not c and [d <= 0] if c: the sign of (d - 1) + (1 - c), a sum with a carry in. Of bools:
    y_1 where they differ, else c.
    """
    before: Sharing | None = None
    for x, y, kind in zip(reversed(xs), reversed(ys), reversed(kinds)):
        if kind == "b":
            before = _before_bool(x, y, before)
            continue
        d = tuple(a - b for a, b in zip(x, y))
        if before is not None:
            d = (d[0] - bt.constant(d[0], 1), *d[1:])
        before = negative(and_bb, d, None if before is None else xor_constant(before, 1))
    assert before is not None
    return before


def _before_bool(x: Sharing, y: Sharing, rest: Sharing | None) -> Sharing:
    if rest is None:
        return and_bb(xor_constant(x, 1), y, bits=1)
    return xor(rest, and_bb(xor(x, y), xor(rest, y), bits=1))
