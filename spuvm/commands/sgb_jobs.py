"""What a process of `spuvm sgb` does: train or predict, as one party or as all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.commands.sgb_settings import Settings
from spuvm.commands.terminal import say
from spuvm.data.targets import folder_aside, replacing, saved_or_kept
from spuvm.runtime.errors import SaveError


@dataclass(frozen=True)
class Job:
    """What the job of a process needs.

    Attributes:
        computing: the machine's parties.
        sources: tables by party; None if the party is not here.
        folders: of model parts, of the parties that are here.
    """

    settings: Settings
    computing: Sequence[str]
    sources: Mapping[str, Path | None]
    folders: Mapping[str, Path]
    force: bool
    quiet: bool
    receiver: str = ""
    output: Path | None = None
    classes: bool = False

    def device(self) -> spu.SPU:
        return spu.SPU(spu.utils.testing.cluster_def(self.computing))


def train(job: Job) -> SaveError | None:
    """What could not be saved where it should be is the result, to be raised when all parties are done."""
    from spuvm.ml import Sgb

    s = job.settings
    model = Sgb(device=job.device(), **s.model)
    frame = FRAMES[s.frame](job.sources, **s.data)
    held_out = None
    if s.test is not None:
        frame, held_out = frame.split(**s.test)
    sets = None if held_out is None else {"test": held_out}
    start = time.perf_counter()
    model.fit(frame, label=s.label, sample_weight=s.sample_weight, eval_set=sets, verbose=not job.quiet)
    if not job.quiet:
        say(f"trained {model!r} in {time.perf_counter() - start:.1f} s")
    kept = _save(model, job.folders)
    _say_reveals(model, job.quiet)
    return kept


def _save(model: Any, folders: Mapping[str, Path]) -> SaveError | None:
    """Save a model; whoever cannot do so where it should be keeps its part elsewhere, and learns where."""
    try:
        model.save(folders)
        return None
    except SaveError as error:
        if not error.here:
            model.save(folders)
            return None
        aside = {party: folder_aside() for party in folders}
        model.save(aside)
        where = ", ".join(map(str, aside.values()))
        return SaveError(f"{error} The part of the model is in {where}: move it where it should be.")


def predict(job: Job) -> SaveError | None:
    """As `train`."""
    from spuvm.ml import load

    model = load(job.folders, device=job.device())
    frame = FRAMES[job.settings.frame](job.sources, **job.settings.data_to_predict())
    labels = [n for n in (job.settings.label, job.settings.sample_weight) if n in frame.columns]
    regression = model.parameters.objective.startswith("reg:")
    ask = model.predict if job.classes or regression else model.predict_proba
    found = ask(frame.drop(labels), to=job.receiver)
    kept: list[SaveError | None] = [None]
    write = spu.PYU(job.receiver)(lambda keys, values: kept.append(_write(job, keys, np.asarray(values))))
    write(_rows_of(frame, job.receiver), found)
    _say_reveals(model, job.quiet)
    return kept[-1]


def _rows_of(frame: spu.data.Frame, receiver: str) -> spu.PYUObject:
    """At the receiver: which row is whose, as columns."""
    if frame.kind == "vertical" or frame.parties == (receiver,):
        return frame.keys(receiver)
    counts = frame.schema.rows_at
    party = np.repeat(list(counts), list(counts.values()))
    row = np.concatenate([np.arange(1, n + 1) for n in counts.values()])
    made: spu.PYUObject = spu.PYU(receiver)(lambda: {"party": party, "row": row})()
    return made


def _say_reveals(model: Any, quiet: bool) -> None:
    if not quiet:
        say("revealed: " + ("; ".join(map(str, model.reveals)) or "nothing"))


def _write(job: Job, keys: Mapping[str, np.ndarray], values: np.ndarray) -> SaveError | None:
    """At the receiver: keys, and probabilities (of two classes that of the second) or predictions."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    assert job.output is not None
    if values.ndim == 1:
        columns = {"prediction": values}
    elif values.shape[1] == 2:
        columns = {"probability": values[:, 1]}
    else:
        columns = {f"probability_{k}": values[:, k] for k in range(values.shape[1])}
    table = pyarrow.table({**{n: k for n, k in keys.items() if n not in columns}, **columns})
    save = pyarrow.csv.write_csv if job.output.suffix.lower() == ".csv" else pyarrow.parquet.write_table

    def at(path: Path) -> None:
        with replacing(path, job.force) as temporary:
            save(table, temporary)

    kept = saved_or_kept(job.output, at)
    if kept is None and not job.quiet:
        say(f"wrote {job.output} ({len(values):,} rows)")
    return kept


FRAMES: dict[str, Callable[..., spu.data.Frame]] = {"vertical": spu.data.vertical, "horizontal": spu.data.horizontal}
JOBS = {"train": train, "predict": predict}
