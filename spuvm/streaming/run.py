"""Passes over all rows: what the parties agree on before each, the blocks, and what comes of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from spuvm.compiler.compile import Program, compile_function
from spuvm.objects import SPUObject, components_for
from spuvm.runtime.engine.random import derive_key, new_key
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import BlockProgram, CondStep, Holders, LoopStep, Straight, WhileStep
from spuvm.runtime.machine.session import telling
from spuvm.runtime.sources import code_digest
from spuvm.streaming.block import (
    Column,
    Counts,
    Finish,
    KeepRows,
    Part,
    Steps,
    WriteRows,
    columns_read,
    passes,
    through,
)
from spuvm.streaming.computation import Computation, combined, fingerprint, structs
from spuvm.streaming.exchange import tell_all
from spuvm.streaming.folder import FILTERED, FORMAT, Folder, Keys, held
from spuvm.streaming.job import Job, Runner
from spuvm.streaming.kept_rows import ROWS, Kept
from spuvm.streaming.progress import reporting
from spuvm.streaming.sources import Rows
from spuvm.streaming.stream import Stream
from spuvm.streaming.workers import run_workers
from spuvm.streaming.writing import Output
from spuvm.vm import VM

GIVES: dict[type, Any] = {WriteRows: "rows", KeepRows: "kept"}  # others: a state


@dataclass
class Pass:
    """Some steps of a stream and what becomes of their columns, ready to run the blocks."""

    stream: Stream
    computation: Computation
    job: Job
    folder: Folder
    runner: Runner

    @property
    def vm(self) -> VM:
        return self.stream.vm


def fold(stream: Stream, finish: Finish, folder: str | Path | None) -> Any:
    """`Stream.fold`."""
    several = stream.options.folders if folder is None else None
    folder = several.next() if several is not None else folder
    with telling(stream.vm.session.link), _folder(folder) as where, held(where / _me(stream.vm)):
        done = _passes(stream, finish, where / _me(stream.vm))
        state = _state(done)
        agree(stream.vm, "end of the stream")
        if several is None:
            done.folder.remove()
        else:
            several.done.append(done.folder)
        return state


def write(stream: Stream, finish: WriteRows, path: Path, where: Path, force: bool) -> None:
    """`Stream.to_parquet`."""
    vm = stream.vm
    with telling(vm.session.link), held(where / _me(vm)):
        output = Output(path, force) if _is_me(vm, finish.party) else None
        if output is not None:
            output.check(where / _me(vm))
        done = _passes(stream, finish, where / _me(vm))
        if output is not None:
            output.write(done.runner)
        agree(vm, "end of the stream")
        done.folder.remove()


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    with ExitStack() as stack:
        yield (
            Path(folder)
            if folder is not None
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spuvm-stream-")))
        )


def _me(vm: VM) -> str:
    """The name of this party's folder within the run's: several parties may share a disk."""
    link = vm.session.link
    return "simulated" if link is None else link.parties[link.rank]


def _is_me(vm: VM, party: str) -> bool:
    return vm.session.party in (None, vm.config.parties.index(party))


def agree(vm: VM, what: str, value: bytes = b"") -> None:
    if vm.session.link is not None:
        vm.session.link.agree(what, value)


# Before the first block -----------------------------------------------------------------------------


@dataclass
class _Rows:
    """What a pass reads: this party's files, or the shares of what the pass before kept."""

    parts: Sequence[Part]
    counts: Sequence[int]
    sources: Any  # what the manifest says of them
    files: Mapping[tuple[int, str], Rows] = field(default_factory=dict)
    kept: Kept | None = None
    keys: Keys | None = None  # of the pass that kept them


def _passes(stream: Stream, finish: Finish, where: Path) -> Pass:
    """Run the pass up to each filter whose count is revealed, and then the last one."""
    *filters, last = passes(stream.steps)
    rows = _of_files(stream)
    before: list[Folder] = []
    for number, steps in enumerate(filters):
        columns = jax.eval_shape(lambda c, s=steps: through(s, c)[0], structs(rows.parts[0], 1))
        after = [step for following in (*filters[number + 1 :], last) for step in following]
        names = columns_read(after, finish, sorted(columns))
        done = _blocks(stream, rows, steps, KeepRows(names), where / f"{FILTERED}{number}")
        before.append(done.folder)
        rows = _of_kept(done)
    done = _blocks(stream, rows, last, finish, where)
    done.folder.before = before[::-1]
    return done


