"""Learning from joined tables that nobody sees: what rows that are not there, or miss cells, do not change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow
import pytest
from sklearn.linear_model import LinearRegression

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import InputError

RNG = np.random.default_rng(4)
IDS = RNG.permutation(60)
A = {"id": IDS[:40], "x": RNG.normal(size=40).round(3) * 3, "y": RNG.normal(size=40).round(3)}
B = {"id": RNG.permutation(60)[:50], "z": RNG.normal(size=50).round(3) * 100 + 500, "w": RNG.integers(1, 4, 50)}


@pytest.fixture(autouse=True, scope="module")
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def tables() -> dict[str, Any]:
    b = pyarrow.table({**B, "z": pyarrow.array(B["z"], mask=np.arange(50) % 9 == 0)})
    return {"alice": {**A, "ill": (A["x"] + A["y"] > 0.2).astype(int)}, "bob": b}


def matched() -> dict[str, np.ndarray]:
    """The rows that both have, with all cells."""
    at = {int(k): i for i, k in enumerate(B["id"]) if i % 9}
    mine = [i for i, k in enumerate(A["id"]) if int(k) in at]
    theirs = [at[int(A["id"][i])] for i in mine]
    ill = (A["x"] + A["y"] > 0.2).astype(int)
    return {"x": A["x"][mine], "y": A["y"][mine], "ill": ill[mine], "z": B["z"][theirs], "w": B["w"][theirs]}


@pytest.mark.parametrize("how", ["inner", "left"])
def test_models_are_those_of_the_rows_that_are_there(how: str) -> None:
    """Trained and used; rows that are not there have predictions, too, which mean nothing."""
    table = spu.psi.join(tables(), key="id", how=how, drop="id", mode="oblivious")
    m = matched()
    want = LinearRegression().fit(np.stack([m["x"], m["ill"], m["z"]], axis=1), m["y"], sample_weight=m["w"])
    got = ml.LinearRegression().fit(table, "y", sample_weight="w")
    there = spu.reveal(table.valid) & spu.reveal(table.present["z"])
    rows = np.stack([spu.reveal(table[n]) for n in ("x", "ill", "z")], axis=1)[there]
    assert len(rows) == len(m["x"]) < table.rows
    assert np.abs(spu.reveal(got.predict(table))[there] - want.predict(rows)).max() < 5e-3


def test_descriptions() -> None:
    table = spu.psi.join(tables(), key="id", how="left", drop="id", columns={"alice": ["x"], "bob": ["z"]})
    found = ml.describe(table)
    m = matched()
    assert found["x"]["count"] == 40 and found["z"]["count"] == len(m["z"])
    for name, cells in (("x", A["x"]), ("z", m["z"])):
        want = [cells.mean(), cells.std(ddof=1), *np.quantile(cells, [0.25, 0.5, 0.75])]
        assert np.allclose([found[name][k] for k in ("mean", "std", "25%", "50%", "75%")], want, rtol=2e-3, atol=2e-2)


def test_what_takes_no_joined_table_says_so() -> None:
    text = {"id": [1, 2, 3], "s": ["a", "b", "c"], "t": [dt.datetime(2024, 1, 1)] * 3}
    table = spu.psi.join({"alice": text, "bob": {"id": [1, 2, 3], "y": [0.0, 1.0, 2.0]}}, key="id")
    with pytest.raises(InputError, match="`s` of the joined table is text"):
        ml.LinearRegression().fit(table, "y")
    with pytest.raises(InputError, match="`s` of the joined table is text"):
        ml.LinearRegression().fit(table, "s")
    with pytest.raises(InputError, match="`t` of the joined table has integers of 64 bits, as times have"):
        ml.LinearRegression().fit(table, "y", sample_weight="t")
    with pytest.raises(InputError, match=r"no column `yy` \(did you mean `y`"):
        ml.LinearRegression().fit(table, "yy")
    with pytest.raises(InputError, match="may not be there"):
        ml.KMeans(n_clusters=2).fit(table)
    with pytest.raises(InputError, match="trees bin columns where they are known"):
        ml.Sgb(n_estimators=1).fit(table, "y")
