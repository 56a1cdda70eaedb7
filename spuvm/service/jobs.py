"""A job as all parties see it: a program, which columns of whose catalogue it takes, and what it shows to whom.

Its number is a hash of all of that and of a random nonce: an approval is of exactly one job, and none is run twice.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spuvm.compiler.compile import Program
from spuvm.compiler.ir import text
from spuvm.compiler.ir.module import Region
from spuvm.policy.rules import ALL, Asked, Reveal
from spuvm.runtime.errors import InputError, SpuError

FORMAT = 1
MAX_PROGRAM = 16 << 20  # characters
NOTE = 500  # characters
STATES = ("waiting", "approved", "running", "done", "failed", "refused", "cancelled")
ENDED = ("done", "failed", "refused", "cancelled")


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
    """What a party asks all others to do. `program` is the text that was agreed on (.spux)."""

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
    job = Job(requester, program, read(program).hash, inputs, note[:NOTE], time.time(), secrets.token_hex(16))
    check(job)
    return job


def from_dict(body: Any) -> Job:
    """A job from a peer's message. Raises InputError for whatever is wrong with it."""
    try:
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']!r}, this version knows {FORMAT}")
        inputs = {str(name): _source(entry) for name, entry in body["inputs"].items()}
        texts = {k: body[k] for k in ("requester", "program", "hash", "note", "nonce")}
        if not all(isinstance(v, str) for v in texts.values()) or not texts["note"].isprintable():
            raise ValueError("its texts must be texts")
        job = Job(inputs=inputs, created=float(body["created"]), **texts)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"this is no job: {error!s:.200}.") from None
    if len(job.program) > MAX_PROGRAM or len(job.note) > NOTE or len(job.nonce) > 64 or len(inputs) > 10_000:
        raise InputError("this is no job: it is too large.")
    check(job)
    return job


def _source(entry: Any) -> Source:
    columns = tuple(str(c) for c in entry["columns"])
    number = None if entry["number"] is None else float(entry["number"])
    party, data = (None if entry[k] is None else str(entry[k]) for k in ("party", "data"))
    return Source(party, data, columns, number)


def read(source: str) -> Program:
    """The program of a text in the form of `.spux`."""
    return Program(text.parse(source))


def check(job: Job) -> Program:
    """The program, if the job fits it: every argument has a source, at the party that owns it."""
    try:
        program = read(job.program)
    except SpuError as error:
        raise InputError(f"the job's program cannot be read: {error}") from None
    if program.hash != job.hash:
        raise InputError(f"the job says that its program is {job.hash:.16}, and it is {program.hash:.16}.")
    members = program.config.members
    names = program.module.inputs
    if set(names) != set(job.inputs):
        wrong = sorted(set(names) ^ set(job.inputs))
        raise InputError(f"the program takes {', '.join(names)}; wrong or missing among the job's inputs: {wrong[0]}.")
    for name, param in zip(names, program.module.body.params):
        who, source = param.type.visibility, job.inputs[name]
        owner = members[who] if isinstance(who, int) else None
        if who == "secret":
            raise InputError(f"`{name}` is secret, and nobody's: compile the program with an owner for it, `@alice`.")
        if owner != source.party or (owner is None) != (source.number is not None) or (owner and not source.data):
            needs = f"data of {owner}" if owner else "a public number"
            raise InputError(f"`{name}` needs {needs}, and the job names something else.")
    if job.requester not in members:
        raise InputError(f"{job.requester} is none of the program's parties: {', '.join(members)}.")
    return program


def asked(job: Job, program: Program, party: str) -> Asked:
    """What the job asks of one party."""
    mine = {n: s for n, s in job.inputs.items() if s.party == party}
    rows = [
        param.type.shape[0] if param.type.shape else 1
        for name, param in zip(program.module.inputs, program.module.body.params)
        if name in mine
    ]
    data: dict[str, tuple[str, ...]] = {}
    for source in mine.values():
        assert source.data is not None
        data[source.data] = (*data.get(source.data, ()), *(source.columns or ("*",)))
    return Asked(job.requester, job.hash, data, min(rows) if rows else None, reveals(program))


def reveals(program: Program) -> tuple[Reveal, ...]:
    """Every reveal of a program, those within loops and branches too, and every result that somebody can read."""
    members, found = program.config.members, []
    for op in _operations(program.module.body):
        if op.name == "reveal":
            to, value = op.attrs["to"], op.outputs[0]
            who = ALL if to == "public" else members[int(to)]
            found.append(Reveal(f"a value at {op.location}", who, _size(value.type.shape)))
    revealed = {out for op in _operations(program.module.body) if op.name == "reveal" for out in op.outputs}
    for name, value in zip(program.module.outputs, program.module.body.results):
        seen = value.type.visibility
        if seen != "secret" and value not in revealed:
            to = ALL if seen == "public" else members[int(seen)]
            found.append(Reveal(f"result {name}", to, _size(value.type.shape)))
    return tuple(found)


def _operations(region: Region) -> Any:
    for op in region.ops:
        yield op
        for inner in op.regions:
            yield from _operations(inner)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
