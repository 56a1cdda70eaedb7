"""Preprocessing: the correlated randomness that a protocol's kernels ask for, whoever makes it.

SEMI2K's kernels open masked values and combine; the masks, and what goes with them, come from a
`Source`. `protocols/dealer.py` is one: a third process gives everything out. Another (oblivious transfer,
homomorphic encryption) is one more file: a subclass of `Source`, given to `semi2k.among`, and a line in
`protocols/registered.py` with the protocol's name. It is choreography like any kernel, made of `random` and `send`,
so that it is simulated, counted and projected without more machinery; it runs with the kernel that asks,
whose rounds its own messages precede.

Sharings here have one component a party: number i is known to party i, and to no other unless the
protocol's `security` says so. `like` is a value of the shape and dtype wanted; nothing else is read of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

Product = Callable[[Elements, Elements], Elements]  # any bilinear map of ring elements
WHOLE = 128  # `bits` of a word that is used whole: only less than 8 matter


class Triple(NamedTuple):
    """[a], [b], [c]."""

    a: Sharing
    b: Sharing
    c: Sharing


class Source(ABC):
    """What is asked for among `n` parties. Every sharing is fresh and uniform, but for what it says.

    `name` is the source's part of a kernel's identity: two sources whose kernels differ have different
    names. `rank` is that of a process of its own, after all parties, if the source needs one.
    """

    name: str
    rank: int | None
    givers: frozenset[int] = frozenset()  # who knows what it gives out, and colludes with nobody

    def __init__(self, n: int) -> None:
        self.n = n

    # Arithmetic -----------------------------------------------------------------------------------

    @abstractmethod
    def triple(self, x: Elements, y: Elements, times: Product) -> Triple:
        """Uniform [a] like x and [b] like y, with c = a b: of elements, matrices, or what `times` says."""

    @abstractmethod
    def square(self, like: Elements) -> tuple[Sharing, Sharing]:
        """Uniform [a], with [a^2]."""

    @abstractmethod
    def mask(self, owner: int, like: Elements) -> Elements:
        """A uniform value that one party knows, to hide a value of its own."""

    @abstractmethod
    def knows_mask(self, owner: int) -> frozenset[int]:
        """The ranks that know a `mask` of that party."""

    @abstractmethod
    def times_mask(self, a: Elements, owner: int, y: Elements, times: Product) -> tuple[Sharing, Sharing]:
        """For a `mask` a: uniform [b] like y, with [c], c = a b. May be asked again for the same a."""

    @abstractmethod
    def truncation(self, like: Elements, bits: int) -> Triple:
        """Uniform [r] of k bits, with h = (r mod 2^(k-1)) >> bits, and t = r >> (k-1) in a ring of more than `bits`."""

    # Boolean --------------------------------------------------------------------------------------

    @abstractmethod
    def conjunction(self, like: Elements, bits: int) -> Triple:
        """Boolean sharings of words of `bits` bits: uniform [a] and [b], with c = a & b."""

    @abstractmethod
    def doubly_shared(self, like: Elements) -> tuple[Sharing, Sharing]:
        """A uniform word, arithmetically and boolean (k edaBits at once)."""

    @abstractmethod
    def bit(self, like: Elements, ring: int) -> tuple[Sharing, Sharing]:
        """A uniform bit, boolean in bytes and arithmetically modulo 2^ring (a daBit)."""


def total(x: Sharing) -> Elements:
    """The sum of the components."""
    out = x[0]
    for c in x[1:]:
        out = out + c
    return out


def parity(x: Sharing) -> Elements:
    """Their exclusive or."""
    out = x[0]
    for c in x[1:]:
        out = out ^ c
    return out


def halves(x: Elements) -> tuple[Elements, Elements]:
    """The lower and the upper half of each word's bits, in words as short as hold them."""
    half = bt.width(x) // 2
    return bt.cast(x & bt.constant(x, (1 << half) - 1), half), bt.cast(bt.shift_right(x, half), half)
