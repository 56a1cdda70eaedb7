"""A private classifier as a service: a bank's model, a clinic's rows, and a risk that the clinic alone sees.

The bank trained XGBoost on its own data. The clinic wants to know the risk of its patients, and shows them to nobody;
the bank shows its model to nobody. A third party helps to compute, and learns nothing. Public are the names of the
features, how many trees there are and how deep they may be, and how many rows are asked for.

    python examples/learning/private_classifier.py                    # all in one process, simulated
    python examples/learning/private_classifier.py --network          # three processes over mutual TLS
    python examples/learning/private_classifier.py --as bank --config keys/cluster.toml
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import own, run

import spuvm as spu
from spuvm.ml import load_xgboost

PARTIES = ("bank", "clinic", "helper")
FEATURES = ["age", "pressure", "sugar", "steps"]
ROWS, PATIENTS = 500, 40


def drawn(seed: int, rows: int) -> dict[str, np.ndarray]:
    """Drawn, not real: people, some cells missing."""
    r = np.random.default_rng(seed)
    age, pressure = r.normal(55, 12, rows), r.normal(130, 18, rows)
    sugar = np.where(r.uniform(size=rows) < 0.1, np.nan, r.lognormal(1.7, 0.3, rows))
    return {"age": age, "pressure": pressure, "sugar": sugar, "steps": r.poisson(6000, rows).astype(float)}


def trained(path: Path) -> None:
    """At the bank: its own model, in the clear, with its own tools."""
    from xgboost import XGBClassifier

    people = drawn(1, ROWS)
    odds = 0.08 * (people["age"] - 55) + 0.04 * (people["pressure"] - 130) + np.nan_to_num(people["sugar"], nan=6) - 6
    ill = np.random.default_rng(2).uniform(size=ROWS) < 1 / (1 + np.exp(-odds))
    x = np.stack([people[name] for name in FEATURES], axis=1)
    model = XGBClassifier(n_estimators=10, max_depth=3).fit(x, ill)
    model.get_booster().feature_names = FEATURES
    model.save_model(path)


def asked(party: str | None, folder: Path) -> Any:
    """The model at the bank, the patients at the clinic, and the risks, which the clinic alone sees."""
    path = folder / "model.json"
    if party in (None, "bank"):
        trained(path)
    model = load_xgboost(path, party="bank")
    patients = drawn(3, PATIENTS) | {"patient": np.arange(PATIENTS)}
    rows = spu.data.vertical(own({"clinic": patients}, party), key="patient")
    risk = model.predict_proba(rows, to="clinic")
    if party in (None, "clinic"):
        highest = np.argsort(-risk.value[:, 1])[:5]
        print("highest risks:", ", ".join(f"patient {i}: {risk.value[i, 1]:.3f}" for i in highest), flush=True)
    if party in (None, "helper"):
        print("revealed:", *model.reveals, sep="\n  ", flush=True)
    return model, risk


def main(party: str | None) -> None:
    """The bank's file is in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked(party, Path(folder))


if __name__ == "__main__":
    sys.exit(run(__file__, __doc__ or "", PARTIES, main))
