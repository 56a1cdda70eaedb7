"""What the tests of streams share: files of two parties, folds of them, and a run that stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm.streaming.job import Runner

ROWS = 1000
BLOCK = 300  # so that the last block is a short one


@pytest.fixture
def data(tmp_path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {
        "x": rng.uniform(-4, 4, ROWS).astype(np.float32),
        "y": rng.uniform(-4, 4, ROWS).astype(np.float32),
        "n": rng.integers(-50, 50, ROWS),
    }
    pq.write_table(pa.table({"x": columns["x"], "n": columns["n"]}), tmp_path / "a.parquet", row_group_size=130)
    pq.write_table(pa.table({"y": columns["y"]}), tmp_path / "b.parquet")
    return columns


@pytest.fixture
def rows(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> spu.Stream:
    monkeypatch.chdir(tmp_path)
    return stream()


def stream(rows_per_block: int = BLOCK, **changed: Any) -> spu.Stream:
    sources = {"x": "a.parquet:x@alice", "n": "alice:a.parquet:n", "y": "b.parquet:y@bob"} | changed
    return spu.stream({k: v for k, v in sources.items() if v}, rows_per_block=rows_per_block)


def moments(t: Any, x: Any, y: Any) -> Any:
    return {"rows": t["rows"] + x.shape[0], "xy": t["xy"] + jnp.dot(x, y), "top": jnp.maximum(t["top"], jnp.max(y))}


def together(a: Any, b: Any) -> Any:
    return {"rows": a["rows"] + b["rows"], "xy": a["xy"] + b["xy"], "top": jnp.maximum(a["top"], b["top"])}


START = {"rows": 0, "xy": 0.0, "top": -100.0}


class Stop(Exception):
    pass


def run_until(monkeypatch: pytest.MonkeyPatch, block: int, error: Exception) -> list[int]:
    """Let `error` happen instead of a block; the list gets the blocks that were computed."""
    seen: list[int] = []
    plain = Runner._compute

    def compute(self: Runner, ready: Any, state: Any) -> Any:
        if ready.block == block:
            raise error
        seen.append(ready.block)
        return plain(self, ready, state)

    monkeypatch.setattr(Runner, "_compute", compute)
    return seen


def finished(folder: str) -> list[int]:
    lines = [line for p in Path(folder).glob("blocks-*.jsonl") for line in p.read_text().splitlines()]
    return [json.loads(line)["block"] for line in lines]
