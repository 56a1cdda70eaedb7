"""A join whose outputs are there already, made by this very run: nothing is left to do but to clean up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.psi.bulk.folder import RunFolder
from spuvm.psi.places import Held, Places
from spuvm.streaming import finished

NO, YES, TO_CLEAN = range(3)  # whether the outputs are of this run; that this owner has a folder of it, too


@dataclass(frozen=True)
class Known:
    """By what a run is recognised. `brought`: at each owner, what it brings and asks for; `folders`: of those here."""

    owners: Sequence[str]
    to: Sequence[str]
    brought: Mapping[str, Held]
    folders: Mapping[str, Path | None]


def signature(places: Places, known: Known, run: str) -> Callable[[Path], None]:
    """What notes in an output which run made it. All parties call this at once."""
    tags = {p: places.tell(p, places.run(p, finished.tag, run, known.brought[p]), str) for p in known.owners}
    return lambda path: finished.mark(path, {"run": run, "tags": tags})


def is_done(places: Places, known: Known, outputs: Mapping[str, str], force: bool) -> bool:
    """Whether every receiver has its output of this very run; the owners' folders of it are gone then.

    With `force` a run that has left nothing but its outputs begins anew. All parties call this at once.
    """
    said = {p: places.tell(p, places.run(p, _said, outputs.get(p), force), _is_said) for p in known.to}
    first = said[known.to[0]]
    if not first["run"] or any(s["run"] != first["run"] for s in said.values()):
        return False
    run, tags = first["run"], first["tags"]
    answers = [
        places.tell(p, places.run(p, _same, run, tags.get(p, ""), known.brought[p], known.folders.get(p)), int)
        for p in known.owners
    ]
    if NO in answers or (any(s["force"] for s in said.values()) and TO_CLEAN not in answers):
        return False
    for party in known.owners:
        places.run(party, _clean, known.folders.get(party))
    return True


def made_by(output: Path, folder: RunFolder) -> bool:
    """Whether an output is of the run of a folder, which goes on."""
    made = finished.made(output)
    return made is not None and folder.run is not None and made.get("run") == folder.run["run"]


def _said(output: str | None, force: bool) -> dict[str, Any]:
    made = None if output is None else finished.made(Path(output))
    return {"run": "", "tags": {}, "force": force} | (made or {})


def _is_said(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"run", "tags", "force"}
        and isinstance(value["run"], str)
        and isinstance(value["tags"], dict)
        and all(isinstance(tag, str) for tag in value["tags"].values())
    )


def _same(run: str, tag: str, brought: Any, path: Path | None) -> int:
    if not finished.is_tag(tag, run, brought):
        return NO
    folder = None if path is None or not path.exists() else RunFolder(path)
    if folder is None or folder.run is None:
        return YES
    return TO_CLEAN if folder.run["run"] == run else NO


def _clean(path: Path | None) -> None:
    if path is not None and path.exists():
        RunFolder(path).remove()
