"""Jobs that a party asks for again and again, at the times of a cron line (UTC): each time a new job, decided anew."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from spuvm.runtime.errors import InputError
from spuvm.service.jobs import Source

MOST = 1000
SCHEMA = """
create table if not exists schedules (
    id text primary key, user text not null, cron text not null, program text not null, inputs text not null,
    note text not null, due real not null, last text not null default ''
);
"""


@dataclass(frozen=True)
class Schedule:
    """`due`: when it runs next, in seconds; `last`: the number of the job that ran last, or nothing."""

    id: str
    user: str
    cron: str
    program: str
    inputs: Mapping[str, Source]
    note: str
    due: float
    last: str


class Schedules:
    """Of one party, in its store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        db.executescript(SCHEMA)

    def add(self, user: str, cron: str, program: str, inputs: Mapping[str, Source], note: str) -> Schedule:
        """A new one. InputError for a line that is none."""
        due = following(cron, time.time())
        if len(self.all()) >= MOST:
            raise InputError(f"there are {MOST} schedules already: remove some.")
        id = secrets.token_hex(6)
        body = json.dumps({name: source.as_dict() for name, source in inputs.items()})
        row = (id, user, cron, program, body, note, due)
        names = "id, user, cron, program, inputs, note, due"
        self.db.execute(f"insert into schedules ({names}) values (?, ?, ?, ?, ?, ?, ?)", row)
        return self.all()[-1]

    def all(self) -> list[Schedule]:
        """In the order in which they were made."""
        return [_schedule(r) for r in self.db.execute("select * from schedules order by rowid")]

    def due(self, now: float) -> list[Schedule]:
        return [s for s in self.all() if s.due <= now]

    def ran(self, schedule: Schedule, job: str, now: float) -> None:
        """It has run; what was missed while the service was away is made up for by one run."""
        due = following(schedule.cron, now)
        self.db.execute("update schedules set due = ?, last = ? where id = ?", (due, job, schedule.id))

    def remove(self, id: str) -> None:
        if self.db.execute("delete from schedules where id = ?", (id,)).rowcount == 0:
            raise InputError(f"there is no schedule {id!r:.40}: `spuvm jobs schedules` lists them.")


def following(cron: str, now: float) -> float:
    """The next time of a cron line after a moment."""
    try:
        return float(next(CronSim(cron, datetime.fromtimestamp(now, UTC))).timestamp())
    except (CronSimError, StopIteration):
        raise InputError(
            f"`--every` must be a cron line of five fields (minute, hour, day, month, weekday; UTC), such as "
            f"'0 3 * * *' or '*/15 * * * 1-5', got {cron!r:.80}."
        ) from None


def _schedule(row: sqlite3.Row) -> Schedule:
    given = json.loads(row["inputs"]).items()
    inputs = {n: Source(s["party"], s["data"], tuple(s["columns"]), s["number"]) for n, s in given}
    rest = (row["note"], row["due"], row["last"])
    return Schedule(row["id"], row["user"], row["cron"], row["program"], inputs, *rest)
