"""Fewer numbers a round: all parties add the same few parameters, drawn anew each round, and remember the rest.

A sum of masked words needs the same positions at every party, so they are drawn by a public generator (Ergun, Sami,
Guler, "Sparsified secure aggregation", 2021, who draw pairs'). What a party's update has elsewhere stays with it and is
added to its next one, so that nothing is lost (Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spuvm.runtime.errors import ConfigError


@dataclass(frozen=True)
class RandomK:
    """A share of the parameters, at least one, drawn without returning."""

    share: float

    def positions(self, size: int, round_: int) -> np.ndarray:
        """Those of a round, sorted: int64, the same at every party."""
        # RandomState, as its numbers are the same in every version of NumPy.
        drawn = np.random.RandomState(round_).permutation(size)[: math.ceil(self.share * size)]
        out: np.ndarray = np.sort(drawn)
        return out


def random_k(share: float) -> RandomK:
    """`compress=random_k(0.1)`: a tenth of the parameters is added in a round, others wait at their party.

    Raises ConfigError for a share that is none.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"`share` must be above 0 and at most 1, got {share!r}.")
    return RandomK(float(share))
