"""What a party's service does with jobs: takes them in, decides by policy, runs what all agree on, keeps a record.

No party is the master. Each decides for itself and tells the others; a job starts when all have approved, at the word
of its first computing party, which counts how many run at once. What a party's own people may read of a failure stays
here: peers hear that it failed, and nothing about rows, paths or columns.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spuvm.policy.record import Heads, Record
from spuvm.policy.rules import Decision, decide, load_rules
from spuvm.runtime.errors import DataError, InputError, SpuError
from spuvm.service import accounts, again, jobs, runner
from spuvm.service.beside import Rows, beside
from spuvm.service.full import FULL
from spuvm.service.identity import load_key
from spuvm.service.jobs import Job, Source
from spuvm.service.port import Doors
from spuvm.service.schedules import Schedules
from spuvm.service.settings import Settings
from spuvm.service.states import ENDED
from spuvm.service.store import News, Row, Store
from spuvm.service.work import Work

LOG = logging.getLogger("spuvm.service")
MESSAGE_SECONDS = 7 * 86400.0  # how long a message waits for a peer that is away
TURNED_AWAY = 1000  # an hour
REFUSED = 100  # jobs of a peer in an hour: what is refused is kept, too, and must not fill the disk
MOST_RUNS = 10_000
MOST_EARLY = 1000  # jobs that are remembered of which there was news too early
AGREED = ("approved", "running", "done")
SAID = ("waiting", "approved", "running", *ENDED)


class Party:
    """One party's jobs. All methods run on one event loop; `changed` is called when there is something to send."""

    def __init__(self, settings: Settings, passphrase: str | None = None) -> None:
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings = settings
        self._passphrase = passphrase
        self.store = Store(settings.state / "service.sqlite")
        key = load_key(settings.key, passphrase)
        self.record = Record(settings.state / "record.jsonl", settings.party, key, self._noted)
        self.schedules = Schedules(self.store.db)
        self.heads = Heads(self.store.heads())
        self.alerts: list[str] = []
        self.away: dict[str, str] = {}  # peers that cannot be reached now, and why
        self.running: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}  # cancelled, and their processes not gone yet
        self._closed = False
        self.changed: Callable[[], None] = lambda: None
        self.doors = Doors()
        self._rows = Rows()
        self._counting: dict[str, asyncio.Task[None]] = {}  # jobs whose files are read through
        self._turned_away: list[float] = []
        self._early: set[tuple[str, str]] = set()
        self._check_own_head()

    def _check_own_head(self) -> None:
        """A record that is behind the store was cut or restored, and a store that is behind the record was: nothing
        runs on them. One entry more than the store knows of is no sign: a kill may come between the two.
        """
        me, number, head = self.settings.party, self.record.number, self.record.head
        known = self.store.heads().get(me, (0, ""))
        wrong = self.heads.hear(me, number, head)
        if wrong is not None:
            raise DataError(f"{wrong}. Put back the newest {self.record.path}, or move the state folder away.")
        if self.store.follows_record and number > known[0] + 1:
            path = self.settings.state / "service.sqlite"
            raise DataError(
                f"{path} knows {known[0]} entries of the record, which has {number}: it was restored, or is lost. Put "
                "back the newest, or move the state folder away."
            )
        self._noted(number, head)
        self.store.follows_record = True

    def _noted(self, number: int, head: str) -> None:
        self.store.set_head(self.settings.party, number, head)

    def resume(self) -> None:
        """After a start: what ran when the service ended runs again, if it may; all else goes on."""
        for row in self.store.jobs(only_open=True):
            if row.state == "running":
                self._again(row.id, "the service was started again while it ran")
            self.step(row.id)

    # taking jobs in -----------------------------------------------------------------------------------

    def submit(self, user: str, program: str, inputs: Mapping[str, Source], note: str = "") -> Row:
        """A job that one of this party's people asks for."""
        job = jobs.make(self.settings.party, program, inputs, note)
        unknown = [p for p in jobs.read(program).members if p not in self.settings.services]
        if unknown:
            raise InputError(f"the program names {unknown[0]}, and [services] does not: it has {self._known()}.")
        self.store.submitted(job.id, user)
        self.take(job, user)
        return self.store.job(job.id)

    def _known(self) -> str:
        return ", ".join(self.settings.services)

    def receive(self, peer: str, body: Any) -> None:
        """Take in a job that a peer asks for."""
        self.take(self.asked_by(peer, body), peer)

    def asked_by(self, peer: str, body: Any) -> Job:
        """A job that a peer may ask for, checked."""
        job = jobs.from_dict(body)
        if job.requester != peer:
            raise InputError(f"{peer} sends a job in the name of {job.requester:.64}.")
        if self.settings.party not in jobs.read(job.program).members:
            raise InputError(f"{self.settings.party} takes no part in this job.")
        if self.store.open_of(peer) >= self.settings.limits.open_jobs:
            raise InputError(f"{peer} has {self.settings.limits.open_jobs} open jobs here, which is the limit.")
        if self.store.refused_of(peer, time.time() - 3600) >= REFUSED:
            raise InputError(f"{peer} had {REFUSED} jobs refused here within an hour, which is the limit: ask later.")
        if abs(time.time() - job.created) > self.settings.limits.wait_seconds:
            raise InputError("the job is too old, or a clock is wrong: ask anew.")
        return job

    def take(self, job: Job, by: str) -> None:
        """Decide about a job that is new."""
        if self.store.knows(job.id):
            return
        decision = self._decide(job, jobs.check(job))
        state = {"ask": "waiting", "approved": "approved", "refused": "refused"}[decision.state]
        reason = "; ".join(decision.reasons)
        self.record.append("asked", job=job.id, program=job.hash, by=by, requester=job.requester)
        told = {"rule": decision.rule, "reasons": list(decision.reasons), "policy": accounts.policy(self.settings)}
        self.record.append("decided", job=job.id, state=state, **told)
        self.store.add(job, state, reason, decision.rule, decision.approvers)
        self._ask(job)
        if state == "refused":
            self.end(job.id, "refused", reason, public="its policy does not allow it")
        else:
            self._say(job, state)
        self.step(job.id)

    def _decide(self, job: Job, work: Work) -> Decision:
        mine = [str(source.data) for source in job.inputs.values() if source.party == self.settings.party]
        missing = [name for name in mine if name not in self.settings.data]
        if missing:
            return Decision("refused", (f"there is no `{missing[0]}` in the catalogue",))
        if gone := sorted(set(mine) & set(self.store.withdrawn())):
            return Decision("refused", (f"`{gone[0]}` was withdrawn",))
        try:
            asked = jobs.asked(job, work, self.settings.party, lambda name: self._rows.of(self.settings.data[name]))
        except SpuError as error:
            return Decision("refused", (f"its data cannot be read: {error}",))
        try:
            rules = load_rules(self.settings.policy)  # anew each time: a changed policy holds at once
        except SpuError as error:
            return Decision("refused", (f"the policy cannot be read: {error}",))
        return decide(rules, asked, datetime.now(UTC).date(), self.store.taken_today(job.id))

    async def look(self, program: str, inputs: Mapping[str, Source]) -> None:
        """Before a decision: read through what must be, beside the loop, so that the decision takes no time."""
        await self._rows.count(self._uncounted(jobs.read(program), inputs))

    def _uncounted(self, work: Work, inputs: Mapping[str, Source]) -> list[Path]:
        """Files of this party whose rows no text says, and nobody has counted as they are now."""
        mine = [s for name, s in inputs.items() if s.party == self.settings.party and work.rows.get(name) is None]
        paths = [self.settings.data[str(s.data)] for s in mine if s.data in self.settings.data]
        return [path for path in dict.fromkeys(paths) if not self._rows.knows(path)]

    def looked(
        self, key: str, program: str, inputs: Mapping[str, Source], then: Callable[[], None] = lambda: None
    ) -> bool:
        """Whether nothing has to be read through; if so, it is begun, and `then` called when it is done."""
        paths = self._uncounted(jobs.read(program), inputs)
        if paths and key not in self._counting:
            self._counting[key] = asyncio.get_running_loop().create_task(self._count(key, paths, then))
        return not paths

    async def _count(self, key: str, paths: list[Path], then: Callable[[], None]) -> None:
        try:
            await self._rows.count(paths)
        except Exception:
            return LOG.exception("files for %s could not be read through", key)
        finally:
            self._counting.pop(key, None)
        if not self._closed:
            then()

    # people -------------------------------------------------------------------------------------------

    def approve(self, user: str, id: str, hash: str) -> Row:
        """One of this party's people approves a job with exactly this program."""
        row = self.store.job(id)
        if row.job.hash != hash:
            raise InputError(f"job {id} has program {row.job.hash:.16}, the approval is for {hash:.16}: look again.")
        if row.state != "waiting":
            raise InputError(f"job {id} waits for nobody: it is {row.state}.")
        if self.store.submitter(id) == user:
            raise InputError(f"{user} asked for job {id}, and cannot approve it: somebody else must look at it.")
        self.record.append("approved", job=id, program=hash, user=user)
        count = self.store.approve(id, user)
        if count >= row.approvers:
            decision = self._decide(row.job, jobs.check(row.job))
            if decision.state == "refused":  # the policy has changed meanwhile
                self.end(id, "refused", "; ".join(decision.reasons), public="its policy does not allow it")
            else:
                self.store.set(id, "approved")
                self._say(row.job, "approved")
            self.step(id)
        return self.store.job(id)

    def stop(self, user: str, id: str, state: str = "cancelled") -> Row:
        """Refuse a job that waits, or end one that runs."""
        row = self.store.job(id)
        if row.over:
            raise InputError(f"job {id} is over: it is {row.state}.")
        self.record.append(state, job=id, user=user)
        self.end(id, state, f"by {user}", public=f"{self.settings.party} has {state} it")
        return self.store.job(id)

    # peers --------------------------------------------------------------------------------------------

    def hear(self, peer: str, id: str, body: Any) -> None:
        """What a peer says of a job."""
        row = self.store.job(id)
        if peer not in jobs.read(row.job.program).members:
            raise InputError(f"{peer} takes no part in job {id}.")
        state, reason = str(body["state"]), str(body["reason"])[:300]
        if state not in SAID:
            raise InputError(f"this is no news of a job: {state!r:.40}.")
        attempt = body.get("attempt", 0)
        if type(attempt) is not int or not 0 <= attempt <= MOST_RUNS:
            raise InputError(f"this is no news of a job: run number {attempt!r:.40}.")
        before = self.store.news(id).get(peer)
        if before is None or before.state not in ENDED:
            self.store.hear(id, News(peer, state, "".join(c for c in reason if c.isprintable()), attempt))
        if row.state == "running" and state in AGREED and attempt > row.attempt:
            self._again(id, f"{peer} was interrupted")
        self.step(id)

    def heard_early(self, peer: str, id: str) -> bool:
        """Whether there is no such job, and the peer has said so much of it before: the record has that once."""
        if self.store.knows(id):
            return False
        again = (peer, id) in self._early
        if len(self._early) >= MOST_EARLY:
            self._early.clear()
        self._early.add((peer, id))
        return again

    def refused(self, peer: str, body: Any, why: str) -> None:
        """A peer does not take a job in at all."""
        id = jobs.from_dict(body).id
        self.store.hear(id, News(peer, "refused", "".join(c for c in why if c.isprintable())[:300]))
        self.step(id)

    def turned_away(self, who: str, why: str) -> None:
        """Somebody asked for what is not possible: it is in the record, so often in an hour at most, and in the log."""
        now = time.time()
        self._turned_away = [t for t in self._turned_away if t > now - 3600]
        LOG.warning("turned away %s: %s", who, why)
        if len(self._turned_away) < TURNED_AWAY:
            self._turned_away.append(now)
            try:
                self.record.append("turned away", who=who[:64], why=why[:300])
            except FULL as error:  # that is said elsewhere
                LOG.warning("the record cannot be written: %s", error)

    def hear_head(self, peer: str, number: int, head: str) -> None:
        """How far a peer's record has come."""
        wrong = self.heads.hear(peer, number, head)
        if wrong is None:
            self.store.set_head(peer, number, head)
        elif wrong not in self.alerts:
            self.alerts.append(wrong)
            self.record.append("alert", what=wrong)
            LOG.warning(wrong)

    def runs(self, session: str) -> bool:
        """Whether a session is that of a job which runs here, or of its workers."""
        return session.partition(".")[0] in self.running

    def _ask(self, job: Job) -> None:
        """Send a job of one's own to its parties: before any news of it."""
        if job.requester == self.settings.party:
            self._send(self._others(job), "/jobs", job.as_dict())

    def _others(self, job: Job) -> list[str]:
        return [p for p in jobs.read(job.program).members if p != self.settings.party]

    def _say(self, job: Job, state: str, reason: str = "") -> None:
        attempt = self.store.job(job.id).attempt
        self._send(self._others(job), f"/jobs/{job.id}/news", {"state": state, "reason": reason, "attempt": attempt})
        self.store.hear(job.id, News(self.settings.party, state, reason, attempt))  # now it is said: see `go_on`

    def _send(self, peers: list[str], path: str, body: Mapping[str, Any]) -> None:
        self.store.send(peers, path, body, MESSAGE_SECONDS)
        self.changed()

    # running ------------------------------------------------------------------------------------------

    def step(self, id: str) -> None:
        """Do what a job's state and the news of all parties ask for."""
        row = self.store.job(id)
        if row.over or id in self._ending:
            return
        work = jobs.read(row.job.program)
        news = self.store.news(id)
        stopped = next((n for n in news.values() if n.state in ("refused", "cancelled", "failed")), None)
        if stopped is not None and stopped.party != self.settings.party:
            self.end(id, stopped.state, f"{stopped.party}: {stopped.reason or stopped.state}", public="a peer stopped")
            return
        members = work.members
        finished = next((n for n in news.values() if n.state == "done" and n.attempt < row.attempt), None)
        if finished is not None:
            return self._left_behind(id, work, news, finished.party)
        ahead = max((n for n in news.values() if n.state in AGREED), key=lambda n: n.attempt, default=None)
        if row.state == "approved" and ahead is not None and ahead.attempt > row.attempt:
            return self._follow(row, ahead)
        ready = [n.party for n in news.values() if n.state in AGREED and n.attempt == row.attempt]
        if row.state != "approved" or not set(members) <= set(ready):
            return
        leader = members[0]
        if leader != self.settings.party and news[leader].state not in ("running", "done"):
            return
        if leader == self.settings.party and len(self.running) >= self.settings.limits.parallel:
            return
        if not self.looked(id, row.job.program, row.job.inputs, then=lambda: self.step(id)):
            return
        self._start(row, work)

    def _follow(self, row: Row, ahead: News) -> None:
        """Peers were interrupted in a run that has not begun here: this party is ready for their next one, too."""
        if ahead.attempt > self.settings.limits.restarts:
            why = f"{ahead.party} was interrupted {ahead.attempt} times"
            return self.end(row.id, "failed", why, public=why)
        self.store.again(row.id, ahead.attempt)
        self._say(row.job, "approved")
        self.step(row.id)

    def _left_behind(self, id: str, work: Work, news: Mapping[str, News], peer: str) -> None:
        """It was interrupted here while a peer finished: all is well if everybody who gets results has them."""
        receive = {party for _, parties in work.results.values() for party in parties}
        if receive and all(p in news and news[p].state == "done" for p in receive):
            self.end(id, "done", f"it was interrupted here when {peer} had finished; all results are there")
        elif receive and self.settings.party not in receive:
            return  # their news are on the way
        else:
            self.end(id, "failed", f"it was interrupted here, and {peer} has finished: ask anew")

    def _start(self, row: Row, work: Work) -> None:
        session = f"{row.id}.r{row.attempt}"
        decision = self._decide(row.job, work)  # what was allowed may have been taken back
        if decision.state == "refused":
            return self.end(
                row.id, "refused", "; ".join(decision.reasons), public="its policy does not allow it any more"
            )
        try:
            command = runner.prepare(self.settings, row.job, work, session, self.doors.path(session))
        except OSError as error:
            why = f"its folder cannot be written: {error.strerror or error}"
            return self.end(row.id, "failed", why, public="it could not be started")
        self.store.began(row.id, again.data_of(self.settings, row.job))
        shown = [[r.what, r.to, r.elements] for r in work.reveals]
        members = list(work.members)
        told = {"parties": members, "reveals": shown, "versions": accounts.versions()}
        self.record.append("started", job=row.id, program=row.job.hash, attempt=row.attempt, **told)
        self.store.set(row.id, "running")
        self._say(row.job, "running")
        self.running[row.id] = asyncio.get_running_loop().create_task(self._run(row, command))

    async def _run(self, row: Row, command: list[str]) -> None:
        stop = threading.Event()
        committing = beside(accounts.inputs, self.settings, row.job, stop.is_set)
        try:
            ended = await runner.run(self.settings, row.job, command, len(self.running) - 1, self._passphrase)
            wrong = await self._committed(row, committing)
            ended = ended if wrong is None or ended.state != "done" else wrong
        except asyncio.CancelledError:
            return
        except Exception:  # whatever it is, others may run now
            LOG.exception("job %s could not be run to its end", row.id)
            ended = runner.Ended("failed", "it could not be run to its end")
        finally:
            stop.set()
            committing.cancel()
        self.running.pop(row.id, None)
        if ended.private:
            LOG.info("job %s: %s", row.id, ended.private)
        if ended.interrupted:
            self._again(row.id, ended.public)
        else:
            self.end(row.id, ended.state, ended.public)
        for waiting in self.store.jobs(only_open=True):
            self.step(waiting.id)

    async def _committed(self, row: Row, committing: asyncio.Future[dict[str, str]]) -> runner.Ended | None:
        """Note what a job's files were, which are read through while it runs; how it ends if they cannot be told."""
        try:
            committed = await asyncio.wait_for(committing, self.settings.limits.job_seconds)
        except TimeoutError:
            limit = f"{self.settings.limits.job_seconds:g} s"
            return runner.Ended("failed", "its inputs could not be committed to", f"its files take longer than {limit}")
        except (OSError, SpuError) as error:
            return runner.Ended("failed", "its inputs could not be committed to", str(error))
        if committed:
            self.record.append("inputs", job=row.id, attempt=row.attempt, commitments=committed)
        if self.store.job(row.id).data != again.data_of(self.settings, row.job):
            return runner.Ended("failed", "its data changed while it ran")
        return None

    def _again(self, id: str, why: str) -> None:
        """A job was interrupted: it runs again when all parties are ready for that, or it has failed."""
        row = self.store.job(id)
        if row.over:
            return
        self._stop_process(id)
        forbidden = again.forbids(self.settings, row.job, jobs.read(row.job.program).kind, row.attempt, row.data)
        if forbidden is not None:
            return self.end(id, "failed", f"{why}; {forbidden}", public=f"{why}; it does not run again")
        self.record.append("interrupted", job=id, attempt=row.attempt, reason=why)
        self.store.again(id, row.attempt + 1)
        self._say(row.job, "approved")

    def _stop_process(self, id: str) -> None:
        """Its next run waits until this one's process is gone."""
        task = self.running.pop(id, None)
        if task is not None:
            self._ending[id] = task
            task.add_done_callback(lambda _: self._gone(id))
            task.cancel()

    def _gone(self, id: str) -> None:
        self._ending.pop(id, None)
        if not self._closed:
            self.step(id)

    def end(self, id: str, state: str, reason: str, public: str | None = None) -> None:
        self._stop_process(id)
        self.record.append("ended", job=id, state=state, reason=reason, counted=accounts.counted(self.settings, id))
        self.store.set(id, state, reason)
        said = reason if public is None else public
        try:
            self._say(self.store.job(id).job, state, said)
        except InputError:  # of another version: whose it was is not known any more
            peers = list(self.settings.peers)
            self._send(peers, f"/jobs/{id}/news", {"state": state, "reason": said, "attempt": 0})

    def go_on(self) -> None:
        """Say what could not be said when it was so, and do what could not be done: a disk was full, or a kill came."""
        unsaid = {row.id for row in self.store.unsaid(self.settings.party)}
        for row in [self.store.job(id) for id in unsaid]:
            self._ask(row.job)
            self._say(row.job, row.state)
        for row in self.store.jobs(only_open=True):
            try:
                self.step(row.id)
            except FULL as error:
                LOG.warning("job %s cannot go on now: %s", row.id, error)

    def expire(self) -> None:
        """End what has waited too long, and what runs by the store alone: that it ended could not be written down."""
        late = time.time() - self.settings.limits.wait_seconds
        readable = self.store.jobs(only_open=True)
        for id in {left.id for left in self.store.left(only_open=True, before=late)} - {row.id for row in readable}:
            self.end(id, "cancelled", "it waited too long, and this version cannot read it")
        for row in readable:
            if row.state == "running" and row.id not in self.running and row.id not in self._ending:
                self._again(row.id, "how it ended could not be written down")
            elif row.state != "running" and row.received < late:
                self.end(row.id, "cancelled", "not all parties approved in time")

    async def close(self) -> None:
        """End all processes of jobs."""
        self._closed = True
        tasks = [*self.running.values(), *self._ending.values(), *self._counting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.doors.close()
