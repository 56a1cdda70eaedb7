"""Two parties, each with one half of the images, learn to read handwritten digits: ten classes.

    python examples/boosting/digits.py                         all in this process, simulated
    python examples/boosting/digits.py --network               a process for each party
    python examples/boosting/digits.py train --as alice --config cluster.toml     one party; likewise bob, carol

Alice has the left halves, bob the right halves and the digits. Carol brings no data: she is the third party
that the protocol needs. In each round ten trees grow side by side, one for each class. The log loss and the
error of the digits held out are revealed after each round, because the script asks for it, and bob alone
sees the predictions.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from common import BLUE, Setting, Tutorial, by_round, in_the_clear, main, picture, print_reveals

import spuvm as spu
from spuvm.ml import Sgb

PARTIES = ("alice", "bob")
LABEL = "digit"
PARAMETERS = {
    "objective": "multi:softprob",
    "n_estimators": 20,
    "max_depth": 4,
    "learning_rate": 0.3,
    "max_bin": 16,
}
METRICS = ("merror", "mlogloss")


def train(setting: Setting) -> None:
    """Train, scoring the digits held out after each round, and let bob see what they are taken for."""
    images, held_out = setting.split()
    model = Sgb(device=setting.machine(), num_class=10, eval_metric=METRICS, **setting.tutorial.parameters)
    model.fit(images, label=LABEL, eval_set={"test": held_out}, verbose=True)
    setting.say(f"trained {model!r}")
    found = model.predict(held_out.drop(LABEL), to="bob")
    print_reveals(model.reveals)
    scores = pd.DataFrame(model.evals_result()["test"])
    bob = spu.PYU("bob")
    bob(report)(held_out.keys("bob"), held_out[LABEL].at("bob"), found, scores, setting.folder("bob"))


def report(keys: Any, labels: np.ndarray, found: Any, scores: pd.DataFrame, folder: Any) -> None:
    """At bob: how many digits were read correctly, and files."""
    found = np.asarray(found)
    pd.DataFrame({**keys, "digit": labels.astype(int), "found": found}).to_parquet(folder / "predictions.parquet")
    scores.to_parquet(folder / "scores.parquet")
    print(f"accuracy of {len(found)} digits held out: {np.mean(found == labels):.4f}", flush=True)


def compare(setting: Setting) -> None:
    """XGBoost with the same parameters on the same rows, if one had both files."""
    clear = in_the_clear(setting, METRICS)
    found = pd.read_parquet(setting.out / "bob" / "predictions.parquet")
    scores = pd.read_parquet(setting.out / "bob" / "scores.parquet")
    print(f"accuracy of XGBoost in the clear: {np.mean(clear.probability.argmax(axis=1) == clear.labels):.4f}")
    for metric, words in (("mlogloss", "log loss"), ("merror", "error")):
        path = setting.out / f"{metric}.png"
        by_round(path, words, scores[metric].tolist(), clear.scores[metric], "Digits, one half of the image each")
    picture(setting.out / "confusion.png", lambda axes: confusion(axes, found["digit"], found["found"]))


def confusion(axes: Any, digit: pd.Series, found: pd.Series) -> None:
    """How many of each digit were taken for which."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (digit, found), 1)
    axes.imshow(np.sqrt(counts), cmap="Blues", vmax=np.sqrt(counts.max()) * 1.4)
    for i, j in zip(*np.nonzero(counts)):
        axes.text(j, i, counts[i, j], ha="center", va="center", color="black" if i == j else BLUE, fontsize=8)
    axes.set(xticks=range(10), yticks=range(10), xlabel="found by spuvm", ylabel="digit", title="Digits held out")


TUTORIAL = Tutorial("digits", PARTIES, LABEL, {"missing": False}, PARAMETERS, {"train": train}, compare)

if __name__ == "__main__":
    sys.exit(main(TUTORIAL, __doc__ or ""))
