"""SEMI2K of two parties alone, semi-honest: all correlated randomness by oblivious transfer, no dealer.

The kernels are SEMI2K's. Triples, shared bits and truncation pairs come from the streams of `engine/correlated.py`,
which the two parties fill by correlated oblivious transfers (`runtime/oblivious`): products by Gilboa's method
(CRYPTO 1999), a bit known by exclusive or from one product of the two parties' bits, and words, their truncation and
sign from their bits; products of matrices by ring-LWE where that takes fewer bytes. The transfers' extension refuses a
receiver that deviates; all else holds against parties that follow the program.
"""

from __future__ import annotations

from math import prod
from typing import Any

import jax.numpy as jnp

from spuvm.runtime.engine.correlated import Family, Kind, draw
from spuvm.runtime.engine.primitives import random
from spuvm.runtime.errors import ConfigError, ProtocolError
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.guests import with_others
from spuvm.runtime.protocols.preprocessing import Product, Source, Triple
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.semi2k import Semi2k, among
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements, Word

NAME = "semi2k_ot"
PARTIES = 2


def _family(kind: Kind, like: Elements, *parameters: int) -> Family:
    if isinstance(like, Word):
        raise ProtocolError("preprocessing by oblivious transfer has rings of 32 and 64 bits: use `ring=64`.")
    return Family(kind, 8 * jnp.dtype(like.dtype).itemsize, parameters)


def _shared(family: Family, component: int, shape: tuple[int, ...]) -> Sharing:
    return tuple(draw(family, i, component, shape) for i in range(PARTIES))


class Oblivious(Source):
    """Correlated streams of two parties."""

    name = "oblivious transfer"
    rank = None

    def __init__(self) -> None:
        super().__init__(PARTIES)

    def _drawn(self, kind: Kind, like: Elements, count: int, *parameters: int) -> tuple[Sharing, ...]:
        family = _family(kind, like, *parameters)
        return tuple(_shared(family, c, like.shape) for c in range(count))

    def triple(self, x: Elements, y: Elements, times: Product) -> Triple:
        assert x.shape == y.shape, "matrix products ask for `dot`"
        return Triple(*self._drawn(Kind.MUL, x, 3))

    def dot(self, x: Elements, y: Elements, dims: arithmetic.DimensionNumbers) -> Triple:
        """A triple for a generalised matrix product: batches of matrices, laid out as x and y are."""
        (xc, yc), (xb, yb) = dims
        xf = [d for d in range(x.ndim) if d not in (*xc, *xb)]
        yf = [d for d in range(y.ndim) if d not in (*yc, *yb)]
        g, k = prod(x.shape[d] for d in xb), prod(x.shape[d] for d in xc)
        m, n = prod(x.shape[d] for d in xf), prod(y.shape[d] for d in yf)
        family = _family(Kind.DOT, x, g, m, k, n)
        a = _laid_out(_shared(family, 0, (g, m, k)), [*xb, *xf, *xc], x.shape)
        b = _laid_out(_shared(family, 1, (g, k, n)), [*yb, *yc, *yf], y.shape)
        shape = (*(x.shape[d] for d in (*xb, *xf)), *(y.shape[d] for d in yf))
        return Triple(a, b, tuple(c.reshape(shape) for c in _shared(family, 2, (g, m, n))))

    def square(self, like: Elements) -> tuple[Sharing, Sharing]:
        a, c = self._drawn(Kind.SQUARE, like, 2)
        return a, c

    def mask(self, owner: int, like: Elements) -> Elements:
        return random({owner}, like.shape, like.dtype)

    def knows_mask(self, owner: int) -> frozenset[int]:
        return frozenset({owner})

    def times_mask(self, a: Elements, owner: int, y: Elements, times: Product) -> tuple[Sharing, Sharing]:
        raise ProtocolError("products with a masked value ask for a triple.")

    def truncation(self, like: Elements, bits: int) -> Triple:
        _, r, h, t = self._drawn(Kind.TRUNC, like, 4, bits)
        return Triple(r, h, tuple(bt.cast(ti, max(bits + 1, 32)) for ti in t))

    def conjunction(self, like: Elements, bits: int) -> Triple:
        a, b, c = self._drawn(Kind.AND, like, 3, *([bits] if bits < 8 else []))
        return Triple(*(tuple(_low(w, bits) for w in s) for s in (a, b, c)))

    def doubly_shared(self, like: Elements) -> tuple[Sharing, Sharing]:
        a, c = self._drawn(Kind.WORD, like, 2)
        return c, a

    def bit(self, like: Elements, ring: int) -> tuple[Sharing, Sharing]:
        word = jnp.zeros(like.shape, f"uint{ring}")
        a, c = self._drawn(Kind.BIT, word, 2)
        return tuple(bt.cast(w & bt.constant(w, 1), 8) for w in a), c


def _low(x: Elements, bits: int) -> Elements:
    return x & bt.constant(x, (1 << bits) - 1) if bits < 8 else x


def _laid_out(x: Sharing, order: list[int], shape: tuple[int, ...]) -> Sharing:
    """Matrices whose axes are `order` of an array of `shape`, as that array."""
    back = [order.index(d) for d in range(len(shape))]
    return tuple(c.reshape([shape[d] for d in order]).transpose(back) for c in x)


class _TwoParties(Semi2k):
    """SEMI2K's kernels; a private factor is a sharing of which the other party's component is zero."""

    source: Oblivious

    def dot_aa(self, x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
        triple = self.source.dot(x[0], y[0], dims)
        return self.with_triple(triple, x, y, lambda p, q: arithmetic.dot_general(p, q, dims))

    def product_vma(self, x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
        return self.mul_aa(self._private(x, y, owner), y)

    def dot_vma(self, x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
        return self.dot_aa(self._private(x, y, owner), y, dims=dims)

    def dot_avm(self, y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
        return self.dot_aa(y, self._private(x, y, owner), dims=dims)

    def _private(self, x: Sharing, y: Sharing, owner: int) -> Sharing:
        value: Any = bt.cast(x[0], bt.width(y[0]))
        return tuple(value if i == owner else bt.zeros_like(value) for i in range(PARTIES))


def semi2k_ot(world_size: int, others: int = 0) -> Protocol:
    """The protocol, for two parties."""
    if world_size != PARTIES:
        raise ConfigError(
            f"`preprocessing` 'ot' is for two parties, got {world_size}: more have a dealer, or REP4, or ABY3."
        )
    source = Oblivious()
    protocol = among(source, NAME, "correlated randomness by oblivious transfer, no third party", _TwoParties(source))
    return with_others(protocol, others)
