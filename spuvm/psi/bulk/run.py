"""A large run in helper mode: tags go to the helper bucket by bucket, and what was finished is kept.

Security: that of `helper.py`. Nobody but the helper learns sizes of buckets, and it learns nothing from them: which
bucket a key is in follows from its tag. A bucket that has to be sent again is encrypted anew, so that the helper cannot
tell that it has seen it. Owners keep the run's key in a folder that they alone can read.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.targets import check_target
from spuvm.psi.again import Known, made_by, signature
from spuvm.psi.bulk.crew import ALONE, Crew, by_workers
from spuvm.psi.bulk.exchange import Asked, Here, matched
from spuvm.psi.bulk.folder import RunFolder
from spuvm.psi.bulk.layout import Layout, layout_of
from spuvm.psi.bulk.scratch import InMemory, OnDisk, check_room
from spuvm.psi.bulk.source import Source, cut, write_rows, written
from spuvm.psi.forms import FILE
from spuvm.psi.places import Held, Move, Places
from spuvm.runtime.errors import InputError
from spuvm.runtime.scratch import Scratch
from spuvm.streaming.held import held
from spuvm.streaming.progress import reporting

STEP = 1 << 23  # rows that an owner reads or writes before it says that it gets on
log = logging.getLogger("spuvm.psi")


def intersect_files(
    places: Places,
    asked: Asked,
    paths: Mapping[str, Any],
    outputs: Mapping[str, Any],
    folders: Mapping[str, Any],
    force: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] = log.info,
    known: Known | None = None,
    crew: Crew = ALONE,
) -> dict[str, Held]:
    """Write each receiver's rows whose key all owners have; how many, at each.

    Args:
        paths, outputs, folders: by party; those of other parties may be None. A folder is kept until all is done.
        say: told before the run what it needs, and after it what it did.
        known: by what the outputs are recognised when the same is asked for again.
        crew: this party's workers, if there are several.

    Raises:
        InputError, DataError: for files and folders that cannot be used; nothing is overwritten.
    """
    common = [asked.owners, asked.helper, asked.key, asked.to, asked.duplicates, asked.scratch, crew.count]
    places.agree("join of files", common)
    with ExitStack() as stack:
        mine = {p: (paths.get(p), outputs.get(p), folders.get(p)) for p in asked.owners}
        here = {p: places.run(p, _opened, p, asked, *mine[p], force, stack) for p in asked.owners}
        said = {p: places.tell(p, places.run(p, _announced, here[p]), FILE) for p in asked.owners}
        _same_kinds(said, asked)
        rows = {p: int(s["rows"]) for p, s in said.items()}
        layout = layout_of(list(rows.values()), asked.scratch, asked.bucket_rows, crew.count > 1)
        for party in asked.owners:
            places.run(party, lambda h, n=rows[party]: _check_disk(h, layout.peak(n)), here[party])
        peak = layout.peak(max(rows.values()))
        say(f"{layout.buckets} buckets in {layout.passes} passes; an owner's scratch: {peak / 1e9:.1f} GB at most")
        done = _begun(places, asked, here, rows, layout)
        already = sum(rows.values()) * len(done) // layout.buckets
        with reporting(sum(rows.values()), already, progress) as advance:
            for number in range(layout.passes):
                _pass(places, asked, here, rows, layout, number, done, crew, advance)
        run = next((h.value.folder.run["run"] for h in here.values() if h.value is not None), "")
        whole = (lambda path: None) if known is None else signature(places, known, run)
        for party in asked.to:
            places.run(party, _write, here[party], layout, force, whole)
        _work(places, asked, {p: here[p] for p in asked.to}, rows)
        counts = {p: places.run(p, lambda h: written(h.folder, layout), here[p]) for p in asked.to}
        places.agree("end of the join", "all rows are written")
        for party in asked.owners:
            places.run(party, lambda h: h.folder.remove(), here[party])
        return counts


# Before -------------------------------------------------------------------------------------------------------


def _opened(party: str, asked: Asked, path: Any, output: Any, folder: Any, force: bool, stack: ExitStack) -> Here:
    if path is None:
        raise InputError(f"the file of {party} is missing: give its path where {party} runs.")
    source = Source.open(path, asked.key[party], asked.types.get(party, {}))
    if party in asked.to and output is None:
        raise InputError(f"`output` of {party} is missing: where does it write the rows that match?")
    if folder is None:
        folder = f"{output}.run" if output is not None else stack.enter_context(Scratch()) / "join"
    stack.enter_context(held(Path(folder), "join"))
    kept = RunFolder(Path(folder))
    if party not in asked.to:
        return Here(source, kept, None)
    if not made_by(Path(output), kept):
        check_target(output, force)
    return Here(source, kept, Path(output))


def _announced(here: Here) -> dict[str, Any]:
    run = here.folder.run
    return {
        "rows": here.source.file.rows,
        "kinds": here.source.kinds,
        "run": "" if run is None else run["run"],
        "finished": sorted(here.folder.finished()) if run is not None else [],
    }


def _same_kinds(said: Mapping[str, Any], asked: Asked) -> None:
    first, *others = asked.owners
    for party in others:
        for i, (a, b) in enumerate(zip(said[first]["kinds"], said[party]["kinds"])):
            if a != b:
                raise InputError(
                    f"key column `{asked.key[first][i]}` holds {a} at {first}, and `{asked.key[party][i]}` {b} at "
                    f"{party}: declare one type for both."
                )


def _check_disk(here: Here, peak: int) -> None:
    if peak:
        check_room(here.folder.path, peak)


def _begun(places: Places, asked: Asked, here: Mapping[str, Held], rows: Mapping[str, int], layout: Layout) -> set[int]:
    """Go on with the run of the owners' folders, or begin a new one; the buckets that all owners finished."""
    said = {p: places.tell(p, places.run(p, _announced, here[p]), FILE) for p in asked.owners}
    runs = {s["run"] for s in said.values()}
    manifest = {"owners": asked.owners, "rows": dict(rows), "layout": [layout.bits, layout.passes]}
    if runs != {""} and len(runs) == 1:
        for party in asked.owners:
            places.run(party, _go_on, here[party], manifest)
        return set.intersection(*(set(s["finished"]) for s in said.values()))
    if any(s["finished"] for s in said.values()):
        raise InputError(
            f"the folders of {' and '.join(asked.owners)} are of different runs, and some have finished buckets: bring "
            "those of one run, or remove them all to start anew."
        )
    run = places.tell(asked.owners[0], places.run(asked.owners[0], secrets.token_hex, 16), str)
    key = places.key(asked.owners, f"run {run}")
    for party in asked.owners:
        places.run(party, _begin, here[party], manifest, run, key)
    return set()


