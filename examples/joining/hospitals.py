"""Three hospitals know different patients: find those whom all know, boost trees on them, predict for carol alone.

    python examples/joining/hospitals.py                  all in this process, simulated
    python examples/joining/hospitals.py --network        three processes over mutual TLS
    python examples/joining/hospitals.py --as alice --config cluster.toml        one party; bob and carol likewise

alice, bob and carol measured different things of breast tumours, of patients of their own, in their own order; carol
also knows the diagnosis. The register's number of a patient is the key. Before anything is computed each party says
what anybody will learn; then

1. `match="inner"` finds the patients of all three: each hospital learns which of its own these are. Every party owns a
   table, so nobody can help, and matching is oblivious.
2. `Sgb` trains on three quarters of them. Nobody sees a measurement, a diagnosis or a tree.
3. carol alone sees predictions for the others, and compares them with her diagnoses.

How many patients two hospitals share is not worth a match to anybody: `spu.psi.count` says it, and nothing else.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import spuvm as spu
from spuvm.ml import Sgb
from spuvm.network import Scratch, make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
DATA = Path(__file__).parent / "data"
LABEL = "malignant"
SEED = 569
KNOWN = 0.85  # of all patients, at each hospital


def prepare(folder: Path) -> None:
    """Write <party>.parquet: `patient` and ten measurements of 85% of scikit-learn's 569 patients each."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    rng = np.random.RandomState(SEED)
    numbers = rng.permutation(np.arange(100_000, 1_000_000))[: len(source.data)]
    names = [str(name).replace(" ", "_") for name in source.feature_names]
    table = pd.DataFrame(source.data, columns=names).assign(patient=numbers, malignant=source.target == 0)
    folder.mkdir(parents=True, exist_ok=True)
    for party, own in zip(PARTIES, (names[:10], names[10:20], [*names[20:], LABEL])):
        some = table.sample(frac=KNOWN, random_state=rng)[["patient", *own]]
        some.to_parquet(folder / f"{party}.parquet", index=False)


def run(data: Path, rounds: int) -> None:
    """What every hospital runs."""
    start = time.perf_counter()
    files = {party: data / f"{party}.parquet" for party in PARTIES}
    both = {party: files[party] for party in ("alice", "bob")}
    print("alice and bob have", spu.psi.count(both, key="patient"), "patients in common", flush=True)

    patients = spu.data.vertical(files, key="patient", match="inner", missing=False)
    print(f"{time.perf_counter() - start:7.1f} s  matched: {patients!r}", flush=True)
    train, test = patients.split(0.25, seed=SEED)
    model = Sgb(n_estimators=rounds, max_depth=3, max_bin=32).fit(train, label=LABEL)
    print(f"{time.perf_counter() - start:7.1f} s  trained: {model!r}", flush=True)
    risk = model.predict_proba(test.drop(LABEL), to="carol")
    spu.PYU("carol")(report)(test.keys("carol"), test[LABEL].at("carol"), risk)


def report(keys: Any, labels: np.ndarray, risk: Any) -> None:
    """At carol: the AUC by her own diagnoses."""
    from sklearn.metrics import roc_auc_score

    score = roc_auc_score(labels, np.asarray(risk)[:, 1])
    print(f"AUC of {len(keys['patient'])} patients held out: {score:.4f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--network", action="store_true", help="three processes of this machine")
    how.add_argument("--as", dest="party", choices=PARTIES, help="be this party; needs --config")
    parser.add_argument("--config", help="the cluster file: `spuvm certificates` makes one")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of <party>.parquet (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="of boosting (%(default)s)")
    options = parser.parse_args()
    if bool(options.party) != bool(options.config):
        parser.error("--as and --config belong together")
    if not options.party and not (options.data / "alice.parquet").exists():
        prepare(options.data)
    if options.network:
        return network(options)
    if options.party in (None, "alice"):  # who learns what: the same text at all parties
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        logging.getLogger("spuvm.psi").setLevel(logging.INFO)
    where = {"party": options.party, "config": options.config} if options.party else {"parties": PARTIES}
    spu.init(**where)
    try:
        run(options.data, options.rounds)
    finally:
        spu.shutdown()
    return 0


def network(options: argparse.Namespace) -> int:
    """All three as processes, with certificates made for this run."""

    def show(party: str, stream: str, line: str) -> None:
        print(f"{party:>5} | {line}", file=getattr(sys, stream), flush=True)

    with Scratch() as folder:
        config = make_run_folder(folder, spu.Config(parties=PARTIES), timeout=300)
        line = [sys.executable, __file__, "--data", str(options.data), "--rounds", str(options.rounds)]
        run_parties({p: [*line, "--as", p, "--config", str(config)] for p in PARTIES}, on_line=show)
    return 0


if __name__ == "__main__":
    sys.exit(main())
