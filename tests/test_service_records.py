"""The record of a service: changes, cuts and ways back are noticed, and other systems can read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from services import entries, folder, inputs, program, run

from spuvm.runtime.errors import DataError
from spuvm.service import exporting, settings
from spuvm.service.party import Party

__all__ = ["folder", "program"]


def test_a_record_that_was_changed_or_cut_is_noticed(folder: Path, program: str) -> None:
    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        for _ in range(2):
            alice.submit("ann", program, inputs())

    run(scenario())
    path = folder / "alice" / "state" / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (
        lines[1:],
        [*lines[:2], lines[2].replace(b"asked", b"ended"), *lines[3:]],
        [lines[1], lines[0]],
    ):
        path.write_bytes(b"".join(broken))
        with pytest.raises(DataError, match="line"):
            entries(folder, "alice")
    path.write_bytes(b"".join(lines[:2]))  # whole, and older than what was told
    with pytest.raises(DataError, match="gone back"):
        Party(settings.load(folder / "alice" / "service.toml"))


def test_records_for_systems_that_collect_logs(folder: Path, program: str) -> None:
    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        id = alice.submit("ann", program, inputs()).id
        alice.turned_away("a\u0085stranger\n<1>", "why")
        alice.stop("ann", id)

    run(scenario())
    told = {"alice": entries(folder, "alice")}
    found = [json.loads(line) for line in exporting.lines(told, "json", 0)]
    assert [f["event"] for f in found] == ["asked", "decided", "turned away", "cancelled", "ended"]
    assert [f["hash"] for f in found] == [e.hash for e in told["alice"]]
    last = list(exporting.lines(told, "syslog", 2))
    assert len(last) == 3 and all(
        re.fullmatch(r"<(108|109)>1 \S+ \S+ spuvm-alice - [a-z-]+ - \{[ -~]*\}", x) for x in last
    )
    assert last[0].startswith("<108>") and last[1].startswith("<109>")


def test_a_line_that_a_kill_cut_short_is_dropped(folder: Path) -> None:
    """It was told to nobody. A whole line that is missing is another matter."""
    first = Party(settings.load(folder / "alice" / "service.toml"))
    first.record.append("one")
    first.record.append("two")
    path = folder / "alice" / "state" / "record.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:40])
    again = Party(settings.load(folder / "alice" / "service.toml"))
    again.record.append("three")
    assert [e.event for e in entries(folder, "alice")] == ["one", "two", "three"]


def test_peers_notice_a_record_that_goes_back(folder: Path) -> None:
    bob = Party(settings.load(folder / "bob" / "service.toml"))
    bob.hear_head("alice", 5, "five")
    bob.hear_head("alice", 5, "five")
    bob.hear_head("alice", 3, "three")
    assert "gone back from entry 5 to 3" in bob.alerts[0]
