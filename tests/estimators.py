"""Every estimator beside the one that people know: small tables of scikit-learn's, and what both are to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn import (
    datasets,
    discriminant_analysis,
    ensemble,
    gaussian_process,
    linear_model,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.gaussian_process.kernels import RBF

import spuvm as spu
from spuvm import ml

PARTIES = ("alice", "bob", "carol")
ROWS, FEATURES = 90, 4


@dataclass(frozen=True)
class Case:
    """Two estimators that should agree.

    Attributes:
        ours, theirs: estimators with nothing learned.
        tables: names in `TABLES`, of one shape, so that nothing is compiled twice.
        reveals: what training may show besides nothing.
        coefficients: how far the largest may be off, in units of the largest; None if there are none.
        exact: whether predictions are the same bits each time; else to a unit of fixed point, times what is added up:
            the share of themselves that is given.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tables: tuple[str, ...]
    reveals: frozenset[str] = frozenset()
    coefficients: float | None = None
    tolerance: float = 0.01
    exact: bool | float = True


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features float64 [ROWS, FEATURES] and labels [ROWS]."""
    x, y = TABLES[name]()
    order = np.random.RandomState(0).permutation(len(x))[:ROWS]
    return np.asarray(x, np.float64)[order, :FEATURES], np.asarray(y, np.float64)[order]


def _diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return x[:, [2, 3, 8, 9]], y


def _counts(source: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    x, y = source()
    return x, np.floor(y / y.mean() * 3)


def _linnerud() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.RandomState(3)
    x = r.gamma(2.0, 10.0, (ROWS, FEATURES))
    return x, 1000 * np.exp(0.01 * x @ np.array([1.0, -1, 0.5, 0])) * r.gamma(5.0, 0.2, ROWS)


def _wine() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_wine(return_X_y=True)
    return x[:, [0, 6, 9, 12]], y


def _two(source: Callable[[], tuple[np.ndarray, np.ndarray]], kept: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = source()
    rows = np.isin(y, kept)
    return x[rows], (y[rows] == kept[1]).astype(float)


def _iris() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_iris(return_X_y=True)
    return x, y


def _cancer() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return x[:, [0, 1, 4, 8]] * [1, 1, 1000, 1], y


TABLES: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "iris": _iris,
    "wine": _wine,
    "iris of two": lambda: _two(_iris, (1, 2)),
    "breast cancer": _cancer,
    "diabetes": _diabetes,
    "gammas": _linnerud,
    "counts of diabetes": lambda: _counts(_diabetes),
    "counts of gammas": lambda: _counts(_linnerud),
}
BINARY, SEVERAL = ("breast cancer", "iris of two"), ("iris", "wine")
NUMBERS, COUNTS = ("diabetes", "gammas"), ("counts of diabetes", "counts of gammas")
GOES_ON = frozenset({"whether training goes on"})
REGULAR = frozenset({"whether the design is regular"})


def frame(name: str, kind: str = "vertical") -> Any:
    """The table among three parties, the label `y` at carol; or cut by rows."""
    x, y = table(name)
    ids = np.arange(len(x))
    named = {f"x{i}": x[:, i] for i in range(x.shape[1])}
    if kind == "horizontal":
        thirds = np.array_split(ids, 3)
        rows = {p: {k: v[at] for k, v in named.items()} | {"y": y[at]} for p, at in zip(PARTIES, thirds)}
        return spu.data.horizontal(rows, missing=False)
    alice = {"id": ids, "x0": named["x0"], "x1": named["x1"]}
    bob = {"id": ids, "x2": named["x2"], "x3": named["x3"]}
    return spu.data.vertical({"alice": alice, "bob": bob, "carol": {"id": ids, "y": y}}, "id", missing=False)


FOREST: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "random_state": 0}

CASES: dict[str, Case] = {
    "LogisticRegression": Case(
        ml.LogisticRegression, lambda: linear_model.LogisticRegression(max_iter=5000, tol=1e-8), BINARY, GOES_ON, 0.02
    ),
    "LogisticRegression, several classes": Case(
        lambda: ml.LogisticRegression(C=0.1, max_iter=20),
        lambda: linear_model.LogisticRegression(C=0.1, max_iter=5000, tol=1e-8),
        SEVERAL,
        GOES_ON,
        0.03,
    ),
    "LogisticRegression, l1": Case(
        lambda: ml.LogisticRegression(penalty="l1", C=0.2, max_iter=30),
        lambda: linear_model.LogisticRegression(
            l1_ratio=1, C=0.2, solver="liblinear", max_iter=10_000, tol=1e-8, intercept_scaling=1000
        ),
        BINARY,
        GOES_ON,
    ),
    "LinearRegression": Case(ml.LinearRegression, linear_model.LinearRegression, NUMBERS, REGULAR, 0.01),
    "Ridge": Case(ml.Ridge, linear_model.Ridge, NUMBERS, frozenset(), 0.01),
    "Lasso": Case(ml.Lasso, linear_model.Lasso, NUMBERS, GOES_ON, 0.01),
    "ElasticNet": Case(ml.ElasticNet, linear_model.ElasticNet, NUMBERS, GOES_ON, 0.01),
    "PoissonRegressor": Case(ml.PoissonRegressor, linear_model.PoissonRegressor, COUNTS, GOES_ON, 0.01),
    "GammaRegressor": Case(ml.GammaRegressor, linear_model.GammaRegressor, NUMBERS, GOES_ON, 0.01),
    "TweedieRegressor": Case(
        lambda: ml.TweedieRegressor(power=1.5),
        lambda: linear_model.TweedieRegressor(power=1.5, max_iter=1000),
        COUNTS,
        GOES_ON,
        0.01,
    ),
    "QuantileRegressor": Case(
        lambda: ml.QuantileRegressor(quantile=0.4, alpha=0.01),
        lambda: linear_model.QuantileRegressor(quantile=0.4, alpha=0.01, solver="highs"),
        NUMBERS,
    ),
    "LinearSVC": Case(ml.LinearSVC, lambda: svm.LinearSVC(max_iter=100_000, intercept_scaling=100), BINARY, GOES_ON),
    "SVC": Case(ml.SVC, svm.SVC, BINARY),
    "GaussianProcessClassifier": Case(
        lambda: ml.GaussianProcessClassifier(length_scale=8.0),
        lambda: gaussian_process.GaussianProcessClassifier(RBF(8.0, "fixed")),
        BINARY,
        tolerance=0.012,  # a row of 90, which lies between the classes
        exact=0.01,
    ),
    "GaussianProcessRegressor": Case(
        lambda: ml.GaussianProcessRegressor(length_scale=20.0, alpha=0.2),
        lambda: gaussian_process.GaussianProcessRegressor(RBF(20.0, "fixed"), alpha=0.2, normalize_y=True),
        NUMBERS,
        exact=0.01,
    ),
    "SGDClassifier": Case(
        lambda: ml.SGDClassifier(loss="log_loss", batch_size=16, max_iter=60),
        lambda: linear_model.LogisticRegression(max_iter=5000),
        BINARY,
        tolerance=0.04,
    ),
    "SGDRegressor": Case(
        lambda: ml.SGDRegressor(batch_size=16, max_iter=60),
        lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.SGDRegressor(random_state=0)),
        NUMBERS,
    ),
    "DecisionTreeClassifier": Case(
        lambda: ml.DecisionTreeClassifier(max_depth=3), lambda: tree.DecisionTreeClassifier(max_depth=3), BINARY
    ),
    "DecisionTreeRegressor": Case(
        lambda: ml.DecisionTreeRegressor(max_depth=3, max_bin=90),
        lambda: tree.DecisionTreeRegressor(max_depth=3),
        NUMBERS,
    ),
    "RandomForestClassifier": Case(
        lambda: ml.RandomForestClassifier(**FOREST),
        lambda: ensemble.RandomForestClassifier(**FOREST),
        SEVERAL,
        tolerance=0.02,
    ),
    "ExtraTreesRegressor": Case(
        lambda: ml.ExtraTreesRegressor(**FOREST), lambda: ensemble.ExtraTreesRegressor(**FOREST), NUMBERS, tolerance=0.1
    ),
    "AdaBoostClassifier": Case(
        lambda: ml.AdaBoostClassifier(n_estimators=6), lambda: ensemble.AdaBoostClassifier(n_estimators=6), BINARY
    ),
    "GaussianNB": Case(ml.GaussianNB, naive_bayes.GaussianNB, SEVERAL),
    "LinearDiscriminantAnalysis": Case(
        ml.LinearDiscriminantAnalysis, discriminant_analysis.LinearDiscriminantAnalysis, SEVERAL
    ),
    "BernoulliNB": Case(lambda: ml.BernoulliNB(binarize=2.0), lambda: naive_bayes.BernoulliNB(binarize=2.0), SEVERAL),
    "KNeighborsClassifier": Case(ml.KNeighborsClassifier, neighbors.KNeighborsClassifier, SEVERAL),
    "KNeighborsRegressor": Case(ml.KNeighborsRegressor, neighbors.KNeighborsRegressor, NUMBERS, exact=False),
}
