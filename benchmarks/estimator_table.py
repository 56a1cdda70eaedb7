"""docs/estimators.md: every estimator beside the one that people know, on small tables of scikit-learn's.

python benchmarks/estimator_table.py                 # writes the page
python benchmarks/estimator_table.py Ridge Lasso     # shows the lines of some
python benchmarks/estimator_table.py --write PCA     # and puts them into the page, in place of those before

Scores of what learns without labels: `UNLABELLED`.
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
from unlabelled import UNLABELLED, Unlabelled  # noqa: E402

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


def unlabelled_lines(name: str, case: Unlabelled) -> Iterator[str]:
    """The same of what learns without labels."""
    for chosen in case.tables:
        x, y = case.table(chosen)
        data = case.frame(chosen)
        known = case.theirs()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known.fit(x)
            model = case.ours().fit(data)
            shown = ", ".join(sorted({r.what for r in model.reveals})) or "nothing"
            rounds, sent = cost(model)
            score, theirs = case.ours_score(model, data, x, y), case.theirs_score(known, x, y)
        yield f"| {name} | {chosen} | {score:.4f} | {theirs:.4f} | - | {rounds:,} | {sent:.2f} | {shown} |"


def main(arguments: list[str]) -> None:
    wanted = [a for a in arguments if a != "--write"]
    spu.init(parties=PARTIES, address="local")
    found = []
    for name in (*CASES, *UNLABELLED):
        if not wanted or name.split(",")[0] in wanted:
            made = lines(name, CASES[name]) if name in CASES else unlabelled_lines(name, UNLABELLED[name])
            for line in made:
                print(line, flush=True)
                found.append(line)
    if not wanted or "--write" in arguments:
        before, _, after = PAGE.read_text().partition(MARK)
        kept = (
            [x for x in after.splitlines() if x.startswith("| ") and not x.startswith("| estimator")] if wanted else []
        )
        PAGE.write_text(before + MARK + "\n" + HEAD + "\n".join(in_order(kept, found)) + "\n")


def in_order(kept: list[str], found: list[str]) -> list[str]:
    """New lines in place of those of the same estimators and tables, all in the order of the cases."""
    names = [*CASES, *UNLABELLED]
    newest = {tuple(x.split(" | ")[:2]): x for x in (*kept, *found)}
    return sorted(newest.values(), key=lambda x: names.index(x.split(" | ")[0].removeprefix("| ")))


if __name__ == "__main__":
    main(sys.argv[1:])
