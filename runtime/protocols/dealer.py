"""The dealer: one process makes all correlated randomness, compressed to seeds for all parties but one.

It shares a key with each party. What party i is given is expanded from that key, by both, without
a message; only what must add up to something, the last party's component of it, is sent: one word for
each triple, square and bit, one and a half for each comparison's mask, two for each truncation, all of them
to the last party. It is sent nothing but public control (see `tell` in `protocols/semi2k.py`): what it
gives out can run ahead of what the parties do.

The dealer knows every mask. Whoever is the dealer and sees an opened value knows the value behind
it, so it must be a process that sees none, and must not collude with any party. `rank` may be a
party's all the same, where that party is trusted with everything: then it is named unsafe.
"""

from __future__ import annotations

from collections.abc import Callable

from spuvm.runtime.engine.primitives import random, send
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.preprocessing import WHOLE, Product, Source, Triple, halves, parity, total
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


class Dealer(Source):
    """The process of that rank deals among `n` parties, of ranks below n."""

    def __init__(self, n: int, rank: int) -> None:
        super().__init__(n)
        self.dealer = rank
        self.rank = rank if rank >= n else None
        self.givers = frozenset({rank})
        self.name = f"dealer {rank}"

    # The two ways to give something out --------------------------------------------------------------

    def own(self, i: int, like: Elements, bits: int = WHOLE) -> Elements:
        """A random word known to party i and the dealer."""
        r = random({i, self.dealer}, like.shape, like.dtype)
        return r & bt.constant(r, (1 << bits) - 1) if bits < 8 else r

    def random(self, like: Elements, bits: int = WHOLE) -> Sharing:
        """A sharing of a random value that the dealer knows. No message."""
        return tuple(self.own(i, like, bits) for i in range(self.n))

    def dealt(self, value: Elements, boolean: bool = False, bits: int = WHOLE) -> Sharing:
        """A sharing of the dealer's value: random for all but the last party, which is sent the rest."""
        shares, rest = [], value
        for i in range(self.n - 1):
            r = self.own(i, value, bits)
            rest = rest ^ r if boolean else rest - r
            shares.append(r)
        return (*shares, send(rest, self.dealer, self.n - 1, bits))

    # What is asked for -------------------------------------------------------------------------------

    def triple(self, x: Elements, y: Elements, times: Product) -> Triple:
        a, b = self.random(x), self.random(y)
        return Triple(a, b, self.dealt(times(total(a), total(b))))

    def square(self, like: Elements) -> tuple[Sharing, Sharing]:
        a = self.random(like)
        known = total(a)
        return a, self.dealt(known * known)

    def mask(self, owner: int, like: Elements) -> Elements:
        return self.own(owner, like)

    def knows_mask(self, owner: int) -> frozenset[int]:
        return frozenset({owner, self.dealer})

    def times_mask(self, a: Elements, owner: int, y: Elements, times: Product) -> tuple[Sharing, Sharing]:
        b = self.random(y)
        return b, self.dealt(times(a, total(b)))

    def truncation(self, like: Elements, bits: int) -> Triple:
        k = bt.width(like)
        r = self.random(like)
        known = total(r)
        h = self.dealt(bt.shift_right(known & bt.constant(known, (1 << (k - 1)) - 1), bits))
        t = self.dealt(bt.cast(bt.shift_right(known, k - 1), max(bits + 1, 32)))
        return Triple(r, h, t)

    def conjunction(self, like: Elements, bits: int) -> Triple:
        a, b = self.random(like, bits), self.random(like, bits)
        return Triple(a, b, self.dealt(parity(a) & parity(b), boolean=True, bits=bits))

    def doubly_shared(self, like: Elements) -> tuple[Sharing, Sharing]:
        r = self.random(like)
        return r, self.dealt(total(r), boolean=True)

    def opened_up(self, like: Elements, arrange: Callable[[Elements], Elements]) -> tuple[Sharing, Sharing, Sharing]:
        """Uniform [r], [w] for its bits w = arrange(r), and [t], the conjunction of the two halves of w."""
        r = self.random(like)
        known = arrange(total(r))
        low, high = halves(known)
        half = bt.width(known) // 2
        return r, self.dealt(known, boolean=True), self.dealt(low & high, boolean=True, bits=half)

    def bit(self, like: Elements, ring: int) -> tuple[Sharing, Sharing]:
        beta = self.random(like, bits=1)
        return beta, self.dealt(bt.cast(parity(beta), ring))
