"""What a job's text says: a compiled program, or a task (`service/tasks.py`). All parties read the same from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Any

from spuvm.compiler.compile import Program
from spuvm.compiler.ir import text
from spuvm.compiler.ir.module import Region
from spuvm.policy.rules import ALL, Reveal
from spuvm.runtime.config import OPTIMIZE
from spuvm.runtime.errors import InputError

PROGRAM = "program"
KEPT, KEPT_CHARACTERS = 64, 32 << 20  # texts that stay read at most


@dataclass(frozen=True)
class Place:
    """Where a party runs its part: a folder of the job alone, its cluster file, its data by argument."""

    party: str
    folder: Path
    config: Path
    models: Path
    sql_policy: Path | None
    data: Mapping[str, Path]
    columns: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, float]

    def result(self, name: str) -> Path:
        return self.folder / "results" / name


@dataclass(frozen=True)
class Work:
    """A job's text, read.

    Attributes:
        hash: of all that it says.
        members: the parties that take part, by rank.
        machine: lines of the cluster file that it needs.
        owners: of each argument its party; None if it is a public number.
        rows: of each argument, where the text says how many.
        reveals: what anybody is shown.
        results: of each result its file, and who gets it.
        code: it is code that runs with all that this party's service may do: allowed by its hash alone.
        columns: of each argument, where the text says which; else the job does.
        whole: it takes whole tables, whatever columns are named.
        model: of training the name under which each party keeps its part.
        command: what a party runs, after `python -m spuvm`; if it is code, after `python`.
        program: if it is one.
    """

    kind: str
    hash: str
    members: tuple[str, ...]
    machine: Mapping[str, Any]
    owners: Mapping[str, str | None]
    rows: Mapping[str, int | None]
    reveals: tuple[Reveal, ...]
    results: Mapping[str, tuple[str, tuple[str, ...]]]
    command: Callable[[Place], list[str]]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code: bool = False
    whole: bool = False
    model: str | None = None
    program: Program | None = None

    @property
    def cost(self) -> Any:
        """Rounds and bytes as predicted, of a program."""
        return None if self.program is None else self.program.cost


def remembered(reads: Callable[[str], Work]) -> Callable[[str], Work]:
    """The function, with what it made of the texts that were read last: so many, of so many characters together.
    Several threads may call it."""
    kept: dict[str, Work] = {}
    lock = Lock()

    @wraps(reads)
    def read(source: str) -> Work:
        with lock:
            found = kept.pop(source, None)
        made = reads(source) if found is None else found
        with lock:
            kept[source] = made
            while len(kept) > KEPT or (len(kept) > 1 and sum(map(len, kept)) > KEPT_CHARACTERS):
                del kept[next(iter(kept))]
        return made

    return read


def hash_of(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


@remembered
def of_program(source: str) -> Work:
    """A compiled program's text (.spux)."""
    program = Program(text.parse(source))
    config, module = program.config, program.module
    members = config.members
    owners: dict[str, str | None] = {}
    for name, param in zip(module.inputs, module.body.params):
        who = param.type.visibility
        if who == "secret":
            raise InputError(f"`{name}` is secret, and nobody's: compile the program with an owner for it, `@alice`.")
        owners[name] = members[who] if isinstance(who, int) else None
    seen = [value.type.visibility for value in module.body.results]
    machine = {"protocol": config.protocol, "ring": config.ring_bits, "fxp_fraction_bits": config.fxp_fraction_bits}
    if config.exact:
        machine["truncation"] = config.truncation
    if config.optimize != OPTIMIZE[0]:
        machine["optimize"] = config.optimize
    return Work(
        kind=PROGRAM,
        hash=program.hash,
        members=members,
        machine={**machine, "compute": list(config.parties)} if config.others else machine,
        owners=owners,
        rows={n: p.type.shape[0] if p.type.shape else 1 for n, p in zip(module.inputs, module.body.params)},
        reveals=_reveals(program),
        results={
            name: (f"{name}.npy", members if who == "public" else (members[int(who)],))
            for name, who in zip(module.outputs, seen)
            if who != "secret"
        },
        command=lambda place: _command(program, place, source),
        program=program,
    )


def _command(program: Program, place: Place, source: str) -> list[str]:
    path = place.folder / "program.spux"
    path.write_text(source)
    line = ["party", str(path), "--as", place.party, "--config", str(place.config), "--quiet", "--no-results"]
    line += ["--force", "--expect-hash", program.hash, "--report", str(place.folder / "report.json")]
    for name, number in place.numbers.items():
        line += ["--input", f"{name}={number!r}"]
    for name, path in place.data.items():
        columns = ":" + ",".join(place.columns[name]) if place.columns[name] else ""
        line += ["--input", f"{name}={path}{columns}"]
    me = program.config.members.index(place.party)
    for name, value in zip(program.module.outputs, program.module.body.results):
        if value.type.visibility in ("public", me):
            line += ["--output", f"{name}={place.result(f'{name}.npy')}"]
    return line


def _reveals(program: Program) -> tuple[Reveal, ...]:
    """Every reveal of a program, those within loops and branches too, and every result that somebody can read."""
    members, found = program.config.members, []
    operations = tuple(_operations(program.module.body))
    for op in operations:
        if op.name == "reveal":
            to, value = op.attrs["to"], op.outputs[0]
            who = ALL if to == "public" else members[int(to)]
            found.append(Reveal(f"a value at {op.location}", who, _size(value.type.shape)))
    revealed = {out for op in operations if op.name == "reveal" for out in op.outputs}
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


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
