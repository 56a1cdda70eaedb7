"""docs/estimators.md: every estimator beside the one that people know, on small tables of scikit-learn's.

python benchmarks/estimator_table.py                 # writes the page
python benchmarks/estimator_table.py Ridge Lasso     # shows the lines of some
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from estimators import CASES, PARTIES, Case, frame, table  # noqa: E402

import spuvm as spu  # noqa: E402

PAGE = ROOT / "docs" / "estimators.md"
MARK = "<!-- below: written by benchmarks/estimator_table.py -->"
HEAD = """
| estimator | data | score | known | coefficients | rounds | MB | revealed by training |
|---|---|---:|---:|---:|---:|---:|---|
"""


def lines(name: str, case: Case) -> Iterator[str]:
    """A row of the table for each of the case's tables."""
    for chosen in case.tables:
        x, y = table(chosen)
        data = frame(chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known = case.theirs().fit(x, y)
        model = case.ours().fit(data, label="y")
        shown = ", ".join(sorted({r.what for r in model.reveals})) or "nothing"
        rounds, sent = cost(model)
        score, theirs = model.score(data), known.score(x, y)
        off = difference(model, known) if case.coefficients is not None else "-"
        yield f"| {name} | {chosen} | {score:.4f} | {theirs:.4f} | {off} | {rounds:,} | {sent:.2f} | {shown} |"


def cost(model: Any) -> tuple[int, float]:
    """Rounds, and megabytes of all parties, of training."""
    costs = model._fitted().machine.costs
    return sum(rounds for _, rounds, _ in costs), sum(sent for _, _, sent in costs)


def difference(model: Any, known: Any) -> str:
    """The largest difference of the coefficients, by the largest coefficient."""
    ours = model.reveal().coef
    theirs = np.reshape(known.coef_, ours.shape)
    return f"{np.abs(ours - theirs).max() / np.abs(theirs).max():.1e}"


def main(wanted: list[str]) -> None:
    spu.init(parties=PARTIES, address="local")
    found = []
    for name, case in CASES.items():
        if not wanted or name.split(",")[0] in wanted:
            for line in lines(name, case):
                print(line, flush=True)
                found.append(line)
    if not wanted:
        before = PAGE.read_text().split(MARK)[0]
        PAGE.write_text(before + MARK + "\n" + HEAD + "\n".join(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
