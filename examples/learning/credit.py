"""A score card that a bank and a telephone company make together, and whether it treats two groups alike.

The bank knows who paid back, and what its customers earn and owe; the company knows how they pay their bills. Neither
sees the other's columns. Revealed: the card, its ROC curve, and rates by group, because asked.

    python examples/learning/credit.py                                    # all in one process, simulated
    python examples/learning/credit.py --network                          # three processes over mutual TLS
    python examples/learning/credit.py --as bank --config keys/cluster.toml
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from common import own, run

import spuvm as spu
from spuvm.ml import ScoreCard, bias_report, roc_curve

PARTIES = ("bank", "phone", "auditor")
ROWS = 600


def customers() -> dict[str, dict[str, np.ndarray]]:
    """Drawn, not real: what each party holds of the same customers."""
    r = np.random.default_rng(7)
    income, debt = r.lognormal(10.3, 0.5, ROWS), r.beta(2, 5, ROWS)
    late, years = r.poisson(1.2, ROWS), r.integers(0, 15, ROWS)
    group = r.integers(0, 2, ROWS)
    odds = -1.5 + 4 * debt + 0.5 * late - 0.08 * years - 0.6 * np.log(income / 30_000)
    default = (r.uniform(size=ROWS) < 1 / (1 + np.exp(-odds))).astype(int)
    ids = np.arange(ROWS)
    return {
        "bank": {"customer": ids, "income": income, "debt": debt, "default": default},
        "phone": {"customer": ids, "late": late, "years": years},
        "auditor": {"customer": ids, "group": group},
    }


def scored(party: str | None) -> tuple[Any, float, Any]:
    """The card, the area under its ROC curve on customers held out, and how it treats two groups."""
    frame = spu.data.vertical(own(customers(), party), key="customer", missing=False)
    train, test = frame.split(test_size=0.3, seed=0)
    card = ScoreCard(n_bins=4).fit(train.drop("group"), label="default")
    curve = roc_curve(test["default"], card.predict_proba(test))
    report = bias_report(test["default"], card.predict(test), test["group"])
    points = card.score_points(test, to="bank")  # the bank alone
    if party in (None, "bank"):
        print("points of the test customers:", np.percentile(points.value, [0, 25, 50, 75, 100]).round(), flush=True)
    return card, float(np.trapezoid(curve.tpr[::-1], curve.fpr[::-1])), report


def main(party: str | None) -> None:
    """What all parties are shown, at the auditor."""
    card, area, report = scored(party)
    table = card.table()
    if party in (None, "auditor"):
        for name, points in table.items():
            print(f"{name:8}", *(f"{p:7.1f}" for p in points))
        print(f"AUC about {area:.3f}")
        print("refused by group:", np.round(report.selection_rate, 3), f"ratio {report.disparate_impact:.2f}")
        print("\nrevealed by the card:", *card.reveals, sep="\n  ", flush=True)


if __name__ == "__main__":
    sys.exit(run(__file__, __doc__ or "", PARTIES, main))