def _blocks(stream: Stream, rows: _Rows, steps: Steps, finish: Finish, where: Path) -> Pass:
    """Agree on everything and run all blocks that are not finished yet."""
    vm = stream.vm
    computation = Computation(vm.config, rows.parts, steps, finish, rows.kept is None)
    job = Job(
        stream.parts if rows.kept is None else (),
        rows.counts,
        stream.options.rows_per_block,
        {},
        computation.in_order,
        GIVES.get(type(finish), "state"),
        computation.initial(),
        kept=rows.kept,
    )
    job.programs = {shape: computation.program(shape) for shape in job.shapes()}
    found = {(p, n): computation.own_work(p, n) for shape in job.shapes() for p, n in enumerate(shape) if n}
    job.own = {key: own for key, own in found.items() if own is not None}
    manifest = _manifest(vm, job, rows.sources)
    agree(vm, "program of the stream", f"{manifest['program']} {job.rows} {job.rows_per_block}".encode())
    folder, finished = _open_folder(vm, job, where, manifest, rows.keys)
    runner = Runner(job, vm, folder, readers=rows.files)
    done = Pass(stream, computation, job, folder, runner)
    _run(done, finished)
    return done


def _of_files(stream: Stream) -> _Rows:
    files = _open(stream)
    parts, counts = _layout(stream, _describe_all(stream.vm, files))
    sources = {f"{n} (part {p})": [f.fingerprint() for f in r.files] for (p, n), r in files.items()}
    return _Rows(parts, counts, sources, files)


def _of_kept(done: Pass) -> _Rows:
    """What a pass kept. InputError if the parties do not agree how many rows that are."""
    records = done.folder.finished()
    mine = [records[block][ROWS] for block in range(done.job.blocks)]
    said = [json.loads(s) for s in tell_all(done.vm.session.link, json.dumps(mine).encode())]
    counts: list[int] = []
    for block, known in enumerate(zip(*said)):
        found = {c for c in known if c is not None}  # who only deals knows none
        if len(found) != 1:
            raise InputError(f"the parties' records of block {block} in {done.folder.path} differ: {known} rows.")
        counts.extend(found)
    at, part = _columns_kept(done)
    sources = {"rows kept by the run": done.folder.keys.run}
    kept = Kept(done.folder.path, tuple(counts), at)
    return _Rows([part], [sum(counts)], sources, kept=kept, keys=done.folder.keys)


def _columns_kept(done: Pass) -> tuple[dict[str, int], Part]:
    """Which result each column is, and its type. InputError if that is not the same in all blocks."""
    found = []
    for shape in done.job.shapes():
        module = done.job.programs[shape].module
        at: dict[str, int] = _tree(done, shape)(range(len(module.outputs)))["columns"]
        types = {n: module.body.results[i].type for n, i in at.items()}
        part = {n: Column(t.visibility, module.output_dtypes[at[n]], t.shape[1:]) for n, t in types.items()}
        found.append((at, part, {n: t.element for n, t in types.items()}))
    if any(x != found[0] for x in found):
        raise InputError("`filter`: the columns of the last block, a shorter one, are of other types or visibilities.")
    return found[0][:2]


def _run(done: Pass, finished: set[int]) -> None:
    job, options = done.job, done.stream.options
    todo = [b for b in range(job.blocks) if b not in finished]
    already = sum(sum(job.counts(b)) for b in finished)
    workers = 1 if job.in_order else min(options.workers, max(len(todo), 1))
    agree(done.vm, "number of workers", str(workers).encode())
    with reporting(sum(job.rows), already, options.progress) as advance:
        if workers == 1:
            done.runner.run(todo, advance)
        else:
            run_workers(done.runner, todo, workers, options.engine, options.home, advance)


