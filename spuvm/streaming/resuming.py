"""Before the first block: what a run belongs to, its folder and keys, and which blocks all parties finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spuvm.runtime.engine.random import derive_key, new_key
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import BlockProgram, CondStep, Holders, LoopStep, Straight, WhileStep
from spuvm.runtime.sources import code_digest
from spuvm.streaming.computation import fingerprint
from spuvm.streaming.exchange import gather, my_name
from spuvm.streaming.folder import FORMAT, Folder, Keys
from spuvm.streaming.job import Job
from spuvm.vm import VM


def manifest(vm: VM, job: Job, sources: Any) -> dict[str, Any]:
    """What a run belongs to, what is plainest first. Only what is the same when it goes on."""
    init = [(str(x.dtype), x.tolist()) for x in job.initial]
    return {
        "format": FORMAT,
        "code": code_digest(),
        "config": vm.config.settings,
        "party": my_name(vm),
        "rows_per_block": job.rows_per_block,
        "rows": list(job.rows),
        "blocks": job.blocks,
        "sources": sources,
        "initial": init,
        "program": fingerprint(list(job.programs.values()), list(job.own.values())),
    }


def open_folder(
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
    said = [json.loads(s) for s in gather(vm.session.link, state)]
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
    said = gather(link, new_key())
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
