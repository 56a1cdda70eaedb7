"""Records of parties as a page for a security officer: what ran, who allowed it, what was shown, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from spuvm.policy import record
from spuvm.policy.record import Entry
from spuvm.policy.rules import amount

PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True)


@dataclass
class Told:
    """What one party's record says of a job."""

    party: str
    asked: str = ""
    by: str = ""
    requester: str = ""
    program: str = ""
    versions: str = ""
    allowed: str = ""
    people: list[str] = field(default_factory=list)
    reveals: list[str] = field(default_factory=list)
    ended: str = ""
    reason: str = ""
    traffic: str = ""


def page(entries: Mapping[str, Sequence[Entry]]) -> str:
    """The page (HTML) of these records, which were checked line by line."""
    jobs: dict[str, dict[str, Told]] = {}
    alerts = [f"{p}, entry {e.number}: {e.body['what']}" for p, es in entries.items() for e in es if e.event == "alert"]
    away = [
        (p, _time(e.time), e.body.get("who"), e.body.get("why"))
        for p, es in entries.items()
        for e in es
        if e.event == "turned away"
    ]
    for party, told in entries.items():
        for entry in told:
            if "job" in entry.body:
                _add(jobs.setdefault(str(entry.body["job"]), {}).setdefault(party, Told(party)), entry)
    spans = {p: (_time(es[0].time), _time(es[-1].time), len(es)) if es else ("", "", 0) for p, es in entries.items()}
    wrong = record.disagreements(entries)
    return PAGES.get_template("report.html").render(jobs=jobs, wrong=wrong, alerts=alerts, spans=spans, away=away)


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _add(told: Told, entry: Entry) -> None:
    body: Mapping[str, Any] = entry.body
    match entry.event:
        case "asked":
            told.asked, told.by = _time(entry.time), str(body.get("by"))
            told.requester, told.program = str(body.get("requester")), str(body.get("program"))
        case "decided":
            rule = body.get("rule")
            told.allowed = f"{body.get('state')}, rule {rule}" if rule else f"{body.get('state')}"
        case "approved":
            told.people.append(str(body.get("user")))
        case "started":
            shown = body.get("reveals") or []
            told.versions = ", ".join(f"{name} {v}" for name, v in (body.get("versions") or {}).items())
            told.reveals = [f"{what} ({amount(n)}) to {to}" for what, to, n in shown]
        case "ended":
            told.ended, told.reason = f"{body.get('state')} {_time(entry.time)}", str(body.get("reason") or "")
            told.traffic = _traffic(body.get("counted") or {})


def _traffic(counted: Mapping[str, Any]) -> str:
    """Records of version 0.1 have sums alone, as `ran`."""
    if ran := counted.get("ran"):
        return f"{ran['rounds']:,} rounds, {ran['bytes_sent']:,} bytes sent"
    if not counted:
        return ""
    sent = ", ".join(f"{n:,} bytes to {peer}" for peer, n in counted["sent"].items())
    return f"{counted['rounds']:,} rounds{', ' if sent else ''}{sent}"
