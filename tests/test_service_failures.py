"""What fails within a service, and does not end it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from services import folder, inputs, program, run, services, until

from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.certificates import free_ports
from spuvm.service import again, port, serve, settings, wire
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
