"""Logistic regression with noise in its coefficients: the bound on what a row changes, and the noise that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import three_owners
from three_owners import PARTIES, frame

import spuvm as spu
from spuvm import ml
from spuvm.ml.linear.output_noise import Descent
from spuvm.runtime.errors import ConfigError, InputError

ROWS, STEPS = 60, 30
BOUNDS = {"a": (0.0, 10.0), "b": (-1.0, 1.0)}
parties, state = three_owners.parties, three_owners.state  # fixtures


def table() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(0)
    x = np.stack([r.uniform(0, 10, ROWS), r.uniform(-1, 1, ROWS)], axis=1)
    x[0] = 1e5, -40.0
    return x, (x[:, 0] / 5 - 1 + x[:, 1] > 0).astype(float)


def settled(x: np.ndarray, y: np.ndarray, descent: Descent) -> np.ndarray:
    """The steps in the clear, of rows in units of the ranges: [a, b, intercept]."""
    design = np.c_[np.clip(x, [0, -1], [10, 1]) / [8, 1] - [0.625, 0], np.ones(len(x))]
    weight = np.minimum(1, descent.clip / np.linalg.norm(design, axis=1))
    w = np.zeros(3)
    for _ in range(descent.steps):
        gradient = (design * weight[:, None]).T @ (1 / (1 + np.exp(-design @ w)) - y) / descent.rows
        w = w - (gradient + descent.penalty * w) / descent.smoothness
    return w


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_no_row_changes_the_coefficients_by_more_than_the_sensitivity(c: float) -> None:
    x, y = table()
    descent = Descent(ROWS, 3, 1 / (ROWS * c), 1.0, STEPS)
    whole = settled(x, y, descent)
    far = np.r_[x, [[10.0, 1.0]]], np.r_[y, 0.0]  # a row that says the opposite
    moved = [float(np.linalg.norm(settled(np.delete(x, i, 0), np.delete(y, i), descent) - whole)) for i in range(ROWS)]
    moved.append(float(np.linalg.norm(settled(*far, descent) - whole)))
    assert 0.2 * descent.sensitivity < max(moved) <= descent.sensitivity
    assert descent.sensitivity <= 1.3 * c


def test_coefficients_have_the_noise_that_is_said_and_it_is_spent(tmp_path: Path) -> None:
    x, y = table()
    data, c = frame(x, y), 0.3
    descent = Descent(ROWS, 3, 1 / (ROWS * c), 1.0, STEPS)
    budget = spu.dp.Budget(epsilon=3, delta=1e-5, unit="row", contributions=1, path=tmp_path / "ledger")
    exact = ml.Private(epsilon=1e7, delta=1e-5, bounds=BOUNDS)
    model = ml.LogisticRegression(C=c, max_iter=STEPS, dp=exact).fit(data, label="y")
    wanted = settled(x, y, descent)
    assert np.abs(model.reveal().coef * [8, 1] - wanted[:2]).max() < 2e-3
    dp = ml.Private(epsilon=1, delta=1e-5, bounds=BOUNDS, budget=budget)
    off = []
    for _ in range(2):
        noised = ml.LogisticRegression(C=c, max_iter=STEPS, dp=dp).fit(data, label="y")
        off += list(noised.reveal().coef * [8, 1] - wanted[:2])
    sigma = dp.noise(1) * descent.sensitivity
    assert 0.02 * sigma < np.sqrt(np.mean(np.square(off))) < 3.1 * sigma  # of four draws: but for 10^-6
    assert {r.what for r in noised.reveals} == {"coefficients"}
    assert "times the sensitivity at the end of training" in noised.explain()
    folders = {p: tmp_path / p for p in PARTIES}
    noised.save(folders)
    assert ml.load(folders).get_params()["dp"] is None
    more = replace(dp, epsilon=2.95)
    with pytest.raises(InputError, match="epsilon"):
        ml.LogisticRegression(C=c, max_iter=STEPS, dp=more).fit(data, label="y")


def test_what_is_refused() -> None:
    x, y = table()
    dp = ml.Private(epsilon=1, delta=1e-5, bounds={"a": (0.0, 10.0)})
    with pytest.raises(ConfigError, match="needs `penalty` 'l2'"):
        ml.LogisticRegression(penalty="l1", dp=dp)
    with pytest.raises(InputError, match="`b` of bob has no range"):
        ml.LogisticRegression(dp=dp).fit(frame(x, y), label="y")
    with pytest.raises(ConfigError, match="exclude each other"):
        ml.LogisticRegression(dp=dp).fit(frame(x, y, w=np.ones(ROWS)), label="y", sample_weight="w")
