"""A budget's ledger on disk: concurrent processes that are killed, what is interrupted, and `spuvm budget show`."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import math
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import three_owners
from click.testing import CliRunner

from spuvm.commands.group import cli
from spuvm.dp import Budget, Spent
from spuvm.runtime.errors import DataError, InputError

FILE = Path(__file__).parent.parent / "benchmarks" / "ledger.py"
state = three_owners.state  # a fixture


def one(epsilon: float) -> list[Spent]:
    return [Spent("laplace", 1 / epsilon)]


def test_processes_that_are_killed_never_overspend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("ledger", FILE)
    assert spec is not None and spec.loader is not None
    ledger = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ledger", ledger)
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec.loader.exec_module(ledger)
    found = ledger.torture(tmp_path, uses=60, kills=12)
    assert found["killed"] == 12
    assert found["lost"] == 0
    assert 30 < found["granted"] <= found["uses"]
    assert 0.9 < found["spent"] <= 1.0


def test_a_use_that_was_killed_before_it_was_committed_is_spent(tmp_path: Path) -> None:
    """The mark is written, the ledger is not: what opens it next writes the entry, once."""
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(0.1), "first")
    shutil.copy(tmp_path / "b", tmp_path / "before")
    budget.spend(one(0.5), "second")
    shutil.copy(tmp_path / "before", tmp_path / "b")
    (mark,) = (tmp_path / "state").rglob("*.json")
    entry, done = json.loads(mark.read_text())
    assert done
    with pytest.raises(DataError, match="cut or restored"):
        Budget.open(tmp_path / "b")
    mark.write_text(json.dumps([entry, False]))
    again = Budget.open(tmp_path / "b")
    assert [use.label for use in again.uses] == ["first", "second"]
    assert again.left == pytest.approx(0.4)
    forged = [*entry[:3], entry[3].replace("2.0", "9.0"), entry[4]]
    shutil.copy(tmp_path / "before", tmp_path / "b")
    mark.write_text(json.dumps([forged, False]))
    with pytest.raises(DataError, match="cut or restored"):
        Budget.open(tmp_path / "b")


def test_a_ledger_that_was_rewritten_and_grew_is_refused(tmp_path: Path) -> None:
    """Longer than what is kept apart, but not a continuation of it."""
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(0.9))
    (mark,) = (tmp_path / "state").rglob("*.json")
    kept = mark.read_text()
    mark.unlink()
    (tmp_path / "b").unlink()
    other = Budget(1.0, path=tmp_path / "b")
    for _ in range(2):
        other.spend(one(0.1))
    (mark,) = (tmp_path / "state").rglob("*.json")
    mark.write_text(kept)
    with pytest.raises(DataError, match="cut or restored"):
        Budget.open(tmp_path / "b")


def test_copies_have_one_budget_together(tmp_path: Path) -> None:
    """Also by another name: a link, a copy elsewhere, a ledger that was moved, one in another's place."""
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(0.3))
    shutil.copy(tmp_path / "b", tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    Budget.open(tmp_path / "link").spend(one(0.3))
    with pytest.raises(DataError, match="copy of one that was used since"):
        Budget.open(tmp_path / "copy")
    (tmp_path / "b").rename(tmp_path / "moved")
    assert Budget.open(tmp_path / "moved").left == pytest.approx(0.4)
    with pytest.raises(DataError, match="taken away"):
        Budget(1.0, path=tmp_path / "b")
    Budget(1.0, path=tmp_path / "fresh")
    shutil.copy(tmp_path / "fresh", tmp_path / "moved")
    with pytest.raises(DataError, match="another ledger lies"):
        Budget.open(tmp_path / "moved")


def test_a_ledger_of_before_there_were_identities_goes_on(tmp_path: Path) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    with sqlite3.connect(tmp_path / "b") as db:
        db.execute("drop table identity")
    db.close()
    for file in (tmp_path / "state").rglob("*.place"):
        file.unlink()
    budget = Budget.open(tmp_path / "b")
    shutil.copy(tmp_path / "b", tmp_path / "copy")
    budget.spend(one(0.3))
    assert Budget.open(tmp_path / "b").left == pytest.approx(0.7)
    with pytest.raises(DataError, match="copy of one that was used since"):
        Budget.open(tmp_path / "copy")
    (tmp_path / "b").rename(tmp_path / "moved")
    assert Budget.open(tmp_path / "moved").left == pytest.approx(0.7)


def test_a_process_that_does_not_let_go_is_not_awaited_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(0.1))
    monkeypatch.setenv("SPUVM_LOCK_SECONDS", "0")
    (lock,) = (tmp_path / "state").rglob("*.lock")
    with lock.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(
            DataError, match=r"nothing is spent .* held by another process for 0 s: .* SPUVM_LOCK_SECONDS"
        ):
            budget.spend(one(0.1))
    budget.spend(one(0.1))
    assert len(budget.uses) == 2


