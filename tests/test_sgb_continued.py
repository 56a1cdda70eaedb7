"""Training that goes on: the trees of two trainings are those of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm import ml
from spuvm.ml import Sgb
from spuvm.runtime.errors import ConfigError, InputError

ROWS = 90
SETTINGS: dict[str, Any] = {"max_depth": 2, "max_bin": 8}


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def frame(binary: bool, label_at: str = "carol") -> Any:
    r, ids = np.random.default_rng(0), np.arange(ROWS)
    x = r.integers(0, 7, (ROWS, 2)).astype(np.float32)
    y = 30 * x[:, 0] - 5 * x[:, 1] + r.normal(size=ROWS) * 10
    sources: dict[str, Any] = {p: {"id": ids} for p in ("alice", "bob", "carol")}
    sources["alice"]["a"], sources["bob"]["b"] = x.T
    sources[label_at]["y"] = (y > 60).astype(float) if binary else y
    return spu.data.vertical(sources, "id", missing=False)


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_two_trainings_are_one(objective: str, tmp_path: Path) -> None:
    data = frame(objective == "binary:logistic")
    whole = Sgb(objective=objective, n_estimators=3, **SETTINGS).fit(data, "y")
    first = Sgb(objective=objective, n_estimators=1, **SETTINGS).fit(data, "y")
    folders = {p: tmp_path / p for p in ("alice", "bob", "carol")}
    first.save(folders)
    second = Sgb(objective=objective, n_estimators=2, **SETTINGS)
    second.fit(data, "y", xgb_model=ml.load(folders), eval_set=data)
    margins = [np.asarray(m.predict_margin(data, to="bob").value) for m in (whole, second, first)]
    size = np.ptp(margins[0])
    assert np.abs(margins[0] - margins[1]).max() < 1e-3 * size
    assert np.abs(margins[0] - margins[2]).max() > 0.05 * size
    assert first.model is not None and len(first.model.trees) == 1
    (scores,) = second.evals_result()["validation_0"].values()
    assert len(scores) == 2 and scores[1] < scores[0]
    importance = [m.feature_importance("total_gain") for m in (whole, second)]
    assert all(abs(importance[0][k] - importance[1][k]) <= 1e-2 * max(importance[0].values()) for k in ("a", "b"))
    shown = {r.what for r in second.reveals if r.to == "carol"}
    assert shown == (set() if objective == "binary:logistic" else {"base score and unit of labels"})


def test_what_does_not_go_on() -> None:
    first = Sgb(objective="reg:squarederror", n_estimators=1, **SETTINGS).fit(frame(False), "y")
    with pytest.raises(ConfigError, match="`max_depth` is 3, that of `xgb_model` 2"):
        Sgb(objective="reg:squarederror", max_depth=3).fit(frame(False), "y", xgb_model=first)
    with pytest.raises(ConfigError, match="`objective` is 'binary:logistic'"):
        Sgb(**SETTINGS).fit(frame(True), "y", xgb_model=first)
    again = Sgb(objective="reg:squarederror", **SETTINGS)
    with pytest.raises(InputError, match="that carol held in training"):
        again.fit(frame(False, "bob"), "y", xgb_model=first)
    with pytest.raises(InputError, match="has learned nothing yet"):
        again.fit(frame(False), "y", xgb_model=Sgb())
    with pytest.raises(InputError, match="must be a trained `Sgb`, got a `str`"):
        again.fit(frame(False), "y", xgb_model="model.json")  # type: ignore[arg-type]
