"""A bank's credit decision, made by three companies together. `python examples/flow/credit.py`.

alice has incomes and ages of her customers, bob their debts, carol knows who paid late and who turned out bad. Their
rows are matched; a boosted model and a score card are trained; carol alone sees the risks of the rows held out. What
that costs and reveals is printed before it runs. The second run takes everything from the first, a third with deeper
trees only what does not depend on these. `flows/credit.html` is a page about the runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.flow import Flow, find, run
from spuvm.flow.estimating import rehearse, table
from spuvm.flow.page import write_page

PARTIES = ("alice", "bob", "carol")
STATE = Path("flows")


def tables(rows: int) -> dict[str, dict[str, Any]]:
    """By party, its tables by name: not all have all customers."""
    g = np.random.default_rng(5)
    x = g.normal(size=(rows, 3))
    bad = (x.sum(axis=1) + g.normal(size=rows) / 4 > 0).astype(int)
    a, b, c = (np.sort(g.permutation(rows)[: rows - k]) for k in (2, 3, 1))
    return {
        "alice": {"loans": {"id": a, "income": x[a, 0], "age": 20.0 + a % 41}},
        "bob": {"bills": {"id": b, "debt": x[b, 1]}},
        "carol": {"labels": {"id": c, "late": x[c, 2], "bad": bad[c]}},
    }


def credit(trees: int = 2, **options: Any) -> Flow:
    """Read, match, split, bin, boost, evaluate, and a score card; `options` are of the evaluation."""
    c = {name: find(name) for name in ("read", "match", "split", "bin", "transform", "sgb", "evaluate", "predict")}
    sources = [c["read"](party=p, table=t, name=t) for p, own in tables(8).items() for t in own]
    train, test = c["split"](c["match"](*sources, key="id"), test_size=0.3)
    binned = c["bin"](train, label="bad", n_bins=4)
    held_out = c["transform"](binned.model, test)
    model = c["sgb"](binned.data, label="bad", n_estimators=trees, max_depth=2, max_bin=4, name="boost")
    quality = c["evaluate"](model, held_out, label="bad", **options)
    risk = c["predict"](model, held_out, label="bad", to="carol", output="probability")
    points = find("score_card_table")(find("score_card")(train, label="bad", n_bins=3))
    return Flow("credit", parties=PARTIES, quality=quality, risk=risk, points=points)


def main(rows: int = 120) -> None:
    """Cost, three runs, a page."""
    spu.init(parties=PARTIES, address="local")
    flow, data = credit(curves=True), tables(rows)
    heads, lines = table(rehearse(flow, data).nodes, flow)
    for line in (heads, *lines):
        print("  ".join(f"{cell:>{w}}" for cell, w in zip(line, (16, 16, 15, 6, 8))), " ", line[-1][:70])
    first = run(flow, state=STATE, tables=data)
    print(first, first["quality"].numbers)
    print(run(flow, state=STATE, tables=data))
    deeper = run(flow.set(**{"boost.max_depth": 3}), state=STATE, tables=data)
    print(deeper, deeper["quality"].numbers)
    write_page(STATE / "credit.html", [first.recorded(), deeper.recorded()], STATE / "alice")
    print(f"wrote {STATE / 'credit.html'}")


if __name__ == "__main__":
    main()
