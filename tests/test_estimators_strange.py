"""Tables that no page has: labels of any size, columns far from 0, beside known libraries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES
from sklearn import datasets, linear_model, naive_bayes, neighbors, tree

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import InputError

ROWS = 80


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def table(seed: int = 1, columns: int = 3) -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.make_regression(ROWS, columns, noise=10.0, random_state=seed)
    return x, y


def frame(x: np.ndarray, y: np.ndarray, kind: str = "vertical") -> Any:
    named = {f"x{i}": x[:, i] for i in range(x.shape[1])}
    ids = np.arange(len(y))
    if kind == "horizontal":
        cut = np.array_split(ids, 3)
        return spu.data.horizontal(
            {p: {n: v[rows] for n, v in named.items()} | {"y": y[rows]} for p, rows in zip(PARTIES, cut)}
        )
    own = {p: {"id": ids} | dict([list(named.items())[k]]) for k, p in enumerate(PARTIES)}
    own["carol"]["y"] = y
    return spu.data.vertical(own, "id", missing=False)


def predicted(model: Any, data: Any) -> np.ndarray:
    return np.asarray(model.predict(data, to="carol").value, np.float64)


def counts(x: np.ndarray, mean: float = 4.0) -> np.ndarray:
    return np.asarray(np.random.default_rng(0).poisson(mean * np.exp(x @ [0.4, -0.3, 0.2])), float)


@pytest.mark.parametrize("family", ["Poisson", "Gamma"])
def test_errors_of_generalised_models_are_those_of_statsmodels_whatever_the_labels_unit(family: str) -> None:
    api = pytest.importorskip("statsmodels.api")
    x, _ = table()
    y = counts(x) if family == "Poisson" else 300 * (counts(x) + 1)
    made = ml.PoissonRegressor(alpha=0) if family == "Poisson" else ml.GammaRegressor(alpha=0)
    ours = made.fit(frame(x, y), label="y").summary()
    known = api.families.Poisson() if family == "Poisson" else api.families.Gamma(api.families.links.Log())
    theirs = api.GLM(y, api.add_constant(x), family=known).fit()
    assert np.abs(ours.coef - theirs.params).max() < 2e-3
    assert np.abs(ours.stderr / theirs.bse - 1).max() < 5e-3
    assert np.abs(ours.pvalues - theirs.pvalues).max() < 5e-3
    if family == "Poisson":
        assert ours.aic == pytest.approx(theirs.aic, abs=0.05)
    else:
        assert ours.aic is None


def test_a_tweedie_score_counts_labels_of_zero_as_they_are() -> None:
    x, _ = table()
    y = counts(x, 1.0) * 1.7
    data = frame(x, y)
    ours = ml.TweedieRegressor(power=1.5, alpha=0.1, inference=False).fit(data, label="y")
    theirs = linear_model.TweedieRegressor(power=1.5, alpha=0.1, tol=1e-8, max_iter=1000).fit(x, y)
    assert (y == 0).mean() > 0.2 and ours.score(data) == pytest.approx(theirs.score(x, y), abs=1e-3)


def test_rows_of_several_parties_may_be_far_from_zero() -> None:
    """The penalty is of features as they are, also where their units are secret."""
    x, y = table(7)
    x = x + np.array([1e4, -300, 5e3])
    model = ml.Ridge().fit(frame(x, y, "horizontal"), label="y")
    theirs = linear_model.Ridge().fit(x - x.mean(axis=0), y)
    assert np.abs(model.reveal().coef - theirs.coef_).max() < 0.02 * np.abs(theirs.coef_).max()


@pytest.mark.parametrize(("size", "mean"), [(1e-6, 1), (1e4, 1), (3.0, 1e5)])
def test_labels_of_any_size(size: float, mean: float) -> None:
    x, y = table(6)
    y = (y / y.std() + mean) * size
    data = frame(x, y)
    for ours, theirs in (
        (ml.DecisionTreeRegressor(max_depth=3, max_bin=ROWS), tree.DecisionTreeRegressor(max_depth=3)),
        (ml.KNeighborsRegressor(5), neighbors.KNeighborsRegressor(5)),
    ):
        ours.fit(data, label="y")
        assert np.abs(predicted(ours, data) - theirs.fit(x, y).predict(x)).max() < 0.02 * y.std()
        assert ours.score(data) == pytest.approx(theirs.score(x, y), abs=0.01)


def test_labels_without_room_are_refused() -> None:
    x, y = table(6)
    for model, kind in ((ml.Ridge(), "vertical"), (ml.Ridge(), "horizontal"), (ml.DecisionTreeRegressor(), "vertical")):
        with pytest.raises(InputError, match="divide them"):
            model.fit(frame(x, y * 1e9, kind), label="y")


def test_small_columns_beside_large_ones_are_smoothed_as_scikit_learn_does() -> None:
    x, y = datasets.make_classification(ROWS, 3, n_informative=3, n_redundant=0, random_state=2)
    x = x * np.array([1e-4, 1, 1e4])
    data = frame(x, y)
    ours = ml.GaussianNB().fit(data, label="y").predict_proba(data, to="bob").value
    assert np.abs(ours - naive_bayes.GaussianNB().fit(x, y).predict_proba(x)).max() < 2e-3


@pytest.mark.parametrize("objective", ["count:poisson", "reg:tweedie"])
def test_penalties_of_counts_are_those_of_xgboost(objective: str) -> None:
    """Each value has a bin of its own: all splits are the same. Labels are in a unit that only their holder knows."""
    xgboost = pytest.importorskip("xgboost")
    x, _ = table(2)
    y = counts(x, 9.0)
    settings: dict[str, Any] = {"n_estimators": 3, "max_depth": 3, "max_bin": 256, "reg_lambda": 4.0}
    ours = ml.Sgb(objective=objective, **settings).fit(frame(x, y), label="y")
    theirs = xgboost.XGBRegressor(objective=objective, tree_method="hist", **settings).fit(x, y)
    assert np.abs(predicted(ours, frame(x, y)) - theirs.predict(x)).max() < 1e-3 * y.std()


def test_first_parameters_have_a_place_as_scikit_learns() -> None:
    made: list[tuple[Any, str, Any]] = [
        (ml.Ridge(2.0), "alpha", 2.0),
        (ml.Lasso(2.0), "alpha", 2.0),
        (ml.ElasticNet(2.0), "alpha", 2.0),
        (ml.LogisticRegression(None), "penalty", None),
        (ml.SGDClassifier("log_loss"), "loss", "log_loss"),
        (ml.SGDRegressor("squared_error"), "loss", "squared_error"),
        (ml.RandomForestClassifier(7), "n_estimators", 7),
        (ml.ExtraTreesRegressor(7), "n_estimators", 7),
        (ml.MinMaxScaler((0, 2)), "feature_range", (0, 2)),
        (ml.PolynomialFeatures(3), "degree", 3),
        (ml.KBinsDiscretizer(4), "n_bins", 4),
        (ml.VarianceThreshold(0.1), "threshold", 0.1),
        (ml.SelectKBest("chi2"), "score_func", "chi2"),
        (ml.RFE(ml.Ridge()), "estimator", ml.Ridge()),
    ]
    for model, name, value in made:
        assert model.get_params()[name] == value or name == "estimator"


KEPT: dict[str, Any] = {  # those whose parts no other table of tests has
    "CoxPHFitter": lambda d: ml.CoxPHFitter(timeline=6, max_iter=4).fit(d, "months", "died"),
    "KaplanMeierFitter": lambda d: ml.KaplanMeierFitter(timeline=6).fit(d, "months", "died"),
    "Perceptron": lambda d: ml.Perceptron(max_iter=2).fit(d.drop("months"), label="died"),
    "ExtraTreesClassifier": lambda d: ml.ExtraTreesClassifier(2, max_depth=2).fit(d.drop("months"), label="died"),
    "RandomForestRegressor": lambda d: ml.RandomForestRegressor(2, max_depth=2).fit(d.drop("died"), label="months"),
}


@pytest.mark.filterwarnings("ignore::spuvm.ml.ConvergenceWarning")
@pytest.mark.parametrize("name", KEPT)
def test_what_one_session_saved_another_loads_to_the_last_bit(name: str, tmp_path: Path) -> None:
    def asked(model: Any) -> np.ndarray:
        if name == "KaplanMeierFitter":
            return np.asarray(model.survival_function_)
        verb = getattr(model, "predict_log_partial_hazard", None) or model.predict
        return np.asarray(verb(frame(x, y), to="bob").value)

    x, y = table(9)
    ids, folders = np.arange(ROWS), {p: tmp_path / p for p in PARTIES}
    own = {p: {"id": ids, f"x{k}": x[:, k]} for k, p in enumerate(PARTIES)}
    own["carol"] |= {"months": ids % 6 + 1, "died": (x[:, 0] > 0).astype(int)}
    model = KEPT[name](spu.data.vertical(own, "id", missing=False))
    before = asked(model)
    model.save(folders)
    spu.shutdown()
    spu.init(parties=PARTIES, address="local")
    assert np.ptp(before) > 0 and np.array_equal(asked(ml.load(folders)), before)
    part = folders["bob"] / "model.share"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        ml.load(folders)
