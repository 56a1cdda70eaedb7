"""Updates as sketches: sums of random groups of parameters, each with a random sign, so fewer numbers than parameters.

A count sketch of one row (Charikar, Chen, Farach-Colton, 2002) whose buckets are of equal size and drawn anew each
round by a public generator. A round:

    1. of each bucket all add the sum of its parameters' updates, with their signs, by the root of their number
    2. each parameter gets its bucket's mean, with its sign: the nearest update that such sums can tell
    3. a party keeps the difference to its own update for the next round

Steps 1 and 2 are an orthogonal projection, as error feedback needs (Karimireddy and others, ICML 2019). Sketches that
all rounds share, and that are read by medians (FetchSGD, ICML 2020), diverge unless few parameters matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spuvm.fed.compressing import OneAddition, Public, State, a_share
from spuvm.fed.layout import Layout
from spuvm.fed.strategies import At


@dataclass(frozen=True)
class Sketch(OneAddition):
    """Buckets: a share of the parameters' number."""

    share: float

    @property
    def said(self) -> str:
        return f"of a round sums of groups of the mean update, {self.share:g} as many as parameters"

    def columns(self, size: int) -> int:
        return math.ceil(self.share * size)

    def opened(self, layout: Layout, state: State, round_: int) -> Public:
        """The round, from which buckets and signs are drawn."""
        return round_

    def size(self, layout: Layout, number: int, public: Public) -> int:
        return self.columns(layout.size)

    def message(self, layout: Layout, number: int, public: Public, update: np.ndarray) -> np.ndarray:
        bucket, factor = self._drawn(layout.size, public)
        return np.bincount(bucket, update * factor, self.columns(layout.size)).astype(update.dtype)

    def largest(self, layout: Layout, update: np.ndarray) -> float:
        size = layout.size
        return float(np.abs(update).max()) * math.sqrt(math.ceil(size / self.columns(size)))

    def result(self, layout: Layout, state: State, public: Public, mean: np.ndarray) -> tuple[At, np.ndarray]:
        return slice(0, layout.size), self._read(layout.size, public, mean)

    def left(self, layout: Layout, public: Public, update: np.ndarray) -> np.ndarray:
        out: np.ndarray = update - self._read(layout.size, public, self.message(layout, 0, public, update))
        return out

    def _read(self, size: int, round_: int, sketch: np.ndarray) -> np.ndarray:
        bucket, factor = self._drawn(size, round_)
        out: np.ndarray = (sketch[bucket] * factor).astype(sketch.dtype)
        return out

    def _drawn(self, size: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each parameter, and its sign by the root of how many are in there."""
        random, columns = np.random.RandomState(round_), self.columns(size)
        bucket = random.permutation(size) % columns
        sign = random.randint(0, 2, size) * 2.0 - 1
        return bucket, sign / np.sqrt(np.bincount(bucket, minlength=columns))[bucket]


def sketch(share: float) -> Sketch:
    """`compress=sketch(0.2)`: sums of five parameters each, in groups that are drawn anew each round.

    Raises ConfigError for a share that is none.
    """
    return Sketch(a_share("share", share))
