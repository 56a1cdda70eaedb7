"""Three hospitals train gradient-boosted trees, keep them in parts, and next month carol asks for predictions.

    python examples/boosting/breast_cancer.py                  all in this process, simulated
    python examples/boosting/breast_cancer.py --network        three processes train, three others predict
    python examples/boosting/breast_cancer.py train --as alice --config cluster.toml        one party; likewise
    python examples/boosting/breast_cancer.py predict --as alice --config cluster.toml      bob and carol

All three have measurements of the same patients; carol alone knows the diagnoses. To train, all three bring
their columns, and carol the labels. Each keeps one part of the model, which says nothing by itself. To
predict, all three bring their columns and their part again, nobody brings labels, and carol alone sees the
result: she compares it with her diagnoses, which never left her.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from common import Setting, Tutorial, in_the_clear, main, print_reveals, roc

import spuvm as spu
from spuvm.ml import Sgb, load

PARTIES = ("alice", "bob", "carol")
LABEL = "malignant"
PARAMETERS = {"objective": "binary:logistic", "n_estimators": 20, "max_depth": 3, "learning_rate": 0.3, "max_bin": 32}


def train(setting: Setting) -> None:
    """Train on three quarters of the patients, and let each party keep its part of the model."""
    patients, _ = setting.split()
    print(patients, flush=True)
    model = Sgb(device=setting.machine(), **setting.tutorial.parameters).fit(patients, label=LABEL)
    setting.say(f"trained {model!r}")
    print_reveals(model.reveals)
    model.save({party: setting.folder(party) for party in PARTIES})
    setting.say("saved")


def predict(setting: Setting) -> None:
    """In other processes, at another time: predict for the other patients, for carol alone."""
    model = load({party: setting.folder(party) for party in PARTIES}, device=setting.machine())
    _, patients = setting.split()
    setting.say(f"loaded {model!r}")
    probability = model.predict_proba(patients.drop(LABEL), to="carol")
    print_reveals(model.reveals)
    setting.say("predicted")
    carol = spu.PYU("carol")
    carol(report)(patients.keys("carol"), patients[LABEL].at("carol"), probability, setting.folder("carol"))


def report(keys: Any, labels: np.ndarray, probability: Any, folder: Any) -> None:
    """At carol: the AUC by her own labels, and a file."""
    from sklearn.metrics import roc_auc_score

    risk = np.asarray(probability)[:, 1]
    pd.DataFrame({**keys, "probability": risk}).to_parquet(folder / "predictions.parquet", index=False)
    print(f"AUC of {len(risk)} patients held out: {roc_auc_score(labels, risk):.4f}", flush=True)


def compare(setting: Setting) -> None:
    """XGBoost with the same parameters on the same rows, if one had all files."""
    from sklearn.metrics import roc_auc_score

    clear = in_the_clear(setting, ["auc"])
    secure = pd.read_parquet(setting.out / "carol" / "predictions.parquet")
    assert (secure["id"] == clear.ids).all()
    print(f"AUC of XGBoost in the clear: {roc_auc_score(clear.labels, clear.probability):.4f}")
    path = setting.out / "roc.png"
    roc(path, clear.labels, secure["probability"].to_numpy(), clear.probability, "Breast cancer, three hospitals")


TUTORIAL = Tutorial(
    "breast_cancer", PARTIES, LABEL, {"missing": False}, PARAMETERS, {"train": train, "predict": predict}, compare
)

if __name__ == "__main__":
    sys.exit(main(TUTORIAL, __doc__ or ""))
