"""Pages about models: their numbers are those of plain libraries, and they need nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import PARTIES
from sklearn import inspection, metrics, naive_bayes

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import ConfigError, InputError

N = 60


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def people() -> tuple[np.ndarray, np.ndarray, Any]:
    r = np.random.default_rng(1)
    x = r.normal(size=(N, 3)) * [1, 50, 1]
    y = (x[:, 0] + x[:, 1] / 50 + r.normal(size=N) > 0).astype(int)
    ids = np.arange(N)
    alice = {"id": ids, "age": x[:, 0], "<b>income": x[:, 1]}
    bob = {"id": ids, "noise": x[:, 2], "loan": np.where(y == 1, "bad", "good")}
    return x, y, spu.data.vertical({"alice": alice, "bob": bob}, "id", missing=False)


def test_a_page_has_the_numbers_of_plain_libraries(tmp_path: Path) -> None:
    x, y, data = people()
    model = ml.GaussianNB().fit(data, label="loan", positive="bad")
    known = naive_bayes.GaussianNB().fit(x, y)
    plain = known.predict_proba(x)[:, 1]
    seen = spu.PYU("bob")(lambda: plain)()
    found = model.report(tmp_path / "out.html", data, beside={"plain": seen}, title="Loans")
    assert found.numbers["accuracy"] == pytest.approx(known.score(x, y), abs=1e-3)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(y, known.predict(x)))
    for name in ("", ": plain"):  # at 21 thresholds
        area = found.numbers[f"area under the ROC curve{name}"]
        assert area == pytest.approx(metrics.roc_auc_score(y, plain), abs=0.02)
    order = found.importance.importances_mean
    theirs = inspection.permutation_importance(known, x, y, n_repeats=20, random_state=0).importances_mean
    assert np.abs(order - theirs).max() < 0.12 and np.argmin(order) == np.argmin(theirs) == 2
    page = (tmp_path / "out.html").read_text()
    assert page.count("<svg") == 4 and "&lt;b&gt;income" in page and "<b>income" not in page
    assert not re.search(r"<script|src=|href=|url\(|@import", page)
    for text in ("Loans", "plain", "prediction", "score", "MB sent by all", "by chance"):
        assert text in page
    assert "score [] to all parties, 5 times" in [str(r) for r in model.reveals]


def test_importance_of_numbers_and_of_trees() -> None:
    x, _, _ = people()
    cost = 1000 * x[:, 0] + x[:, 1]
    found = ml.permutation_importance(ml.Ridge(inference=False).fit(x, cost), x, cost, n_repeats=2)
    assert found.baseline > 0.99 and found.importances.shape == (3, 2)
    assert found.importances_mean[0] > 1 > found.importances_mean[1] > -0.01 and abs(found.importances_mean[2]) < 0.01
    thirds = np.array_split(np.arange(N), 3)
    rows = spu.data.horizontal({p: {"a": x[t, 0], "b": x[t, 2], "y": cost[t]} for p, t in zip(PARTIES, thirds)})
    tree = ml.Sgb(objective="reg:squarederror", n_estimators=1, max_depth=1, max_bin=4).fit(rows, "y")
    found = ml.permutation_importance(tree, rows, n_repeats=1)
    assert found.names == ("a", "b") and found.importances_mean[0] > 0.2 > 1e-4 > abs(found.importances_mean[1])


def test_a_page_of_training_alone_and_what_cannot_be(tmp_path: Path) -> None:
    x, y, data = people()
    scaler = ml.StandardScaler().fit(data[["age"]])
    scaler.report(tmp_path / "out.html")
    assert "nothing" in (tmp_path / "out.html").read_text()
    with pytest.raises(ConfigError, match="a StandardScaler has no score"):
        scaler.report(tmp_path / "out.html", data, label="loan")
    with pytest.raises(InputError, match="has learned nothing yet"):
        ml.Ridge().report(tmp_path / "out.html")
    with pytest.raises(InputError, match="`n_repeats` must be 1 to 1000"):
        ml.permutation_importance(ml.GaussianNB(), x, y, n_repeats=0)
