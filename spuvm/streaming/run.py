"""Passes over all rows, one after another: agreed on, run block by block, and then what comes of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from spuvm.runtime.machine.session import abort_on_error
from spuvm.runtime.scratch import Scratch
from spuvm.streaming.block import Finish, WriteRows
from spuvm.streaming.exchange import agree, is_me, my_name
from spuvm.streaming.folder import FILTERED, Folder
from spuvm.streaming.held import held
from spuvm.streaming.job import Runner
from spuvm.streaming.passes import Pass
from spuvm.streaming.plan import Plan
from spuvm.streaming.planning import Planned, each_pass, planned
from spuvm.streaming.progress import reporting
from spuvm.streaming.reads import Reads, at_first, kept_by, of_counts
from spuvm.streaming.recognising import is_done, made_by
from spuvm.streaming.resuming import agree_on_attempts, open_folder
from spuvm.streaming.states import state
from spuvm.streaming.workers import run_workers
from spuvm.streaming.writing import Output


def fold(plan: Plan, finish: Finish, folder: str | Path | None) -> Any:
    """`Stream.fold`."""
    several = plan.options.folders if folder is None else None
    folder = several.next() if several is not None else folder
    with (
        abort_on_error(plan.vm.session.link),
        _folder(folder) as where,
        held(where / my_name(plan.vm), "stream", within=where),
    ):
        done = _passes(plan, finish, where / my_name(plan.vm))
        result = state(done)
        done.folder.end()
        agree(plan.vm, "end of the stream")
        if several is None:
            done.folder.remove()
        else:
            several.done.append(done.folder)
        return result


def write(plan: Plan, finish: WriteRows, path: Path, where: Path, force: bool) -> None:
    """`Stream.to_parquet`."""
    vm = plan.vm
    with abort_on_error(vm.session.link), held(where / my_name(vm), "stream", within=where):
        mine = where / my_name(vm)
        output = Output(path, force) if is_me(vm, finish.party) else None
        if not is_done(plan, finish, None if output is None else path, force, mine):
            if output is not None:
                output.check(mine)
            done = _passes(plan, finish, mine)
            made = made_by(done)
            if output is not None:
                output.write(done.runner, made)
            done.folder.end()
            agree(vm, "end of the stream")
            done.folder.remove()


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    with ExitStack() as stack:
        yield (Path(folder) if folder is not None else stack.enter_context(Scratch()) / "stream")


def _passes(plan: Plan, finish: Finish, where: Path) -> Pass:
    """Run the pass up to each filter whose count is revealed, and then the last one."""
    rows = at_first(plan)
    todo = list(each_pass(plan, finish))
    before: list[Folder] = []
    told: list[dict[str, Any]] = []
    for number, (steps, finish_of) in enumerate(todo[:-1]):
        done = _blocks(plan, rows, planned(plan, rows, steps, finish_of(rows)), where / f"{FILTERED}{number}")
        before.append(done.folder)
        told.append(kept_by(done))
        rows = of_counts(done.job, told[-1], done.folder.path)
    steps, finish_of = todo[-1]
    done = _blocks(plan, rows, planned(plan, rows, steps, finish_of(rows)), where)
    done.folder.before = before[::-1]
    done.told = told
    return done


def _blocks(plan: Plan, rows: Reads, this: Planned, where: Path) -> Pass:
    """Agree on everything and run all blocks that are not finished yet."""
    vm, job = plan.vm, this.job
    program = this.manifest["program"]
    agree(vm, "program of the stream", f"{program} {job.rows} {job.rows_per_block}".encode())
    folder, finished = open_folder(vm, job, where, this.manifest)
    runner = Runner(job, vm, folder, readers=rows.files)
    done = Pass(plan, this.computation, job, folder, runner)
    _run(done, finished)
    agree_on_attempts(vm, folder)
    return done


def _run(done: Pass, finished: set[int]) -> None:
    job, options = done.job, done.plan.options
    todo = [b for b in range(job.blocks) if b not in finished]
    again = sum(done.folder.blocks.begun()[b] > 0 for b in todo)
    already = sum(sum(job.counts(b)) for b in finished)
    workers = 1 if job.in_order else min(options.workers, max(len(todo), 1))
    agree(done.vm, "number of workers", str(workers).encode())
    with reporting(sum(job.rows), already, options.progress) as advance:
        if advance is not None and done.folder.attempt > 1:
            print(
                f"attempt {done.folder.attempt}: {len(finished):,} of {job.blocks:,} blocks are finished; begun before "
                f"and computed again, under fresh masks: {again:,}",
                file=sys.stderr,
            )
        if workers == 1:
            done.runner.run(todo, advance)
        else:
            run_workers(done.runner, todo, workers, options.engine, options.home, advance)
