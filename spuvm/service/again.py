"""Whether a job that was interrupted runs again: its party was restarted, its process was killed, a peer was lost.

Kinds that keep what they did (`KEEPS`) go on there; a script goes on if it keeps its loop's state (`spu.resumable`) in
the folder `kept`. All others start from the beginning, and only where this party was shown nothing yet. Nothing runs
again on other data: a second run on them would tell more than was approved. Every run has keys of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

from spuvm.runtime.errors import LinkError
from spuvm.service.jobs import Job
from spuvm.service.settings import Settings

KEEPS = ("stream", "flow")
KEPT = "kept"  # the folder of a script's states, within its job's


def interrupted(status: int) -> bool:
    """Whether a process that ended so was killed, or lost its peers: by no fault of the job's."""
    return status < 0 or status == LinkError.exit_status


def data_of(settings: Settings, job: Job) -> str:
    """Of this party's files that a job takes: size, and when they were last written."""
    names = sorted({str(s.data) for s in job.inputs.values() if s.party == settings.party})
    found = {n: settings.data[n].stat() for n in names if n in settings.data and settings.data[n].exists()}
    return json.dumps({n: [s.st_size, s.st_mtime_ns] for n, s in found.items()})


def forbids(settings: Settings, job: Job, kind: str, attempt: int, data: str) -> str | None:
    """Why a job that was interrupted in run number `attempt` does not run again; None if it may."""
    if attempt >= settings.limits.restarts:
        return f"it was interrupted {attempt + 1} times"
    if data != data_of(settings, job):
        return "its data have changed since it began"
    folder = settings.state / "jobs" / job.id
    if kind not in KEEPS and not (folder / KEPT).is_dir() and _shown(folder):
        return "it had shown results"
    return None


def _shown(folder: Path) -> bool:
    return any((folder / "results").glob("*")) or (folder / "report.json").exists()
