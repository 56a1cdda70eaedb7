"""A dashboard of three hospitals under one yearly budget: each month a few numbers with noise, and an end to it.

    python examples/federated/dashboard.py            # simulated; the ledgers are in ./ledgers

Each hospital has a ledger of its own for its patients' year: epsilon 2 for everything that is ever asked. A month's
report costs 0.5. The fifth report of the year is refused by every hospital, also after a restart.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.runtime.errors import InputError

HOSPITALS = ("alice", "bob", "carol")
BEDS = 120  # rows that each brings a month; a bed that was empty is marked so
EDGES = (0, 18, 40, 65, 110)
EPSILON = 0.5


def month(hospital: str, number: int) -> dict[str, np.ndarray]:
    """A made-up month: age, days of stay, whether the patient came back, whether there was one at all."""
    rng = np.random.default_rng([HOSPITALS.index(hospital), number])
    age = rng.gamma(9, 6, BEDS).clip(0, 109).astype(np.float32)
    days = rng.exponential(3 + age / 20).astype(np.float32)
    return {"age": age, "days": days, "back": rng.random(BEDS) < 0.15, "there": rng.random(BEDS) < 0.9}


def report(*tables: Any) -> Any:
    """Counts by age, the mean stay, and how many came back: with noise that nobody knows."""
    all_of = {name: jnp.concatenate([t[name] for t in tables]) for name in ("age", "days", "back", "there")}
    there = all_of["there"]
    ages = spu.dp.histogram(jnp.where(there, all_of["age"], -1.0), EDGES, EPSILON / 5 * 2)
    stay = spu.dp.mean(all_of["days"], 0, 30, EPSILON / 5 * 2, where=there)
    return ages, stay, spu.dp.count(all_of["back"] & there, EPSILON / 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledgers", type=Path, default=Path("ledgers"))
    parser.add_argument("--months", type=int, default=5)
    options = parser.parse_args()
    options.ledgers.mkdir(parents=True, exist_ok=True)
    spu.init(parties=HOSPITALS, address="local")
    machine = spu.SPU(spu.utils.testing.cluster_def(HOSPITALS))
    budgets = {
        h: spu.dp.Budget(4 * EPSILON, unit="patient_id", path=options.ledgers / f"{h}.budget") for h in HOSPITALS
    }
    cost = spu.dp.spending(report, *(month(h, 0) for h in HOSPITALS))
    run = machine(lambda *tables: spu.reveal(report(*tables)))
    for number in range(1, options.months + 1):
        tables = [spu.PYU(h)(month)(h, number) for h in HOSPITALS]
        try:
            for h in HOSPITALS:
                spu.PYU(h)(lambda h=h, n=number: budgets[h].spend(cost, f"dashboard, month {n}"))()
        except InputError as refused:
            print(f"month {number}: refused: {refused}")
            break
        ages, stay, back = spu.reveal(run(*tables))
        print(f"month {number}: ages {[int(n) for n in ages]}, mean stay {float(stay):.1f} days, came back {int(back)}")
    print(budgets["alice"])
    spu.shutdown()


if __name__ == "__main__":
    main()
