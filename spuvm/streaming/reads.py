"""What a pass reads: the parties' files, secrets of the machine, or the shares of rows that the pass before kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import InputError, PublicError
from spuvm.streaming.block import Column, Part
from spuvm.streaming.exchange import gather, is_me
from spuvm.streaming.job import Job
from spuvm.streaming.kept_rows import ROWS, Kept
from spuvm.streaming.passes import Pass, unflattened
from spuvm.streaming.plan import Plan
from spuvm.streaming.secrets import Secrets
from spuvm.streaming.sources import Rows
from spuvm.vm import VM


@dataclass
class Reads:
    """What a pass reads: this party's files, or the shares of what the pass before kept."""

    parts: Sequence[Part]
    counts: Sequence[int]
    sources: Any  # what the manifest says of them
    files: Mapping[tuple[int, str], Rows] = field(default_factory=dict)
    kept: Kept | Secrets | None = None


def at_first(plan: Plan) -> Reads:
    """What the first pass reads."""
    if plan.secrets is None:
        return _of_files(plan)
    return Reads([plan.secrets.part], [plan.secrets.rows], {"shares": plan.secrets.digest}, kept=plan.secrets)


def _of_files(plan: Plan) -> Reads:
    files = _open(plan)
    parts, counts = _layout(plan, _describe_all(plan.vm, files))
    sources = {f"{n} (part {p})": [f.fingerprint() for f in r.files] for (p, n), r in files.items()}
    return Reads(parts, counts, sources, files)


def kept_by(done: Pass) -> dict[str, Any]:
    """How many rows each block of a pass kept, and in which run and attempts, as all parties know it.

    Raises:
        PublicError: if the parties do not agree how many rows that are.
    """
    records = done.folder.finished()
    mine = [records[block][ROWS] for block in range(done.job.blocks)]
    said = [json.loads(s) for s in gather(done.vm.session.link, json.dumps(mine).encode())]
    counts: list[int] = []
    for block, known in enumerate(zip(*said)):
        found = {c for c in known if c is not None}  # who only deals knows none
        if len(found) != 1:
            raise PublicError(f"the parties' records of block {block} differ: {known} rows.")
        counts.extend(found)
    attempts = [records[block]["attempt"] for block in range(done.job.blocks)]
    return {"sources": {"run": done.folder.run, "in the attempts": attempts}, "counts": counts}


def of_counts(job: Job, told: Mapping[str, Any], path: Path = Path()) -> Reads:
    """What a pass kept, in its folder `path`; `told` by `kept_by`."""
    at, part = _columns_kept(job)
    kept = Kept(path, tuple(told["counts"]), at)
    return Reads([part], [sum(told["counts"])], told["sources"], kept=kept)


def _columns_kept(job: Job) -> tuple[dict[str, int], Part]:
    """Which result each column is, and its type. InputError if that is not the same in all blocks."""
    found = []
    for shape in job.shapes():
        module = job.programs[shape].module
        at: dict[str, int] = unflattened(job.programs[shape], range(len(module.outputs)))["columns"]
        types = {n: module.body.results[i].type for n, i in at.items()}
        part = {n: Column(t.visibility, module.output_dtypes[at[n]], t.shape[1:]) for n, t in types.items()}
        found.append((at, part, {n: t.element for n, t in types.items()}))
    if any(x != found[0] for x in found):
        raise InputError("`filter`: the columns of the last block, a shorter one, are of other types or visibilities.")
    return found[0][:2]


def _open(plan: Plan) -> dict[tuple[int, str], Rows]:
    """This party's sources."""
    vm = plan.vm
    return {
        (p, n): Rows(source, n, plan.options.rows_per_block)
        for p, part in enumerate(plan.parts)
        for n, source in part.items()
        if is_me(vm, source.party)
    }


Described = Mapping[str, Mapping[str, Any]]


def _describe_all(vm: VM, rows: Mapping[tuple[int, str], Rows]) -> dict[str, dict[str, Any]]:
    """Rows, type and width of every source, as its owner says them to all parties."""
    mine = {f"{p} {n}": {"rows": r.rows, "dtype": r.dtype.name, "width": list(r.width)} for (p, n), r in rows.items()}
    out: dict[str, dict[str, Any]] = {}
    for said in gather(vm.session.link, json.dumps(mine).encode()):
        out |= json.loads(said)
    return out


def _layout(plan: Plan, described: Described) -> tuple[list[Part], list[int]]:
    """Columns and rows of each part. InputError if sources of a part differ in rows, or parts in types."""
    parts: list[Part] = []
    counts: list[int] = []
    names = plan.vm.config.parties
    for p, part in enumerate(plan.parts):
        said = {n: described[f"{p} {n}"] for n in part}
        rows = {n: int(d["rows"]) for n, d in said.items()}
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"`{n}` of {part[n].party} has {r:,}" for n, r in rows.items())
            raise PublicError(f"the sources differ in rows: {listed}. Row i of one belongs to row i of the others.")
        parts.append({n: Column(names.index(part[n].party), d["dtype"], tuple(d["width"])) for n, d in said.items()})
        counts.append(next(iter(rows.values())))
    for n in plan.parts[0]:
        kinds = {(parts[p][n].dtype, parts[p][n].width): plan.parts[p][n].party for p in range(len(parts))}
        if len(kinds) > 1:
            listed = ", ".join(f"{who} has {d}{list(w)}" for (d, w), who in kinds.items())
            raise PublicError(f"the parties differ in the type of `{n}`: {listed}. Convert the files to one type.")
    return parts, counts