NOTHING: list[tuple[Any, ...]] = [
    ("laplace", -1.0), ("laplace", math.nan), ("laplace", math.inf), ("laplace", 0.0), ("laplace", True),
    ("laplace", 2.0, -5), ("laplace", 2.0, 0), ("laplace", 2.0, 0.5), ("gaussian", -5.0), ("gaussian", 5.0, 1, 0.0),
    ("gaussian", 5.0, 1, math.nan), ("delta", -1e-6), ("delta", 2.0), ("exponential", 1.0),
]  # fmt: skip


@pytest.mark.parametrize("spent", NOTHING, ids=str)
def test_what_would_give_privacy_back_is_no_use(spent: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        Spent(*spent)


def test_many_uses_that_are_next_to_nothing_add_up(tmp_path: Path) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(1.0))
    with pytest.raises(InputError, match="would spend"):
        budget.spend([Spent("laplace", 1e17)] * 1_000_000)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    whole, two, four = (cast(Any, x) for x in (np.float32(1.0), np.float32(2.0), np.int64(4)))
    budget = Budget(whole, path=tmp_path / "b")
    budget.spend([Spent("laplace", two), Spent("laplace", four)])
    assert Budget.open(tmp_path / "b").spent == 0.75


def test_labels_that_no_database_takes_harm_no_ledger(tmp_path: Path) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    with pytest.raises(InputError, match="label"):
        budget.spend(one(0.1), None)  # type: ignore[arg-type]
    budget.spend(one(0.1), "lone \ud800")
    assert [use.label for use in Budget.open(tmp_path / "b").uses] == ["lone \\ud800"]


def test_nothing_is_spent_where_it_cannot_be_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="kept apart"):
        budget.spend(one(0.1))


def test_the_command_shows_uses(tmp_path: Path) -> None:
    budget = Budget(2.0, 1e-6, unit="patient_id", contributions=2, path=tmp_path / "b")
    budget.spend([Spent("laplace", 8.0, 2), Spent("gaussian", 40.0)], "a report")
    shown = CliRunner().invoke(cli, ["budget", "show", str(tmp_path / "b")])
    assert shown.exit_code == 0
    assert "all rows of one patient_id, at most 2" in shown.output
    assert "laplace 8 x2, gaussian 40" in shown.output and "a report" in shown.output
    found = json.loads(CliRunner().invoke(cli, ["budget", "show", str(tmp_path / "b"), "--json"]).output)
    assert found["spent"] == pytest.approx(budget.spent)
    assert found["uses"][0]["label"] == "a report"


def test_no_ledger_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no ledger"):
        Budget.open(tmp_path / "none")
    (tmp_path / "text").write_text("hello, this is no database at all")
    with pytest.raises(DataError, match="no ledger"):
        Budget.open(tmp_path / "text")
    shown = CliRunner().invoke(cli, ["budget", "show", str(tmp_path / "none")])
    assert isinstance(shown.exception, InputError)
