"""The whole table under every configuration, in several processes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import seeded

from conformance.batch import (
    Combination,
    Outcome,
    batches,
    combinations,
    configurations,
    covering,
    forget,
    name_of,
    run,
)
from conformance.cases import CASES
from conformance.interpreted import stages_by_numpy
from conformance.processes import pool
from conformance.refusals import REFUSALS, by_design
from conformance.table import FLOATS
from spuvm.runtime.config import Config
from spuvm.runtime.engine import tier

Task = tuple[Sequence[Config], int, tuple[str, ...], bool, Sequence[str]]
Done = list[tuple[Config, str, str | None, str | None]]


def work(task: Task) -> Done:
    """All combinations of a case and some dtypes, under each configuration: names, errors and reasons."""
    configs, number, dtypes, sample, tiers = task
    case = CASES[number]
    found = list((covering if sample else combinations)([case]))
    found = [c for c in found if c.dtype in dtypes]
    outcomes: Done = []
    for config in configs:
        for batch in batches(found):
            try:
                outcomes += [(config, str(o.combination), o.error, o.reason) for o in in_tiers(batch, config, tiers)]
            except Exception as e:  # a program that does not run: all of it failed
                outcomes += [(config, str(c), f"{type(e).__name__}: {e}", None) for c in batch]
    return outcomes


def in_tiers(batch: Sequence[Combination], config: Config, tiers: Sequence[str]) -> list[Outcome]:
    """The first tier's outcomes; what gives other bits than it in another tier, or fails there, failed."""
    first, *others = [_drawn(batch, config, name, alone=len(tiers) == 1) for name in tiers]
    for name, outcomes in zip(tiers[1:], others, strict=True):
        for i, (one, other) in enumerate(zip(first, outcomes, strict=True)):
            if one.error is None and other != one:
                error = f"{name}: {other.error or other.reason or 'other bits than ' + tiers[0]}"
                first[i] = replace(one, error=error)
    return first


def _drawn(batch: Sequence[Combination], config: Config, tier_: str, *, alone: bool) -> list[Outcome]:
    """A batch in one tier, with masks that depend on nothing else. Programs are made anew, if it is not `alone`."""
    if not alone:
        forget()
    with stages_by_numpy() if tier_ == "numpy" else tier.use(tier_), seeded.drawing("conformance", name_of(config)):
        seeded.key_anew()
        return run(batch, config)


def _tasks(configs: Sequence[Config], sample: bool, tiers: Sequence[str]) -> list[Task]:
    """Floats of all widths make the same programs: they stay together."""
    tasks = []
    for number, case in enumerate(CASES):
        floats = tuple(d for d in case.dtypes if d in FLOATS)
        groups = [floats] * bool(floats) + [(d,) for d in case.dtypes if d not in FLOATS]
        tasks += [(configs, number, group, sample, tiers) for group in groups]
    return tasks


def conformance(jobs: int, sample: bool, tiers: Sequence[str], names: Sequence[str]) -> int:
    """How many combinations ran, passed and are refused; how many failed."""
    wanted = [c for c in configurations() if not names or name_of(c) in names]
    tasks = _tasks(wanted, sample, tiers)
    ran: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    start = time.monotonic()
    with pool(jobs) as workers:
        for done, outcomes in enumerate(workers.imap_unordered(work, tasks), 1):
            for config, combination, error, reason in outcomes:
                name = name_of(config)
                ran[name] += 1
                design = by_design(reason) if reason else None
                refused[name] += design is not None
                if design:
                    reasons[design] += 1
                wrong = error or (f"refused: {reason}" if reason and not design else None)
                if wrong:
                    failed[name] += 1
                    print(f"FAILED {name}: {combination}: {wrong}", flush=True)
            if done % 20 == 0:
                print(f"  {done} of {len(tasks)} tasks, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    for name in map(name_of, wanted):
        passed = ran[name] - refused[name] - failed[name]
        print(f"{name}: {ran[name]:,} ran, {passed:,} passed, {refused[name]:,} refused by design")
    for design, count in reasons.most_common():
        print(f"  refused {count:,} times: {REFUSALS[design]} ({design!r})")
    seconds = time.monotonic() - start
    print(
        f"{ran.total():,} combinations ran, {ran.total() - refused.total() - failed.total():,} passed, "
        f"{refused.total():,} refused by design, {failed.total()} failed, 0 skipped; {seconds:.0f} s"
    )
    return failed.total()
