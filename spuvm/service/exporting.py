"""Records for other systems that collect logs: JSON, one object a line; or syslog (RFC 5424), one message a line."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence

from spuvm.policy.record import Entry

FORMS = ("json", "syslog")
AUDIT, WARNING, NOTICE = 13, 4, 5  # RFC 5424: the facility "log audit", and severities
WARNINGS = ("alert", "turned away", "refused")


def lines(entries: Mapping[str, Sequence[Entry]], form: str, after: int) -> Iterator[str]:
    """Of each party's checked entries those after number `after`, in the order of their times."""
    together = sorted(((e.time, p, e) for p, told in entries.items() for e in told if e.number > after), key=_order)
    for _, party, entry in together:
        yield _json(party, entry) if form == "json" else _syslog(party, entry)


def _order(item: tuple[str, str, Entry]) -> tuple[str, str, int]:
    return item[0], item[1], item[2].number


def _json(party: str, entry: Entry) -> str:
    head = {"time": entry.time, "party": party, "number": entry.number, "event": entry.event, "hash": entry.hash}
    return json.dumps({**entry.body, **head}, sort_keys=True)


def _syslog(party: str, entry: Entry) -> str:
    """`MSGID` is the event; its parts follow as JSON, in which nothing but ASCII is left unescaped."""
    severity = WARNING if entry.event in WARNINGS else NOTICE
    event = entry.event.replace(" ", "-")
    body = json.dumps({**entry.body, "number": entry.number, "hash": entry.hash}, sort_keys=True)
    return f"<{8 * AUDIT + severity}>1 {entry.time} {socket.gethostname()} spuvm-{party} - {event} - {body}"
