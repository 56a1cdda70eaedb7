"""What a service knows, in SQLite, so that it goes on when it is started again: jobs, what parties said, users."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import ConfigError, InputError
from spuvm.service.jobs import Job, from_dict
from spuvm.service.states import ENDED

LOG = logging.getLogger("spuvm.service")
ROLES = ("submit", "approve", "operate")
SCHEMA = """
create table if not exists jobs (
    id text primary key, spec text not null, requester text not null, received real not null, state text not null,
    reason text not null, rule integer, approvers integer not null default 0, ended real,
    attempt integer not null default 0, data text not null default ''
);
create table if not exists news (
    job text not null, party text not null, state text not null, reason text not null,
    attempt integer not null default 0,
    primary key (job, party)
);
create table if not exists approvals (job text not null, user text not null, at real not null, primary key (job, user));
create table if not exists submitters (job text primary key, user text not null);
create table if not exists outbox (
    number integer primary key autoincrement, peer text not null, path text not null, body text not null,
    until real not null
);
create table if not exists users (name text primary key, roles text not null, token text not null, ends real not null);
create table if not exists told_users (name text primary key, what text not null);
create table if not exists withdrawn (data text primary key, user text not null, at real not null);
create table if not exists heads (party text primary key, number integer not null, head text not null);
"""
LATER = (  # columns that stores of earlier versions lack
    ("jobs", "attempt", "integer not null default 0"),
    ("jobs", "data", "text not null default ''"),
    ("news", "attempt", "integer not null default 0"),
)

# What is looked up again and again is found without reading through all jobs, whose texts may be long.
INDEXES = f"""
create index if not exists jobs_open on jobs (received) where state not in {ENDED};
create index if not exists jobs_received on jobs (received, rule, id);
create index if not exists jobs_of on jobs (requester, state, received);
create index if not exists jobs_said on jobs (id, state, attempt);
"""


@dataclass(frozen=True)
class Row:
    """A job with its state at this party; `attempt` counts its runs from 0, `data` is what they began with."""

    job: Job
    id: str
    received: float
    state: str
    reason: str
    rule: int | None
    approvers: int
    ended: float | None
    attempt: int
    data: str

    @property
    def over(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Left:
    """Of a job what every version can read; `spec` is for what the version that took it in could."""

    id: str
    state: str
    ended: float | None
    spec: str

    @property
    def over(self) -> bool:
        return self.state in ENDED

    def uses(self, party: str, data: str) -> bool:
        """Whether the job took an entry of a party's catalogue; also where nobody can tell any more."""
        try:
            sources = json.loads(self.spec)["inputs"].values()
            return any((s["party"], s["data"]) == (party, data) for s in sources)
        except (ValueError, KeyError, TypeError, AttributeError):
            return True


@dataclass(frozen=True)
class News:
    """What a party said last of a job."""

    party: str
    state: str
    reason: str
    attempt: int = 0


@dataclass(frozen=True)
class User:
    name: str
    roles: tuple[str, ...]


