"""Large files of a service: read through beside its loop, while jobs run and others are answered."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from services import entries, folder, inputs, program, run

from spuvm.data import files
from spuvm.policy import commitments
from spuvm.runtime.errors import InputError
from spuvm.service import accounts, again, beside, runner, settings
from spuvm.service.party import Party
from spuvm.service.runner import Ended

__all__ = ["folder", "program"]
LONG = 120.0


def started(folder: Path, program: str) -> tuple[Party, Any]:
    """A party whose job has begun."""
    alice = Party(settings.load(folder / "alice" / "service.toml"))
    row = alice.submit("ann", program, inputs())
    alice.store.began(row.id, again.data_of(alice.settings, row.job))
    alice.store.set(row.id, "running")
    (alice.settings.state / "jobs" / row.id).mkdir(parents=True)
    return alice, row


def test_files_are_hashed_while_a_job_runs(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    hashed = accounts.inputs

    async def ran(*_: Any) -> Ended:
        over.set()
        return Ended("done", "")

    def late(*given: Any) -> dict[str, str]:
        assert over.wait(LONG), "the job waits for its files to be hashed"
        return hashed(*given)

    async def scenario() -> None:
        alice, row = started(folder, program)
        monkeypatch.setattr(runner, "run", ran)
        monkeypatch.setattr(accounts, "inputs", late)
        await alice._run(row, [])
        assert alice.store.job(row.id).state == "done"

    run(scenario())
    assert [e.event for e in entries(folder, "alice")][-2:] == ["inputs", "ended"]


def test_a_job_whose_files_change_or_take_too_long(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def changing(*_: Any) -> Ended:
        (folder / "alice" / "table.csv").write_text("x,y\n1,2\n")
        return Ended("done", "")

    async def quick(*_: Any) -> Ended:
        return Ended("done", "")

    async def scenario() -> None:
        for how, limit, says in ((changing, 60.0, "its data changed while it ran"), (quick, 0.01, "committed to")):
            alice, row = started(folder, program)
            object.__setattr__(alice.settings.limits, "job_seconds", limit)
            monkeypatch.setattr(runner, "run", how)
            if how is quick:
                monkeypatch.setattr(accounts, "inputs", lambda *_: threading.Event().wait(5))
            await alice._run(row, [])
            assert alice.store.job(row.id).state == "failed" and says in alice.store.job(row.id).reason

    run(scenario())


def test_what_nobody_waits_for_is_not_hashed_to_its_end(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(bytes(3 * commitments.PIECE))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(InterruptedError):
        commitments.commit({"x": table}, tmp_path / "salts.json", stop)


def test_rows_are_counted_once_and_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, going, opened = tmp_path / "t.csv", threading.Event(), []
    table.write_text("x\n1\n2\n")
    real = files.open_table

    def slow(path: Path) -> Any:
        opened.append(path)
        assert going.wait(LONG), "the loop stands still while rows are counted"
        return real(path)

    async def scenario() -> None:
        monkeypatch.setattr(files, "open_table", slow)
        rows = beside.Rows()
        counts = [asyncio.create_task(rows.count([table])) for _ in range(3)]
        await asyncio.sleep(0.05)
        going.set()
        await asyncio.gather(*counts)
        assert rows.of(table) == 2 and len(opened) == 1 and rows.knows(table)
        table.write_text("x\n1\n2\n3\n")
        assert not rows.knows(table) and rows.of(table) == 3
        table.unlink()
        for _ in range(2):
            with pytest.raises(InputError, match="no such file"):
                rows.of(table)
        assert len(opened) == 4 and not rows.knows(table)

    run(scenario())
