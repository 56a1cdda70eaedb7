"""What a party keeps of jobs, for how long, and how it is erased: results, logs, shares, models, flows' checkpoints.

The record keeps that a job ran and what it showed; it holds no data, and is never erased. Erasing is this party's own
act on its own disk: what others were shown or hold, they keep by rules of their own.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from spuvm.service.settings import Settings
from spuvm.service.store import Row

DAY = 86400.0


def erase_job(settings: Settings, job: str) -> bool:
    """Remove all that a job left here; whether there was anything."""
    folder = settings.state / "jobs" / job
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def jobs_over_age(settings: Settings, rows: list[Row], now: float) -> list[Row]:
    """Jobs whose results are older than the file's rule says, and that left something here."""
    days = settings.retention.results_days
    if days is None:
        return []
    old = [row for row in rows if row.ended is not None and row.ended < now - days * DAY]
    return [row for row in old if (settings.state / "jobs" / row.id).exists()]


def models_over_age(settings: Settings, now: float) -> list[Path]:
    """Models, and what nodes of flows left, that nothing has written to for as long as the file's rule says."""
    days = settings.retention.models_days
    models = settings.state / "models"
    if days is None or not models.is_dir():
        return []
    nodes = models / "flows" / settings.party / "nodes"
    found = [p for p in models.iterdir() if p.name != "flows"] + (list(nodes.iterdir()) if nodes.is_dir() else [])
    return [p for p in found if _newest(p) < now - days * DAY]


def erase(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _newest(path: Path) -> float:
    """When something in a file or folder was last written."""
    times = [p.stat().st_mtime for p in [path, *(path.rglob("*") if path.is_dir() else ())] if p.exists()]
    return max(times, default=time.time())
