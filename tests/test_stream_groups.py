"""Sums, counts and extremes of groups of a stream's rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streams
from streams import BLOCK, Stop, run_until

import spuvm as spu
from spuvm.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("preloaded")

data, rows = streams.data, streams.rows  # fixtures

AGGREGATES: dict[str, Any] = {"total": ("t", "sum"), "rows": "count", "low": ("t", "min"), "high": ("t", "max")}


def check_groups(out: dict[str, Any], key: np.ndarray, t: np.ndarray, keys: int) -> None:
    assert {n: x.visibility for n, x in out.items()} == dict.fromkeys(AGGREGATES, "secret")
    shown = spu.reveal(out)
    for k in range(keys):
        mine = t[key == k]
        assert shown["rows"][k] == len(mine)
        assert abs(shown["total"][k] - mine.astype(float).sum()) < 1e-2
        assert abs(shown["low"][k] - (mine.min() if len(mine) else 2.0**40)) < 1e-5
        assert abs(shown["high"][k] - (mine.max() if len(mine) else -(2.0**40))) < 1e-5


def test_groups_of_parties_that_hold_different_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    parts, keys, values = [], [], []
    for party, rows in (("alice", 500), ("bob", 320), ("carol", 101)):
        keys.append(rng.integers(0, 19, rows))
        values.append(rng.normal(10, 12, rows).astype(np.float32))
        pq.write_table(pa.table({"station": keys[-1], "t": values[-1]}), f"{party}.parquet")
        parts.append({n: f"{party}.parquet:{n}@{party}" for n in ("station", "t")})
    key, t = np.concatenate(keys), np.concatenate(values)
    stations = spu.stream(parts, rows_per_block=200)
    check_groups(stations.group_by("station", 20).agg(**AGGREGATES), key, t, 20)
    warm = t > 5
    check_groups(stations.filter(lambda t: t > 5).group_by("station", 20).agg(**AGGREGATES), key[warm], t[warm], 20)
    workers = spu.stream(parts, rows_per_block=200, workers=2)
    check_groups(workers.group_by("station", 20).agg(**AGGREGATES), key, t, 20)
    with pytest.raises(InputError, match="the key `station` has numbers beyond 0 to 9"):
        stations.group_by("station", 10).agg(rows="count")


def test_groups_go_on_with_the_same_steps_only(rows: spu.Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an owner does alone is no part of the program that all parties run, but of what the run is."""
    alone = spu.stream({"x": "a.parquet:x@alice", "n": "a.parquet:n@alice"}, rows_per_block=BLOCK)
    groups = [alone.filter(f).map(lambda n: {"k": n % 4}) for f in (lambda x: x < 1, lambda x: x < 2)]
    with monkeypatch.context() as patch:
        run_until(patch, 2, Stop())
        with pytest.raises(Stop):
            groups[0].group_by("k", 4).agg(rows="count", folder="run")
    with pytest.raises(InputError, match=r"the programs .* differ"):
        groups[1].group_by("k", 4).agg(rows="count", folder="run")
    out = groups[0].group_by("k", 4).agg(rows="count", folder="run")["rows"]
    assert out.visibility == "private(alice)"


def test_groups_of_secrets(rows: spu.Stream, data: Any, tmp_path: Path) -> None:
    """The key is one party's, the values are a product of two parties': nothing can be done by anyone alone."""
    secret = rows.filter(lambda x, y: x < y).map(lambda n, x, y: {"k": n % 5, "t": x * y})
    keep = data["x"] < data["y"]
    key, t = (data["n"] % 5)[keep], (data["x"] * data["y"])[keep]
    out = spu.reveal(secret.group_by("k", 5).agg(**AGGREGATES))
    for k in range(5):
        mine = t[key == k].astype(float)
        assert out["rows"][k] == len(mine)
        assert abs(out["total"][k] - mine.sum()) < 0.01
        assert abs(out["low"][k] - mine.min()) < 1e-4
        assert abs(out["high"][k] - mine.max()) < 1e-4


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda s: s.group_by("z", 3).agg(c="count"), r"there is no column `z`, the columns are"),
        (lambda s: s.group_by("x", 3).agg(c="count"), r"the key `x` must hold integers, got float32"),
        (lambda s: s.group_by("n", 0), r"the public number of keys"),
        (lambda s: s.group_by("n", 3).agg(), r"wants nothing"),
        (lambda s: s.group_by("n", 3).agg(c=("x", "mode")), r"must be 'count' or a column with"),
    ],
)
def test_groups_that_make_no_sense(rows: spu.Stream, use: Callable[[spu.Stream], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        use(rows)
