"""A budget's ledger on disk: concurrent processes that are killed, what is interrupted, and `spuvm budget show`."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

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
    mark.write_text(kept)
    with pytest.raises(DataError, match="cut or restored"):
        Budget.open(tmp_path / "b")


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
