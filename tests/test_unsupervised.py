"""Factors and outliers beside scikit-learn: of columns of several parties, of rows of several, and from saved parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES
from sklearn import decomposition, ensemble, metrics

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import ConfigError, InputError

N = 48
FEW: dict[str, Any] = {"n_estimators": 20, "max_samples": 32}


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def frame(x: np.ndarray, kind: str = "vertical") -> Any:
    ids, named = np.arange(len(x)), {f"c{i}": c for i, c in enumerate(x.T)}
    if kind == "horizontal":
        thirds = np.array_split(ids, 3)
        return spu.data.horizontal(
            {p: {k: v[at] for k, v in named.items()} for p, at in zip(PARTIES, thirds)}, missing=False
        )
    half = len(named) // 2
    alice = {k: v for k, v in named.items() if int(k[1:]) < half}
    bob = {k: v for k, v in named.items() if int(k[1:]) >= half}
    return spu.data.vertical({"alice": {"id": ids, **alice}, "bob": {"id": ids, **bob}}, "id", missing=False)


# Factors ---------------------------------------------------------------------------------------------------------


def mixed() -> np.ndarray:
    """Two parts in four columns, with noise, in hundreds."""
    r = np.random.default_rng(3)
    return 100 * (r.gamma(1.0, 1.0, (N, 2)) @ r.gamma(1.0, 1.0, (2, 4)) + 0.1 * r.uniform(size=(N, 4)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["vertical", "horizontal"])
def test_factors_are_as_near_as_the_known_ones(kind: str, tmp_path: Path) -> None:
    x = mixed()
    theirs = decomposition.NMF(2, max_iter=40, tol=0).fit(x)  # as many steps
    ours: Any = ml.NMF(2, max_iter=40).fit(frame(x, kind))
    assert ours.reveals == ()
    w: Any = spu.reveal(ours.transform(frame(x, kind)).blocks[0].value)
    h = ours.components_
    assert w.min() >= -1e-4 and h.min() >= 0
    assert np.linalg.norm(x - w @ h) < 1.01 * theirs.reconstruction_err_
    assert ours.reconstruction_err_ == pytest.approx(np.linalg.norm(x - w @ h), rel=0.01)
    assert {r.what for r in ours.reveals} == {"components", "reconstruction error"}
    if kind == "vertical":
        folders = {p: tmp_path / p for p in PARTIES}
        ours.save(folders)
        again = ml.load(folders).transform(frame(x)).blocks[0].value
        assert np.abs(spu.reveal(again) - w).max() < 1e-3 * w.max()


# Outliers --------------------------------------------------------------------------------------------------------


def crowd() -> tuple[np.ndarray, np.ndarray]:
    """A crowd, and six rows that are anywhere, in columns of very different sizes."""
    r = np.random.default_rng(1)
    x = r.normal(size=(N, 4))
    x[:6] = r.uniform(-6, 6, (6, 4))
    return x * [1, 1000, 0.01, 1] + [0, 5000, 0, 3], np.arange(N) < 6


def test_outliers_are_those_of_the_known_forest(tmp_path: Path) -> None:
    x, odd = crowd()
    data = frame(x)
    theirs = ensemble.IsolationForest(n_estimators=200, max_samples=32, random_state=0).fit(x).score_samples(x)
    ours = ml.IsolationForest(**FEW, contamination=0.125).fit(data)
    found = ours.score_samples(data, to="carol").value
    assert np.corrcoef(found, theirs)[0, 1] > 0.9 and abs(found.mean() - theirs.mean()) < 0.03
    assert metrics.roc_auc_score(odd, -found) > 0.98
    predicted = ours.predict(data, to="carol").value
    assert (predicted == -1).sum() == 6 and np.array_equal(predicted == -1, found <= np.sort(found)[5])
    assert {(r.what, r.to) for r in ours.reveals} == {("prediction", "carol")}
    folders = {p: tmp_path / p for p in PARTIES}
    ours.save(folders)
    assert np.array_equal(ml.load(folders).predict(data, to="carol").value, predicted)


def test_outliers_among_rows_of_several_parties_are_the_same() -> None:
    x, _ = crowd()
    found = []
    for kind in ("vertical", "horizontal"):
        data = frame(x, kind)
        found.append(ml.IsolationForest(**FEW).fit(data).score_samples(data, to="bob").value)
    assert np.abs(found[0] - found[1]).max() < 0.01


# What cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ml.NMF(0), "`n_components` of NMF must be a whole number from 1 to 100, got 0"),
        (lambda: ml.NMF(2).fit(-mixed()), "column `x0` of alice has negative cells"),
        (lambda: ml.NMF(2).fit(frame(mixed() - [0, 0, 900, 0], "horizontal")), "column `c2` of .* has negative cells"),
        (lambda: ml.NMF(2).fit(frame(mixed())).transform(mixed()), "was trained on a vertical frame"),
        (
            lambda: ml.IsolationForest(contamination=0.7),
            "`contamination` of IsolationForest must be 'auto'",
        ),
        (lambda: ml.IsolationForest(max_samples=1), "`max_samples` of IsolationForest must be 'auto'"),
        (lambda: ml.IsolationForest(max_samples=0.01).fit(mixed()), "a tree needs 2 or more"),
        (lambda: ml.IsolationForest().fit(np.full((5, 2), np.nan)), "5 of 5 cells missing"),
        (lambda: ml.SVC(kernel="poly"), "`kernel` of SVC must be one of 'rbf'"),
        (lambda: ml.SVC(gamma=-1.0), "`gamma` of SVC must be 'scale'"),
        (lambda: ml.SVC().fit(np.zeros((2001, 1)), np.arange(2001) % 2), "SVC compares all pairs of them"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        make()


# Kernels ---------------------------------------------------------------------------------------------------------


def test_margins_of_kernels_are_those_of_the_known_machine() -> None:
    from sklearn import svm

    r = np.random.default_rng(0)
    x = r.normal(size=(N, 2)) * [1, 50] + [3, 900]
    y = np.digitize(np.hypot(x[:, 0] - 3, (x[:, 1] - 900) / 50), [0.8, 1.6])
    weight = np.where(np.arange(N) % 2, 0.5, 1.5)
    for gamma in ("scale", 0.002):
        ours = ml.SVC(C=2.0, gamma=gamma).fit(frame(x), y, sample_weight=weight)
        margins = ours.decision_function(frame(x), to="alice").value
        for k in range(3):
            theirs = svm.SVC(C=2.0, gamma=gamma, tol=1e-6).fit(x, y == k, sample_weight=weight)
            assert np.abs(margins[:, k] - theirs.decision_function(x)).max() < 0.02
    assert {(r.what, r.to) for r in ours.reveals} == {("prediction", "alice")}
