"""Objectives of gradient boosting beside XGBoost's on equal bins: quantiles, robust losses, penalties, sampled rows."""

from __future__ import annotations

from typing import Any

import boosting_reference as reference
import numpy as np
import pytest
import three_owners
from three_owners import frame

import spuvm as spu
from spuvm.ml import Sgb
from spuvm.runtime.errors import ConfigError, InputError

ROWS, BINS = 90, 8
parties = three_owners.parties  # a fixture


def features() -> np.ndarray:
    """Two columns of few values: both find the same bins."""
    return np.random.default_rng(0).integers(0, 7, (ROWS, 2)).astype(np.float32)


def numbers(x: np.ndarray) -> np.ndarray:
    """Labels with outliers."""
    r = np.random.default_rng(1)
    return np.asarray(30 * x[:, 0] - 5 * x[:, 1] + r.standard_t(2, len(x)) * 10, np.float64)


def both(settings: dict[str, Any], x: np.ndarray, y: np.ndarray) -> tuple[Sgb, np.ndarray, np.ndarray]:
    """Our model, its predictions and XGBoost's."""
    xgboost = pytest.importorskip("xgboost")
    settings = {"max_depth": 2, "max_bin": BINS, **settings}
    ours = Sgb(n_estimators=3, **settings).fit(frame(x, y), "y")
    theirs = xgboost.train({**settings, "tree_method": "hist"}, xgboost.QuantileDMatrix(x, y, max_bin=BINS), 3)
    return ours, np.asarray(ours.predict(frame(x, y), to="carol").value), theirs.predict(xgboost.DMatrix(x))


def pinball(y: np.ndarray, p: np.ndarray, share: float) -> float:
    return float(np.mean(np.where(y >= p, share * (y - p), (share - 1) * (y - p))))


@pytest.mark.parametrize(
    ("settings", "share"),
    [({"objective": "reg:absoluteerror"}, 0.5), ({"objective": "reg:quantileerror", "quantile_alpha": 0.8}, 0.8)],
)
def test_leaves_are_quantiles_as_xgboost_finds_them(settings: dict[str, Any], share: float) -> None:
    x = features()
    y = numbers(x)
    model, ours, theirs = both(settings, x, y)
    assert pinball(y, ours, share) <= 1.03 * pinball(y, theirs, share)  # XGBoost interpolates
    assert np.abs(ours - model.reveal().margins(x)[:, 0]).max() < 1e-2
    base = np.quantile(y, share, method="inverted_cdf")
    (first,) = model.reveal().trees[0]
    leaf = reference.apply(first, x, model.reveal().columns)
    for value in np.unique(leaf):
        left = np.quantile((y - base)[leaf == value], share, method="inverted_cdf")
        assert value == pytest.approx(0.3 * left, abs=1e-4 * np.ptp(y))
    assert {r.what for r in model.reveals} == {"prediction", "trees", "base score"}


def test_pseudo_huber_and_an_l1_penalty_are_xgboosts() -> None:
    x = features()
    y = numbers(x)
    _, ours, theirs = both({"objective": "reg:pseudohubererror", "huber_slope": 20.0, "base_score": 70.0}, x, y)
    assert np.abs(ours - theirs).max() < 2e-3 * np.ptp(y)
    _, ours, theirs = both({"objective": "reg:squarederror", "reg_alpha": 300.0, "base_score": 70.0}, x, y)
    assert np.abs(ours - theirs).max() < 1e-3 * np.ptp(y)


def test_goss_keeps_large_gradients_and_weighs_what_it_draws_of_the_others() -> None:
    x = features()
    y = numbers(x)
    settings: dict[str, Any] = {"objective": "reg:squarederror", "learning_rate": 1.0, "max_depth": 2, "max_bin": BINS}
    model = Sgb(n_estimators=2, sampling_method="goss", random_state=4, **settings).fit(frame(x, y), "y")
    plain, p, generator = model.reveal(), model.parameters, np.random.RandomState(4)
    edges = [reference.quantile_edges(x[:, i], BINS) for i in range(2)]
    margin, weight = np.full(ROWS, y.mean()), np.ones(ROWS)
    for number, (ours,) in enumerate(plain.trees):
        if number:  # the first sees all rows
            size = np.abs(margin - y)
            weight = np.zeros(ROWS)
            weight[generator.permutation(ROWS)[: round(0.1 / 0.8 * ROWS)]] = 8.0
            weight[size > np.sort(size)[int(0.8 * ROWS) - 1]] = 1.0
        theirs = reference.grow(x, plain.columns, (margin - y) * weight, weight, p, edges)
        reference.same(ours, theirs, 1e-4 * np.ptp(y))
        margin += reference.apply(ours, x, plain.columns)


def test_what_these_objectives_cannot_do() -> None:
    x = features()
    y = numbers(x)
    with pytest.raises(InputError, match="give a larger `huber_slope`"):
        Sgb(objective="reg:pseudohubererror", huber_slope=0.1).fit(frame(x, y), "y")
    with pytest.raises(ConfigError, match="whose leaves are quantiles"):
        Sgb(objective="reg:absoluteerror", monotone_constraints={"a": 1})
    rows = spu.data.horizontal({p: {"a": x[:9, 0], "y": y[:9]} for p in ("alice", "bob")}, missing=False)
    with pytest.raises(ConfigError, match="needs labels that one party holds"):
        Sgb(objective="reg:absoluteerror").fit(rows, "y")


def test_rows_of_class_one_count_more_as_in_xgboost() -> None:
    x = features()
    y = (numbers(x) > 130).astype(float)
    settings: dict[str, Any] = {"objective": "binary:logistic", "scale_pos_weight": 5.0, "base_score": 0.5}
    xgboost = pytest.importorskip("xgboost")
    ours = Sgb(n_estimators=2, max_depth=2, max_bin=BINS, **settings).fit(frame(x, y), "y")
    given = {**settings, "max_depth": 2, "max_bin": BINS, "tree_method": "hist"}
    theirs = xgboost.train(given, xgboost.QuantileDMatrix(x, y, max_bin=BINS), 2)
    found = np.asarray(ours.predict_proba(frame(x, y), to="carol").value)[:, 1]
    assert np.abs(found - theirs.predict(xgboost.DMatrix(x))).max() < 2e-3 and found.mean() > 1.5 * y.mean()
    with pytest.raises(ConfigError, match="is of 'binary:logistic'"):
        Sgb(objective="reg:squarederror", scale_pos_weight=2.0)
    with pytest.raises(InputError, match="at most 4 on average"):
        Sgb(scale_pos_weight=1e4).fit(frame(x, y), "y")
