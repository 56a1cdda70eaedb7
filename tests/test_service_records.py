"""The record of a service: changes, cuts and ways back are noticed, and other systems can read it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from services import entries, folder, inputs, program, run, services, until

from spuvm.commands.desk import Desk, quoted
from spuvm.policy import commitments
from spuvm.runtime.errors import DataError, InputError, LinkError
from spuvm.service import exporting, settings
from spuvm.service.party import Party

NAME = quoted("no \u00fc/such")

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


def test_commands_reach_a_page_over_tls_and_users_are_in_the_record(folder: Path) -> None:
    """Of a page that other machines reach: only who has the party's own key gets the token."""
    file = folder / "alice" / "service.toml"
    file.write_text(re.sub(r'page = "127.0.0.1', 'page = "0.0.0.0', file.read_text()))

    async def scenario() -> None:
        async with services(folder, "alice") as parties:
            alice = parties["alice"]
            token = alice.store.add_user("ann", ["submit"], 1)
            assert await asyncio.to_thread(Desk(file, token).get, "/api/jobs") == []
            with pytest.raises(InputError, match="needs the role operate"):
                await asyncio.to_thread(Desk(file, token).post, f"/api/data/{NAME}/withdraw", {})
            with pytest.raises(InputError, match="no user has this token"):
                await asyncio.to_thread(Desk(file, "x" * 43).get, "/api/jobs")
            other = Desk(file, token)
            other._settings = replace(other._settings, certificate=folder / "bob" / "bob.crt")
            with pytest.raises(LinkError, match="does not have the key"):
                await asyncio.to_thread(other.get, "/api/jobs")
            await until(lambda: not alice.store.users_changed(), 30)
            alice.store.remove_user("ann")
            await until(lambda: not alice.store.users_changed(), 30)

    run(scenario())
    told = [e.body for e in entries(folder, "alice") if e.event == "user"]
    assert [(b["name"], b["may"] is None) for b in told] == [("ann", False), ("ann", True)]
    assert told[0]["may"].startswith("submit until ")


def test_salts_stay_and_damaged_ones_are_said(tmp_path: Path) -> None:
    table, salts = tmp_path / "t.csv", tmp_path / "salts.json"
    table.write_text("x\n1\n")
    first = commitments.commit({"x": table}, salts)
    both = commitments.commit({"x": table, "y": table}, salts)
    assert both["x"] == first["x"] != both["y"] and commitments.opens(both["y"], table, salts, "y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["salts.json", "t.csv"] and salts.stat().st_mode & 0o77 == 0
    salts.write_text(salts.read_text()[:-9])
    with pytest.raises(DataError, match="are damaged"):
        commitments.commit({"x": table}, salts)


def test_a_service_that_is_not_there_is_awaited_so_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spuvm.commands.desk.STARTING", 0.5)
    with pytest.raises(LinkError, match=r"no service answers at .*: start it with `spuvm serve`"):
        Desk(folder / "alice" / "service.toml", "x" * 43).get("/api/jobs")
    assert capsys.readouterr().err.count("yet: waiting for it, 0.5 s at most") == 1


@pytest.mark.parametrize("token", ["", "a\nb", "\u00e4", "x" * 2000])
def test_what_is_no_token_is_not_sent(folder: Path, token: str) -> None:
    with pytest.raises(InputError, match="spuvm users add"):
        Desk(folder / "alice" / "service.toml", token)
