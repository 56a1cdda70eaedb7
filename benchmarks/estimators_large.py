"""Learning on 45,000 rows and 17 columns of three parties: what each model's training takes.

python benchmarks/estimators_large.py                  # all, twice: about 3 minutes of one core
python benchmarks/estimators_large.py irls kmeans      # some
python benchmarks/estimators_large.py irls --rows 2000
python benchmarks/estimators_large.py --network        # three processes over TLS: on the clock, and (of a processor)

Simulated, one process computes for three parties and the figures are its processor seconds; of three processes each
does about a third. The second figure is of a second fit, which finds its programs compiled. Over TLS the figures are
seconds from the call to the model at all parties, and processor seconds of the busiest.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import spuvm as spu
from spuvm import ml
from spuvm.network import make_run_folder, run_parties

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


def table(rows: int, party: str | None) -> Any:
    """Drawn, not real: labels that depend on a third of the columns. Of one party its own part, or all."""
    r = np.random.default_rng(0)
    x, ids = r.normal(size=(rows, COLUMNS)), np.arange(rows)
    y = (x[:, :6].sum(axis=1) + r.normal(size=rows) > 0).astype(int)
    own = {p: {"id": ids} | {f"x{i}": x[:, i] for i in range(k, COLUMNS, 3)} for k, p in enumerate(PARTIES)}
    own["carol"] |= {"y": y}
    return spu.data.vertical({p: own[p] if party in (None, p) else None for p in PARTIES}, "id", missing=False)


def processor() -> float:
    """Seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def fits(name: str, data: Any, times: int) -> dict[str, Any]:
    """Seconds on the clock and of the processor of so many fits, and what one costs by its programs."""
    rows = data.drop("y") if name in UNLABELLED else data
    clock, work, model = [], [], None
    for _ in range(times):
        start, before = time.perf_counter(), processor()
        model = MODELS[name]()
        model.fit(rows) if name in UNLABELLED else model.fit(rows, label="y")
        clock.append(time.perf_counter() - start)
        work.append(processor() - before)
    assert model is not None
    costs = model._fitted().machine.costs
    return {"clock": clock, "work": work, "rounds": sum(r for _, r, _ in costs), "MB": sum(mb for *_, mb in costs)}


def simulated(names: Sequence[str], rows: int, times: int) -> None:
    spu.init(parties=PARTIES, address="local")
    data = table(rows, None)
    for name in names:
        found = fits(name, data, times)
        shown = "  ".join(f"{s:8.1f} s" for s in found["work"])
        print(f"{name:8}  {shown}  {found['rounds']:7,}  {found['MB']:9,.1f}", flush=True)
    spu.shutdown()


def over_tls(names: Sequence[str], rows: int, times: int) -> None:
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            config = str(make_run_folder(folder, spu.Config(parties=PARTIES), timeout=600.0))
            command = [sys.executable, __file__, name, "--rows", str(rows), "--times", str(times), "--config", config]
            ended = run_parties({p: [*command, "--as", p] for p in PARTIES})
        found = [json.loads(o.stdout.splitlines()[-1]) for o in ended.values()]
        clock, work = ([max(f[key][i] for f in found) for i in range(times)] for key in ("clock", "work"))
        shown = "  ".join(f"{c:8.1f} s ({w:.1f})" for c, w in zip(clock, work))
        print(f"{name:8}  {shown}  {found[0]['rounds']:7,}  {found[0]['MB']:9,.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], help="of models; all if none are named")
    parser.add_argument("--rows", type=int, default=45_000)
    parser.add_argument("--once", action="store_true", help="without a second fit")
    parser.add_argument("--network", action="store_true", help="three processes over TLS")
    parser.add_argument("--as", dest="party", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    times = options.times or (1 if options.once else 2)
    if options.party:
        spu.init(party=options.party, config=options.config)
        found = fits(options.names[0], table(options.rows, options.party), times)
        spu.shutdown()
        print(json.dumps(found), flush=True)
        return
    print("model: a column a fit, rounds, MB of all parties", flush=True)
    (over_tls if options.network else simulated)(options.names or list(MODELS), options.rows, times)


if __name__ == "__main__":
    main()