def _open(stream: Stream) -> dict[tuple[int, str], Rows]:
    """This party's sources."""
    vm = stream.vm
    return {
        (p, n): Rows(source, n, stream.options.rows_per_block)
        for p, part in enumerate(stream.parts)
        for n, source in part.items()
        if _is_me(vm, source.party)
    }


Described = Mapping[str, Mapping[str, Any]]


def _describe_all(vm: VM, rows: Mapping[tuple[int, str], Rows]) -> dict[str, dict[str, Any]]:
    """Rows, type and width of every source, as its owner says them to all parties."""
    mine = {f"{p} {n}": {"rows": r.rows, "dtype": r.dtype.name, "width": list(r.width)} for (p, n), r in rows.items()}
    out: dict[str, dict[str, Any]] = {}
    for said in tell_all(vm.session.link, json.dumps(mine).encode()):
        out |= json.loads(said)
    return out


def _layout(stream: Stream, described: Described) -> tuple[list[Part], list[int]]:
    """Columns and rows of each part. InputError if sources of a part differ in rows, or parts in types."""
    parts: list[Part] = []
    counts: list[int] = []
    names = stream.vm.config.parties
    for p, part in enumerate(stream.parts):
        said = {n: described[f"{p} {n}"] for n in part}
        rows = {n: int(d["rows"]) for n, d in said.items()}
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"`{n}` of {part[n].party} has {r:,}" for n, r in rows.items())
            raise InputError(f"the sources differ in rows: {listed}. Row i of one belongs to row i of the others.")
        parts.append({n: Column(names.index(part[n].party), d["dtype"], tuple(d["width"])) for n, d in said.items()})
        counts.append(next(iter(rows.values())))
    for n in stream.parts[0]:
        kinds = {(parts[p][n].dtype, parts[p][n].width): stream.parts[p][n].party for p in range(len(parts))}
        if len(kinds) > 1:
            listed = ", ".join(f"{who} has {d}{list(w)}" for (d, w), who in kinds.items())
            raise InputError(f"the parties differ in the type of `{n}`: {listed}. Convert the files to one type.")
    return parts, counts


def _manifest(vm: VM, job: Job, sources: Any) -> dict[str, Any]:
    """What a run belongs to, what is plainest first. Only what is the same when it goes on."""
    init = [(str(x.dtype), x.tolist()) for x in job.initial]
    return {
        "format": FORMAT,
        "code": code_digest(),
        "config": vm.config.settings,
        "party": _me(vm),
        "rows_per_block": job.rows_per_block,
        "rows": list(job.rows),
        "blocks": job.blocks,
        "sources": sources,
        "initial": init,
        "program": fingerprint(list(job.programs.values()), list(job.own.values())),
    }


def _open_folder(
    vm: VM, job: Job, where: Path, manifest: dict[str, Any], before: Keys | None
) -> tuple[Folder, set[int]]:
    """The run's folder at this party, and the blocks that all parties finished.

    Parties whose folders are of one run go on with it. If none has finished anything that all
    have, a new run begins; if some have and others are of another run, that is an error.
    """
    folder = Folder.open(where, vm.session.party)
    if folder is not None:
        folder.check(manifest)
    mine = folder.finished() if folder is not None else {}
    run = folder.keys.run if folder is not None else ""
    state = json.dumps({"run": run, "finished": _ranges(sorted(mine))}).encode()
    said = [json.loads(s) for s in tell_all(vm.session.link, state)]
    if folder is not None and len({s["run"] for s in said}) == 1:
        common = set.intersection(*(set(_numbers(s["finished"])) for s in said))
        return folder, _prefix(common) if job.in_order else common
    if all(s["finished"] for s in said):
        raise InputError(
            f"the parties' folders are of different runs, and all have finished blocks: start with the folders of one "
            f"run at every party, or remove them all ({where} here)."
        )
    if mine and folder is not None:
        raise InputError(
            f"{where} has {len(mine)} finished blocks, but another party's folder is of another run or empty: bring "
            "that back, or remove this folder to start anew."
        )
    if any(s["finished"] for s in said):
        raise InputError("another party has finished blocks of a run that this one's folder does not belong to.")
    keys = _new_keys(vm, job)
    return Folder.create(where, manifest, keys if before is None else before.following(keys.shared)), set()


