"""What a party keeps of jobs, for how long, and how it is erased: results, logs, shares, models, flows' checkpoints.

The record keeps that a job ran and what it showed; it holds no data, and is never erased. Erasing is this party's own
act on its own disk: what others were shown or hold, they keep by rules of their own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from spuvm.runtime.errors import SpuError
from spuvm.service.jobs import from_dict, read
from spuvm.service.settings import Settings
from spuvm.service.store import Left
from spuvm.service.tasks import record_of

DAY = 86400.0
NOT_ITS = "model-of-another"  # in a job's folder: the model that it was to train was there before its first run


def erase_job(settings: Settings, job: str) -> bool:
    """Remove all that a job left here but models; whether there was anything. OSError if it is still there."""
    record = erase(record_of(settings.state / "models", settings.party, job))
    return erase(settings.state / "jobs" / job) or record


def jobs_over_age(settings: Settings, jobs: Iterable[Left], now: float) -> list[str]:
    """Numbers of jobs whose results are older than the file's rule says, and that left something here."""
    days = settings.retention.results_days
    if days is None:
        return []
    old = [job.id for job in jobs if job.ended is not None and job.ended < now - days * DAY]
    return [id for id in old if (settings.state / "jobs" / id).exists()]


def models_over_age(settings: Settings, now: float) -> list[Path]:
    """Models, and what nodes of flows left, that nothing has written to for as long as the file's rule says."""
    days = settings.retention.models_days
    models = settings.state / "models"
    if days is None or not models.is_dir():
        return []
    found = [path for path in models.iterdir() if path.name != "flows"]
    found += _nodes(settings).glob("*/*")
    return [path for path in found if _newest(path) < now - days * DAY]


def made_by(settings: Settings, job: Left) -> list[Path]:
    """The model that a job trained here, and what its nodes left: made of what it took."""
    models = settings.state / "models"
    found = [path for key in _keys(record_of(models, settings.party, job.id)) for path in _of_node(settings, key)]
    try:
        name = read(from_dict(json.loads(job.spec)).program).model
    except (SpuError, ValueError):  # of another version: what it trained is not known any more
        name = None
    if (settings.state / "jobs" / job.id / NOT_ITS).exists():
        name = None
    return [path for path in (*found, *([models / name] if name else [])) if path.exists()]


def _nodes(settings: Settings) -> Path:
    return settings.state / "models" / "flows" / settings.party / "nodes"


def _of_node(settings: Settings, key: str) -> list[Path]:
    """See `flow.checkpoints`."""
    return list(_nodes(settings).glob(f"{key[:2]}/{key[2:]}*")) if key.isalnum() and len(key) > 2 else []


def _keys(record: Path) -> set[str]:
    """Names of the nodes of a flow's run."""
    found = set()
    for line in record.read_text(errors="replace").splitlines() if record.is_file() else ():
        try:
            found.add(str(json.loads(line)["key"]))
        except (ValueError, KeyError, TypeError):  # of the run as a whole, or a line that a kill cut short
            continue
    return found


def erase(path: Path) -> bool:
    """Remove a file, a folder, or a link; whether there was one. OSError if it is still there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return True
    there = path.is_symlink() or path.exists()
    path.unlink(missing_ok=True)
    return there


def _newest(path: Path) -> float:
    """When something in a file or folder was last written."""
    times = [p.stat().st_mtime for p in [path, *(path.rglob("*") if path.is_dir() else ())] if p.exists()]
    return max(times, default=time.time())
