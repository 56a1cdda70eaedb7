"""Will a flight arrive late? An airline, a register of aircraft, a weather service and an airport find out together.

    python examples/boosting/flights.py --rows 3000            some flights, all in this process, simulated
    python examples/boosting/flights.py --network              all 327,346 flights, four processes
    python examples/boosting/flights.py train --as dave --config cluster.toml     one party; likewise the others

Alice, the airlines, has the timetable; bob the aircraft; carol the weather at the airport of departure; and
dave knows which flights arrived more than 15 minutes late. He brings labels and no features, and takes no
part in computing: alice, bob and carol do that, and see neither his labels nor each other's columns.

The AUC of the flights held out is revealed after each round and, in the end, how often the trees split each
feature, because the script asks for both. Dave alone sees the predictions.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from common import Setting, Tutorial, by_round, importance, in_the_clear, main, print_reveals, roc
from prepare import AIRCRAFT, WEATHER

import spuvm as spu
from spuvm.ml import Sgb

PARTIES = ("alice", "bob", "carol", "dave")
LABEL = "late"
PARAMETERS = {"objective": "binary:logistic", "n_estimators": 20, "max_depth": 5, "learning_rate": 0.3, "max_bin": 32}
METRIC = "logloss"
OPTIONS = {  # cells may be missing in these columns; text stays private, but for what everybody knows
    "missing": [*AIRCRAFT, *WEATHER],
    "categories": dict.fromkeys(["carrier", "origin", "dest", "type", "engine"], "public"),
}


def train(setting: Setting) -> None:
    """Train, scoring the flights held out after each round, and let dave see how late they are thought to be."""
    flights, held_out = setting.split()
    print(flights, flush=True)
    model = Sgb(device=setting.machine(), eval_metric=METRIC, **setting.tutorial.parameters)
    model.fit(flights, label=LABEL, eval_set={"test": held_out}, verbose=True)
    setting.say(f"trained {model!r}")
    splits = model.feature_importance()
    probability = model.predict_proba(held_out.drop(LABEL), to="dave")
    print_reveals(model.reveals)
    setting.say("predicted")
    shown = pd.Series(model.evals_result()["test"][METRIC]), pd.Series(splits)
    dave = spu.PYU("dave")
    dave(report)(held_out.keys("dave"), held_out[LABEL].at("dave"), probability, shown, setting.folder("dave"))


def report(keys: Any, labels: np.ndarray, probability: Any, shown: Any, folder: Any) -> None:
    """At dave: the AUC by his own labels, and files."""
    from sklearn.metrics import roc_auc_score

    risk = np.asarray(probability)[:, 1]
    scores, splits = shown
    pd.DataFrame({**keys, "probability": risk}).to_parquet(folder / "predictions.parquet", index=False)
    scores.to_frame(METRIC).to_parquet(folder / "scores.parquet")
    splits.to_frame("splits").to_parquet(folder / "importance.parquet")
    print(f"AUC of {len(risk):,} flights held out: {roc_auc_score(labels, risk):.4f}", flush=True)


def compare(setting: Setting) -> None:
    """XGBoost with the same parameters on the same rows, if one had all files."""
    from sklearn.metrics import roc_auc_score

    clear = in_the_clear(setting, [METRIC])
    print(f"AUC of XGBoost in the clear: {roc_auc_score(clear.labels, clear.probability):.4f}")
    risk, scores, splits = (
        pd.read_parquet(setting.out / "dave" / f"{name}.parquet") for name in ("predictions", "scores", "importance")
    )
    assert (risk["id"] == clear.ids).all()
    title = "Flights from New York, four parties"
    roc(setting.out / "roc.png", clear.labels, risk["probability"].to_numpy(), clear.probability, title)
    by_round(setting.out / "logloss.png", "log loss", scores[METRIC].tolist(), clear.scores[METRIC], title)
    importance(setting.out / "importance.png", splits["splits"].to_dict(), clear.importance, title)


TUTORIAL = Tutorial("flights", PARTIES, LABEL, OPTIONS, PARAMETERS, {"train": train}, compare)

if __name__ == "__main__":
    sys.exit(main(TUTORIAL, __doc__ or ""))
