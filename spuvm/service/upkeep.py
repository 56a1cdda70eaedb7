"""What is done beside jobs: data are taken back, what is left is erased, schedules ask again. Each act is recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from spuvm.runtime.errors import InputError, SpuError
from spuvm.service import keeping
from spuvm.service.party import Party
from spuvm.service.schedules import Schedule
from spuvm.service.store import no_job

LOG = logging.getLogger("spuvm.service")


def withdraw(party: Party, user: str, data: str) -> list[str]:
    """Take an entry of the catalogue back: jobs that use it end, and what they left is erased. Their numbers."""
    known = party.settings.data
    if data not in known:
        raise InputError(f"there is no `{data:.80}` in the catalogue: it has {', '.join(known)}.")
    party.store.withdraw(data, user)
    party.record.append("withdrawn", data=data, user=user)
    used = [job for job in party.store.left() if job.uses(party.settings.party, data)]
    for job in used:
        if not job.over:
            party.end(job.id, "cancelled", f"`{data}` was withdrawn by {user}", public="data were withdrawn")
    made = [path for job in used for path in keeping.made_by(party.settings, job)]
    left = _erased(party, user, [job.id for job in used], made)
    if left:
        raise InputError(
            f"`{data}` is withdrawn, and could not be erased: {left[0]}. Put that right, and withdraw anew."
        )
    return [job.id for job in used]


def grant(party: Party, user: str, data: str) -> None:
    """Let jobs use data again that were withdrawn, as policy says."""
    party.store.grant(data)
    party.record.append("granted", data=data, user=user)


def erase(party: Party, user: str, id: str) -> None:
    """Remove what a job left here: results, what it printed, shares that it kept."""
    job = next((job for job in party.store.left() if job.id == id), None)
    if job is None:
        raise no_job(id)
    if not job.over:
        raise InputError(f"job {id} is not over: it is {job.state}. Cancel it first.")
    if left := _erased(party, user, [id], []):
        raise InputError(f"job {id} could not be erased: {left[0]}.")


def _erased(party: Party, user: str, jobs: Iterable[str], models: Iterable[Path]) -> list[str]:
    """Erase what jobs left, and models; what is still there, and why. What is gone is in the record."""
    left = []
    things: list[tuple[dict[str, str], Callable[[], bool]]] = [
        *(({"job": id}, partial(keeping.erase_job, party.settings, id)) for id in jobs),
        *(({"model": path.name}, partial(keeping.erase, path)) for path in dict.fromkeys(models)),
    ]
    for what, act in things:
        try:
            if act():
                party.record.append("erased", **what, user=user)
        except OSError as error:
            left.append(f"{error.filename or next(iter(what.values()))} ({error.strerror or error})")
    return left


def forget(party: Party) -> None:
    """Erase what is older than the service's file allows."""
    now = time.time()
    old = keeping.jobs_over_age(party.settings, party.store.left(), now)
    for what in _erased(party, "retention", old, keeping.models_over_age(party.settings, now)):
        LOG.warning("it is too old, and cannot be erased: %s", what)


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
