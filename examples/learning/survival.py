"""Survival in three hospitals: curves, a test of two treatments, and hazards, of patients whom nobody shows to anybody.

Each hospital has some of the patients. Months until death or the end of observation, treatments and ages stay secret;
revealed are the curve, the test's statistic, and the coefficients with their errors, because asked.

    python examples/learning/survival.py                # all in one process, simulated
    python examples/learning/survival.py --network      # three processes over mutual TLS
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from common import own, run

import spuvm as spu
from spuvm.ml import CoxPHFitter, KaplanMeierFitter, logrank_test

PARTIES = ("alice", "bob", "carol")
MONTHS = 24


def patients(seed: int, count: int = 70) -> dict[str, np.ndarray]:
    """Drawn, not real: one hospital's."""
    r = np.random.default_rng(seed)
    age, treated = r.normal(60, 8, count), r.integers(0, 2, count)
    months = np.ceil(r.exponential(12 * np.exp(0.7 * treated - 0.04 * (age - 60))))
    left = np.ceil(r.uniform(6, 30, count))
    return {"age": age, "treated": treated, "months": np.minimum(months, left), "died": (months <= left).astype(int)}


def studied(party: str | None, count: int = 70) -> tuple[Any, Any, Any]:
    """The survival curve, the test of two treatments, and the hazards."""
    hospitals = {p: patients(i, count) for i, p in enumerate(PARTIES)}
    frame = spu.data.horizontal(own(hospitals, party), missing=False)
    curve = KaplanMeierFitter(timeline=MONTHS).fit(frame, "months", "died")
    test = logrank_test(frame, "months", "died", "treated", timeline=MONTHS)
    return curve, test, CoxPHFitter(timeline=MONTHS).fit(frame, "months", "died")


def main(party: str | None) -> None:
    """What all parties are shown, once."""
    curve, test, cox = studied(party)
    summary = cox.summary()
    if party in (None, "alice"):
        print("alive after a year:", f"{curve.survival_function_[11]:.3f}")
        print("log-rank:", test)
        print(summary)
        print("\nrevealed:", *cox.reveals, sep="\n  ", flush=True)


if __name__ == "__main__":
    sys.exit(run(__file__, __doc__ or "", PARTIES, main))