def _new_keys(vm: VM, job: Job) -> Keys:
    """Keys of a new run. Its number is public; a key is known to its holders."""
    link = vm.session.link
    if link is None:
        return Keys(new_key().hex(), new_key(), {(): new_key()}, None)
    everyone = tuple(range(len(link.parties)))
    said = tell_all(link, new_key())
    run = derive_key(b"".join(said), "spuvm stream run").hex()
    holders: set[Holders] = {everyone}
    for program in job.programs.values():
        holders |= _holders(program.party(link.rank).block)
    # A fold's combination may draw from sets that no block does: all pairs are agreed anyway.
    holders |= {(a, b) for a in everyone for b in everyone if a < b}
    shared = {h: derive_key(link.session_key(h), f"run {run}") for h in sorted(holders) if link.rank in h}
    return Keys(run, new_key(), shared, link.rank)


def _holders(block: BlockProgram) -> set[Holders]:
    out: set[Holders] = set()
    for step in block.steps:
        match step:
            case Straight():
                out |= set(step.draws)
            case LoopStep():
                out |= _holders(step.body)
            case CondStep():
                out |= set().union(*(_holders(b) for b in step.branches))
            case WhileStep():
                out |= _holders(step.condition) | _holders(step.body)
    return out


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as [first, last] of each run of neighbours."""
    out: list[list[int]] = []
    for n in numbers:
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def _numbers(ranges: Sequence[Sequence[int]]) -> Iterator[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def _prefix(numbers: set[int]) -> set[int]:
    first_missing = next(n for n in range(len(numbers) + 1) if n not in numbers)
    return set(range(first_missing))


# After the last block -------------------------------------------------------------------------------


def _states(done: Pass) -> Iterator[list[SPUObject]]:
    records = done.folder.finished()
    for block in range(done.job.blocks):
        yield done.runner.objects(block, done.folder.load(block, records[block]))


def _tree(done: Pass, counts: Counts) -> Callable[[Sequence[Any]], Any]:
    return partial(_unflattened, done.job.programs[counts])


def _state(done: Pass) -> Any:
    if not done.job.blocks:
        return _of_nothing(done)
    return _last(done) if done.job.in_order else _combine(done, done.computation.finish.combine)


def _of_nothing(done: Pass) -> Any:
    """Of no rows: the state before the first, which is public."""
    program = compile_function(done.computation.of_nothing, [], [], done.vm.config)
    return _unflattened(program, done.vm.run(program, []))


def _unflattened(program: Program, leaves: Sequence[Any]) -> Any:
    assert program.traced is not None
    return jax.tree.unflatten(program.traced.out_tree, leaves)


def _last(done: Pass) -> Any:
    last = done.job.blocks - 1
    stored = done.folder.load(last, done.folder.finished()[last])
    return _tree(done, done.job.counts(last))(done.runner.objects(last, stored))


def _combine(done: Pass, function: Any) -> Any:
    """All blocks' states combined in the order of rows, under masks that are a function of the run."""
    vm, tree = done.vm, _tree(done, done.job.counts(0))
    state: Any = None
    cache: dict[Any, Any] = {}
    for number, leaves in enumerate(_states(done)):
        if state is None:
            state = tree(leaves)
            continue
        both = [*jax.tree.leaves(state), *leaves]
        key = tuple((x.type, str(x.dtype)) for x in both)
        if key not in cache:
            program, _, out_tree = combined(function, vm, state, tree(leaves))
            agree(vm, "combination", program.hash.encode())
            cache[key] = program, out_tree
        program, out_tree = cache[key]
        module = program.module
        parts = [c for x, v in zip(both, module.body.params) for c in components_for(x, v.type, "state", vm)]
        keys = done.runner.keys(program, f"combine {number}", done.runner.tell(done.runner.digest(parts)))
        results = vm.session.run_under(keys, program.party(vm.session.party), parts)
        state = jax.tree.unflatten(out_tree, vm.objects(program, results))
    return state
