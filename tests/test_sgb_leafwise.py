"""Trees that grow leaf by leaf are XGBoost's on equal bins, and which leaf is split nobody sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import three_owners
from three_owners import PARTIES, frame

from spuvm import ml
from spuvm.ml import Sgb
from spuvm.runtime.errors import ConfigError

ROWS, BINS = 90, 8
parties = three_owners.parties  # a fixture


def table() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(0)
    x = r.integers(0, 7, (ROWS, 2)).astype(np.float32)
    return x, np.asarray(2.0 ** x[:, 0] + 3 * x[:, 1] + r.normal(size=ROWS), np.float64)


def test_trees_are_those_of_xgboost(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = table()
    data = frame(x, y)
    settings: dict[str, Any] = {"objective": "reg:squarederror", "max_bin": BINS, "grow_policy": "lossguide"}
    settings |= {"max_leaves": 4, "max_depth": 2}
    model = Sgb(n_estimators=1, base_score=float(y.mean()), **settings).fit(data, "y")
    matrix = xgboost.QuantileDMatrix(x, y, max_bin=BINS)
    theirs = xgboost.train({**settings, "base_score": y.mean(), "tree_method": "hist"}, matrix, 1)
    found = np.asarray(model.predict(data, to="carol").value)
    assert np.abs(found - theirs.predict(xgboost.DMatrix(x))).max() < 1e-3 * np.ptp(y)
    assert np.abs(found - model.reveal().margins(x)[:, 0]).max() < 1e-3 * np.ptp(y)
    gain = theirs.get_score(importance_type="total_gain")
    ours = model.feature_importance("total_gain")
    unit = 2.0 ** np.ceil(np.log2(np.abs(y - y.mean()).max()))  # gains are of labels in units
    assert ours["a"] * unit**2 == pytest.approx(gain["f0"], rel=0.02)
    assert {r.what for r in model.reveals} == {"prediction", "trees", "base score", "feature importance"}
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    assert np.array_equal(ml.load(folders).predict(data, to="carol").value, found)


def test_settings_that_do_not_go_together() -> None:
    for settings, message in (
        ({"grow_policy": "lossguide"}, "'lossguide' needs `max_leaves`"),
        ({"max_leaves": 4}, "'depthwise' takes no `max_leaves`"),
        ({"grow_policy": "leafwise"}, "'depthwise' or 'lossguide'"),
        ({"grow_policy": "lossguide", "max_leaves": 4, "reveal_splits_to_owner": True}, "need `grow_policy`"),
    ):
        with pytest.raises(ConfigError, match=message):
            Sgb(**settings)
