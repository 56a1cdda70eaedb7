"""The tutorials of private and federated learning run, and say what they promise."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "federated"


def output(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    return capsys.readouterr().out


def test_a_dashboard_ends_with_its_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "state"))
    shown = output("dashboard.py", capsys, "--ledgers", str(tmp_path))
    months = re.findall(r"month (\d): ages \[(-?\d+), (-?\d+), (-?\d+), (-?\d+)\], mean stay (\S+) days", shown)
    assert [m[0] for m in months] == ["1", "2", "3", "4"]
    assert all(250 < sum(map(int, m[1:5])) < 400 and -5 < float(m[5]) < 25 for m in months)
    assert "month 5: refused" in shown and "epsilon 2 of 2 spent" in shown
    again = output("dashboard.py", capsys, "--ledgers", str(tmp_path))
    assert again.startswith("month 1: refused")


def test_a_keyboard_of_twenty_sites_learns(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output("keyboard.py", capsys, "--rounds", "2", "--letters", "400")
    right = [float(x) for x in re.findall(r"(\S+)% of letters right", shown)]
    assert len(right) == 3 and right[2] > 3 * right[0] > 0
    assert "18 sites" in shown
