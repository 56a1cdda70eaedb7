"""`python -m conformance run` runs all of the table; `docs` writes docs/operations.md, docs/precision.md and plots."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import sweeps

from conformance import operations, precision
from conformance.batch import Outcome, batches, combinations, configurations, covering, name_of, run
from conformance.cases import CASES
from conformance.refusals import REFUSALS, by_design
from spuvm.runtime.config import Config

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
POINTS = 1_000_000
FRACTIONS = (8, 18, 22)


def work(task: tuple[Config, int, bool]) -> tuple[Config, list[tuple[str, str | None, str | None]]]:
    """All combinations of a case under a configuration: their names, errors and reasons."""
    config, number, sample = task
    choose = covering if sample else combinations
    outcomes: list[Outcome] = []
    for batch in batches(choose(CASES[number : number + 1])):
        outcomes += run(batch, config)
    return config, [(str(o.combination), o.error, o.reason) for o in outcomes]


def conformance(jobs: int, sample: bool, names: Sequence[str]) -> int:
    """How many combinations ran, passed and are refused; how many failed."""
    wanted = [c for c in configurations() if not names or name_of(c) in names]
    tasks = [(config, i, sample) for config in wanted for i in range(len(CASES))]
    ran: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failures: list[str] = []
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for done, (config, outcomes) in enumerate(pool.imap_unordered(work, tasks), 1):
            name = name_of(config)
            for combination, error, reason in outcomes:
                ran[name] += 1
                design = by_design(reason) if reason else None
                refused[name] += design is not None
                if design:
                    reasons[design] += 1
                wrong = error or (f"refused: {reason}" if reason and not design else None)
                if wrong:
                    failures.append(f"{name}: {combination}: {wrong}")
                    print(f"FAILED {failures[-1]}", flush=True)
            if done % 50 == 0:
                print(f"  {done} of {len(tasks)} cases, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    for name in map(name_of, wanted):
        bad = sum(f.startswith(f"{name}: ") for f in failures)
        passed = ran[name] - refused[name] - bad
        print(f"{name}: {ran[name]:,} ran, {passed:,} passed, {refused[name]:,} refused by design")
    for design, count in reasons.most_common():
        print(f"  refused {count:,} times: {REFUSALS[design]} ({design!r})")
    print(f"{ran.total():,} combinations: {len(failures)} failed, none skipped; {time.monotonic() - start:.0f} s")
    return len(failures)


def bounds(points: int) -> int:
    """The stated bounds on dense sweeps of the domains; how many do not hold."""
    broken = 0
    for name in sweeps.SWEEPS:
        for f, protocol in itertools.product(FRACTIONS, ("aby3", "semi2k")):
            measured = sweeps.measure(name, f, points, protocol=protocol)
            if measured.excess > 0:
                broken += 1
                print(f"FAILED {name} ({protocol}, {f} fraction bits): {measured.share:.2f} of what is stated")
    print(f"{len(sweeps.SWEEPS)} functions, {FRACTIONS} fraction bits, {points:,} points each: {broken} bounds broken")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("command", choices=("run", "docs"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--sample", action="store_true", help="every dtype, shape and pattern of a case once")
    parser.add_argument("--only", action="append", default=[], help="a configuration, like aby3/64")
    parser.add_argument("--points", type=int, default=POINTS, help="of each sweep")
    options = parser.parse_args()
    if options.command == "docs":
        operations.write(DOCS)
        precision.write(DOCS, options.points)
        return 0
    return min(1, conformance(options.jobs, options.sample, options.only) + bounds(options.points))


if __name__ == "__main__":
    sys.exit(main())
