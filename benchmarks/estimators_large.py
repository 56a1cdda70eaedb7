"""Learning on 45,000 rows and 17 columns of three parties, simulated in this process: processor seconds of each.

python benchmarks/estimators_large.py                  # all, twice: about 3 minutes of one core
python benchmarks/estimators_large.py irls kmeans      # some
python benchmarks/estimators_large.py irls --rows 2000

The second figure is of a second fit, which finds its programs compiled. One process computes for three parties here: of
three processes each does about a third.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from typing import Any

import numpy as np

import spuvm as spu
from spuvm import ml

PARTIES = ("alice", "bob", "carol")
COLUMNS = 17

MODELS: dict[str, Callable[[], Any]] = {
    "irls": lambda: ml.LogisticRegression(inference=False),
    "sgd": lambda: ml.SGDClassifier(loss="log_loss", batch_size=1024, max_iter=5),
    "kmeans": lambda: ml.KMeans(8),
    "pca": ml.PCA,
    "forest": lambda: ml.RandomForestClassifier(n_estimators=20, max_depth=6, max_bin=16),
}
UNLABELLED = ("kmeans", "pca")


def table(rows: int) -> Any:
    """Drawn, not real: labels that depend on a third of the columns."""
    r = np.random.default_rng(0)
    x, ids = r.normal(size=(rows, COLUMNS)), np.arange(rows)
    y = (x[:, :6].sum(axis=1) + r.normal(size=rows) > 0).astype(int)
    own = {p: {"id": ids} | {f"x{i}": x[:, i] for i in range(k, COLUMNS, 3)} for k, p in enumerate(PARTIES)}
    own["carol"] |= {"y": y}
    return spu.data.vertical(own, "id", missing=False)


def seconds() -> float:
    """Of processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], help="of models; all if none are named")
    parser.add_argument("--rows", type=int, default=45_000)
    parser.add_argument("--once", action="store_true", help="without a second fit")
    options = parser.parse_args()
    spu.init(parties=PARTIES, address="local")
    data = table(options.rows)
    print(f"{'model':8}  {'first fit':>10}  {'second fit':>10}  {'rounds':>7}  {'MB':>9}", flush=True)
    for name in options.names or MODELS:
        rows = data.drop("y") if name in UNLABELLED else data
        found, model = [], None
        for _ in range(1 if options.once else 2):
            before = seconds()
            model = MODELS[name]()
            model.fit(rows) if name in UNLABELLED else model.fit(rows, label="y")
            found.append(seconds() - before)
        assert model is not None
        costs = model._fitted().machine.costs
        rounds, sent = sum(r for _, r, _ in costs), sum(mb for _, _, mb in costs)
        second = "" if options.once else f"{found[-1]:8.1f} s"
        print(f"{name:8}  {found[0]:8.1f} s  {second:>10}  {rounds:7,}  {sent:9,.1f}", flush=True)
    spu.shutdown()


if __name__ == "__main__":
    main()
