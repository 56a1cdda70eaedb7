"""Selection and encoding of columns beside scikit-learn, and labels of which it must be said what is 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES
from sklearn import feature_selection, linear_model, preprocessing
from sklearn.metrics import mutual_info_score

import spuvm as spu
from spuvm import ml
from spuvm.flow import find, known
from spuvm.runtime.errors import ConfigError, InputError

N = 60


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def columns() -> tuple[np.ndarray, np.ndarray]:
    """Six columns of very different sizes, the last one constant, and labels that go with two."""
    r = np.random.default_rng(2)
    x = np.abs(r.normal(5, 2, (N, 6))) * [1, 100, 0.01, 1, 1000, 1]
    x[:, 5] = 3.0
    y = (x[:, 0] + 2 * x[:, 3] + r.normal(size=N) > 15).astype(int)
    return x, y


def frame(y: Any = None, kind: str = "vertical", more: Any = None) -> Any:
    x, known = columns()
    y = known if y is None else y
    if kind == "horizontal":
        thirds = np.array_split(np.arange(N), 3)
        named = {f"c{i}": x[:, i] for i in range(6)} | {"y": y}
        return spu.data.horizontal({p: {k: v[at] for k, v in named.items()} for p, at in zip(PARTIES, thirds)})
    ids = np.arange(N)
    alice = {"id": ids, **{f"c{i}": x[:, i] for i in range(3)}}
    bob = {"id": ids, **{f"c{i}": x[:, i] for i in range(3, 6)}}
    own = {"alice": alice, "bob": bob, "carol": {"id": ids, "y": y, **(more or {})}}
    return spu.data.vertical(own, "id", missing=False)


def values(table: Any) -> np.ndarray:
    """All columns side by side: only a simulation can do that."""
    parts = [np.asarray(b.value.value if b.owner else spu.reveal(b.value)) for b in table.blocks]
    powers = [0 if b.power is None else np.asarray(spu.reveal(b.power)) for b in table.blocks]
    return np.concatenate([x * 2.0**p for x, p in zip(parts, powers)], axis=1)


def revealed(model: Any) -> set[str]:
    return {r.what for r in model.reveals}


@pytest.mark.parametrize("kind", ["vertical", "horizontal"])
def test_columns_that_vary(kind: str) -> None:
    x, _ = columns()
    data = frame(kind=kind).drop("y")
    for threshold in (0.0, 6.0):
        ours = ml.VarianceThreshold(threshold=threshold).fit(data)
        assert np.array_equal(ours.get_support(), feature_selection.VarianceThreshold(threshold).fit(x).get_support())
        assert revealed(ours) == {"which columns are kept"}
    assert [c.name for c in ours.transform(data).columns] == list(ours.get_feature_names_out()) == ["c1", "c4"]
    with pytest.raises(InputError, match="no column has a variance above 1e"):
        ml.VarianceThreshold(threshold=1e8).fit(data)


@pytest.mark.parametrize("name", ["f_classif", "f_regression", "chi2"])
def test_the_best_columns(name: str, tmp_path: Path) -> None:
    x, y = columns()
    function = getattr(feature_selection, name)
    target = y if name != "f_regression" else x[:, 0] + 1000 * x[:, 2] + y
    data = frame(target)
    with np.errstate(all="ignore"):
        theirs = feature_selection.SelectKBest(function, k=2).fit(x[:, :5], target)
    ours = ml.SelectKBest(score_func=function, k=2).fit(data.drop("c5"), label="y")
    assert revealed(ours) == {"which columns are kept"}
    assert np.array_equal(ours.get_support(), theirs.get_support())
    assert np.allclose(list(ours.scores().values()), theirs.scores_, rtol=0.02, atol=0.02)
    assert np.allclose(list(ours.pvalues().values()), theirs.pvalues_, atol=0.01)
    assert revealed(ours) == {"which columns are kept", "scores of columns"}
    if name == "f_classif":
        folders = {p: tmp_path / p for p in PARTIES}
        ours.save(folders)
        chosen = ml.load(folders).transform(data[["c4", "c0", "c3", "c1", "c2"]])
        assert np.array_equal(values(chosen), x[:, theirs.get_support(indices=True)])


def test_which_columns_are_best_may_stay_secret() -> None:
    x, _ = columns()
    ours = ml.SelectKBest(k=2, reveal_support=False).fit(frame(), label="y")
    assert np.abs(values(ours.transform(frame().drop("y"))) - x[:, [0, 3]]).max() < 0.01
    assert ours.reveals == () and ours.get_feature_names_out() == ("selected_0", "selected_1")
    with pytest.raises(ConfigError, match="keeps which columns it chose secret"):
        ours.get_support()


def test_mutual_information_is_that_of_the_bins() -> None:
    x, y = columns()
    ours = ml.SelectKBest(score_func="mutual_info_classif", k=1, n_bins=4).fit(frame()[["c0", "c3", "y"]], label="y")
    cut = [np.searchsorted(np.quantile(x[:, i], [0.25, 0.5, 0.75]), x[:, i], side="right") for i in (0, 3)]
    truth = [mutual_info_score(c, y) for c in cut]
    assert np.abs(np.array(list(ours.scores().values())) - truth).max() < 5e-3
    assert ours.get_feature_names_out() == (("c0", "c3")[int(np.argmax(truth))],)
    with pytest.raises(ConfigError, match="has no p-values"):
        ours.pvalues()


def test_recursive_elimination_in_a_pipeline(tmp_path: Path) -> None:
    x, y = columns()
    z = preprocessing.StandardScaler().fit_transform(x[:, :4])
    theirs = feature_selection.RFE(linear_model.Ridge(), n_features_to_select=2, step=2).fit(z, y)
    data = frame()[["c0", "c1", "c2", "c3", "y"]]
    chosen = ml.RFE(estimator=ml.Ridge(inference=False), n_features_to_select=2, step=2)
    model = ml.make_pipeline(ml.StandardScaler(), chosen, ml.GaussianNB())
    model.fit(data, label="y")
    assert np.array_equal(chosen.ranking_, theirs.ranking_)
    assert revealed(chosen) == {"which columns go"}
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    loaded = ml.load(folders)
    assert loaded[1].ranking_.tolist() == theirs.ranking_.tolist()
    before, after = (np.asarray(m.predict_proba(data, to="bob").value) for m in (model, loaded))
    assert np.abs(before - after).max() < 1e-4


def cities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r = np.random.default_rng(4)
    city = r.choice(["oslo", "paris", "rome"], N, p=[0.6, 0.3, 0.1])
    ill = (r.uniform(size=N) < np.where(city == "oslo", 0.2, 0.7)).astype(int)
    return city, ill, 1000.0 * ill + r.normal(size=N)


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_target_encoding(kind: str, tmp_path: Path) -> None:
    city, ill, cost = cities()
    y = ill if kind == "binary" else cost
    ids = np.arange(N)
    data = spu.data.vertical({"alice": {"id": ids, "city": city}, "bob": {"id": ids, "y": y}}, "id", missing=False)
    for smooth in ("auto", 10.0):
        ours = ml.TargetEncoder(target_type=kind, smooth=smooth).fit(data, label="y")
        theirs = preprocessing.TargetEncoder(target_type=kind, smooth=smooth).fit(city[:, None], y)
        truth = theirs.transform(city[:, None])
        got = ours.transform(data.drop("y"))
        assert np.abs(values(got) - truth).max() < 2e-3 * np.abs(truth).max()
        assert ours.reveals == ()
    folders = {p: tmp_path / p for p in PARTIES}
    ours.save(folders)
    assert np.array_equal(values(ml.load(folders).transform(data[["city"]])), values(got))
    crossed = values(ml.TargetEncoder(target_type=kind, cv=2, smooth=0.0).fit_transform(data, label="y"))[:, 0]
    half = np.argsort(np.random.RandomState(0).permutation(N)) % 2
    for k in (0, 1):
        means = np.array([y[(half != k) & (city == c)].mean() for c in city[half == k]])
        assert np.abs(crossed[half == k] - means).max() < 5e-3 * np.abs(y).max()


def test_ranks_of_quantiles() -> None:
    x, _ = columns()
    x = x[:, :5]
    for more in ({}, {"n_quantiles": 7}, {"n_quantiles": 9, "output_distribution": "normal"}):
        theirs = preprocessing.QuantileTransformer(**{"n_quantiles": N, **more}).fit_transform(x)
        assert np.abs(values(ml.QuantileTransformer(**more).fit_transform(x)) - theirs).max() < 1e-6
    rows = frame(kind="horizontal")[["c0", "c4"]]
    theirs = preprocessing.QuantileTransformer(n_quantiles=8).fit_transform(x[:, [0, 4]])
    assert np.abs(values(ml.QuantileTransformer(n_quantiles=8).fit_transform(rows)) - theirs).max() < 5e-3


def test_components_of_flows_select_and_encode() -> None:
    model, data = find("select_recursively").function(
        data=frame(), label="y", columns=("c0", "c1", "c3"), by="ridge", n_features_to_select=1
    )
    gone = {"c0", "c1", "c3"} - set(model.get_feature_names_out())
    assert len(gone) == 2 and set(data.columns) == {"c0", "c1", "c2", "c3", "c4", "c5", "y"} - gone
    _, data = find("select_varying").function(data=frame(), label="y")
    assert set(data.columns) == {"c0", "c1", "c2", "c3", "c4", "y"}
    assert {"select_best", "encode_target", "scale_quantile", "nmf"} <= known().keys()
    assert {"quantile_regression", "svc", "isolation_forest"} <= known().keys()


# Which of two texts is 1 -----------------------------------------------------------------------------------------


def test_labels_of_two_texts_say_which_is_one(tmp_path: Path) -> None:
    _, y = columns()
    text = np.where(y == 1, "bad", "good")  # by the alphabet, good would be 1
    data, numbers = frame(text)[["c0", "c3", "y"]], frame()[["c0", "c3", "y"]]
    options: Any = {"key": "id", "missing": False, "categories": {"y": "public"}}
    ids = np.arange(N)
    public = spu.data.vertical(
        {"bob": {"id": ids, "c0": columns()[0][:, 0]}, "carol": {"id": ids, "y": text}}, **options
    )
    with pytest.raises(InputError, match="which of 'bad' and 'good' is 1 must be said: `positive=` of `fit`"):
        ml.LogisticRegression().fit(public, label="y")
    with pytest.raises(InputError, match="must be said"):
        ml.roc_curve(public["y"], np.linspace(0, 1, N))
    truth = ml.GaussianNB().fit(numbers, label="y").predict_proba(numbers, to="bob").value
    model = ml.GaussianNB().fit(data, label="y", positive="bad")
    assert np.abs(model.predict_proba(data, to="bob").value - truth).max() < 1e-4
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    assert ml.load(folders).score(data) == model.score(data) > 0.7
    piped = ml.make_pipeline(ml.MinMaxScaler(), ml.GaussianNB()).fit(data, label="y", positive="bad")
    assert piped.score(data) == pytest.approx(model.score(data), abs=0.04)
    tree = ml.DecisionTreeClassifier(max_depth=1, max_bin=4).fit(data, label="y", positive="bad")
    right = np.mean((tree.predict(data, to="bob").value == 1) == (text == "bad"))
    assert tree.score(data) == pytest.approx(right, abs=1e-4) and right > 0.7
    tree.save(folders)
    assert ml.load(folders).score(data) == pytest.approx(right, abs=1e-4)
    assert ml.load(folders).inner.score(data, positive="good") == pytest.approx(1 - right, abs=1e-4)
    wrong: Any
    for wrong, message in (("Bad", "`positive` must be one of two"), (3, "`positive` must be one of two")):
        with pytest.raises(InputError, match=message):
            ml.GaussianNB().fit(data, label="y", positive=wrong)
    with pytest.raises(InputError, match="`positive` is of labels that are text"):
        ml.GaussianNB().fit(*columns(), positive="bad")
    with pytest.raises(InputError, match="it needs no `positive`"):
        ml.GaussianNB().fit(numbers, label="y", positive="bad")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ml.SelectKBest(score_func="anova"), "`score_func` of SelectKBest must be one of"),
        (lambda: ml.SelectKBest(k=0), "`k` of SelectKBest must be a number of columns, or 'all'"),
        (lambda: ml.SelectKBest(k=9).fit(frame(), label="y"), "`k` of SelectKBest is 9, but there are 6 columns"),
        (lambda: ml.SelectKBest(k=1).fit(frame().drop("y")), "`label` is missing"),
        (lambda: ml.SelectKBest(score_func="chi2", k=1).fit(-columns()[0], columns()[1]), "has negative cells"),
        (lambda: ml.RFE(estimator="ridge"), "`estimator` of RFE must be a linear model"),
        (lambda: ml.TargetEncoder(smooth=-1), "`smooth` of TargetEncoder must be 'auto', or a number from 0"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        make()
