"""A graph as SecretPad draws it, as a file of ours: `python examples/flow/dag.py`. The graph is `dag.toml` beside it.

alice has incomes, bob debts, late payments and who turned out bad. The same file runs by `spuvm flow run dag.toml
--table alice=a.csv@alice --table bob=b.csv@bob`, over a network, or as a job of three services. What each node costs
and reveals is printed before it runs; then one bin more, which runs only what follows from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.flow import Flow, run
from spuvm.flow.estimating import rehearse, table

STATE = Path("flows")


def tables(rows: int) -> dict[str, dict[str, Any]]:
    """By party, its table: most of the rows are of people that both know."""
    g = np.random.default_rng(11)
    x = g.normal(size=(rows, 3)).round(4)
    bad = (x @ (-1.0, 1.0, 0.7) + g.normal(size=rows) / 3 > 0).astype(int)
    a, b = (np.sort(g.permutation(rows)[: rows - k]) for k in (2, 3))
    return {
        "alice": {"alice": {"id": a, "income": x[a, 0], "noise": g.normal(size=len(a)).round(4)}},
        "bob": {"bob": {"id": b, "debt": x[b, 1], "late": x[b, 2], "bad": bad[b]}},
    }


def dag() -> Flow:
    return Flow.load(Path(__file__).with_name("dag.toml"))


def main(rows: int = 150) -> None:
    """Cost and reveals, a run, and another with one bin more."""
    flow, data = dag(), tables(rows)
    spu.init(parties=flow.parties, address="local")
    heads, lines = table(rehearse(flow, data).nodes, flow)
    for line in (heads, *lines):
        print("  ".join(f"{cell:>{w}}" for cell, w in zip(line, (18, 20, 15, 6, 10))), " ", line[-1][:70])
    made = run(flow, state=STATE, tables=data)
    print(made, made["quality"].numbers)
    finer = run(flow.set(**{"woe.n_bins": 4}), state=STATE, tables=data)
    print(finer, finer["quality"].numbers)


if __name__ == "__main__":
    main()
