"""Models of LightGBM, one party's secret, predict other parties' rows as LightGBM does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES

import spuvm as spu
from spuvm import ml
from spuvm.ml.imported.lightgbm_file import above, read
from spuvm.runtime.errors import InputError

lightgbm = pytest.importorskip("lightgbm")
N = 60
SETTINGS: dict[str, Any] = {"num_leaves": 5, "max_depth": 3, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1}


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def rows() -> np.ndarray:
    """float32 [N, 3], cells of two columns missing."""
    r = np.random.default_rng(0)
    x = np.round(r.normal(size=(N, 3)), 1) * [1, 1e4, 1e-3]
    x[:, :2][r.uniform(size=(N, 2)) < 0.1] = np.nan
    return x.astype(np.float32)


def trained(path: Path, objective: str, y: np.ndarray, **more: Any) -> Any:
    data = lightgbm.Dataset(rows().astype(np.float64), y, feature_name=["age", "income", "dose"])
    booster = lightgbm.train({**SETTINGS, "objective": objective, **more}, data, 3)
    booster.save_model(path)
    return booster


def test_classes_numbers_and_missing_cells_are_those_of_lightgbm(tmp_path: Path) -> None:
    x, ids = rows(), np.arange(N)
    x[3, 2] = np.nan  # in a column that had none in training
    y = np.digitize(np.nan_to_num(x[:, 0]), [-0.5, 0.5])
    path = tmp_path / "m.txt"
    booster = trained(path, "multiclass", y, num_class=3)
    ours = ml.load_lightgbm(path, party="alice")
    assert isinstance(ours, ml.LightgbmClassifier)
    bob = {"id": ids, "dose": x[:, 2], "age": x[:, 0]}
    frame = spu.data.vertical({"bob": bob, "carol": {"id": ids, "income": x[:, 1]}}, "id")
    truth = booster.predict(x.astype(np.float64))
    before = ours.predict_proba(frame, to="bob").value
    assert np.abs(before - truth).max() < 1e-4
    folders = {p: tmp_path / p for p in PARTIES}
    ours.save(folders)
    assert np.array_equal(ml.load(folders).predict_proba(frame, to="bob").value, before)
    assert {(r.what, r.to) for r in ours.reveals} == {("prediction", "bob")}
    booster = trained(path, "regression", 1e5 * np.nan_to_num(x[:, 0]))
    ours = ml.load_lightgbm(path, party="alice")
    assert np.allclose(ours.predict(frame, to="bob").value, booster.predict(x.astype(np.float64)), rtol=1e-4, atol=10)


def test_a_forest_is_a_mean_and_a_sigmoid_has_a_slope(tmp_path: Path) -> None:
    y = (np.nan_to_num(rows()[:, 0]) > 0).astype(int)
    path = tmp_path / "m.txt"
    more = {"boosting": "rf", "bagging_fraction": 0.7, "bagging_freq": 1, "sigmoid": 2.0, "num_leaves": 2}
    booster = trained(path, "binary", y, **more)
    found, x = read(path), rows().astype(np.float64)
    assert found["facts"]["classes"] == 2 and len(found["leaves"]) == 3
    share = booster.predict(x)
    margins = np.log(share / (1 - share))
    leaves: np.ndarray = found["leaves"]
    lowest, highest = float(leaves.min(axis=1).sum()), float(leaves.max(axis=1).sum())
    assert (margins.min(), margins.max()) == (pytest.approx(lowest, abs=1e-4), pytest.approx(highest, abs=1e-4))


def test_edges_say_what_thresholds_say() -> None:
    r = np.random.default_rng(1)
    cells = np.concatenate([r.normal(size=2000).astype(np.float32), np.array([0.0, -0.0, 1e-38, np.inf], np.float32)])
    thresholds = np.concatenate([cells[:500].astype(np.float64), r.normal(size=500), [1e-35, 0.0, 1e308, -1e308]])
    edges = above(thresholds).astype(np.float32)
    finite = cells[np.isfinite(cells)]
    assert ((finite[:, None].astype(np.float64) <= thresholds) == (finite[:, None] < edges)).all()


def test_files_that_cannot_be(tmp_path: Path) -> None:
    path, y = tmp_path / "m.txt", (np.nan_to_num(rows()[:, 0]) > 0).astype(int)
    trained(path, "binary", y)
    text = path.read_text()

    def lines(name: str, value: str) -> str:
        return "\n".join(f"{name}={value}" if line.startswith(name + "=") else line for line in text.splitlines())

    for changed, message in (
        (lines("objective", "poisson"), "objective is 'poisson'"),
        (lines("is_linear", "1"), "leaves are linear"),
        (lines("decision_type", " ".join(["1"] * 4)), "no whole model|splits categories"),
        (lines("left_child", "9 9 9 9"), "no whole model of LightGBM"),
        (text[: len(text) // 3], "no whole model of LightGBM"),
        ("tree\n", "no whole model of LightGBM"),
    ):
        path.write_text(changed)
        with pytest.raises(InputError, match=message):
            ml.load_lightgbm(path, party="alice")
    with pytest.raises(InputError, match="cannot be read"):
        ml.load_lightgbm(tmp_path / "none.txt", party="alice")
