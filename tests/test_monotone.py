"""Predictions that may only rise, or fall, with a feature: XGBoost's trees, and monotone ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES

import spuvm as spu
from spuvm.ml import Sgb
from spuvm.runtime.errors import ConfigError

xgboost = pytest.importorskip("xgboost")
N = 80


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def rows() -> tuple[np.ndarray, np.ndarray, Any]:
    """Labels that rise with `a` but for a dent, and fall with `b` but for a bump."""
    r = np.random.default_rng(3)
    x = np.round(r.uniform(size=(N, 2)), 1)
    y = 3 * x[:, 0] - 2 * (abs(x[:, 0] - 0.5) < 0.15) - 2 * x[:, 1] + 2 * (x[:, 1] > 0.75) + 0.1 * r.normal(size=N)
    ids = np.arange(N)
    own = {"alice": {"id": ids, "a": x[:, 0]}, "bob": {"id": ids, "b": x[:, 1], "y": y}}
    return x, y, spu.data.vertical(own, "id", missing=False)


OPTIONS: dict[str, Any] = {"n_estimators": 2, "max_depth": 3, "max_bin": 12, "learning_rate": 0.7}
ORDER = {"a": 1, "b": -1}


def test_trees_with_an_order_are_those_of_xgboost() -> None:
    x, y, data = rows()
    ours = Sgb(objective="reg:squarederror", monotone_constraints=ORDER, **OPTIONS).fit(data, "y")
    theirs = xgboost.XGBRegressor(monotone_constraints=(1, -1), **OPTIONS).fit(x, y)
    free = xgboost.XGBRegressor(**OPTIONS).fit(x, y)
    seen = ours.predict(data, to="bob").value
    assert np.abs(seen - theirs.predict(x)).max() < 2e-3 < np.abs(free.predict(x) - theirs.predict(x)).max()
    grid = np.linspace(0, 1, 21)
    plain = ours.reveal()
    for other in (0.0, 0.55, 1.0):
        rising = plain.margins(np.stack([grid, 0 * grid + other], axis=1))[:, 0]
        falling = plain.margins(np.stack([0 * grid + other, grid], axis=1))[:, 0]
        assert (np.diff(rising) >= -1e-4).all() and (np.diff(falling) <= 1e-4).all()
    assert Sgb(**ours.get_params()).parameters == ours.parameters


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"a": 2}, "must be 1, 0 or -1 by the feature's name"),
        ((1, -1), "must be 1, 0 or -1 by the feature's name"),
        ({"A": 1}, "names `A` .did you mean `a`"),
    ],
)
def test_orders_that_cannot_be(wanted: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sgb(objective="reg:squarederror", monotone_constraints=wanted, **OPTIONS).fit(rows()[2], "y")