class Store:
    """Every change is on disk when its method returns."""

    def __init__(self, path: Path) -> None:
        self._unreadable: set[str] = set()
        try:
            self.db = sqlite3.connect(path, isolation_level=None)
            self.db.row_factory = sqlite3.Row
            path.chmod(0o600)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the state {path} cannot be used: {error}. Is it of a service, and may it be written?"
            ) from None

    def _prepare(self) -> None:
        """Make what is not there."""
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        if not self.db.execute("select 1 from sqlite_master").fetchone():
            self.follows_record = True
        self.db.executescript(SCHEMA)
        for table, column, form in LATER:
            if column not in [r["name"] for r in self.db.execute(f"pragma table_info({table})")]:
                self.db.execute(f"alter table {table} add column {column} {form}")
        self.db.executescript(INDEXES)

    @property
    def follows_record(self) -> bool:
        """Whether the party's own head is here with each entry of its record; stores of version 0.1 had it later."""
        return bool(self.db.execute("pragma user_version").fetchone()[0])

    @follows_record.setter
    def follows_record(self, value: bool) -> None:
        self.db.execute(f"pragma user_version = {int(value)}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.db.execute("rollback")
            raise
        self.db.execute("commit")

    # jobs -----------------------------------------------------------------------------------------

    def add(self, job: Job, state: str, reason: str, rule: int | None, approvers: int) -> bool:
        """Whether the job is new: one that is known stays as it is."""
        row = (job.id, json.dumps(job.as_dict()), job.requester, time.time(), state, reason, rule, approvers)
        names = "id, spec, requester, received, state, reason, rule, approvers"
        sql = f"insert or ignore into jobs ({names}) values (?, ?, ?, ?, ?, ?, ?, ?)"
        return self.db.execute(sql, row).rowcount == 1

    def job(self, id: str) -> Row:
        found = self.db.execute("select * from jobs where id = ?", (id,)).fetchone()
        if found is None:
            raise no_job(id)
        return _row(found)

    def jobs(self, only_open: bool = False, limit: int = 500, begins: str = "") -> list[Row]:
        """The newest first; `begins`: only those whose numbers do so.

        One that this version cannot read (an earlier one took it in) is left out, and told to the log once.
        """
        where = "where substr(id, 1, ?) = ?" + (f" and state not in {ENDED}" if only_open else "")
        sql = f"select * from jobs {where} order by received desc limit ?"
        return [row for r in self.db.execute(sql, (len(begins), begins, limit)) if (row := self._read(r)) is not None]

    def _read(self, found: sqlite3.Row) -> Row | None:
        try:
            return _row(found)
        except InputError as error:
            if found["id"] not in self._unreadable:
                self._unreadable.add(found["id"])
                LOG.warning("job %s is left out: %s", found["id"], error)
            return None

    def knows(self, id: str) -> bool:
        return self.db.execute("select 1 from jobs where id = ?", (id,)).fetchone() is not None

    def left(self, only_open: bool = False, before: float = math.inf) -> Iterator[Left]:
        """All jobs that were taken in before a moment, those too that this version cannot read; one after the other."""
        sql = "select * from jobs where received < ?" + (f" and state not in {ENDED}" if only_open else "")
        for r in self.db.execute(sql, (before,)):
            yield Left(r["id"], r["state"], r["ended"], r["spec"])

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return dict(self.db.execute("select state, count(*) from jobs group by state").fetchall())

    def unsaid(self, party: str) -> list[Row]:
        """Jobs of whose state the party has told nobody: the disk was full, or it was killed in between."""
        sql = (
            "select * from jobs where id in (select id from jobs left join news on news.job = id and news.party = ? "
            "where news.job is null or news.state != jobs.state or news.attempt != jobs.attempt)"
        )
        return [row for r in self.db.execute(sql, (party,)) if (row := self._read(r)) is not None]

    def set(self, id: str, state: str, reason: str = "") -> None:
        ended = time.time() if state in ENDED else None
        self.db.execute("update jobs set state = ?, reason = ?, ended = ? where id = ?", (state, reason, ended, id))

    def began(self, id: str, data: str) -> None:
        """Remember what a job's first run here began with."""
        self.db.execute("update jobs set data = ? where id = ? and data = ''", (data, id))

    def again(self, id: str, attempt: int) -> None:
        """A job that was interrupted waits for its next run."""
        self.db.execute("update jobs set state = 'approved', attempt = ? where id = ?", (attempt, id))

    def open_of(self, requester: str) -> int:
        sql = f"select count(*) from jobs where requester = ? and state not in {ENDED}"
        return int(self.db.execute(sql, (requester,)).fetchone()[0])

    def refused_of(self, requester: str, since: float) -> int:
        sql = "select count(*) from jobs where requester = ? and state = 'refused' and received >= ?"
        return int(self.db.execute(sql, (requester, since)).fetchone()[0])

    def taken_today(self, job: str) -> Mapping[int, int]:
        """How many jobs beside this one each rule allowed since midnight, UTC."""
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        sql = "select rule, count(*) from jobs where rule is not null and received >= ? and id != ? group by rule"
        return {int(rule): int(n) for rule, n in self.db.execute(sql, (midnight, job))}

    def submitted(self, id: str, user: str) -> None:
        self.db.execute("insert or ignore into submitters values (?, ?)", (id, user))

    def submitter(self, id: str) -> str | None:
        """Who of this party's people asked for a job."""
        found = self.db.execute("select user from submitters where job = ?", (id,)).fetchone()
        return None if found is None else str(found["user"])

    def approve(self, id: str, user: str) -> int:
        """Remember that a user approved; how many have."""
        self.db.execute("insert or ignore into approvals values (?, ?, ?)", (id, user, time.time()))
        return int(self.db.execute("select count(*) from approvals where job = ?", (id,)).fetchone()[0])

    def approved_by(self, id: str) -> list[str]:
        found = self.db.execute("select user from approvals where job = ? order by at", (id,))
        return [str(r["user"]) for r in found]

    # what parties say -------------------------------------------------------------------------------

    def hear(self, id: str, news: News) -> None:
        sql = "insert or replace into news (job, party, state, reason, attempt) values (?, ?, ?, ?, ?)"
        self.db.execute(sql, (id, news.party, news.state, news.reason, news.attempt))

    def news(self, id: str) -> dict[str, News]:
        found = self.db.execute("select * from news where job = ?", (id,))
        return {r["party"]: News(r["party"], r["state"], r["reason"], r["attempt"]) for r in found}

    def send(self, peers: Sequence[str], path: str, body: Mapping[str, Any], seconds: float) -> None:
        """Put a message into the outbox: it is sent until it arrives, or its time is over."""
        with self._transaction():
            for peer in peers:
                row = (peer, path, json.dumps(body), time.time() + seconds)
                self.db.execute("insert into outbox (peer, path, body, until) values (?, ?, ?, ?)", row)

    def unsent(self, peer: str, but: Collection[str] = ()) -> list[tuple[int, str, str]]:
        """Messages for a peer by their order, a hundred at most, without those to the paths `but`."""
        self.db.execute("delete from outbox where until < ?", (time.time(),))
        sql = (
            "select number, path, body from outbox where peer = ? and path not in (select value from json_each(?)) "
            "order by number limit 100"
        )
        return [(r["number"], r["path"], r["body"]) for r in self.db.execute(sql, (peer, json.dumps(list(but))))]

    def sent(self, number: int) -> None:
        self.db.execute("delete from outbox where number = ?", (number,))

    def heads(self) -> dict[str, tuple[int, str]]:
        return {r["party"]: (r["number"], r["head"]) for r in self.db.execute("select * from heads")}

    def set_head(self, party: str, number: int, head: str) -> None:
        self.db.execute("insert or replace into heads values (?, ?, ?)", (party, number, head))

    def withdraw(self, data: str, user: str) -> None:
        """An entry of the catalogue that no job may use any more."""
        self.db.execute("insert or ignore into withdrawn values (?, ?, ?)", (data, user, time.time()))

    def grant(self, data: str) -> None:
        """It may be used again, as policy says."""
        if self.db.execute("delete from withdrawn where data = ?", (data,)).rowcount == 0:
            raise InputError(f"{data!r:.80} was not withdrawn.")

    def withdrawn(self) -> list[str]:
        return [str(r["data"]) for r in self.db.execute("select data from withdrawn order by data")]

    # users ------------------------------------------------------------------------------------------

    def add_user(self, name: str, roles: Sequence[str], days: float) -> str:
        """A new user, or a new token for one: the token, which is kept as a hash only."""
        wrong = [r for r in roles if r not in ROLES]
        if wrong or not roles:
            raise InputError(f"`roles` are among {', '.join(ROLES)}, got {', '.join(roles) or 'none'}.")
        if not name.isprintable() or not 0 < len(name) <= 64:
            raise InputError(f"`name` must have 1 to 64 printable characters, got {name!r:.80}.")
        token = secrets.token_urlsafe(32)
        row = (name, ",".join(roles), _hash(token), time.time() + 86400 * days)
        self.db.execute("insert or replace into users values (?, ?, ?, ?)", row)
        return token

    def user(self, token: str) -> User | None:
        """Who has this token, if it has not ended."""
        sql = "select * from users where token = ? and ends > ?"
        found = self.db.execute(sql, (_hash(token), time.time())).fetchone()
        return User(found["name"], tuple(found["roles"].split(","))) if found else None

    def user_named(self, name: str) -> User | None:
        """The user of this name, whom somebody else has proved to be there, if he has not ended."""
        sql = "select * from users where name = ? and ends > ?"
        found = self.db.execute(sql, (name, time.time())).fetchone()
        return User(found["name"], tuple(found["roles"].split(","))) if found else None

    def remove_user(self, name: str) -> None:
        if self.db.execute("delete from users where name = ?", (name,)).rowcount == 0:
            raise InputError(f"there is no user {name!r:.80}.")

    def users_changed(self) -> dict[str, str | None]:
        """Who was added, changed or removed since `users_told`: roles and the last day, None of who is gone."""
        now = {name: f"{roles} until {_day(ends)}" for name, roles, ends in self.users()}
        told = {r["name"]: r["what"] for r in self.db.execute("select * from told_users")}
        changed: dict[str, str | None] = {name: what for name, what in now.items() if told.get(name) != what}
        return changed | dict.fromkeys(told.keys() - now.keys())

    def users_told(self, name: str, what: str | None) -> None:
        if what is None:
            self.db.execute("delete from told_users where name = ?", (name,))
        else:
            self.db.execute("insert or replace into told_users values (?, ?)", (name, what))

    def users(self) -> list[tuple[str, str, float]]:
        return [(r["name"], r["roles"], r["ends"]) for r in self.db.execute("select * from users order by name")]


def no_job(id: str) -> InputError:
    return InputError(f"there is no job {id:.40}: `spuvm jobs` lists them.")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _hash(token: str) -> str:
    """Of 256 random bits: nothing slower is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def _row(r: sqlite3.Row) -> Row:
    job = from_dict(json.loads(r["spec"]))
    names = ("id", "received", "state", "reason", "rule", "approvers", "ended", "attempt", "data")
    return Row(job, *(r[name] for name in names))
