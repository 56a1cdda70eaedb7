"""What the entries of a record look like: events and their fields, checked before anything is made of them.

That a line is signed says who wrote it, not that it makes sense: a party may sign what it likes in its own record.
Events that this version does not know pass, if what they have in common with others is as it must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from spuvm.policy.record import Entry
from spuvm.runtime.errors import DataError
from spuvm.runtime.legible import legible

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
DIGEST = re.compile(r"[0-9a-f]{64}")
EVENT = re.compile(r"[a-z][a-z -]{0,30}")
LARGEST = 1 << 63

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _list(of: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _by_name(of: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(of, value.values()))


def _or_none(of: Check) -> Check:
    return lambda value: value is None or of(value)


def _reveal(value: Any) -> bool:
    """What, to whom, how many numbers."""
    return isinstance(value, list) and len(value) == 3 and all(map(_text, value[:2])) and _or_none(_number)(value[2])


def _counted(value: Any) -> bool:
    """Of version 0.1 sums alone, as `ran`."""
    if not isinstance(value, dict):
        return False
    if "ran" in value:
        return _has(value["ran"], {"rounds": _number, "bytes_sent": _number})
    return not value or _has(value, {"rounds": _number, "sent": _by_name(_number), "received": _by_name(_number)})


def _has(value: Any, fields: Mapping[str, Check]) -> bool:
    return isinstance(value, dict) and all(name in value and check(value[name]) for name, check in fields.items())


COMMON: Mapping[str, Check] = {"job": _text, "user": _text}  # where an entry has them
FIELDS: Mapping[str, Mapping[str, Check]] = {  # what an event has; others are not looked at
    "asked": {"job": _text, "program": _text, "by": _text, "requester": _text},
    "decided": {"job": _text, "state": _text, "rule": _or_none(_number), "reasons": _list(_text)},
    "approved": {"job": _text, "program": _text, "user": _text},
    "started": {"job": _text, "program": _text, "parties": _list(_text), "reveals": _list(_reveal)},
    "inputs": {"job": _text, "commitments": _by_name(lambda v: _text(v) and bool(DIGEST.fullmatch(v)))},
    "interrupted": {"job": _text, "reason": _text},
    "ended": {"job": _text, "state": _text, "reason": _text},
    "refused": {"job": _text, "user": _text},
    "cancelled": {"job": _text, "user": _text},
    "turned away": {"who": _text, "why": _text},
    "alert": {"what": _text},
}
WHERE_THERE: Mapping[str, Mapping[str, Check]] = {  # and what it may have
    "ended": {"counted": _or_none(_counted)},
    "started": {"versions": _by_name(_text)},
}


def well_formed(entries: Iterable[Entry], party: str, where: object) -> Iterator[Entry]:
    """The entries of a party's record, each of the form that its event has.

    Raises DataError for the first that is not: line, field and what is wrong; and for a record of another party.
    """
    for entry in entries:
        wrong = _wrong(entry, party)
        if wrong is not None:
            raise DataError(f"{where}, line {entry.number}: {legible(wrong, 300)}: no service writes such an entry.")
        yield entry


def _wrong(entry: Entry, party: str) -> str | None:
    """What is wrong with an entry, if anything is."""
    if entry.party != party:
        return f"it is of the record of {entry.party!r:.80}, not of {party}"
    if not (_text(entry.time) and TIME.fullmatch(entry.time)):
        return f"its time is {entry.time!r:.80}"
    if not (_text(entry.event) and EVENT.fullmatch(entry.event)):
        return f"its event is {entry.event!r:.80}"
    body = entry.body
    if not isinstance(body, dict):
        return f"its body is {body!r:.80}"
    needed = FIELDS.get(entry.event, {})
    missing = [name for name in needed if name not in body]
    if missing:
        return f"{entry.event!r} lacks `{missing[0]}`"
    checks = {**COMMON, **needed, **WHERE_THERE.get(entry.event, {})}
    wrong = [name for name, check in checks.items() if name in body and not check(body[name])]
    return f"`{wrong[0]}` of {entry.event!r} is {body[wrong[0]]!r:.80}" if wrong else None
