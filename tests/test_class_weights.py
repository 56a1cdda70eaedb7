"""`class_weight` beside scikit-learn's: rare classes count as much as others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model, svm

import spuvm as spu
from spuvm import ml
from spuvm.ml.common.class_weights import by_class
from spuvm.runtime.errors import ConfigError, InputError

r = np.random.default_rng(5)
X = r.normal(size=(150, 3)).astype(np.float32)
RARE = (X[:, 0] + 0.5 * X[:, 1] + 0.4 * r.normal(size=150) > 1.5).astype(int)
THREE = np.digitize(X[:, 0] + 0.3 * r.normal(size=150), [-1, 1.2])


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield
    spu.shutdown()


@pytest.mark.parametrize("weights", ["balanced", {1: 6.5}])
def test_logistic_regression_is_scikit_learns(weights: Any) -> None:
    ours = ml.LogisticRegression(class_weight=weights, inference=False).fit(X, RARE)
    ours.reveal()
    theirs = linear_model.LogisticRegression(class_weight=weights, tol=1e-8).fit(X, RARE)
    np.testing.assert_allclose(np.ravel(ours.coef_), np.ravel(theirs.coef_), atol=0.02)
    plain = linear_model.LogisticRegression().fit(X, RARE)
    assert np.abs(plain.coef_ - theirs.coef_).max() > 0.2
    np.testing.assert_allclose(np.ravel(ours.intercept_), theirs.intercept_, atol=0.02)


def test_weights_are_kept(tmp_path: Path) -> None:
    model = ml.LogisticRegression(class_weight={1: 2.5}, inference=False, tol=None, max_iter=2).fit(
        X[:20], THREE[:20] > 0
    )
    folders = {p: tmp_path / p for p in ("alice", "bob", "carol")}
    model.save(folders)
    assert ml.load(folders).get_params() == model.get_params()


def test_three_classes_and_support_vectors() -> None:
    ours = ml.LogisticRegression(class_weight="balanced", inference=False).fit(X, THREE)
    theirs = linear_model.LogisticRegression(class_weight="balanced", tol=1e-8).fit(X, THREE)
    np.testing.assert_allclose(spu.reveal(ours.predict_proba(X)), theirs.predict_proba(X), atol=0.03)
    margin = ml.LinearSVC(class_weight="balanced").fit(X, RARE)
    margin.reveal()
    best = svm.LinearSVC(class_weight="balanced", intercept_scaling=100, max_iter=100_000).fit(X, RARE)
    np.testing.assert_allclose(np.ravel(margin.coef_), np.ravel(best.coef_), atol=0.03)


def test_weights_of_rows_count_too() -> None:
    """Of a rare class, of rows that weigh nothing, and of a class without rows, on the machine."""
    y = np.array([0, 0, 0, 1, 2, 2], np.float32)
    weight = np.array([1, 1, 0, 1, 0.5, 0], np.float32)
    balanced = spu.reveal(spu.jit(by_class(3, None))(y, weight))
    expected = weight * 3.5 / 3 / np.array([2, 2, 2, 1, 0.5, 0.5])
    np.testing.assert_allclose(balanced, expected, atol=1e-3)
    many = np.zeros(100_000, np.float32)
    many[:37] = 1
    rare = spu.reveal(spu.jit(by_class(2, None))(many, None))
    np.testing.assert_allclose(rare[[0, 99_999]], [100_000 / 74, 100_000 / 2 / 99_963], rtol=1e-3)
    assert not np.isnan(spu.reveal(spu.jit(by_class(3, None))(np.zeros(4, np.float32), None))).any()


@pytest.mark.parametrize(
    "wrong", ["even", {}, {0: 0.0}, {0: -1}, {"a": 1.0}, {1: "x"}, {1: True}, 3.0, {0: float("nan")}]
)
def test_bad_weights(wrong: Any) -> None:
    with pytest.raises(ConfigError, match='`class_weight` of LogisticRegression must be None, "balanced", or numbers'):
        ml.LogisticRegression(class_weight=wrong).fit(X, RARE)


def test_classes_that_are_none_and_privacy() -> None:
    with pytest.raises(InputError, match="`class_weight` has class 2, of 2 classes: they are 0 to 1"):
        ml.LogisticRegression(class_weight={2: 5.0}).fit(X, RARE)
    private = ml.Private(epsilon=1.0, bounds={f"x{i}": (-3, 3) for i in range(3)})
    with pytest.raises(ConfigError, match="`class_weight` and `dp` exclude each other"):
        ml.LogisticRegression(class_weight="balanced", dp=private).fit(X, RARE)
