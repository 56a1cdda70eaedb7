"""Jobs and schedules as pages and commands have them, and the inputs of a job as these give them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from spuvm.service import jobs
from spuvm.service.jobs import Source
from spuvm.service.schedules import Schedule
from spuvm.service.store import Row


def inputs_of(body: Any) -> dict[str, Source]:
    return {
        str(name): Source(s["party"], s["data"], tuple(map(str, s["columns"])), s["number"])
        for name, s in body["inputs"].items()
    }


def planned(s: Schedule) -> dict[str, Any]:
    return {"id": s.id, "cron": s.cron, "user": s.user, "note": s.note, "next": when(s.due), "last": s.last}


def when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def shown(row: Row) -> dict[str, Any]:
    names = ("job", "id", "state", "reason", "over")
    reveals = [str(r) for r in jobs.read(row.job.program).reveals]
    return {k: getattr(row, k) for k in names} | {"when": when(row.received), "reveals": reveals}


def brief(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "reason": row.reason,
        "requester": row.job.requester,
        "hash": row.job.hash,
        "note": row.job.note,
        "received": when(row.received),
        "reveals": [str(r) for r in jobs.read(row.job.program).reveals],
    }
