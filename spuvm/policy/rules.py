"""Which jobs a party takes part in: a pure function of its policy file and of what a job asks of it.

    [[allow]]
    from = ["alice"]                          # who may ask
    programs = ["any"]                        # or hashes (`spuvm submit --hash`); code needs its own
    data = { patients = ["age", "bmi"] }      # of this party's catalogue: these columns, or ["*"]
    receivers = ["alice"]                     # who may be shown results; "all" is everybody
    min_rows = 20                             # at least so many rows behind every number that is revealed
    per_day = 10
    until = 2027-12-31
    approval = "ask"                          # or "automatic"
    approvers = 1                             # how many of this party's people must approve

What no rule allows is refused, with what each rule that names the asking party misses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.runtime.located import located

ANY = "any"
ALL = "all"
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reveal:
    """A value that a job shows: `to` is a party's name, or "all"; `elements` its size, None if rows themselves are."""

    what: str
    to: str
    elements: int | None

    def __str__(self) -> str:
        return f"{self.what} ({amount(self.elements)}) to {self.to}"


def amount(elements: int | None) -> str:
    """In words."""
    return "rows" if elements is None else "1 number" if elements == 1 else f"{elements:,} numbers"


@dataclass(frozen=True)
class Asked:
    """What a job asks of one party: columns of its catalogue, and what anybody is shown in the end."""

    requester: str
    program: str
    data: Mapping[str, tuple[str, ...]]
    rows: int | None  # of this party's inputs, the fewest; None if it brings none
    reveals: tuple[Reveal, ...]
    code: bool = False  # that runs with all that this party's service may do


@dataclass(frozen=True)
class Rule:
    number: int
    requesters: tuple[str, ...]
    programs: tuple[str, ...]
    data: Mapping[str, tuple[str, ...]]
    receivers: tuple[str, ...]
    min_rows: int
    per_day: int
    until: date | None
    approval: str
    approvers: int


@dataclass(frozen=True)
class Decision:
    """`state` is "approved", "ask" or "refused"; `rule` is the number of the rule that allowed it."""

    state: str
    reasons: tuple[str, ...] = ()
    rule: int | None = None
    approvers: int = 0


def _programs(value: Any) -> tuple[str, ...]:
    """Whole hashes: one that is cut or misspelled would allow nothing, and nobody would know why."""
    found = fields.texts(value)
    if not all(p == ANY or HASH.fullmatch(p) for p in found):
        raise ValueError('a list of "any" and of hashes with 64 hexadecimal digits (`spuvm submit --hash`)')
    return found


FIELDS = {
    "from": Field(fields.texts),
    "programs": Field(_programs),
    "data": Field(fields.table_of(fields.texts), {}),
    "receivers": Field(fields.texts),
    "min_rows": Field(fields.whole(1, 10**12), 1),
    "per_day": Field(fields.whole(1, 10**6), 1000),
    "until": Field(fields.day, None),
    "approval": Field(fields.one_of("ask", "automatic"), "ask"),
    "approvers": Field(fields.whole(1, 10), 1),
}


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a policy file, in its order."""
    with located(path):
        return _rules(Path(path))


def _rules(path: Path) -> tuple[Rule, ...]:
    table = fields.read(fields.load(path), {"allow": Field(_tables, [])}, str(path))
    return tuple(_rule(i, entry, f"{path}: rule {i}") for i, entry in enumerate(table["allow"], 1))


def unknown(rules: Sequence[Rule], parties: Collection[str], data: Collection[str]) -> list[str]:
    """What rules name and there is not: parties, and entries of this party's catalogue."""
    found = []
    for rule in rules:
        for what, names, known in (
            ("from", rule.requesters, {*parties, ANY}),
            ("receivers", rule.receivers, {*parties, ALL}),
            ("data", rule.data, data),
        ):
            found += [
                f"rule {rule.number}: `{what}` names {n!r:.80}, which there is not" for n in names if n not in known
            ]
    return found


def _tables(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("tables [[allow]]")
    return value


def _rule(number: int, entry: Any, where: str) -> Rule:
    values = fields.read(entry, FIELDS, where)
    return Rule(number, values.pop("from"), **values)


def decide(rules: Sequence[Rule], asked: Asked, today: date, taken: Mapping[int, int]) -> Decision:
    """Whether the party takes part; `taken` counts the jobs that each rule allowed today."""
    reasons = []
    for rule in rules:
        if asked.requester not in rule.requesters and ANY not in rule.requesters:
            continue
        missed = list(_missed(rule, asked, today, taken.get(rule.number, 0)))
        if not missed:
            state = "ask" if rule.approval == "ask" else "approved"
            return Decision(state, (), rule.number, rule.approvers)
        reasons.append(f"rule {rule.number}: {'; '.join(missed)}")
    return Decision("refused", tuple(reasons) or (f"no rule lets {asked.requester} ask",))


def _missed(rule: Rule, asked: Asked, today: date, taken: int) -> Any:
    if asked.program not in rule.programs and (asked.code or ANY not in rule.programs):
        yield "code is allowed by its hash in `programs` alone" if asked.code else "another program"
    for name, columns in asked.data.items():
        allowed = rule.data.get(name, ())
        wrong = [c for c in columns if c not in allowed] if "*" not in allowed else []
        if wrong:
            yield f"column `{wrong[0]}` of `{name}` is not allowed"
    for reveal in asked.reveals:
        if reveal.to not in rule.receivers and ALL not in rule.receivers:
            yield f"`{reveal.what}` would be shown to {reveal.to}"
    if asked.rows is not None and asked.rows < rule.min_rows:
        yield f"fewer than {rule.min_rows} rows"
    elif asked.rows is not None and rule.min_rows > 1:
        shown = sum(reveal.elements or 0 for reveal in asked.reveals)
        if any(reveal.elements is None for reveal in asked.reveals):
            yield f"rows are shown, not what {rule.min_rows} rows make together"
        elif shown * rule.min_rows > asked.rows:
            yield f"{shown:,} numbers revealed of {asked.rows:,} rows: fewer than {rule.min_rows} rows each"
    if rule.until is not None and today > rule.until:
        yield f"it ended on {rule.until}"
    if taken >= rule.per_day:
        yield f"{rule.per_day} jobs a day are allowed"
