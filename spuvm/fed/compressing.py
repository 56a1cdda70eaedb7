"""Fewer numbers a round: what parties add up is a linear function of their updates, the same one at every party.

A sum of masked words needs the same positions, directions or buckets at every party. So all of them come from a public
generator or from sums that everybody has seen, never from one party's update: which of its parameters moved most would
tell of its rows. What was not added stays with its party and goes into its next update, so that nothing is lost
(Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spuvm.fed.layout import Layout
from spuvm.fed.strategies import At
from spuvm.runtime.errors import ConfigError

State = dict[str, np.ndarray]  # what all parties know from earlier rounds, by name
Public = Any  # what all parties know in a round: positions, directions


class Compression(Protocol):
    """A round is `sends` additions; between them all parties learn what the sum says."""

    @property
    def sends(self) -> int: ...

    @property
    def told(self) -> bool:
        """Whether one party computes `opened` and `heard` and tells the others: processors round differently."""

    @property
    def said(self) -> str:
        """What all learn of a round, for the list of what is learned."""

    def start(self, layout: Layout) -> State:
        """What all know before the first round."""

    def opened(self, layout: Layout, state: State, round_: int) -> Public:
        """What all know when a round begins."""

    def size(self, layout: Layout, number: int, public: Public) -> int:
        """Numbers in one addition."""

    def message(self, layout: Layout, number: int, public: Public, update: np.ndarray) -> np.ndarray:
        """What a party adds: linear in its update."""

    def largest(self, layout: Layout, update: np.ndarray) -> float:
        """No number of any message is larger than this."""

    def heard(self, layout: Layout, number: int, public: Public, mean: np.ndarray) -> Public:
        """What all know after an addition that is not the last."""

    def result(self, layout: Layout, state: State, public: Public, mean: np.ndarray) -> tuple[At, np.ndarray]:
        """Where the parameters change, and the mean update there; notes in `state` what the next round needs."""

    def left(self, layout: Layout, public: Public, update: np.ndarray) -> np.ndarray:
        """What a party keeps of its update for the next round."""


class OneAddition:
    """What is common to ways of one addition, before which all know alike what the round's number says."""

    sends = 1
    told = False

    def start(self, layout: Layout) -> State:
        return {}

    def heard(self, layout: Layout, number: int, public: Public, mean: np.ndarray) -> Public:
        return public


class Positions(OneAddition):
    """Some of the parameters, as they are: what is common to ways that choose positions."""

    def size(self, layout: Layout, number: int, public: Public) -> int:
        return len(public)

    def message(self, layout: Layout, number: int, public: Public, update: np.ndarray) -> np.ndarray:
        out: np.ndarray = update[public]
        return out

    def largest(self, layout: Layout, update: np.ndarray) -> float:
        return float(np.abs(update).max())

    def left(self, layout: Layout, public: Public, update: np.ndarray) -> np.ndarray:
        out = update.copy()
        out[public] = 0
        return out


@dataclass(frozen=True)
class RandomK(Positions):
    """A share of the parameters, at least one (Ergun, Sami, Guler, "Sparsified secure aggregation", 2021, who draw
    pairs'). All have had their turn before any has another, so that none waits long."""

    share: float

    @property
    def said(self) -> str:
        return f"of a round {self.share:g} of the parameters, drawn by a public generator"

    def opened(self, layout: Layout, state: State, round_: int) -> np.ndarray:
        return self.positions(layout.size, round_)

    def positions(self, size: int, round_: int) -> np.ndarray:
        """Those of a round, sorted: int64, the same at every party."""
        count = math.ceil(self.share * size)
        turns = math.ceil(size / count)
        drawn, at = _shuffled(size, round_ // turns), round_ % turns * count
        return np.sort(np.take(drawn, np.arange(at, at + count), mode="wrap"))

    def result(self, layout: Layout, state: State, public: Public, mean: np.ndarray) -> tuple[At, np.ndarray]:
        return public, mean


@dataclass(frozen=True)
class TopK(Positions):
    """The parameters that changed most when they were last added, and those that have waited longest, among which
    new ones are found (after Ozfatura, Ozfatura, Gunduz, "Time-correlated sparsification", 2021)."""

    share: float
    explore: float

    @property
    def said(self) -> str:
        return f"of a round {self.share:g} of the parameters: those whose mean update was largest, and others in turn"

    def start(self, layout: Layout) -> State:
        return {"seen": np.zeros(layout.size, layout.dtype), "round": np.full(layout.size, -1, np.int32)}

    def opened(self, layout: Layout, state: State, round_: int) -> np.ndarray:
        """Positions, sorted; among equals a public generator draws."""
        count = math.ceil(self.share * layout.size)
        others = min(count, math.ceil(self.explore * count))
        drawn = _shuffled(layout.size, round_)
        waited = drawn[np.argsort(state["round"][drawn], kind="stable")]
        first, rest = waited[:others], waited[others:]
        largest = np.argsort(-state["seen"][rest], kind="stable")[: count - others]
        return np.sort(np.concatenate([first, rest[largest]]))

    def result(self, layout: Layout, state: State, public: Public, mean: np.ndarray) -> tuple[At, np.ndarray]:
        state["seen"][public] = np.abs(mean)
        state["round"][public] = state["round"].max() + 1
        return public, mean


def random_k(share: float) -> RandomK:
    """`compress=random_k(0.1)`: a tenth of the parameters is added in a round, others wait at their party.

    Raises ConfigError for a share that is none.
    """
    return RandomK(a_share("share", share))


def top_k(share: float, explore: float = 0.5) -> TopK:
    """`compress=top_k(0.05)`: a twentieth of the parameters a round, those that move most; others wait at their party.

    Which these are is taken from the sums of earlier rounds, which all have seen: a party's own largest would tell of
    its rows. A share `explore` of them are those that have waited longest. Raises ConfigError for a share that is none.
    """
    return TopK(a_share("share", share), a_share("explore", explore))


def a_share(name: str, value: float) -> float:
    """The value if it is above 0 and at most 1, else ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"`{name}` must be above 0 and at most 1, got {value!r}.")
    return float(value)


def _shuffled(size: int, round_: int) -> np.ndarray:
    # RandomState, as its numbers are the same in every version of NumPy.
    out: np.ndarray = np.random.RandomState(round_).permutation(size)
    return out
