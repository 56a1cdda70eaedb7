"""Before the first block: what a run belongs to, its folder, and which blocks all parties finished in one attempt.

Every time that the parties meet to go on with a run is an attempt, with a number that all agree on and that stands
beside every share. Shares of a block belong together only if all parties' are of one attempt; any other block is
computed again, under the fresh keys of the session. So whoever stops on purpose, and comes back with other rows, sees
messages under new masks; what it gets is a second evaluation of that block. How often a block was begun is counted at
every party, the largest count is stated, and `EVALUATIONS` is the limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spuvm.runtime.engine.random import derive_key, new_key
from spuvm.runtime.errors import InputError, PublicError
from spuvm.runtime.sources import code_digest
from spuvm.streaming.computation import fingerprint
from spuvm.streaming.exchange import agree, gather, my_name
from spuvm.streaming.folder import FORMAT, Folder
from spuvm.streaming.job import Job
from spuvm.vm import VM

EVALUATIONS = 16  # how often a block may be begun


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


def open_folder(vm: VM, job: Job, where: Path, manifest: dict[str, Any]) -> tuple[Folder, set[int]]:
    """The run's folder at this party, and the blocks that all parties finished in one attempt.

    Parties whose folders are of one run go on with it. If none has finished anything that all
    have, a new run begins; if some have and others are of another run, that is an error, unless
    all that they have is of a run that came to its end.
    """
    folder = Folder.open(where)
    if folder is not None and not folder.ended:
        folder.check(manifest)
    said = [json.loads(s) for s in gather(vm.session.link, json.dumps(_state(folder)).encode())]
    if folder is not None and len({s["run"] for s in said}) == 1:
        folder.check(manifest)
        common = set.intersection(*(set(_pairs(s["finished"])) for s in said))
        finished = {block for block, _ in common}
        finished = _prefix(finished) if job.in_order else finished
        _check_begun(said, finished)
        folder.begin(1 + max(int(s["attempt"]) for s in said))
        return folder, finished
    mine = bool(folder is not None and folder.finished() and not folder.ended)
    if all(s["finished"] and not s["ended"] for s in said):
        raise InputError(
            f"the parties' folders are of different runs, and all have finished blocks: start with the folders of one "
            f"run at every party, or remove them all ({where} here)."
        )
    if mine:
        raise InputError(
            f"{where} has finished blocks, but another party's folder is of another run or empty: bring "
            "that back, or remove this folder to start anew."
        )
    if any(s["finished"] and not s["ended"] for s in said):
        raise InputError("another party has finished blocks of a run that this one's folder does not belong to.")
    run = derive_key(b"".join(gather(vm.session.link, new_key())), "spuvm stream run").hex()
    folder = Folder.create(where, manifest, run)
    folder.begin(1)
    return folder, set()


def agree_on_attempts(vm: VM, folder: Folder) -> None:
    """That every block's shares, which are about to be used together, are of one attempt at all parties.

    Raises:
        PeerMismatchError: at every party, if they are not.
    """
    attempts = sorted((block, r["attempt"]) for block, r in folder.finished().items())
    agree(vm, "attempts of the blocks", json.dumps([folder.run, attempts]).encode())


def _state(folder: Folder | None) -> dict[str, Any]:
    """What this party says of its folder: the run, its attempts, finished blocks by attempt, blocks begun again."""
    if folder is None:
        return {"run": "", "attempt": 0, "ended": False, "finished": [], "begun": []}
    finished = folder.finished()
    attempts: dict[int, list[int]] = {}
    for block in sorted(finished):
        attempts.setdefault(finished[block]["attempt"], []).append(block)
    return {
        "run": folder.run,
        "attempt": folder.attempt,
        "ended": folder.ended,
        "finished": [[a, _ranges(blocks)] for a, blocks in attempts.items()],
        "begun": [[block, n] for block, n in folder.blocks.begun().items() if n > 1 or block not in finished],
    }


def _pairs(finished: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """(block, attempt) of each."""
    for attempt, ranges in finished:
        for first, last in ranges:
            yield from ((block, attempt) for block in range(first, last + 1))


def _check_begun(said: Sequence[Mapping[str, Any]], finished: set[int]) -> None:
    """Refuse to evaluate a block once more that was begun too often already: PublicError."""
    begun = [(n, block) for s in said for block, n in s["begun"] if block not in finished]
    most, block = max(begun, default=(0, 0))
    if most >= EVALUATIONS:
        raise PublicError(
            f"block {block} was begun {most} times and never finished by all: it is not begun again, as every time "
            "gives a party that deviates one more evaluation. Find out who stops, and start anew with other folders."
        )


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as [first, last] of each run of neighbours."""
    out: list[list[int]] = []
    for n in numbers:
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def _prefix(numbers: set[int]) -> set[int]:
    first_missing = next(n for n in range(len(numbers) + 1) if n not in numbers)
    return set(range(first_missing))
