"""A stream whose output is there already, made by this very run: nothing is left to do but to clean up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from spuvm.runtime.errors import PeerMismatchError
from spuvm.streaming import finished
from spuvm.streaming.block import WriteRows
from spuvm.streaming.exchange import gather
from spuvm.streaming.folder import FILTERED, Folder
from spuvm.streaming.passes import Pass
from spuvm.streaming.plan import Plan
from spuvm.streaming.planning import each_pass, manifests

NO, YES, TO_CLEAN = b"\0", b"\1", b"\2"  # whether the output is of this run; that this party has a folder of it, too


def made_by(done: Pass) -> dict[str, Any]:
    """What the output says of the run, with the tag of each party. All parties call this at once."""
    folder = done.folder
    body = [{k: v for k, v in f.manifest.items() if k != "run"} for f in (*folder.before[::-1], folder)]
    mine = finished.tag(folder.run, body).encode()
    said = gather(done.vm.session.link, mine, len(mine), counted=False)
    return {"run": folder.run, "passes": done.told, "tags": [tag.decode("ascii", "replace") for tag in said]}


def is_done(plan: Plan, finish: WriteRows, output: Path | None, force: bool, where: Path) -> bool:
    """Whether the output is there, of this program on this data, at every party's word; its folder is gone then.

    With `force` a run that has left nothing but its output begins anew. A folder of another run is a reason to go on
    with that. All parties call this at once; `output` and `force` are of the party that writes.
    """
    link = plan.vm.session.link
    note = None if output is None else {"made": finished.made(output), "force": force}
    body = json.dumps(note).encode()
    if link is not None:
        body = link.broadcast(plan.vm.config.parties.index(finish.party), body if note is not None else None)
    said = _understood(plan, finish, body)
    if said.made is None:
        return False
    folders = _folders(said.made, where)
    mine = NO if folders is None or not _mine(plan, finish, said.made) else TO_CLEAN if folders else YES
    answers = gather(link, mine, 1, counted=False)
    if NO in answers or (said.force and TO_CLEAN not in answers):
        return False
    for folder in folders or ():
        folder.remove()
    return True


class Said(NamedTuple):
    """What the party that writes says of its output: what made it, if that is known."""

    made: Mapping[str, Any] | None
    force: bool


def _understood(plan: Plan, finish: WriteRows, body: bytes) -> Said:
    """PeerMismatchError for anything that `is_done` does not say; of another number of passes nothing is known."""
    try:
        made, force = itemgetter("made", "force")(json.loads(body))
        passes = [] if made is None else [(told["sources"]["run"], *told["counts"]) for told in made["passes"]]
        texts = [] if made is None else [made["run"], *made["tags"], *(run for run, *_ in passes)]
        numbers = [n for _, *counts in passes for n in counts]
        if not all(isinstance(x, str) for x in texts) or any(type(n) is not int or n < 0 for n in numbers):
            raise TypeError
        like = len(passes) == len(list(each_pass(plan, finish))) - 1 and len(texts) - len(passes) == 1 + _parties(plan)
        return Said(made if like else None, bool(force))
    except (ValueError, KeyError, TypeError):
        raise PeerMismatchError(f"{finish.party} says of its output what spuvm does not.") from None


def _parties(plan: Plan) -> int:
    link = plan.vm.session.link
    return 1 if link is None else len(link.parties)


def _mine(plan: Plan, finish: WriteRows, made: Mapping[str, Any]) -> bool:
    """Whether this party brought then what it brings now."""
    link = plan.vm.session.link
    rank = 0 if link is None else link.rank
    return finished.is_tag(made["tags"][rank], made["run"], manifests(plan, finish, made["passes"]))


def _folders(made: Mapping[str, Any], where: Path) -> list[Folder] | None:
    """What the run has left here, the last pass first; None if there is something of another run."""
    runs = {where: made["run"]}
    runs |= {where / f"{FILTERED}{n}": told["sources"]["run"] for n, told in enumerate(made["passes"])}
    found = [f for f in map(Folder.open, runs) if f is not None]
    return found if all(f.run == runs[f.path] for f in found) else None
