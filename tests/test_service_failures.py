"""What fails within a service, and does not end it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from services import entries, folder, inputs, program, run, services, until

from spuvm.commands.desk import Desk
from spuvm.runtime.errors import ConfigError, DataError, InputError
from spuvm.runtime.link.certificates import free_ports
from spuvm.runtime.link.parties import Address
from spuvm.service import again, crowd, port, serve, settings, wire
from spuvm.service.party import Party

__all__ = ["folder", "program"]


def failing_once(works: Callable[..., Any]) -> Callable[..., Any]:
    """As on a disk that was full for a while."""
    failed: list[bool] = []

    def call(*args: Any) -> Any:
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        return works(*args)

    return call


def test_what_cannot_be_sent_now_is_sent_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More messages than one look at the store finds, and a store that fails."""

    async def scenario() -> None:
        party = Party(settings.load(folder / "alice" / "service.toml"))
        sender = wire.Sender(party, port.ways_of(party.settings))
        for n in range(150):
            party.store.send(["bob"], "/jobs", {"n": n}, 60)
        got: list[int] = []

        async def post(peer: str, path: str, body: str) -> bool:
            got.append(json.loads(body)["n"])
            return True

        monkeypatch.setattr(sender, "_post", post)
        monkeypatch.setattr(party.store, "unsent", failing_once(party.store.unsent))
        await sender.start()
        await until(lambda: len(got) == 150, 60)
        assert got == list(range(150))
        await sender.close()
        await party.close()

    run(scenario())


def test_upkeep_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def first(party: Any) -> None:
        done.append("first")

    def other(party: Any) -> None:
        done.append("other")

    again_ = failing_once(first)
    again_.__name__ = "first"
    monkeypatch.setattr(serve, "UPKEEP", {again_: 0.0, other: 0.0})
    monkeypatch.setattr(serve, "TICK", 0.01)
    monkeypatch.setattr(serve, "AFTER_FAILURE", 0.05)

    async def scenario() -> None:
        ticker = asyncio.get_running_loop().create_task(serve._tick(cast(Any, None)))
        await until(lambda: "first" in done, 60)
        ticker.cancel()

    run(scenario())
    assert done[0] == "other"


def test_a_job_whose_end_could_not_be_written_down_does_not_run_forever(folder: Path, program: str) -> None:
    async def scenario() -> None:
        party = Party(settings.load(folder / "alice" / "service.toml"))
        id = party.submit("anna", program, inputs()).id
        party.store.began(id, again.data_of(party.settings, party.store.job(id).job))
        party.store.set(id, "running")
        party.expire()
        row = party.store.job(id)
        assert (row.state, row.attempt) == ("approved", 1)
        await party.close()

    run(scenario())


@pytest.mark.parametrize("note", ["two\nlines", "\x00", "x" * 501, "\u202eback"])
def test_a_note_that_peers_would_refuse_is_not_taken(folder: Path, program: str, note: str) -> None:
    alice = Party(settings.load(folder / "alice" / "service.toml"))
    with pytest.raises(InputError, match="note must be a line of at most 500 printable"):
        alice.submit("ann", program, inputs(), note)
    assert alice.store.jobs() == []


def test_a_job_that_this_version_cannot_read_hides_no_other(
    folder: Path, program: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an upgrade: lists go on, and whoever asks for that one is told why."""

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        old, new = (alice.submit("ann", program, inputs()).id for _ in range(2))
        older = "replace(spec, '\"format\": 1', '\"format\": 0')"
        alice.store.db.execute(f"update jobs set spec = {older} where id = ?", (old,))
        assert [row.id for row in alice.store.jobs()] == [row.id for row in alice.store.jobs(only_open=True)] == [new]
        alice.resume()
        alice.expire()
        with pytest.raises(InputError, match="its format is 0, this version knows 1"):
            alice.store.job(old)
        assert [old in message for message in caplog.messages].count(True) == 1

    asyncio.run(scenario())


def test_a_full_disk_leaves_no_half_a_line(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the record, nor a job that only the store knows of; what could not be done then is done later."""

    def full(handle: int, line: bytes) -> int:
        if len(line) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, line[:50])

    async def scenario() -> None:
        alice, bob = (Party(settings.load(folder / p / "service.toml")) for p in ("alice", "bob"))
        job = alice.submit("ann", program, inputs()).job
        with monkeypatch.context() as m:
            m.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                bob.receive("alice", job.as_dict())
            bob.turned_away("alice", "this is no error of its own")
        assert bob.store.jobs() == [] and bob.record.number == 0
        with monkeypatch.context() as m:
            m.setattr(bob.store, "send", failing_once(bob.store.send))
            with pytest.raises(sqlite3.OperationalError):
                bob.receive("alice", job.as_dict())
        bob.receive("alice", job.as_dict())  # as it is sent again
        assert bob.store.unsent("alice") == []
        bob.go_on()
        bob.go_on()
        assert [json.loads(body)["state"] for _, _, body in bob.store.unsent("alice")] == ["approved"]

    write = os.write
    run(scenario())
    assert [e.event for e in entries(folder, "bob")] == ["asked", "decided"]


