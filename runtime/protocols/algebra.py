"""How the sharings of a protocol combine without messages: what compiler and machine do to components by themselves.

A sharing is a tuple of components: ring elements, traced by JAX or arrays of NumPy (or words of two limbs, see
`ring/elements`). Kinds are those of `protocol`: sums modulo 2^k for a and d, exclusive or for b.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements

Sharing = tuple[Elements, ...]


class Algebra(ABC):
    """One protocol's. Every sharing is linear: what is linear over a kind's addition needs no message."""

    @abstractmethod
    def linear(self, kind: str, function: Callable[..., Any], *xs: Sharing) -> Sharing:
        """[x], [y], ... -> [function(x, y, ...)], for a function that is linear over the kind's addition."""

    @abstractmethod
    def join(self, kind: str, function: Callable[..., Any], x: Sharing, y: Elements) -> Sharing:
        """[x], public y -> [function(x, y)], for x + y and x - y (kinds a and d) and x ^ y (kind b)."""

    @abstractmethod
    def summands(self, x: Sharing) -> Sharing:
        """[x] of kind a as one of kind d, to which products are added."""

    @abstractmethod
    def public(self, kind: str, x: Elements) -> Sharing:
        """[x] of what everybody knows; of zeros, a sharing of zero."""

    @abstractmethod
    def split(self, kind: str, x: Elements, draw: Callable[[], Elements]) -> Sharing:
        """A fresh sharing (or the masked form m), made by one who knows x: `draw` gives uniform elements like x."""

    @abstractmethod
    def uniform(self, kind: str, draw: Callable[[int], Elements]) -> Sharing:
        """[x] of a uniform x that nobody knows: `draw(i)` is uniform, known to the holders of component i."""

    @abstractmethod
    def reconstruct(self, kind: str, x: Sharing) -> Elements:
        """[x] -> x, of all components."""

    def low_bit(self, x: Sharing) -> Sharing:
        """[x] of kind a -> its lowest bit as kind b, in bytes: sums modulo 2 are exclusive ors, differences likewise.

        So it is wherever both kinds have the same holders, and components count with odd factors.
        """
        return tuple(bt.cast(c & bt.constant(c, 1), 8) for c in x)


class Summands(Algebra):
    """The components add up (kind b: their exclusive or), whoever holds them. A single one is the value itself."""

    def __init__(self, count: int, masked: int = 2, products: int | None = None) -> None:
        """So many components; of the masked form of a private value, and of products as they are made (kind d)."""
        self.count = count
        self.counts = {"m": masked, "d": count if products is None else products}

    def linear(self, kind: str, function: Callable[..., Any], *xs: Sharing) -> Sharing:
        return tuple(function(*components) for components in zip(*xs, strict=True))

    def join(self, kind: str, function: Callable[..., Any], x: Sharing, y: Elements) -> Sharing:
        return (function(x[0], y), *x[1:])

    def summands(self, x: Sharing) -> Sharing:
        """Component i stays number i: whoever holds it of kind d must hold it of kind a. The others are zero."""
        return (*x, *(bt.zeros_like(x[0]) for _ in range(self.counts["d"] - self.count)))

    def public(self, kind: str, x: Elements) -> Sharing:
        return (x, *(x ^ x for _ in range(self.counts.get(kind, self.count) - 1)))

    def split(self, kind: str, x: Elements, draw: Callable[[], Elements]) -> Sharing:
        parts = [draw() for _ in range(self.counts.get(kind, self.count) - 1)]
        rest = x
        for part in parts:
            rest = rest ^ part if kind == "b" else rest - part
        return (rest, *parts)

    def uniform(self, kind: str, draw: Callable[[int], Elements]) -> Sharing:
        return tuple(draw(i) for i in range(self.counts.get(kind, self.count)))

    def reconstruct(self, kind: str, x: Sharing) -> Elements:
        out = x[0]
        for c in x[1:]:
            out = out ^ c if kind == "b" else out + c
        return out
