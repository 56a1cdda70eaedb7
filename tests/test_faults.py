"""A short sample of `benchmarks/faults.py`: connections cut and bytes changed, at moments that vary."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("preloaded")

FILE = Path(__file__).parent.parent / "benchmarks" / "faults.py"


@pytest.fixture(scope="module")
def faults() -> Any:
    spec = importlib.util.spec_from_file_location("faults", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["faults"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("job", "fault"), [("program", "cut"), ("script", "corrupt")])
def test_a_run_ends_right_or_with_named_errors(faults: Any, tmp_path: Path, job: str, fault: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "inputs").mkdir()
    faults.prepare(tmp_path / "inputs", [job])
    run = faults.Run(tmp_path / "run", job, fault, "bob", after=0.3)
    assert run.go(tmp_path / "inputs") in ("right", "error")
