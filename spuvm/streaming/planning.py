"""Each pass of a stream before its first block: what runs, on what, and how the run is recognised later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from spuvm.streaming.block import Finish, KeepRows, Steps, WriteRows, columns_read, passes, through
from spuvm.streaming.computation import Computation, structs
from spuvm.streaming.job import Job
from spuvm.streaming.plan import Plan
from spuvm.streaming.reads import Reads, at_first, of_counts
from spuvm.streaming.resuming import manifest

GIVES: dict[type, Any] = {WriteRows: "rows", KeepRows: "kept"}  # others: a state


@dataclass(frozen=True)
class Planned:
    """What runs on the blocks of a pass. `manifest`: what the run belongs to."""

    computation: Computation
    job: Job
    manifest: dict[str, Any]


def planned(plan: Plan, rows: Reads, steps: Steps, finish: Finish) -> Planned:
    """A pass over such rows, with the programs of all its blocks."""
    computation = Computation(plan.vm.config, rows.parts, steps, finish, rows.kept is None)
    job = Job(
        plan.parts if rows.kept is None else (),
        rows.counts,
        plan.options.rows_per_block,
        {},
        computation.in_order,
        GIVES.get(type(finish), "state"),
        computation.initial(),
        kept=rows.kept,
    )
    job.programs = {shape: computation.program(shape) for shape in job.shapes()}
    found = {(p, n): computation.own_work(p, n) for shape in job.shapes() for p, n in enumerate(shape) if n}
    job.own = {key: own for key, own in found.items() if own is not None}
    return Planned(computation, job, manifest(plan.vm, job, rows.sources))


def each_pass(plan: Plan, finish: Finish) -> Iterator[tuple[Steps, Callable[[Reads], Finish]]]:
    """The passes up to each filter whose count is revealed, and the last: their steps, and what becomes of the rows."""
    *filters, last = passes(plan.steps)
    for number, steps in enumerate(filters):
        after = [step for following in (*filters[number + 1 :], last) for step in following]
        yield steps, partial(_kept, steps, after, finish)
    yield last, lambda rows: finish


def _kept(steps: Steps, after: Sequence[Any], finish: Finish, rows: Reads) -> KeepRows:
    columns = jax.eval_shape(lambda c: through(steps, c)[0], structs(rows.parts[0], 1))
    return KeepRows(columns_read(after, finish, sorted(columns)))


def manifests(plan: Plan, finish: Finish, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of all passes, computing nothing: `told` is what all parties know of what each pass but the last has kept."""
    rows, out = at_first(plan), []
    for number, (steps, finish_of) in enumerate(each_pass(plan, finish)):
        this = planned(plan, rows, steps, finish_of(rows))
        out.append(this.manifest)
        if number < len(told):
            rows = of_counts(this.job, told[number])
    return out
