"""Updates of low rank: of each matrix two thin ones are added (PowerSGD: Vogels, Karimireddy, Jaggi, NeurIPS 2019).

For the mean M of the parties' matrices M_i [n, m], and directions Q [m, r] that all know from the round before:

    1. all add M_i Q; everybody knows P = M Q, and brings its columns to length 1 and at right angles
    2. all add M_i^T P; everybody knows Q = M^T P, the next round's directions
    3. the update is P Q^T; party i keeps M_i - P P^T M_i for its next one

Arrays of one dimension, and matrices that would not be smaller so, are added as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spuvm.fed.compressing import Public, State
from spuvm.fed.layout import Layout
from spuvm.fed.strategies import At
from spuvm.runtime.errors import ConfigError

START = 20210417  # of the generator of the first directions


class Part(NamedTuple):
    """One array of the model in the vector: [start, stop); as a matrix [n, m] if it is brought to low rank."""

    start: int
    stop: int
    shape: tuple[int, int] | None


@dataclass(frozen=True)
class LowRank:
    """Matrices by `rank` columns and rows; axes but the last are the rows."""

    rank: int

    sends = 2
    told = True

    @property
    def said(self) -> str:
        return f"of a round the mean update of each matrix to rank {self.rank}, and how that lies to the last one"

    def parts(self, layout: Layout) -> list[Part]:
        out, at = [], 0
        for i in layout.shared:
            shape = np.shape(layout.leaves[i])
            size = int(np.prod(shape))
            matrix = (size // shape[-1], shape[-1]) if len(shape) > 1 and size else None
            small = matrix is not None and self.rank * sum(matrix) < size
            out.append(Part(at, at + size, matrix if small else None))
            at += size
        return out

    def start(self, layout: Layout) -> State:
        """Directions, one matrix [m, r] after another."""
        shapes = [p.shape for p in self.parts(layout) if p.shape]
        drawn = np.random.RandomState(START).standard_normal(self.rank * sum(m for _, m in shapes))
        return {"directions": drawn.astype(layout.dtype)}

    def opened(self, layout: Layout, state: State, round_: int) -> Public:
        widths = [p.shape[1] for p in self.parts(layout) if p.shape]
        return {"right": _orthonormal(state["directions"], widths, self.rank)}

    def size(self, layout: Layout, number: int, public: Public) -> int:
        parts = self.parts(layout)
        if number:
            return self.rank * sum(p.shape[1] for p in parts if p.shape)
        return sum(self.rank * p.shape[0] if p.shape else p.stop - p.start for p in parts)

    def message(self, layout: Layout, number: int, public: Public, update: np.ndarray) -> np.ndarray:
        out, right, left = [], _Reader(public["right"]), _Reader(public.get("left"))
        for p in self.parts(layout):
            some = update[p.start : p.stop]
            if p.shape is None:
                out += [] if number else [some]
            elif number:
                out.append((some.reshape(p.shape).T @ left.take(p.shape[0], self.rank)).reshape(-1))
            else:
                out.append((some.reshape(p.shape) @ right.take(p.shape[1], self.rank)).reshape(-1))
        return np.concatenate([*out, np.zeros(0, update.dtype)])

    def largest(self, layout: Layout, update: np.ndarray) -> float:
        """Directions have length 1: no product is larger than the root of a matrix' sum of squares."""
        found = [0.0]
        for p in self.parts(layout):
            some = update[p.start : p.stop].astype(np.float64)
            if some.size:
                found.append(float(np.linalg.norm(some) if p.shape else np.abs(some).max()))
        return float(np.max(found))

    def heard(self, layout: Layout, number: int, public: Public, mean: np.ndarray) -> Public:
        if number:
            return public
        reader, left, rest = _Reader(mean), [], []
        for p in self.parts(layout):
            if p.shape is None:
                rest.append(reader.take(p.stop - p.start))
            else:
                left.append(_orthonormal(reader.take(self.rank * p.shape[0]), [p.shape[0]], self.rank))
        empty = np.zeros(0, mean.dtype)
        return {**public, "left": np.concatenate([*left, empty]), "rest": np.concatenate([*rest, empty])}

    def result(self, layout: Layout, state: State, public: Public, mean: np.ndarray) -> tuple[At, np.ndarray]:
        """P Q^T, column by column: operations of single elements are the same on every processor."""
        state["directions"] = mean
        out = np.empty(layout.size, mean.dtype)
        left, right, rest = _Reader(public["left"]), _Reader(mean), _Reader(public["rest"])
        for p in self.parts(layout):
            if p.shape is None:
                out[p.start : p.stop] = rest.take(p.stop - p.start)
                continue
            a, b = left.take(p.shape[0], self.rank), right.take(p.shape[1], self.rank)
            product = a[:, :1] * b[:, 0]
            for r in range(1, self.rank):
                product += a[:, r : r + 1] * b[:, r]
            out[p.start : p.stop] = product.reshape(-1)
        return slice(0, layout.size), out

    def left(self, layout: Layout, public: Public, update: np.ndarray) -> np.ndarray:
        out, left = np.zeros_like(update), _Reader(public["left"])
        for p in self.parts(layout):
            if p.shape is not None:
                own, a = update[p.start : p.stop].reshape(p.shape), left.take(p.shape[0], self.rank)
                out[p.start : p.stop] = (own - a @ (a.T @ own)).reshape(-1)
        return out


class _Reader:
    """Arrays one after another out of a vector."""

    def __init__(self, values: np.ndarray | None) -> None:
        self.values, self.at = values, 0

    def take(self, *shape: int) -> np.ndarray:
        assert self.values is not None
        size = int(np.prod(shape))
        self.at += size
        return self.values[self.at - size : self.at].reshape(shape)


def _orthonormal(values: np.ndarray, heights: list[int], rank: int) -> np.ndarray:
    """Matrices [height, rank], one after another, with columns of length 1 at right angles."""
    reader = _Reader(np.asarray(values, np.float64))
    found = [np.linalg.qr(reader.take(h, rank))[0].reshape(-1) for h in heights]
    return np.concatenate([*found, np.zeros(0)]).astype(values.dtype)


def low_rank(rank: int) -> LowRank:
    """`compress=low_rank(2)`: of each matrix [n, m] 2 (n + m) numbers a round, in two additions.

    Raises ConfigError for a rank that is none.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"`rank` must be a whole number, 1 or more, got {rank!r}.")
    return LowRank(rank)
