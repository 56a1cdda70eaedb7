"""What is known of a value of a function, of how much one row changes it: nothing, as of rows, or of a total."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

INF = math.inf


@dataclass(frozen=True)
class Public:
    """Known without the data; `value` if it is a constant."""

    value: Any = None


@dataclass(frozen=True)
class Rows:
    """[rows, ...]: elements from low to high; the norms of one row are at most l1 and l2.

    `alike`: it was spread along the other axes, which are equal.
    """

    low: float
    high: float
    l1: float
    l2: float
    alike: bool = False
    turned: bool = False  # the rows are the last of two axes: only products know that

    @property
    def most(self) -> float:
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class Total:
    """What a row changes: the sum of absolute changes, the root of the sum of their squares, the largest one.

    `size`: what no element is larger than in magnitude; whole numbers that their type does not hold wrap around.
    """

    l1: float
    l2: float
    largest: float
    size: float = INF


Known = Public | Rows | Total
UNKNOWN = Total(INF, INF, INF)


def rows_of(low: float, high: float, width: int, alike: bool = False, l1: float = INF) -> Rows:
    """Rows of `width` elements each."""
    most = max(abs(low), abs(high))
    whole = min(l1, most * width) if width else 0.0
    return Rows(low, high, whole, min(whole, most * math.sqrt(width)), alike)
