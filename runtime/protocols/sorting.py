"""What a protocol needs to sort by opened comparisons: a secret shuffle, and a comparison of several words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spuvm.runtime.protocols.algebra import Sharing


@dataclass(frozen=True)
class Sorting:
    """`shuffle(sharings, kinds)`: arrays of shape [rows, n], kind `a` or `b` each, in the same order anew.

    `before(xs, ys, kinds)`: words of decreasing weight, the last ones different where all others are equal, of
    kind `a`, no two of one place 2^(bits - 1) or more apart, or `b`, bools; whether x comes before y, as a shared
    bool. `opened` gives it to all that compute: after the shuffle it tells a random order.
    """

    shuffle: Callable[[Sequence[Sharing], str], list[Sharing]]
    before: Callable[[Sequence[Sharing], Sequence[Sharing], str], Sharing]
    opened: Callable[[Sharing], Sharing]
