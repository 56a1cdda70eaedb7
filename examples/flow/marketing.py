"""Which customers a bank should call, from two companies' columns. `python examples/flow/marketing.py`.

The columns are those of a well-known table of calls (bank marketing), whose rows are generated here. alice, the bank,
has who her customers are and what they answered; bob, who made the calls, how often and when he called them; carol only
computes. Texts become numbers, columns are judged by correlation and variance inflation, a logistic regression and a
boosted model are trained side by side, and alice alone sees how likely each customer of the test is to say yes. What
each step costs and shows is printed before anything runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.flow import Flow, find, run
from spuvm.flow.estimating import rehearse, table

PARTIES = ("alice", "bob", "carol")
STATE = Path("flows")
JOBS = ("admin", "blue-collar", "management", "services", "technician")
NUMBERS = ("age", "balance", "duration", "campaign", "previous")


def tables(rows: int) -> dict[str, dict[str, Any]]:
    """By party, its tables by name: not all customers were called, and some who were are no customers any more."""
    g = np.random.default_rng(17)
    age, balance = g.integers(18, 80, rows), np.round(g.normal(1400, 900, rows), 2)
    married, education = g.integers(0, 2, rows), g.integers(0, 3, rows)
    duration, campaign = g.gamma(2.0, 130.0, rows).round(), g.integers(1, 8, rows)
    previous = g.integers(0, 4, rows)
    wish = duration / 200 + balance / 2000 + 0.5 * education - campaign / 4 + g.normal(size=rows) / 2
    yes = np.where(wish > np.median(wish), "yes", "no")
    a, b = (np.sort(g.permutation(rows)[: rows - k]) for k in (3, 2))
    return {
        "alice": {
            "customers": {
                "uid": a,
                "age": age[a],
                "job": np.take(JOBS, a % 5),
                "marital": np.where(married[a], "married", "single"),
                "education": np.take(("primary", "secondary", "tertiary"), education[a]),
                "balance": balance[a],
                "y": yes[a],
            }
        },
        "bob": {
            "calls": {
                "uid": b,
                "housing": np.where(g.integers(0, 2, len(b)), "yes", "no"),
                "duration": duration[b],
                "campaign": campaign[b],
                "previous": previous[b],
            }
        },
    }


def marketing(trees: int = 2, steps: int = 20) -> Flow:
    """Match, code, scale, judge columns, split, two models (one, of 0 trees), their quality, and alice's list."""
    names = ("read", "match", "binary", "encode", "scale", "split", "evaluate", "predict")
    c = {name: find(name) for name in names}
    customers = c["read"](party="alice", table="customers", name="customers")
    calls = c["read"](party="bob", table="calls", name="calls")
    rows = c["match"](customers, calls, key="uid", name="rows")
    for column, positive in (("y", "yes"), ("housing", "yes"), ("marital", "married")):
        rows = c["binary"](rows, column=column, positive=positive, name=f"is_{positive}_{column}")
    coded = c["encode"](rows, columns=("job", "education"), drop="first", name="coded")
    scaled = c["scale"](coded.data, columns=NUMBERS, name="scaled")
    correlation = find("correlation")(scaled.data, columns=NUMBERS, name="correlation")
    inflation = find("variance_inflation")(scaled.data, columns=NUMBERS, name="inflation")
    train, test = c["split"](scaled.data, test_size=0.25, seed=3, name="parts")
    linear = find("logistic_regression")(train, label="y", max_iter=steps, name="linear")
    judged = {"linear": c["evaluate"](linear, test, label="y", name="quality_of_linear")}
    if trees:
        boosted = find("sgb")(train, label="y", n_estimators=trees, max_depth=2, max_bin=4, name="trees")
        judged["trees"] = c["evaluate"](boosted, test, label="y", name="quality_of_trees")
    return Flow(
        "marketing",
        parties=PARTIES,
        correlation=correlation,
        inflation=inflation,
        **judged,
        to_call=c["predict"](linear, test, label="y", to="alice", output="probability", name="to_call"),
    )


def main(rows: int = 200) -> None:
    """Cost and reveals, a run, who is worth a call."""
    spu.init(parties=PARTIES, address="local")
    flow, data = marketing(), tables(rows)
    heads, lines = table(rehearse(flow, data).nodes, flow)
    for line in (heads, *lines):
        print("  ".join(f"{cell:>{w}}" for cell, w in zip(line, (18, 20, 15, 6, 10))), " ", line[-1][:70])
    made = run(flow, state=STATE, tables=data)
    print(made)
    for name in ("linear", "trees"):
        print(name, made[name].numbers)
    chances = np.asarray(spu.reveal(made["to_call"]))  # alice's own: a simulation has all parties in one process
    print(f"{(chances > 0.5).sum()} of {len(chances)} customers of the test are worth a call")


if __name__ == "__main__":
    main()
