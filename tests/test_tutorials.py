"""Tutorials of queries and of joining: the scripts that their pages show run, and find what is so."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

import spuvm as spu
from spuvm.runtime.errors import PolicyError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def script(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), EXAMPLES / f"{path}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_five_questions_to_two_banks() -> None:
    """The answers are those of one database with all tables, without groups of a single firm of alice's."""
    banks = script("sql/banks")
    clear = duckdb.connect()
    for name, table in (("loans", banks.ALICE), ("accounts", banks.BOB), ("registry", banks.CAROL)):
        clear.register(name, pd.DataFrame(table))
    db = banks.connect()
    try:
        for question in banks.QUESTIONS:
            kept = question.replace(" order by", " having count(distinct firm) > 1 order by")
            want = clear.sql(kept if "from loans" in question and "group by" in question else question).fetchall()
            got = db.sql(question, to="carol").rows()
            assert [r[0] for r in got] == [r[0] for r in want]
            for mine, theirs in zip(got, want):
                assert [float(v) for v in mine[1:]] == pytest.approx([float(v) for v in theirs[1:]], abs=1e-3)
        with pytest.raises(PolicyError, match=r"alice: `loans\.days_late` is after_aggregate for carol"):
            db.sql(banks.FORBIDDEN, to="carol")
    finally:
        spu.shutdown()


def test_patients_whom_three_hospitals_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = script("joining/hospitals")
    monkeypatch.setattr(sys, "argv", ["hospitals.py", "--data", str(tmp_path), "--rounds", "1"])
    assert hospitals.main() == 0
    said = capsys.readouterr().out
    known = {p: set(pd.read_parquet(tmp_path / f"{p}.parquet")["patient"]) for p in hospitals.PARTIES}
    assert f"alice and bob have {len(known['alice'] & known['bob'])} patients in common" in said
    assert f"<vertical frame: {len(set.intersection(*known.values()))} rows, 31 columns" in said
    (score,) = re.findall(r"AUC of \d+ patients held out: (\S+)", said)
    assert float(score) > 0.8
