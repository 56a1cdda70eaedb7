"""What is done beside jobs: data are taken back, what is left is erased, schedules ask again. Each act is recorded."""

from __future__ import annotations

import logging
import time

from spuvm.runtime.errors import InputError, SpuError
from spuvm.service import keeping
from spuvm.service.party import Party
from spuvm.service.schedules import Schedule
from spuvm.service.store import Row

LOG = logging.getLogger("spuvm.service")
ALL = 100_000  # jobs


def withdraw(party: Party, user: str, data: str) -> list[str]:
    """Take an entry of the catalogue back: jobs that use it end, and what they left is erased. Their numbers."""
    known = party.settings.data
    if data not in known:
        raise InputError(f"there is no `{data:.80}` in the catalogue: it has {', '.join(known)}.")
    party.store.withdraw(data, user)
    party.record.append("withdrawn", data=data, user=user)
    used = [row for row in party.store.jobs(limit=ALL) if _uses(party, row, data)]
    for row in used:
        if not row.over:
            party.end(row.id, "cancelled", f"`{data}` was withdrawn by {user}", public="data were withdrawn")
        erase(party, user, row.id)
    return [row.id for row in used]


def _uses(party: Party, row: Row, data: str) -> bool:
    return any(s.party == party.settings.party and s.data == data for s in row.job.inputs.values())


def grant(party: Party, user: str, data: str) -> None:
    """Let jobs use data again that were withdrawn, as policy says."""
    party.store.grant(data)
    party.record.append("granted", data=data, user=user)


def erase(party: Party, user: str, id: str) -> None:
    """Remove what a job left here: results, what it printed, shares that it kept."""
    row = party.store.job(id)
    if not row.over:
        raise InputError(f"job {id} is not over: it is {row.state}. Cancel it first.")
    if keeping.erase_job(party.settings, id):
        party.record.append("erased", job=id, user=user)


def forget(party: Party) -> None:
    """Erase what is older than the service's file allows."""
    now = time.time()
    for row in keeping.jobs_over_age(party.settings, party.store.jobs(limit=ALL), now):
        keeping.erase_job(party.settings, row.id)
        party.record.append("erased", job=row.id, user="retention")
    for path in keeping.models_over_age(party.settings, now):
        keeping.erase(path)
        party.record.append("erased", model=path.name, user="retention")


def note_users(party: Party) -> None:
    """Users are added and removed by a command of their own, beside the service: the record gets to know it here."""
    for name, what in party.store.users_changed().items():
        party.record.append("user", name=name, may=what)
        party.store.users_told(name, what)


def ask_again(party: Party) -> None:
    """Ask for the jobs of the schedules that are due."""
    for schedule in party.schedules.due(time.time()):
        if party.looked(schedule.id, schedule.program, schedule.inputs):  # else at a later call
            _scheduled(party, schedule)


def _scheduled(party: Party, schedule: Schedule) -> None:
    """Not while the job before still runs, nor for who is no user any more."""
    job = schedule.last
    try:
        if schedule.user not in [name for name, _, ends in party.store.users() if ends > time.time()]:
            raise InputError(f"{schedule.user} is no user any more")
        if job and not party.store.job(job).over:
            raise InputError(f"job {job} of the time before is not over")
        job = party.submit(schedule.user, schedule.program, schedule.inputs, schedule.note).id
    except SpuError as error:
        LOG.warning("schedule %s: %s", schedule.id, error)
        party.record.append("schedule", schedule=schedule.id, problem=str(error)[:300])
    party.schedules.ran(schedule, job, time.time())
