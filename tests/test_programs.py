"""The programs of examples/programs: each gives what it gives in the clear, within the limits that it states."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts import run_script

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "programs"
PROGRAMS = sorted(p.stem for p in FOLDER.glob("*.py") if "PROGRAM =" in p.read_text())


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the folder, which is no package: its files are scripts."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in (*PROGRAMS, "common", "digits", "all"):
        sys.modules.pop(name, None)


def test_all_runs_all(programs: Any) -> None:
    assert sorted(programs("all").PROGRAMS) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_simulated(name: str, programs: Any) -> None:
    measures = programs("common").simulate(programs(name).PROGRAM, "aby3")
    assert measures
    assert [m for m in measures if not m.holds] == []


@pytest.mark.parametrize("name", ["kmeans", "survival", "tree"])
def test_two_parties_and_a_dealer(name: str, programs: Any) -> None:
    measures = programs("common").simulate(programs(name).PROGRAM, "semi2k")
    assert [m for m in measures if not m.holds] == []


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
def test_over_tls(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = run_script(FOLDER / "tree.py", "--network", "--protocol", protocol)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert re.search(r"accuracy +0\.91\d+ +0\.91\d+", said.out)


def test_a_measure_that_does_not_hold_fails(programs: Any) -> None:
    assert not programs("common").Measure("accuracy", 0.5, 0.9, 0.1).holds
