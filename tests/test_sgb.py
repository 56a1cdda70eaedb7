"""Secure gradient boosting: trees equal to a plain reference, accuracy beside XGBoost, errors before computing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boosting_reference as reference
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.ml import Sgb
from spuvm.ml.argmax import group_size, largest
from spuvm.runtime.errors import ConfigError, InputError

PARTIES = ("alice", "bob", "carol")


@pytest.fixture
def parties() -> Iterator[tuple[str, ...]]:
    spu.init(parties=PARTIES, address="local")
    yield PARTIES
    spu.shutdown()


# The largest of many -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 45, 1100])
def test_the_largest_and_of_equals_the_first(n: int) -> None:
    x = np.random.default_rng(n).integers(0, 1 + n // 2, (n, 3)).astype(np.float32)
    out = np.asarray(largest(jnp.asarray(x)))
    assert (np.argmax(out, axis=0) == np.argmax(x, axis=0)).all()
    assert (out.sum(axis=0) == 1).all() and out.shape == x.shape


def test_the_largest_of_secrets_in_two_levels_of_rounds() -> None:
    x = np.random.default_rng(1).normal(size=(90, 2)).astype(np.float32)
    secure = spu.jit(largest)
    assert (np.argmax(spu.reveal(secure(x)), axis=0) == np.argmax(x, axis=0)).all()
    assert group_size(90) == 10
    assert secure.cost(x).rounds <= 2 * 16 + 1


# Trees equal to the reference ----------------------------------------------------------------------------


def table(rows: int, seed: int = 0) -> dict[str, Any]:
    """Numbers with ties and gaps, a bool, a category, and a label that depends on all of them."""
    r = np.random.default_rng(seed)
    a, b = r.normal(size=rows).astype(np.float32), r.integers(0, 6, rows).astype(np.float32)
    c, d = r.normal(size=rows).astype(np.float32), r.random(rows) < 0.4
    e = r.choice(["north", "south", "west"], rows)
    signal = a + 0.3 * b - 1.5 * d + (e == "south") * (c > 0) + r.normal(size=rows) * 0.3
    b[r.random(rows) < 0.2] = np.nan
    return {"a": a, "b": b, "c": c, "d": d, "e": e, "signal": signal}


def frame_of(t: dict[str, Any], label: np.ndarray, **more: np.ndarray) -> Any:
    """Features at alice and bob, labels (and what else is given) at carol, who has no features."""
    ids = np.arange(len(label))
    sources = {
        "alice": {"id": ids, "a": t["a"], "b": t["b"]},
        "bob": {"id": ids, "c": t["c"], "d": t["d"], "e": t["e"]},
        "carol": {"id": ids, "label": label, **more},
    }
    return spu.data.vertical(sources, "id", missing=["b"], categories={"e": "public"})


def features_of(frame: Any) -> np.ndarray:
    """All features side by side: only a simulation can do that."""
    return np.concatenate([spu.reveal(frame.at(p)) for p in ("alice", "bob")], axis=1)


def edges_of(x: np.ndarray, columns: Any, max_bin: int) -> list[np.ndarray]:
    out = []
    for i, column in enumerate(columns):
        codes = np.arange(len(column.categories or ()), dtype=np.float32)
        out.append(codes if column.type == "category" else reference.quantile_edges(x[:, i], max_bin))
    return out


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_trees_equal_the_reference_node_by_node(parties: Any, objective: str) -> None:
    t = table(150)
    label = (t["signal"] > 0.5) if objective == "binary:logistic" else 40 * t["signal"] + 7
    frame = frame_of(t, label)
    depth = 3 if objective == "binary:logistic" else 2
    secure = Sgb(objective=objective, n_estimators=2, max_depth=depth, max_bin=8, gamma=0.1, min_child_weight=2.0)
    secure.fit(frame, "label")
    plain = secure.reveal()
    x = features_of(frame)
    edges = edges_of(x, plain.columns, 8)
    y, p = np.asarray(label, np.float64), secure.parameters
    gradients = reference.logistic if objective == "binary:logistic" else reference.squared
    base = np.log(y.mean() / (1 - y.mean())) if objective == "binary:logistic" else y.mean()
    unit = 1.0 if objective == "binary:logistic" else np.abs(y - y.mean()).max()
    margin = np.full(len(y), base)
    for (ours,) in plain.trees:
        theirs = reference.grow(x, plain.columns, *gradients(margin, y), p, edges)
        reference.same(ours, theirs, 1e-4 * unit)
        margin += reference.apply(theirs, x, plain.columns)
    assert np.abs(plain.margins(x)[:, 0] - margin).max() < 2e-4 * unit


# Variants ------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"n_estimators": 2, "max_depth": 2, "max_bin": 8}


def small(seed: int = 0, **parameters: Any) -> tuple[Sgb, Any]:
    """A small model and its frame."""
    t = table(150, seed)
    frame = frame_of(t, t["signal"] > 0.5)
    return Sgb(**(SMALL | parameters)).fit(frame, "label"), frame


def test_xgboost_loads_what_is_revealed(parties: Any, tmp_path: Any) -> None:
    xgboost = pytest.importorskip("xgboost")
    secure, frame = small(n_estimators=3)
    margin = spu.reveal(secure.predict_margin(frame))
    revealed = secure.reveal()
    revealed.save(tmp_path / "model.json")
    booster = xgboost.Booster(model_file=tmp_path / "model.json")
    names = [c.name for c in revealed.columns]
    assert any(c.type == "category" for c in revealed.columns)
    matrix = xgboost.DMatrix(
        features_of(frame),
        feature_names=names,
        feature_types=["float", "float", "float", "i", "c"],
        enable_categorical=True,
    )
    assert np.abs(booster.predict(matrix, output_margin=True) - margin[:, 0]).max() < 1e-3
    assert np.abs(revealed.margins(features_of(frame)) - margin).max() < 1e-4


def test_owners_who_may_know_their_splits_know_only_those(parties: Any, capsys: Any) -> None:
    hidden, frame = small()
    shown, _ = small(reveal_splits_to_owner=True)
    assert "each owner of features learns the splits" in capsys.readouterr().out
    assert shown.model is not None and hidden.model is not None
    for level in shown.model.trees[0].splits:
        assert [repr(piece).split()[2] for piece in level] == ["secret", "private(alice)", "private(bob)"]
    assert {(r.what, r.to) for r in shown.reveals} == {("training", "alice"), ("training", "bob")}
    assert hidden.reveals == ()
    for (one,), (other,) in zip(hidden.reveal().trees, shown.reveal().trees):
        reference.same(one, other, 1e-4)
    x = features_of(frame)
    assert np.abs(spu.reveal(shown.predict_margin(frame)) - shown.reveal().margins(x)).max() < 1e-4


def test_weights_and_sampled_rows(parties: Any) -> None:
    t = table(150)
    weight = np.random.default_rng(5).integers(0, 3, 150).astype(np.float32)
    frame = frame_of(t, t["signal"] > 0.5, weight=weight)
    secure = Sgb(**SMALL, subsample=0.5, random_state=3).fit(frame, "label", sample_weight="weight")
    plain = secure.reveal()
    x = features_of(frame)
    y, p = (t["signal"] > 0.5).astype(np.float64), secure.parameters
    edges = edges_of(x, plain.columns, p.max_bin)
    generator = np.random.RandomState(3)
    base = np.average(y, weights=weight)
    margin = np.full(150, np.log(base / (1 - base)))
    for (ours,) in plain.trees:
        rows = np.zeros(150)
        rows[generator.permutation(150)[:75]] = 1
        g, h = (v * weight * rows for v in reference.logistic(margin, y))
        theirs = reference.grow(x, plain.columns, g, h, p, edges)
        reference.same(ours, theirs, 1e-4)
        margin += reference.apply(theirs, x, plain.columns)


def test_sampled_features_and_a_depth_of_one(parties: Any) -> None:
    secure, _ = small(max_depth=1, n_estimators=4, colsample_bytree=0.4, random_state=1)
    generator, plain = np.random.RandomState(1), secure.reveal()
    for (tree,) in plain.trees:
        allowed = generator.permutation(np.arange(5))[:2]
        assert tree.weight is not None or tree.feature in allowed
    counts = secure.feature_importance()
    assert [counts[c.name] for c in plain.columns] == [
        sum(t.weight is None and t.feature == i for (t,) in plain.trees) for i in range(5)
    ]


def test_no_gain_no_split(parties: Any) -> None:
    secure, frame = small(gamma=1000.0)
    assert all(t.weight is not None for (t,) in secure.reveal().trees)
    assert set(secure.feature_importance("total_gain").values()) == {0.0}
    assert np.ptp(spu.reveal(secure.predict_margin(frame))) == 0


def test_scores_early_stopping_and_what_is_shown(parties: Any) -> None:
    t = table(150)
    noise = np.random.default_rng(9).random(150) < 0.5
    train, test = frame_of(t, noise).split(0.4, seed=1)
    settings: dict[str, Any] = {
        **SMALL,
        "n_estimators": 12,
        "eval_metric": ("auc", "logloss"),
        "early_stopping_rounds": 2,
    }
    secure = Sgb(**settings).fit(train, "label", eval_set={"held out": test})
    losses = secure.evals_result()["held out"]["logloss"]
    assert secure.model is not None and len(losses) < 12
    assert secure.best_iteration == int(np.argmin(losses)) == len(losses) - 3
    assert len(secure.model.trees) == secure.best_iteration + 1
    assert [(r.what, r.to, r.shape, r.times) for r in secure.reveals] == [
        ("scores of held out", "all parties", (), 2 * len(losses))
    ]
    y, m = spu.reveal(test["label"].at("carol")), spu.reveal(secure.predict_margin(test))[:, 0]
    expected = np.mean(np.logaddexp(0, m) - y * m)
    assert abs(secure.best_score - expected) < 1e-4
    assert abs(secure.score(test) - np.mean((m > 0) == y)) < 1e-4
    only = secure.predict(test, to="alice")
    assert only.device.party == "alice" and np.array_equal(only.value, m > 0)
    proba = secure.predict_proba(test, to="bob").value
    assert np.abs(proba[:, 1] - 1 / (1 + np.exp(-m))).max() < 1e-4 and np.abs(proba.sum(axis=1) - 1).max() < 1e-4


def test_parameters_are_got_and_set() -> None:
    model = Sgb(max_depth=3)
    assert model.get_params()["max_depth"] == 3 and model.get_params()["n_estimators"] == 100
    assert Sgb(**model.set_params(gamma=2.0).get_params()).get_params() == model.get_params()
    assert repr(model) == "Sgb(max_depth=3, gamma=2.0)"
    with pytest.warns(UserWarning, match="`n_jobs` of XGBoost is ignored: the machine uses the cores"):
        assert Sgb(n_jobs=4, alpha=0.5).get_params()["reg_alpha"] == 0.5


def test_a_constant_column_is_never_split_and_bins_are_no_more_than_rows(parties: Any) -> None:
    frame = vertical(LABEL, {"a": np.ones(20), "b": LABEL["label"] + 0.0}, missing=False)
    model = Sgb(n_estimators=1, max_depth=2, eta=1.0).fit(frame, "label")
    assert model.parameters.learning_rate == 1.0
    assert model.feature_importance() == {"a": 0, "b": 1}
    assert model.score(frame) == 1


@pytest.mark.parametrize("objective", ["count:poisson", "reg:gamma", "reg:tweedie"])
def test_labels_whose_logarithm_is_predicted_beside_xgboost(parties: Any, objective: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    x = np.random.default_rng(0).integers(0, 6, 80).astype(np.float32)
    y = np.round(40 * np.exp(0.4 * x)) if objective == "count:poisson" else 40 * np.exp(0.4 * x)
    frame = vertical({"label": y}, {"a": x}, missing=False)
    free: dict[str, Any] = {"reg_lambda": 0.0, "min_child_weight": 0.0}  # both count in units of the mean label here
    secure = Sgb(objective=objective, n_estimators=3, max_depth=2, max_bin=8, **free).fit(frame, "label")
    settings = {"objective": objective, "max_depth": 2, "tree_method": "hist", "base_score": float(y.mean()), **free}
    plain = xgboost.train(settings, xgboost.DMatrix(x[:, None], y), 3)
    theirs = plain.predict(xgboost.DMatrix(x[:, None]))
    assert np.abs(secure.predict(frame, to="carol").value / theirs - 1).max() < 0.01


# Bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_deep": 3}, "unknown parameter `max_deep` .did you mean `max_depth`"),
        ({"booster": "gblinear"}, "`booster` of XGBoost has no meaning here: there are trees alone"),
        ({"objective": "reg:quantileerror"}, "needs `quantile_alpha`"),
        ({"quantile_alpha": 0.5}, "takes no `quantile_alpha`"),
        ({"sampling_method": "goss", "subsample": 0.5}, "leave `subsample` at 1"),
        ({"top_rate": 0.8, "other_rate": 0.3}, "together at most 1"),
        ({"eta": 0.1, "learning_rate": 0.1}, "`eta` and `learning_rate` are the same parameter"),
        ({"max_depth": 0}, "`max_depth` must be 1 to 10, got 0"),
        ({"max_depth": True}, "`max_depth` must be 1 to 10"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be above 0"),
        ({"objective": "rank:map"}, "`objective` must be one of binary:logistic"),
        ({"objective": "multi:softprob"}, "needs `num_class`"),
        ({"num_class": 3}, "takes no `num_class`"),
        ({"base_score": 1.5}, "`base_score` of 'binary:logistic' is a probability"),
        ({"eval_metric": "rmse"}, "`eval_metric` of 'binary:logistic' is one of logloss"),
    ],
)
def test_parameters_that_cannot_be(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sgb(**parameters)


def vertical(carol: dict[str, Any], alice: dict[str, Any] | None = None, **options: Any) -> Any:
    rows = len(next(iter(carol.values())))
    ids = np.arange(rows)
    features = {"a": np.linspace(0, 1, rows)} if alice is None else alice
    return spu.data.vertical({"alice": {"id": ids, **features}, "carol": {"id": ids, **carol}}, "id", **options)


LABEL = {"label": np.arange(20) % 2 == 0}


@pytest.mark.parametrize(
    ("frame", "parameters", "message"),
    [
        (lambda: vertical({"other": np.arange(20)}), {}, "there is no column `label`"),
        (lambda: vertical({"label": np.arange(20.0)}), {}, "are 0 and 1"),
        (lambda: vertical({"label": np.r_[np.nan, np.ones(19)]}), {}, "1 of 20 labels are missing"),
        (lambda: vertical({"label": np.ones(20)}), {}, "all labels are of one class"),
        (lambda: vertical({"label": np.ones(20)}), {"objective": "reg:squarederror"}, "labels are the same"),
        (lambda: vertical({"label": np.arange(20.0)}), {"objective": "multi:softmax", "num_class": 3}, "from 0 to 2"),
        (lambda: vertical(LABEL, {}), {}, "there are no features"),
        (lambda: vertical(LABEL), {"early_stopping_rounds": 2}, "needs an `eval_set`"),
    ],
)
def test_training_data_that_cannot_be_used(parties: Any, frame: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ConfigError), match=message):
        Sgb(**({"max_bin": 4} | parameters)).fit(frame(), "label")


def test_data_that_is_not_what_the_model_knows(parties: Any) -> None:
    with pytest.raises(InputError, match="has learned nothing yet"):
        Sgb().predict(vertical(LABEL))
    words = np.array(["x", "y"] * 10)
    frame = vertical(LABEL, {"a": np.arange(20.0), "w": words}, missing=False)
    model = Sgb(n_estimators=1, max_depth=1, max_bin=4).fit(frame, "label")
    for alice, message in [
        ({"a": np.arange(20.0)}, "needs column `w`"),
        ({"a": np.arange(20.0), "w": np.arange(20.0)}, "column `w` of alice as category, here it is float"),
        ({"a": np.arange(20.0), "w": np.where(words == "x", "z", words)}, "a category that the model does not know"),
        ({"a": np.r_[np.nan, np.ones(19)], "w": words}, "1 of 20 cells missing"),
    ]:
        with pytest.raises(InputError, match=message):
            model.predict(vertical(LABEL, alice))
    ids = np.arange(20)
    elsewhere = spu.data.vertical({"bob": {"id": ids, "a": ids + 0.5, "w": words}, "carol": {"id": ids, **LABEL}}, "id")
    with pytest.raises(InputError, match="the model has features of alice"):
        model.predict(elsewhere)


# Accuracy ------------------------------------------------------------------------------------------------


def test_breast_cancer_beside_xgboost(parties: Any) -> None:
    xgboost = pytest.importorskip("xgboost")
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import roc_auc_score

    x, y = load_breast_cancer(return_X_y=True)
    x, ids = x.astype(np.float32), np.arange(len(y))
    sources: dict[str, Any] = {
        p: {"id": ids, **{f"{p}{i}": x[:, i] for i in range(10 * k, 10 * k + 10)}} for k, p in enumerate(PARTIES)
    }
    sources["carol"]["label"] = y.astype(bool)
    frame = spu.data.vertical(sources, "id", missing=False)
    train, test = frame.split(0.25, seed=0)
    secure = Sgb(n_estimators=20, max_depth=3, max_bin=32).fit(train, "label")
    margin = spu.reveal(secure.predict_margin(test))[:, 0]

    def gathered(part: Any) -> tuple[np.ndarray, np.ndarray]:
        columns = [spu.reveal(part.drop("label").at(p)) for p in PARTIES]
        return np.concatenate(columns, axis=1), spu.reveal(part["label"].at("carol"))

    (x_train, y_train), (x_test, y_test) = gathered(train), gathered(test)
    matrix = xgboost.QuantileDMatrix(x_train, y_train, max_bin=32)
    settings = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 3, "max_bin": 32, "eta": 0.3}
    plain = xgboost.train(settings, matrix, 20)
    theirs = roc_auc_score(y_test, plain.predict(xgboost.DMatrix(x_test)))
    assert abs(roc_auc_score(y_test, margin) - theirs) < 0.005


def test_wine_in_three_classes_as_xgboost_on_equal_bins(parties: Any) -> None:
    """Of at most `max_bin` different values both have the same bins, and so the same trees."""
    xgboost = pytest.importorskip("xgboost")
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    x = np.stack([np.digitize(c, np.quantile(c, np.arange(1, 7) / 7)) for c in x[:, [0, 6, 9, 12]].T], axis=1)
    x = x.astype(np.float32)
    ids = np.arange(len(y))
    sources = {
        "alice": {"id": ids, "a": x[:, 0], "b": x[:, 1]},
        "bob": {"id": ids, "c": x[:, 2], "d": x[:, 3], "label": y},
        "carol": {"id": ids},
    }
    frame = spu.data.vertical(sources, "id", missing=False)
    secure = Sgb(objective="multi:softprob", num_class=3, n_estimators=4, max_depth=2, max_bin=8).fit(frame, "label")
    matrix = xgboost.QuantileDMatrix(x, y, max_bin=8)
    settings = {"objective": "multi:softprob", "num_class": 3, "tree_method": "hist", "max_depth": 2, "max_bin": 8}
    theirs = xgboost.train(settings, matrix, 4).predict(xgboost.DMatrix(x))
    assert abs(np.mean(theirs.argmax(axis=1) == y) - secure.score(frame)) < 1e-4
    margin = secure.reveal().margins(x)
    expected = np.exp(margin) / np.exp(margin).sum(axis=1, keepdims=True)
    assert np.abs(theirs - expected).max() < 1e-3
    assert np.abs(secure.predict_proba(frame, to="bob").value - expected).max() < 1e-4
    assert np.array_equal(spu.reveal(secure.predict(frame)), expected.argmax(axis=1))
