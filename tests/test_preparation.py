"""Preparation, pipelines, splits and statistics: beside scikit-learn and scipy, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES
from scipy import stats
from sklearn import preprocessing

import spuvm as spu
from spuvm import ml
from spuvm.ml.common.table import secret, table_of
from spuvm.ml.composition.splits import deal
from spuvm.ml.machine import Machine, default_device
from spuvm.runtime.errors import ConfigError, InputError

N = 60


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def people() -> dict[str, np.ndarray]:
    r = np.random.default_rng(5)
    age, income, city = r.normal(50, 10, N), r.lognormal(10, 1, N), r.choice(["paris", "rome", "oslo"], N)
    bmi, sex = r.normal(25, 4, N), r.integers(0, 2, N)
    ill = (age / 10 + 2 * (city == "rome") + bmi / 4 + r.normal(size=N) > 11.5).astype(int)
    return {"age": age, "income": income, "city": city, "bmi": bmi, "sex": sex, "ill": ill}


def frame(missing: bool = False) -> Any:
    p, ids = people(), np.arange(N)
    bmi = np.where(ids % 10 == 0, np.nan, p["bmi"]) if missing else p["bmi"]
    alice = {"id": ids, "age": p["age"], "income": p["income"], "city": p["city"]}
    bob, carol = {"id": ids, "bmi": bmi, "sex": p["sex"]}, {"id": ids, "ill": p["ill"]}
    return spu.data.vertical({"alice": alice, "bob": bob, "carol": carol}, "id", missing=["bmi"] if missing else False)


def by_groups(sex: np.ndarray) -> Any:
    ids = np.arange(N)
    p = people()
    alice = {"id": ids, "age": p["age"], "ill": p["ill"]}
    return spu.data.vertical({"alice": alice, "bob": {"id": ids, "sex": sex}}, "id", missing=False)


def values(table: Any) -> np.ndarray:
    """All columns side by side: only a simulation can do that."""
    parts = [np.asarray(b.value.value if b.owner else spu.reveal(b.value)) for b in table.blocks]
    powers = [0 if b.power is None else np.asarray(spu.reveal(b.power)) for b in table.blocks]
    return np.concatenate([x * 2.0**p for x, p in zip(parts, powers)], axis=1)


SCALERS = ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"]


@pytest.mark.parametrize("name", SCALERS)
def test_scalers_of_owners_and_of_rows_of_many(name: str) -> None:
    p = people()
    x = np.stack([p["age"], p["income"] * 10], axis=1)
    truth = getattr(preprocessing, name)().fit_transform(x)
    rows = np.array_split(np.arange(N), 3)
    by_rows = spu.data.horizontal({q: {"a": x[at, 0], "b": x[at, 1]} for q, at in zip(PARTIES, rows)}, missing=False)
    assert np.abs(values(getattr(ml, name)().fit_transform(x)) - truth).max() < 1e-9
    assert np.abs(values(getattr(ml, name)().fit_transform(by_rows)) - truth).max() < 0.02


def test_a_pipeline_of_everything_is_the_same_from_its_parts(tmp_path: Path) -> None:
    data = frame(missing=True)
    columns = ml.make_column_transformer(
        (ml.OneHotEncoder(drop="first"), "categories"),
        (ml.StandardScaler(), ["age", "income"]),
        (ml.SimpleImputer(), ["bmi", "sex"]),
    )
    model = ml.make_pipeline(columns, ml.LogisticRegression(inference=False)).fit(data, label="ill")
    assert columns.get_feature_names_out() == ("city_1", "city_2", "age", "income", "bmi", "sex")
    assert model.score(data) > 0.75
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    risk = model.predict_proba(data, to="carol").value
    assert np.array_equal(risk, ml.load(folders).predict_proba(data, to="carol").value)
    assert {r.what for r in model.reveals} == {"whether training goes on", "score", "prediction"}
    model.set_params(logisticregression__C=0.5)
    assert model.clone().get_params()["logisticregression__C"] == 0.5
    with pytest.raises(ConfigError, match="unknown parameter `D`"):
        model.set_params(logisticregression__D=1)


def test_weights_of_evidence_are_those_of_counts() -> None:
    p = people()
    encoder = ml.WOEEncoder(n_bins=4).fit(frame()[["age", "sex", "ill"]], label="ill")
    edges = np.quantile(p["age"], [0.25, 0.5, 0.75])
    bins = (p["age"][:, None] >= edges).sum(axis=1)
    ones, zeros = (np.array([((bins == k) & (p["ill"] == v)).sum() + 0.5 for k in range(4)]) for v in (1, 0))
    woe = np.log(ones / zeros) - np.log(p["ill"].mean() / (1 - p["ill"].mean()))
    assert np.abs(encoder.table()["age"] - woe).max() < 2e-3
    assert encoder.iv()["age"] > encoder.iv()["sex"]


def test_columns_and_cells_that_cannot_be() -> None:
    data = frame(missing=True)
    with pytest.raises(InputError, match="6 of 60 cells missing: impute them"):
        ml.StandardScaler().fit(data[["age", "bmi"]])
    with pytest.raises(InputError, match="column `city` of alice has categories: encode it first"):
        ml.LogisticRegression().fit(data.drop("bmi"), label="ill")
    scaler = ml.StandardScaler().fit(data[["age", "sex"]])
    with pytest.raises(InputError, match="column `sex` of bob of training is missing"):
        scaler.transform(data[["age"]])
    with pytest.raises(InputError, match="trained on a vertical frame, and given arrays"):
        scaler.transform(np.ones((3, 2)))
    with pytest.raises(InputError, match="has learned nothing yet"):
        ml.MinMaxScaler().transform(data)
    other = people()["city"].copy()
    other[0] = "bern"
    ids = np.arange(N)
    encoder = ml.OneHotEncoder().fit(data[["city"]])
    with pytest.raises(InputError, match="a category that was not there in training"):
        encoder.transform(spu.data.vertical({"alice": {"id": ids, "city": other}}, "id"))


# Splits and searches ---------------------------------------------------------------------------------------------


def test_parts_of_rows_cover_them_once_and_stratified_ones_have_equal_shares() -> None:
    for splitter in (ml.KFold(4, shuffle=True), ml.GroupKFold(4)):
        tests = [test for _, test in splitter.split(frame(), groups=np.arange(N) // 3)]
        assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(N))
    labels = np.array([0] * 30 + [1] * 12)
    part = deal(labels, 3)
    assert [((part == k) & (labels == 1)).sum() for k in range(3)] == [4, 4, 4]
    with pytest.raises(ConfigError, match="does not fit 60 rows"):
        list(ml.KFold(61).split(frame()))


def test_a_search_finds_the_better_of_two() -> None:
    data = frame()[["age", "sex", "ill"]]
    search = ml.GridSearchCV(ml.Ridge(inference=False), {"alpha": [1.0, 1e4]}, cv=2).fit(data, label="ill")
    assert search.best_params_ == {"alpha": 1.0}
    assert search.cv_results_["rank_test_score"].tolist() == [1, 2]
    assert search.best_estimator_.score(data) > 0


# Statistics --------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_scipy() -> None:
    p, data = people(), frame()
    groups = [p["age"][p["ill"] == k] for k in (0, 1)]
    for equal in (True, False):
        ours, theirs = ml.ttest_ind(data, "age", "ill", equal_var=equal), stats.ttest_ind(*groups, equal_var=equal)
        assert abs(ours.statistic - theirs.statistic) < 1e-2 and abs(ours.pvalue - theirs.pvalue) < 1e-3
    u = stats.mannwhitneyu(groups[1], groups[0])
    found = ml.mannwhitneyu(data, "age", "ill")
    assert (
        abs(found.auc - u.statistic / (len(groups[0]) * len(groups[1]))) < 1e-4 and abs(found.pvalue - u.pvalue) < 1e-3
    )
    table = ml.crosstab(data, "sex", "ill")
    assert table.tolist() == [[int(((p["sex"] == a) & (p["ill"] == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    for corrected in (True, False):
        chi2 = stats.chi2_contingency(table, correction=corrected)
        ours = ml.chi2_contingency(data, "sex", "ill", correction=corrected)
        assert abs(ours.statistic - chi2.statistic) < 1e-2 and abs(ours.pvalue - chi2.pvalue) < 1e-3
    correlations = ml.corr(data[["age", "bmi", "ill"]])
    truth = np.corrcoef(np.stack([p["age"], p["bmi"], p["ill"]]))
    assert np.abs(correlations.values - truth).max() < 1e-3
    sexes = by_groups(np.where(p["sex"] == 1, "female", "male"))
    ours = ml.ks_2samp(sexes, "age", "sex")
    theirs = stats.ks_2samp(p["age"][p["sex"] == 0], p["age"][p["sex"] == 1])
    assert abs(ours.statistic - theirs.statistic) < 1e-9 and ours.pvalue == pytest.approx(theirs.pvalue, rel=1e-6)
    ranks = [
        ml.logrank_test(d, "age", "ill", "sex", timeline=[30, 45, 60, 90]).statistic
        for d in (sexes, by_groups(p["sex"]))
    ]
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-3)
    with pytest.raises(InputError, match="beyond the 2 classes"):
        ml.ks_2samp(data, "age", "city")
    described = ml.describe(data[["age", "bmi"]])["bmi"]
    assert described["count"] == N and abs(described["50%"] - np.median(p["bmi"])) < 1e-9
    with pytest.raises(InputError, match="fewer than 10 cells"):
        ml.describe(data.take(np.arange(5)))


def test_a_score_card_and_its_bias() -> None:
    data = frame()[["age", "bmi", "sex", "ill"]]
    card = ml.ScoreCard(n_bins=3).fit(data, label="ill")
    points = card.score_points(data, to="carol").value
    ill = people()["ill"]
    assert points[ill == 0].mean() > points[ill == 1].mean() + 10
    rows = card.table()
    assert set(rows) == {"base", "age", "bmi", "sex"}
    report = ml.bias_report(data["ill"], card.predict(data), data["sex"])
    assert report.rows.sum() == N and 0 < report.disparate_impact <= 1
    assert ml.psi(data["age"], data["age"]) < 1e-2 < ml.psi(data["age"], data["bmi"])


def test_a_secret_table_keeps_its_numbers() -> None:
    machine = Machine(default_device())
    x = np.array([[1.0, 2.0], [3.0, -4.0]])
    assert np.abs(spu.reveal(secret(table_of(machine, x), "test")) - x).max() == 0
