"""A worker of one party, which has some of a pass's buckets matched, in a session with the workers of its number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spuvm.psi.bulk.exchange import Asked, Here, matched
from spuvm.psi.bulk.folder import RunFolder
from spuvm.psi.bulk.scratch import OnDisk
from spuvm.psi.bulk.source import Source
from spuvm.psi.places import Places
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.session import abort_on_error
from spuvm.streaming.sealed import read_sealed
from spuvm.streaming.worker import met


def job(
    places: Places, asked: Asked, here: Mapping[str, Here], pass_: int, start: int, todo: list[int]
) -> dict[str, Any]:
    """What a worker is told: `here` are the owners of this process, `start` the pass's first bucket."""
    mine = {p: [str(h.source.path.absolute()), str(h.folder.path.absolute())] for p, h in here.items()}
    return {"parties": places.parties, "asked": asked.to_json(), "here": mine, "pass": pass_, "start": start} | {
        "todo": todo
    }


def work(folder: Path, number: int) -> None:
    """Have the buckets matched that the folder has for this worker; their bits are in the owners' folders then."""
    body = read_sealed(folder / f"worker-{number}.json")
    asked = Asked.from_json(body["asked"])
    link = met(folder, number, body) if "cluster" in body else None
    try:
        with abort_on_error(link):
            places = Places(body["parties"], link)
            mine = {p: (p, asked, *body["here"].get(p, ("", "")), body["pass"]) for p in asked.owners}
            here = {p: places.run(p, _cut_before, *mine[p]) for p in asked.owners}
            matched(places, asked, here, body["todo"], body["start"], lambda rows: print(rows, flush=True))
            places.agree("end of the worker", "")
    finally:
        if link is not None:
            link.close()


def _cut_before(party: str, asked: Asked, path: str, folder: str, pass_: int) -> Here:
    """The owner's tags of the pass, which are in buckets."""
    source = Source.open(path, asked.key[party], asked.types.get(party, {}))
    kept = RunFolder(Path(folder))
    known = kept.cut(pass_)
    if kept.run is None or known is None:
        raise InputError(f"{folder} has no tags of pass {pass_} in buckets: the run has ended, or is another.")
    counts, checks = known
    scratch = OnDisk(kept.path / f"tags-{pass_}")
    scratch.checks = checks
    return Here(source, kept, None, scratch, counts=counts)
