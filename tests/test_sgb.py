"""Secure gradient boosting: trees equal to a plain reference, accuracy beside XGBoost, errors before computing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boosting_reference as reference
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.ml.argmax import group_size, largest
from spuvm.ml.sgb import Sgb

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


def frame_of(t: dict[str, Any], label: np.ndarray) -> Any:
    """Features at alice and bob, labels at carol, who has no features."""
    ids = np.arange(len(label))
    sources = {
        "alice": {"id": ids, "a": t["a"], "b": t["b"]},
        "bob": {"id": ids, "c": t["c"], "d": t["d"], "e": t["e"]},
        "carol": {"id": ids, "label": label},
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
    secure = Sgb(objective=objective, n_estimators=2, max_depth=3, max_bin=12, gamma=0.1, min_child_weight=2.0)
    secure.fit(frame, "label")
    assert secure.model is not None
    plain = secure.model.reveal()
    x = features_of(frame)
    edges = edges_of(x, plain.columns, 12)
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
    assert secure.model is not None
    margin = spu.reveal(secure.model.margins(test))[:, 0]

    def gathered(part: Any) -> tuple[np.ndarray, np.ndarray]:
        columns = [spu.reveal(part.drop("label").at(p)) for p in PARTIES]
        return np.concatenate(columns, axis=1), spu.reveal(part["label"].at("carol"))

    (x_train, y_train), (x_test, y_test) = gathered(train), gathered(test)
    matrix = xgboost.QuantileDMatrix(x_train, y_train, max_bin=32)
    settings = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 3, "max_bin": 32, "eta": 0.3}
    plain = xgboost.train(settings, matrix, 20)
    theirs = roc_auc_score(y_test, plain.predict(xgboost.DMatrix(x_test)))
    assert abs(roc_auc_score(y_test, margin) - theirs) < 0.005
