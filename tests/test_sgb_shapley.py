"""Shapley values of secret trees: equal to all subsets counted one by one, and to XGBoost's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm.ml import Sgb
from spuvm.ml.plain import Node
from spuvm.runtime.errors import InputError

ROWS = 60


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def frame(x: np.ndarray, y: np.ndarray) -> Any:
    ids = np.arange(len(y))
    sources = {
        "alice": {"id": ids, "a": x[:, 0]},
        "bob": {"id": ids, "b": x[:, 1], "c": x[:, 2]},
        "carol": {"id": ids, "y": y},
    }
    return spu.data.vertical(sources, "id", missing=["b"])


def features() -> np.ndarray:
    x = np.random.default_rng(0).integers(0, 5, (ROWS, 3)).astype(np.float32)
    x[::9, 1] = np.nan
    return x


def expected(node: Node, x: np.ndarray, known: frozenset[int], background: np.ndarray) -> float:
    """The mean weight of the leaves that a row gets to, both ways where a feature is not known."""
    if node.weight is not None:
        return node.weight
    assert node.left is not None and node.right is not None

    def left(cells: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(cells), node.default_left, cells < np.float32(node.edge))

    goes = left(background[:, node.feature])
    parts = background[goes], background[~goes]
    if node.feature in known:
        side = 0 if left(x[node.feature]) else 1
        return expected((node.left, node.right)[side], x, known, parts[side])
    share = goes.mean() if len(goes) else 0.0
    below = [expected(n, x, known, part) for n, part in zip((node.left, node.right), parts)]
    return float(share * below[0] + (1 - share) * below[1])


def counted(trees: list[Node], x: np.ndarray, background: np.ndarray) -> np.ndarray:
    """By the definition: what a feature adds to each set of others."""
    n = len(x)

    def value(known: tuple[int, ...]) -> float:
        return sum(expected(t, x, frozenset(known), background) for t in trees)

    out = np.zeros(n + 1)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            out[i] += weight * sum(value((*s, i)) - value(s) for s in combinations(rest, size))
    out[n] = value(())
    return out


@pytest.mark.parametrize("more", [{"max_depth": 3}, {"max_depth": 5, "grow_policy": "lossguide", "max_leaves": 6}])
def test_equal_to_all_subsets(more: dict[str, Any]) -> None:
    x = features()
    y = (np.nan_to_num(x[:, 1]) + x[:, 0] ** 2 + np.random.default_rng(1).normal(size=ROWS) > 6).astype(float)
    data = frame(x, y)
    model = Sgb(n_estimators=2, max_bin=8, min_child_weight=0.1, **more).fit(data, "y")
    some, rest = data.take(np.arange(5)), data
    found = np.asarray(model.shap(some, to="carol", background=rest).value)
    plain = model.reveal()
    trees = [t for round_ in plain.trees for t in round_]
    repeated = {t.feature for t in trees} & {
        n.feature for t in trees for n in (t.left, t.right) if n and n.feature >= 0
    }
    assert repeated, "a feature is split twice on a way"
    for row in range(5):
        wanted = counted(trees, x[row], x)
        wanted[-1] += plain.base[0]
        assert np.abs(found[row] - wanted).max() < 2e-3
    assert np.abs(found.sum(axis=1) - spu.reveal(model.predict_margin(some))[:, 0]).max() < 2e-3
    assert [(r.what, r.to) for r in model.reveals if r.what == "prediction"] == [("prediction", "carol")]


def test_equal_to_xgboost_of_a_regression() -> None:
    xgboost = pytest.importorskip("xgboost")
    x = np.nan_to_num(features())
    y = 50 * x[:, 0] * x[:, 1] - 20 * x[:, 2]
    data = frame(x, y)
    model = Sgb(objective="reg:squarederror", n_estimators=2, max_depth=2, max_bin=8).fit(data, "y")
    found = np.asarray(model.shap(data, to="bob").value)
    settings = {"max_depth": 2, "max_bin": 8, "tree_method": "hist", "base_score": float(y.mean())}
    booster = xgboost.train(settings, xgboost.QuantileDMatrix(x, y, max_bin=8), 2)
    theirs = booster.predict(xgboost.DMatrix(x), pred_contribs=True)
    assert np.abs(found - theirs).max() < 2e-3 * np.ptp(y)


def test_deep_trees_are_refused() -> None:
    x = features()
    data = frame(x, (x[:, 0] > 2).astype(float))
    model = Sgb(n_estimators=1, max_depth=1, max_bin=8).fit(data, "y")
    assert model.model is not None
    model.model = replace(model.model, parameters=replace(model.parameters, max_depth=7))
    with pytest.raises(InputError, match="the trees are 7 deep"):
        model.shap(data)
    model.model = replace(model.model, parameters=replace(model.parameters, grow_policy="lossguide", max_leaves=17))
    with pytest.raises(InputError, match="the trees have 17 leaves"):
        model.shap(data)