def _manifest(here: Here, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {**manifest, "file": here.source.fingerprint(), "key": [here.source.key, here.source.types]}


def _go_on(here: Here, manifest: Mapping[str, Any]) -> None:
    here.folder.check(_manifest(here, manifest))


def _begin(here: Here, manifest: Mapping[str, Any], run: str, key: bytes) -> None:
    here.folder.remove()
    here.folder.begin(run, key, _manifest(here, manifest))


# A pass -------------------------------------------------------------------------------------------------------


def _pass(
    places: Places,
    asked: Asked,
    here: Mapping[str, Held],
    rows: Mapping[str, int],
    layout: Layout,
    number: int,
    done: set[int],
    crew: Crew,
    advance: Callable[[int], None] | None,
) -> None:
    todo = [b for b in layout.of_pass(number) if b not in done]
    if not todo:
        return
    start = layout.of_pass(number).start
    for p in asked.owners:
        places.run(p, _cut, here[p], layout, number)
    _work(places, asked, here, rows)
    if crew.count > 1 and len(todo) > 1:
        by_workers(places, asked, here, todo, number, start, crew, advance)
    else:
        matched(places, asked, here, todo, start, advance)
    for party in asked.owners:
        places.run(party, _passed, here[party])


def _work(places: Places, asked: Asked, here: Mapping[str, Held], rows: Mapping[str, int]) -> None:
    """Let owners do what each does by itself. All hear of each now and then, so that no wait gets long."""
    for _ in range(max(rows.values()) // STEP + 1):
        alive = {p: places.run(p, _on, h, STEP) for p, h in here.items()}
        others = {p: [q for q in (*asked.owners, asked.helper) if q != p] for p in here}
        places.move(*(Move(x, p, q, (1,), np.uint8) for p, x in alive.items() for q in others[p]))
    for p, h in here.items():
        places.run(p, _on, h, None)


def _on(here: Here, rows: int | None) -> np.ndarray:
    """Some of the work: so many rows, or all that is left."""
    done = 0
    for read in here.work:
        done += read
        if rows is not None and done >= rows:
            break
    return np.zeros(1, np.uint8)


# At an owner --------------------------------------------------------------------------------------------------


def _cut(here: Here, layout: Layout, number: int) -> None:
    """Have the tags of a pass put into buckets, if they are not."""
    here.source.check(here.folder.run["manifest"]["file"] if here.folder.run else {})
    here.scratch = InMemory()
    known = None
    if layout.on_disk:
        here.scratch, known = OnDisk(here.folder.path / f"tags-{number}"), here.folder.cut(number)
        here.scratch.checks = known[1] if known else {}
    here.counts = known[0] if known else []
    if known is None:
        here.work = cut(here.source, here.folder, layout, number, here.scratch, here.counts)


def _passed(here: Here) -> None:
    if isinstance(here.scratch, OnDisk):
        here.scratch.remove()


def _write(here: Here, layout: Layout, force: bool, whole: Callable[[Path], None]) -> None:
    """Have the rows that match written, if they are not."""
    assert here.output is not None and here.folder.run is not None
    here.source.check(here.folder.run["manifest"]["file"])
    if made_by(here.output, here.folder):
        here.work = iter(())
    else:
        here.work = write_rows(here.source, here.folder, layout, here.output, force, whole)
