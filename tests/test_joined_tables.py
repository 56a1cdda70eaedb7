"""Learning from joined tables that nobody sees: what rows that are not there, or miss cells, do not change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boosting_reference as reference
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.linear_model import LinearRegression
from test_sgb import edges_of as reference_edges

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import ConfigError, DataError, InputError

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
    with pytest.raises(InputError, match="`s` of the joined table is text"):
        ml.Sgb(n_estimators=1).fit(table, "y")
    with pytest.raises(InputError, match="this takes no joined table"):
        ml.RandomForestClassifier(n_estimators=1).fit(table, "y")


# Boosting ---------------------------------------------------------------------------------------------------


def cells_of(table: Any, columns: Any) -> np.ndarray:
    """The features as the machine has them, NaN where missing: float [rows, n]."""
    found = []
    for c in columns:
        cells = np.asarray(spu.reveal(table[c.name]), np.float64)
        found.append(np.where(spu.reveal(table.present[c.name]), cells, np.nan) if c.missing else cells)
    return np.stack(found, axis=1)


def same_where_seen(ours: Any, theirs: Any, x: np.ndarray, tolerance: float) -> None:
    """That trees are equal; which way missing cells go counts where a node has some."""
    assert (ours.weight is None) == (theirs.weight is None)
    if ours.weight is not None:
        assert abs(ours.weight - theirs.weight) < tolerance
        return
    cells = x[:, theirs.feature].astype(np.float32)
    gone = np.isnan(cells)
    assert (ours.feature, np.float32(ours.edge)) == (theirs.feature, np.float32(theirs.edge))
    assert ours.default_left == theirs.default_left or not gone.any()
    left = np.where(gone, theirs.default_left, cells < theirs.edge)
    same_where_seen(ours.left, theirs.left, x[left], tolerance)
    same_where_seen(ours.right, theirs.right, x[~left], tolerance)


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_trees_are_those_of_the_rows_that_are_there(objective: str, tmp_path: Path) -> None:
    """Node by node; rows without a label, or that are not there, make no edge and no sum; cells that are missing go
    where each split learned."""
    logistic = objective == "binary:logistic"
    a, b = tables()["alice"], tables()["bob"]
    label, depth = ("ill", 1) if logistic else ("y", 2)  # small nodes can be cut alike by two columns
    a[label] = pyarrow.array(np.asarray(a[label]) * (1 if logistic else 30), mask=np.arange(40) % 11 == 0)
    table = spu.psi.join({"alice": a, "bob": b}, key="id", how="left" if logistic else "inner", drop="id")
    model = ml.Sgb(objective=objective, n_estimators=2, max_depth=depth, max_bin=5, gamma=0.01)
    model.fit(table, label)
    assert [r.what for r in model.reveals] == ["whether labels can be used"]
    predicted = spu.reveal(model.predict_margin(table)).reshape(-1)
    plain = model.reveal()
    there = np.asarray(spu.reveal(table.valid) & spu.reveal(table.present[label]))
    x = cells_of(table, plain.columns)
    y = np.asarray(spu.reveal(table[label]), np.float64)[there]
    assert 10 < there.sum() < table.rows
    edges = reference_edges(x[there], plain.columns, 5)
    margin = np.full(len(y), np.log(y.mean() / (1 - y.mean())) if logistic else y.mean())
    unit = 1.0 if logistic else np.abs(y - y.mean()).max()
    for (ours,) in plain.trees:
        gradients = (reference.logistic if logistic else reference.squared)(margin, y)
        theirs = reference.grow(x[there], plain.columns, *gradients, model.parameters, edges)
        same_where_seen(ours, theirs, x[there], 2e-4 * unit)
        margin += reference.apply(theirs, x[there], plain.columns)
    assert np.abs(predicted[there] - margin).max() < 4e-4 * unit
    folders = {p: tmp_path / p for p in ("alice", "bob", "carol")}
    for folder in folders.values():
        folder.mkdir()
    model.save(folders)
    again = ml.load(folders)
    assert np.array_equal(spu.reveal(again.predict_margin(table)).reshape(-1), predicted)


def test_labels_that_cannot_be_used_and_other_data_are_refused() -> None:
    table = spu.psi.join(tables(), key="id", drop="id", mode="oblivious")
    with pytest.raises(DataError, match="labels are 0 and 1"):
        ml.Sgb(n_estimators=1).fit(table, "w")
    with pytest.raises(InputError, match=r"no column `il` \(did you mean `ill`"):
        ml.Sgb(n_estimators=1).fit(table, "il")
    with pytest.raises(InputError, match="`eval_set` with a joined table"):
        ml.Sgb(n_estimators=1).fit(table, "ill", eval_set=[])
    with pytest.raises(InputError, match="`sample_weight` with a joined table"):
        ml.Sgb(n_estimators=1).fit(table, "ill", sample_weight="w")
    with pytest.raises(ConfigError, match="needs labels that one party holds"):
        ml.Sgb(objective="reg:absoluteerror", n_estimators=1).fit(table, "y")
    model = ml.Sgb(n_estimators=1, max_depth=1, max_bin=2).fit(table, "ill")
    with pytest.raises(InputError, match="scores of a joined table"):
        model.score(table)
    with pytest.raises(InputError, match="trained on a joined frame"):
        model.predict({"alice": A}["alice"]["x"][:, None])
    fewer = spu.psi.join(tables(), key="id", drop=["id", "w"], mode="oblivious")
    with pytest.raises(InputError, match="needs column `w`"):
        model.predict(fewer)


def test_streams_take_joined_tables_by_blocks(tmp_path: Path) -> None:
    """In order, combined, by key, cut to the rows that a filter keeps, written; a run that goes on needs its shares."""
    table = spu.psi.join(tables(), key="id", how="left", drop="id", mode="oblivious")
    rows, m = table.stream(rows_per_block=16), matched()
    product = rows.fold(lambda t, x, w, mask: t + jnp.sum(jnp.where(mask, x * w, 0)), jnp.float32(0), jnp.add)
    at = {int(k): i for i, k in enumerate(B["id"])}
    weights = np.array([B["w"][at[int(k)]] if int(k) in at else 0 for k in A["id"]])
    assert abs(float(spu.reveal(product)) - float((A["x"] * weights).sum())) < 1e-3
    seen = rows.fold(lambda t, mask, z_present: t + jnp.sum(mask & z_present, dtype=jnp.int32), jnp.int32(0))
    assert (int(spu.reveal(seen)), int(spu.reveal(rows.count()))) == (len(m["z"]), 40)
    grouped = rows.group_by("ill", 2).agg(rows="count", w=("w", "sum"))
    ill = tables()["alice"]["ill"]
    assert spu.reveal(grouped["rows"]).tolist() == [40 - ill.sum(), ill.sum()]
    assert spu.reveal(grouped["w"]).tolist() == [weights[ill == 0].sum(), weights[ill == 1].sum()]
    path = tmp_path / "positive.parquet"
    rows.filter(lambda x: x > 0, reveal="count").map(lambda x, w: {"v": x * w}).to_parquet(path, "carol")
    found = pyarrow.parquet.read_table(path)["v"].to_numpy()
    assert np.abs(np.sort(found) - np.sort((A["x"] * weights)[A["x"] > 0])).max() < 1e-3
    for name in ("valid", "z_present"):
        with pytest.raises(InputError, match=f"column `{name}`.*rename it"):
            replace(table, columns={**table.columns, name: table["x"]}).stream()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (lambda t: {"x": t["x"], "y": "y.parquet@bob"}, "`y` is a `str`, others are secrets"),
        (lambda t: {"x": t["x"], "y": t["y"][:3]}, "differ in rows"),
        (lambda t: {"x y": t["x"]}, "a Python name"),
        (lambda t: {"x": t["x"], "y": spu.jit(lambda v: v)(np.ones(40))}, "several machines"),
    ],
)
def test_secrets_that_are_no_stream(sources: Any, message: str) -> None:
    table = spu.psi.join(tables(), key="id", how="left", drop="id", mode="oblivious")
    with pytest.raises(InputError, match=message):
        spu.stream(sources(table))
    with pytest.raises(InputError, match="use 1"):
        spu.stream({"x": table["x"]}, workers=2)
