"""A job as all parties see it: a program, which columns of whose catalogue it takes, and what it shows to whom.

Its number is a hash of all of that and of a random nonce: an approval is of exactly one job, and none is run twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spuvm.policy.rules import Asked
from spuvm.runtime.errors import InputError, SpuError
from spuvm.service.tasks import of_task
from spuvm.service.work import Work, of_program

FORMAT = 1
MAX_PROGRAM = 16 << 20  # characters
NOTE = 500  # characters


@dataclass(frozen=True)
class Source:
    """Where an argument comes from: columns of an entry of a party's catalogue, or a public number."""

    party: str | None
    data: str | None = None
    columns: tuple[str, ...] = ()
    number: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"party": self.party, "data": self.data, "columns": list(self.columns), "number": self.number}


@dataclass(frozen=True)
class Job:
    """What a party asks all others to do. `program` is the text that was agreed on: a .spux, or a task."""

    requester: str
    program: str
    hash: str
    inputs: Mapping[str, Source]
    note: str
    created: float
    nonce: str

    def as_dict(self) -> dict[str, Any]:
        inputs = {name: source.as_dict() for name, source in self.inputs.items()}
        rest = {k: getattr(self, k) for k in ("requester", "program", "hash", "note", "created", "nonce")}
        return {"format": FORMAT, "inputs": inputs, **rest}

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:24]


def make(requester: str, program: str, inputs: Mapping[str, Source], note: str = "") -> Job:
    """A new job; the program's text is read and its hash taken from it."""
    job = Job(requester, program, read(program).hash, inputs, note, time.time(), secrets.token_hex(16))
    return from_dict(job.as_dict())  # what peers would refuse is not asked for


def from_dict(body: Any) -> Job:
    """A job from a peer's message. Raises InputError for whatever is wrong with it."""
    try:
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']!r}, this version knows {FORMAT}")
        inputs = {str(name): _source(entry) for name, entry in body["inputs"].items()}
        texts = {k: body[k] for k in ("requester", "program", "hash", "note", "nonce")}
        if not all(isinstance(v, str) for v in texts.values()):
            raise ValueError("its texts must be texts")
        if not texts["note"].isprintable() or len(texts["note"]) > NOTE:
            raise ValueError(f"its note must be a line of at most {NOTE} printable characters")
        job = Job(inputs=inputs, created=float(body["created"]), **texts)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"this is no job: {error!s:.200}.") from None
    if not 0 <= job.created < 1e12:
        raise InputError("this is no job: the time at which it was made is none.")
    if len(job.program) > MAX_PROGRAM or len(job.nonce) > 64 or len(inputs) > 10_000:
        raise InputError("this is no job: it is too large.")
    check(job)
    return job


def _source(entry: Any) -> Source:
    columns = tuple(str(c) for c in entry["columns"])
    if any(not c or not c.isprintable() or set(c) & set(",:=@") or c.startswith("-") for c in columns):
        raise ValueError("a column's name has no `,`, `:`, `=` and `@`")
    number = None if entry["number"] is None else float(entry["number"])
    if number is not None and not math.isfinite(number):
        raise ValueError("a public number must be finite")
    party, data = (None if entry[k] is None else str(entry[k]) for k in ("party", "data"))
    return Source(party, data, columns, number)


def read(source: str) -> Work:
    """What a text says: a program in the form of `.spux`, or a task."""
    return of_program(source) if source.startswith("spux ") else of_task(source)


def check(job: Job) -> Work:
    """What the job's text says, if the job fits it: every argument has a source, at the party that owns it."""
    try:
        work = read(job.program)
    except SpuError as error:
        raise InputError(f"the job's program cannot be read: {error}") from None
    if work.hash != job.hash:
        raise InputError(f"the job says that its program is {job.hash:.16}, and it is {work.hash:.16}.")
    if set(work.owners) != set(job.inputs):
        wrong = sorted(set(work.owners) ^ set(job.inputs))
        raise InputError(
            f"the program takes {', '.join(work.owners) or 'nothing'}; wrong or missing among the job's inputs: "
            f"{wrong[0]:.64}."
        )
    for name, owner in work.owners.items():
        source = job.inputs[name]
        if owner != source.party or (owner is None) != (source.number is not None) or (owner and not source.data):
            needs = f"data of {owner}" if owner else "a public number"
            raise InputError(f"`{name}` needs {needs}, and the job names something else.")
    if job.requester not in work.members:
        raise InputError(f"{job.requester} is none of the program's parties: {', '.join(work.members)}.")
    return work


def asked(job: Job, work: Work, party: str, rows_of: Callable[[str], int]) -> Asked:
    """What the job asks of one party; `rows_of` counts those of an entry of its catalogue."""
    mine = {n: s for n, s in job.inputs.items() if s.party == party}
    rows, data = [], dict[str, tuple[str, ...]]()
    for name, source in mine.items():
        assert source.data is not None
        known = work.rows[name]
        rows.append(rows_of(source.data) if known is None else known)
        columns = ("*",) if work.whole else work.columns.get(name, source.columns) or ("*",)
        data[source.data] = (*data.get(source.data, ()), *columns)
    return Asked(job.requester, job.hash, data, min(rows) if rows else None, work.reveals, work.code)