def test_a_state_that_was_restored_is_noticed(folder: Path, program: str) -> None:
    """The store without the record; a kill between the two is nothing."""
    file, state = settings.load(folder / "alice" / "service.toml"), folder / "alice" / "state"
    Party(file).submit("ann", program, inputs())
    shutil.copytree(state, folder / "backup")
    alice = Party(file)
    alice.store.set_head("alice", alice.record.number - 1, "as it was")
    alice.store.db.close()
    alice = Party(file)
    alice.submit("ann", program, inputs())
    alice.store.db.close()
    for name in ("service.sqlite", "service.sqlite-wal", "service.sqlite-shm"):
        (state / name).unlink(missing_ok=True)
        if (folder / "backup" / name).exists():
            shutil.copy(folder / "backup" / name, state / name)
    with pytest.raises(DataError, match=r"knows 2 entries of the record, which has 4: it was restored"):
        Party(file)
    alice = Party(replace(file, state=folder / "backup"))  # both together: peers notice
    alice.store.db.execute("pragma user_version = 0")
    alice.store.set_head("alice", 0, "0" * 64)  # as version 0.1 left it
    assert Party(replace(file, state=folder / "backup")).store.follows_record


def test_a_job_that_one_peer_was_not_asked_for_holds_up_no_other(
    folder: Path, program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Alice asks carol and not bob: what else bob must hear from carol reaches him."""

    async def scenario() -> None:
        alice, carol = (Party(settings.load(folder / p / "service.toml")) for p in ("alice", "carol"))
        first, other = (alice.submit("ann", program, inputs()).job for _ in range(2))
        for job in (first, other):
            carol.receive("alice", job.as_dict())
        sender, got, away = wire.Sender(carol, port.ways_of(carol.settings)), list[str](), [True]

        def post(path: str, content: str) -> tuple[int, bytes]:
            if away:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            if first.id in path:
                return 422, json.dumps({"error": f"there is no job {first.id}"}).encode()
            got.append(path)
            return 200, b"{}"

        monkeypatch.setattr(sender._calls["bob"], "post", post)
        for _ in range(2):
            assert await sender._send("bob") == (0, True, False)
        assert carol.away == {"bob": "Connection refused"}
        assert caplog.text.count("bob cannot be reached, and what it must hear waits: Connection refused") == 1
        away.clear()
        assert await sender._send("bob") == (1, False, True)
        assert got == [f"/jobs/{other.id}/news"] and carol.away == {}
        carol.store.db.execute("update jobs set received = 0")
        assert await sender._send("bob") == (1, False, False) and carol.store.unsent("bob") == []
        assert [alice.heard_early("bob", id) for id in ("x", "x", "y", first.id)] == [False, True, False, False]
        await sender.close()

    run(scenario())


def test_the_page_says_that_its_disk_is_full_and_shows_out_who_asks_nothing(
    folder: Path, program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def said(at: Address, text: str) -> str:
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(text.encode())
        try:
            answer = await asyncio.wait_for(reader.readline(), 60)
        except ConnectionResetError:
            answer = b""
        writer.close()
        return answer.decode().strip()

    async def scenario() -> None:
        async with services(folder, "alice") as parties:
            alice = parties["alice"]
            at, token = alice.settings.page, alice.store.add_user("ann", ["submit"], 1)
            known = f"Host: here\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
            login = "POST /login HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: "
            with monkeypatch.context() as m:
                m.setattr(crowd, "SILENT", 3.0)
                assert list(await asyncio.gather(said(at, ""), said(at, "GET / HT"))) == ["", ""]
            with monkeypatch.context() as m:
                m.setattr(crowd, "SLOW", 0.5)
                assert await said(at, f"{login}99\r\n\r\n") == "HTTP/1.1 408 Request Timeout"
            assert await said(at, f"{login}999999\r\n\r\n") == "HTTP/1.1 413 Request Entity Too Large"
            assert await said(at, "no request\r\n\r\n") == "HTTP/1.0 400 Bad Request" and "Traceback" not in caplog.text
            desk = Desk(folder / "alice" / "service.toml", token)
            body = {"program": program, "inputs": {k: s.as_dict() for k, s in inputs().items()}}
            with monkeypatch.context() as m:
                m.setattr(alice.record, "append", full)
                with pytest.raises(InputError, match=r"state folder now \(No space left on device\): nothing was done"):
                    await asyncio.to_thread(desk.post, "/api/jobs", body)
            assert alice.store.jobs() == []
            assert (await said(at, f"GET /health HTTP/1.1\r\n{known}\r\n")).endswith("200 OK")

    run(scenario())


def test_a_state_folder_that_is_another_service_s_or_none(folder: Path) -> None:
    async def scenario() -> None:
        async with services(folder, "alice"):
            path = folder / "alice" / "service.toml"
            other = folder / "alice" / "other.toml"
            ports = iter(free_ports(2))
            text = re.sub(r"(?m)^(listen|page) = .*", lambda m: f'{m[1]} = "127.0.0.1:{next(ports)}"', path.read_text())
            other.write_text(text)
            with pytest.raises(ConfigError, match="another service runs on"):
                async with serve.running(settings.load(other)):
                    pass
        state = folder / "alice" / "state"
        shutil.rmtree(state)
        state.mkdir()
        (state / "service.sqlite").write_bytes(b"x" * 5000)
        with pytest.raises(ConfigError, match=r"service\.sqlite cannot be used: file is not a database"):
            async with serve.running(settings.load(path)):
                pass
        shutil.rmtree(state)
        state.write_text("")
        with pytest.raises(ConfigError, match="cannot be written: File exists"):
            async with serve.running(settings.load(path)):
                pass

    run(scenario())
