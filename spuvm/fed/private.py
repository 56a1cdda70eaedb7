"""Differentially private training: updates of a bounded norm, and noise of which each computing party draws a share.

DP-SGD: Abadi and others, CCS 2016; of whole parties: McMahan and others, ICLR 2018; in integers with distributed noise:
Kairouz, Liu, Steinke, ICML 2021. The norm is that of the words that leave, rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spuvm.context import abort_everyone_on_error
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.dp import Budget, Spent, gaussian_share, honest_of
from spuvm.dp.ledgers import ledgers
from spuvm.dp.spending import total
from spuvm.fed.words import WORD
from spuvm.runtime.errors import ConfigError

EXAMPLE, PARTY = "example", "party"
ROUNDED = 20  # times a unit in each element is the least norm: rounding adds a twentieth at most
LEAST_UNITS = 64  # of a share's standard deviation
TAIL = 20  # standard deviations that the words have room for


@dataclass(frozen=True)
class Private:
    """How a training is private.

    Attributes:
        clip: the largest Euclidean norm of one unit's update.
        noise: sigma by that norm, of the noise in each round's sum.
        unit: "example": neighbours differ by one row of one party; a round is one step of DP-SGD. "party": by a whole
            party; local steps as ever.
        sampling: of examples: the probability of each to be in a round. The party draws in secret, which amplifies.
        budget: the ledger that each round is spent in, or one for each party. Each party has its own.
    """

    clip: float
    noise: float
    unit: str = EXAMPLE
    sampling: float = 1.0
    budget: Budget | Mapping[str, Budget] | None = None

    def __post_init__(self) -> None:
        for name, value in (("clip", self.clip), ("noise", self.noise)):
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"`{name}` must be a positive number, got {value!r}: without it nothing is private.")
        if self.unit not in (EXAMPLE, PARTY):
            raise ConfigError(f"`unit` must be {EXAMPLE!r} or {PARTY!r}, got {self.unit!r}.")
        if not 0 < self.sampling <= 1 or (self.unit == PARTY and self.sampling != 1):
            raise ConfigError(
                f"`sampling` must be above 0 and at most 1, of examples; got {self.sampling!r} with unit "
                f"{self.unit!r}: which parties attend is known to all, and amplifies nothing."
            )

    def epsilon(self, rounds: int, delta: float) -> float:
        """What so many rounds cost at this delta."""
        return total([self.round(rounds)], delta)

    def round(self, times: int = 1) -> Spent:
        return Spent("gaussian", float(self.noise), times, float(self.sampling))

    # in units

    def bits(self, size: int, honest: int) -> int:
        """Fraction bits of the words: the coarsest whose rounding and whose noise are right."""
        units = max(ROUNDED * math.sqrt(size), LEAST_UNITS * math.sqrt(honest) / self.noise)
        return math.ceil(math.log2(units / self.clip))

    def sigma(self, size: int, bits: int) -> float:
        """Of the sum's noise, in units. Sums are rounded with and without somebody: a unit more in each element."""
        return self.noise * (self.clip * 2.0**bits + math.sqrt(size))

    def room(self, size: int, bits: int, parties: int) -> int:
        """Units that a party's words may have, so that no sum with its noise wraps around."""
        room = (WORD - math.ceil(2 * TAIL * self.sigma(size, bits))) // parties
        if room < self.clip * 2.0**bits:
            raise ConfigError(
                f"noise of {self.noise:g} for {size:,} parameters and {parties} parties does not fit words of 32 bits."
            )
        return room

    def noise_words(self, size: int, bits: int, count: int, honest: int) -> np.ndarray:
        """A computing party's share, for `count` of the parameters: int32."""
        return gaussian_share((count,), self.sigma(size, bits), honest).astype(np.int32)

    # the ledger

    def allows(self, rounds: int, parties: Sequence[str]) -> None:
        """InputError at the party, and the end at all, whose budget would not last."""
        with abort_everyone_on_error():
            for budget in ledgers(self.budget, parties):
                budget.allows([self.round(rounds)])

    def spend(self, number: int, parties: Sequence[str]) -> None:
        """Each attending party writes the round into its ledger, before anything of it is shown."""
        with abort_everyone_on_error():
            for budget in ledgers(self.budget, parties):
                budget.spend([self.round()], f"federated training, round {number}")


def shares(private: Private, adder: SPU, size: int, bits: int, count: int) -> list[PYUObject]:
    """Each computing party's noise for `count` parameters, at that party."""
    config = adder.vm.config
    honest = honest_of(config.protocol, len(config.parties))
    return [PYU(p)(lambda: private.noise_words(size, bits, count, honest))() for p in config.parties]


def clipped(x: np.ndarray, norm: float) -> np.ndarray:
    """x with a Euclidean norm of at most `norm`; what is no number becomes nothing."""
    whole = np.asarray(x, np.float64)
    length = math.sqrt(float(whole @ whole))
    if not math.isfinite(length):
        return np.zeros_like(x)
    return np.asarray(whole * min(1.0, norm / length), x.dtype) if length > norm else x
