"""The benchmarks of streams, at sizes that take seconds."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "billion"
ROWS = 30_000


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    """The benchmarks' own modules, which import each other by their bare names."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in ("generate", "tasks", "run")}
    sys.path.remove(str(FOLDER))
    for name in {"generate", "tasks", "run"} - before:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_inputs_are_a_function_of_seed_and_block(modules: Any, tmp_path: Path) -> None:
    generate = modules["generate"]
    first, second = (generate.generate("columns", ROWS, tmp_path / n) for n in ("a", "b"))
    longer = generate.generate("columns", ROWS + 10, tmp_path / "a", seed=2)
    x, y = (pq.read_table(f / "alice.parquet")["x"].to_numpy() for f in (first, second))
    assert np.array_equal(x, y)
    assert not np.array_equal(pq.read_table(longer / "alice.parquet")["x"].to_numpy()[:ROWS], x)
    assert abs(json.loads((first / "truth.json").read_text())["sums"][0] - x.astype(float).sum()) < 1e-6


@pytest.mark.parametrize("name", ["moments", "comparison", "stations"])
def test_tasks_find_the_truth(name: str, modules: Any, data: Path) -> None:
    task = modules["tasks"].TASKS[name]
    folder = modules["generate"].generate(task.kind, ROWS, data)
    truth = json.loads((folder / "truth.json").read_text())
    value = task.run(modules["tasks"].STREAMS[task.kind](folder, 8192))
    assert task.check(value, truth, ROWS) <= task.limit
    wrong = {n: (np.asarray(v) + 100).tolist() for n, v in truth.items()}
    assert task.check(value, wrong, ROWS) > task.limit


def test_a_table_and_a_plot(modules: Any, tmp_path: Path) -> None:
    run = modules["run"]
    fields = {"setup_seconds": 1.0, "bytes_per_row": 24.0, "rounds_per_block": 3, "load": 0.1, "right": True}
    records = [
        {
            "task": "moments",
            "rows": n,
            "seconds": 1e-7 * n,
            "cpu_seconds": 2e-7 * n,
            "peak_bytes": 1 << 30,
            "error": 0.0,
        }
        | fields
        for n in (10**6, 10**7, 10**8, 10**9)
    ]
    body = {"records": records, "cores": 2, "machine": "m", "bandwidth": 1e10}
    assert "| 1,000,000,000 | 100.00 | 200.00 | 10.00 | 1.0 | 24.0 | 3 | 1,024 | 0.0e+00 | 0.1 |" in run.markdown(body)
    assert run.misses(records) == []
    assert run.misses([*records[:3], records[3] | {"seconds": 200.0}]) == ["moments: time grows as rows^1.090"]
    assert len(run.misses([records[3] | {"peak_bytes": 4 << 30, "right": False}])) == 2
    run.write_record(tmp_path / "new" / "record", body)
    assert json.loads((tmp_path / "new" / "record" / "results.json").read_text()) == body
    run.plot(body, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[1:4] == b"PNG"
