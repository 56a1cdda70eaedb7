"""Comparisons of two parties with a dealer by function secret sharing: one round, for links with long delays.

The dealer makes both parties keys of a comparison with a mask r (ring/keyed.py) and shares r. The parties open
c = x + r, uniform as r is and used once, and each reads its key at c: no message more. A key has some 128 bits for each
bit of the ring, 0.9 KB for 64 bits, and goes to both parties: many bytes, which do not depend on any value and come
ahead, in place of the rounds of a circuit.

That a key hides r from who has it rests on AES (ring/fixed_key.py), where all else in SEMI2K's online messages is
hidden by masks that are as random as the keys that parties share.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from spuvm.runtime.engine.keyed import make_keys, read_key
from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.dealer import Dealer
from spuvm.runtime.protocols.preprocessing import total
from spuvm.runtime.protocols.protocol import KEYED, Kernel, each, xor
from spuvm.runtime.protocols.semi2k import Semi2k
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements, Word
from spuvm.runtime.ring.keyed import Comparison

PARTIES = 2


class Key(NamedTuple):
    """Both parties' keys of a comparison with r: what they have in common, and each one's root."""

    of: Comparison
    common: Elements
    roots: Sharing

    def read(self, c: Elements) -> Sharing:
        """A public c -> whether it is in that relation to r, as a boolean sharing. Local."""
        flat = jnp.asarray(c).astype(jnp.uint64).reshape(-1)
        shares = [read_key(flat, self.common, root, self.of, i) for i, root in enumerate(self.roots)]
        return tuple(s.reshape(c.shape) for s in shares)


class Keyed:
    """The kernels; the ring of 128 bits is left to `circuits`."""

    def __init__(self, source: Dealer, circuits: Semi2k) -> None:
        self.source = source
        self.circuits = circuits

    def _key(self, r: Elements, of: Comparison) -> Key:
        """The dealer's keys of a comparison with its r: the roots from the keys it shares with the parties."""
        size, dealer = r.size, self.source.dealer
        roots = tuple(random({i, dealer}, (2 * size,), jnp.uint64) for i in range(PARTIES))
        common = make_keys(r.reshape(-1).astype(jnp.uint64), (roots[0], roots[1]), of)
        for i in range(PARTIES):
            common = send(common, dealer, i) if i != dealer else common
        return Key(of, common, roots)

    def _opened(self, x: Sharing, r: Sharing) -> Elements:
        return self.circuits.open(tuple(p + q for p, q in zip(x, r)))

    def _signs(self, x: Sharing) -> tuple[Elements, Key, Sharing]:
        """[x] -> c = x + r, opened; a key of less than r without its top bit, and a sharing of that bit. One round."""
        k = bt.width(x[0])
        r = self.source.random(x[0])
        known = total(r)
        top = self.source.dealt(bt.cast(bt.shift_right(known, k - 1), 8), boolean=True, bits=1)
        return self._opened(x, r), self._key(known, Comparison("less", k - 1)), top

    def msb_a(self, x: Sharing) -> Sharing:
        """[x] -> its most significant bit. One round.

        1. Open c = x + r. 2. The bit is c's, r's and the borrow into that place: c < r on the bits below.
        """
        if isinstance(x[0], Word):
            return self.circuits.msb_a(x)
        c, key, top = self._signs(x)
        return _sign(c, key, top)

    def below_a(self, x: Sharing, *limits: Sharing) -> Sharing:
        """[x], public y_i -> whether x is below each y_i: the top bit of x - y_i is bit i of a byte. One round.

        1. Open c = x + r, once. 2. The sign of (c - y_i) - r for each i: the key is read at all of them.
        """
        if isinstance(x[0], Word):
            signs = [self.circuits.msb_a((x[0] - y, *x[1:])) for (y,) in limits]
        else:
            c, key, top = self._signs(x)
            signs = [_sign(c - y, key, top) for (y,) in limits]
        out = signs[0]
        for i, sign in enumerate(signs[1:], 1):
            out = xor(out, each(lambda a, i=i: bt.shift_left(a, i), sign))
        return out

    def eqz_a(self, x: Sharing) -> Sharing:
        """[x] -> whether x is zero. One round: open c = x + r, and compare it with r."""
        if isinstance(x[0], Word):
            return self.circuits.eqz_a(x)
        r = self.source.random(x[0])
        return self._key(total(r), Comparison("equal", bt.width(x[0]))).read(self._opened(x, r))

    def table(self) -> tuple[Kernel, ...]:
        return (
            Kernel(KEYED + "msb_a", self.msb_a, "a", "b"),
            Kernel(KEYED + "eqz_a", self.eqz_a, "a", "b"),
            *(Kernel(f"{KEYED}below_a{p}", self.below_a, f"a{p}", "b") for p in ("pp", "ppp", "pppp")),
        )


def _sign(c: Elements, key: Key, top: Sharing) -> Sharing:
    first, second = xor(key.read(c), top)
    return first ^ bt.cast(bt.shift_right(c, bt.width(c) - 1), 8), second
