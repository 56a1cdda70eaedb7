"""Models of XGBoost, one party's secret, predict other parties' rows as XGBoost does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES

import spuvm as spu
from spuvm import ml
from spuvm.ml.imported.xgboost_file import read
from spuvm.runtime.errors import ConfigError, InputError

xgboost = pytest.importorskip("xgboost")
N = 40


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def rows() -> np.ndarray:
    """float32 [N, 3] with missing cells, and cells at the very edges of splits."""
    r = np.random.default_rng(0)
    x = np.round(r.normal(size=(N, 3)), 1) * [1, 1e4, 1e-3]
    x[r.uniform(size=x.shape) < 0.1] = np.nan
    return x.astype(np.float32)


def frame(x: np.ndarray, kind: str = "vertical") -> Any:
    named = {"age": x[:, 0], "income": x[:, 1], "dose": x[:, 2]}
    if kind == "horizontal":
        thirds = np.array_split(np.arange(N), 3)
        return spu.data.horizontal({p: {k: v[at] for k, v in named.items()} for p, at in zip(PARTIES, thirds)})
    ids = np.arange(N)
    bob = {"id": ids, "dose": named["dose"], "age": named["age"]}
    return spu.data.vertical({"bob": bob, "carol": {"id": ids, "income": named["income"]}}, "id")


def trained(made: Any, y: np.ndarray, path: Path, names: bool = True) -> Any:
    x = rows()
    model = made.fit(x, y)
    if names:
        model.get_booster().feature_names = ["age", "income", "dose"]
    model.save_model(path)
    return model


def target(classes: int) -> np.ndarray:
    x = np.nan_to_num(rows().astype(np.float64)) / [1, 1e4, 1e-3]
    return np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [0] if classes == 2 else [-0.5, 0.5])


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_those_of_xgboost(classes: int, tmp_path: Path) -> None:
    y = target(classes)
    theirs = trained(xgboost.XGBClassifier(n_estimators=3, max_depth=3, max_leaves=5), y, tmp_path / "m.json")
    ours = ml.load_xgboost(tmp_path / "m.json", party="alice")
    assert isinstance(ours, ml.XgboostClassifier)
    truth = theirs.predict_proba(rows())
    for kind in ("vertical", "horizontal"):
        assert np.abs(ours.predict_proba(frame(rows(), kind), to="bob").value - truth).max() < 1e-4
    assert {(r.what, r.to) for r in ours.reveals} == {("prediction", "bob")}
    assert np.array_equal(ours.predict(rows(), to="bob").value, theirs.predict(rows()))
    assert ours.score(rows(), y) == pytest.approx(theirs.score(rows(), y), abs=1e-5)
    folders = {p: tmp_path / p for p in PARTIES}
    ours.save(folders)
    data = frame(rows())
    before, after = (m.predict_proba(data, to="carol").value for m in (ours, ml.load(folders)))
    assert np.array_equal(before, after)


def test_numbers_of_a_model_that_stopped_early(tmp_path: Path) -> None:
    x = rows()
    y = 1e5 * (1 + np.nan_to_num(x[:, 0]))
    made = xgboost.XGBRegressor(n_estimators=40, max_depth=2, learning_rate=1.0, early_stopping_rounds=1)
    theirs = made.fit(x[:30], y[:30], eval_set=[(x[30:], y[30:])], verbose=False)
    theirs.save_model(tmp_path / "m.json")
    assert theirs.best_iteration + 1 < theirs.get_booster().num_boosted_rounds()
    with pytest.raises(InputError, match="no names of features: say which columns"):
        ml.load_xgboost(tmp_path / "m.json", "alice").predict(frame(x))
    ours = ml.load_xgboost(tmp_path / "m.json", "alice", features=["age", "income", "dose"])
    assert np.allclose(ours.predict(frame(x), to="bob").value, theirs.predict(x), rtol=1e-4, atol=10)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=1e-3)


def test_the_best_round_of_a_file_without_rounds(tmp_path: Path) -> None:
    trained(xgboost.XGBClassifier(n_estimators=4, max_depth=2), target(3), tmp_path / "m.json")
    known = json.loads((tmp_path / "m.json").read_text())
    known["learner"]["attributes"]["best_iteration"] = "1"
    del known["learner"]["gradient_booster"]["model"]["iteration_indptr"]
    (tmp_path / "m.json").write_text(json.dumps(known))
    facts = read(tmp_path / "m.json")["facts"]
    assert (facts["trees"], facts["classes"], facts["depth"]) == (6, 3, 2)


def test_rows_in_parts_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(xgboost.XGBClassifier(n_estimators=1, max_depth=2), target(2), tmp_path / "m.json")
    ours = ml.load_xgboost(tmp_path / "m.json", party="alice")
    whole = ours.predict_proba(rows(), to="bob").value
    monkeypatch.setattr("spuvm.ml.imported.xgboost.ELEMENTS", 60)
    assert np.array_equal(ours.predict_proba(rows(), to="bob").value, whole)


def test_files_and_rows_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    trained(xgboost.XGBClassifier(n_estimators=1, max_depth=2), target(2), path)
    ours = ml.load_xgboost(path, party="alice")
    with pytest.raises(InputError, match="feature `income` of the model is missing"):
        ours.predict(frame(rows())[["age", "dose"]])
    with pytest.raises(InputError, match="there are 2 columns, the model has 3 features"):
        ours.predict(rows()[:, :2])
    with pytest.raises(ConfigError, match="cannot be trained further"):
        ours.fit(rows(), target(2))
    with pytest.raises(InputError, match="`features` names 1 columns, the model has 3"):
        ml.load_xgboost(path, party="alice", features=["age"])
    with pytest.raises(InputError, match="cannot be read"):
        ml.load_xgboost(tmp_path / "other.json", party="alice")
    known = json.loads(path.read_text())
    for name, value, message in (
        ("base_score", "[1E0]", "base score is no probability"),
        ("base_score", "nan", "no probability"),
        ("num_target", "2", "has several targets"),
    ):
        changed = json.loads(path.read_text())
        changed["learner"]["learner_model_param"][name] = value
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            ml.load_xgboost(tmp_path / "changed.json", party="alice")
    changed = json.loads(path.read_text())
    changed["learner"]["gradient_booster"]["model"]["trees"][0]["split_conditions"][-1] = 1e30
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="infinite, or too large"):
        ml.load_xgboost(tmp_path / "changed.json", party="alice")
    known["learner"]["objective"]["name"] = "survival:cox"
    path.write_text(json.dumps(known))
    with pytest.raises(InputError, match="objective is 'survival:cox'"):
        ml.load_xgboost(path, party="alice")
    for text in ("{}", "not json", json.dumps({"learner": {**known["learner"], "gradient_booster": {}}})):
        path.write_text(text)
        with pytest.raises(InputError, match="no whole model of XGBoost"):
            ml.load_xgboost(path, party="alice")
