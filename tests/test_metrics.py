"""Scores of predictions against scikit-learn, on secret and private values, ties and single classes included."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

import spuvm as spu
from spuvm.ml import metrics
from spuvm.runtime.errors import EncodingError, InputError

PARTIES = ("alice", "bob", "carol")
Array = np.ndarray[Any, Any]


def scored(n: int, ties: bool, seed: int = 0) -> tuple[Array, Array]:
    """Labels and scores of both classes; rounded to few different values if `ties`."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.float32)
    y[:2] = 0, 1
    s = rng.normal(size=n) + y
    return y, np.round(s, 1 if ties else 12).astype(np.float32)


def plainly(fn: Callable[..., Any], *args: Any) -> float:
    return float(jax.jit(fn)(*args))


@pytest.fixture
def device() -> Iterator[spu.SPU]:
    spu.init(parties=PARTIES, address="local")
    yield spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    spu.shutdown()


def held(x: Any, party: str) -> Any:
    return spu.PYU(party)(lambda: np.asarray(x))()


# AUC ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pairs", "sorted"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 7, 64, 100])
def test_auc_in_the_clear(way: str, ties: bool, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PAIRS_UP_TO", n if way == "pairs" else 0)
    for seed in range(5):
        y, s = scored(n, ties, seed)
        assert plainly(metrics.auc, y, s) == pytest.approx(sk.roc_auc_score(y, s), abs=1e-6)


@pytest.mark.parametrize("way", ["pairs", "sorted"])
@pytest.mark.parametrize(
    ("y", "s", "area"),
    [
        ([0, 1], [1, 1], 0.5),
        ([0, 1, 1, 0], [2, 2, 2, 2], 0.5),
        ([1, 1, 0, 0], [4, 3, 2, 1], 1.0),
        ([0, 0, 1, 1], [4, 3, 2, 1], 0.0),
        ([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1], 0.875),
        ([0, 1, 0, 1, 1], [1, 1, 2, 2, 1], 5 / 12),
    ],
)
def test_ties_count_half(way: str, y: Any, s: Any, area: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PAIRS_UP_TO", len(y) if way == "pairs" else 0)
    y, s = np.array(y, np.float32), np.array(s, np.float32)
    assert sk.roc_auc_score(y, s) == pytest.approx(area)
    assert plainly(metrics.auc, y, s) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("n", [5, 143])
@pytest.mark.parametrize("ties", [False, True])
def test_auc_by_pairs_on_secrets(n: int, ties: bool) -> None:
    y, s = scored(n, ties)
    assert spu.reveal(spu.jit(metrics.auc)(y, s)) == pytest.approx(sk.roc_auc_score(y, s), abs=2e-5)


def test_auc_by_sorting_secrets() -> None:
    n = metrics.PAIRS_UP_TO + 88
    y, s = scored(n, ties=True)
    assert len(np.unique(s)) < n / 5
    fn = spu.jit(metrics.auc)
    assert spu.reveal(fn(y, s)) == pytest.approx(sk.roc_auc_score(y, s), abs=2e-5)
    assert fn.cost(y, s).bytes_sent.sum() < metrics.PAIRS_UP_TO**2 * 48


def test_few_positives_among_many() -> None:
    """The quotient keeps its precision where P N is small beside n^2."""
    n = metrics.PAIRS_UP_TO
    y, s = np.zeros(n, np.float32), np.arange(n, dtype=np.float32)
    y[17] = 1
    assert spu.reveal(spu.jit(metrics.auc)(y, s)) == pytest.approx(17 / (n - 1), abs=2e-5)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_no_area(only: int) -> None:
    y, s = np.full(9, only, np.float32), np.arange(9, dtype=np.float32)
    assert spu.reveal(spu.jit(metrics.auc)(y, s)) == 0.5


# The others -----------------------------------------------------------------------------------------------


def test_accuracy_and_log_loss_of_two_classes() -> None:
    y, z = scored(200, ties=True)
    p = 1 / (1 + np.exp(-z))
    p[:3] = 0.5, 0.5, 1.0
    p = p.astype(np.float32)
    fn = spu.jit(lambda y, p, z: (metrics.accuracy(y, p), metrics.log_loss(y, p), metrics.margin_log_loss(y, z)))
    share, loss, of_margins = (float(v) for v in spu.reveal(fn(y, p, z)))
    assert share == pytest.approx(sk.accuracy_score(y, p > 0.5), abs=1e-5)
    # of 1.0 for a row of class 0 (there is none here) scikit-learn says more than 13.2
    assert y[2] == 1 or p[2] != 1 or pytest.fail("the third row must be positive")
    assert loss == pytest.approx(sk.log_loss(y, p.astype(np.float64)), abs=5e-5)
    assert of_margins == pytest.approx(sk.log_loss(y, 1 / (1 + np.exp(-z.astype(np.float64)))), abs=2e-5)


def test_a_probability_of_nought_is_bounded() -> None:
    y, p = np.ones(4, np.float32), np.array([0, 1, 1, 1], np.float32)
    assert spu.reveal(spu.jit(metrics.log_loss)(y, p)) == pytest.approx(19 * np.log(2) / 4, abs=1e-4)


def test_several_classes() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(60, 4)).astype(np.float32)
    z[:5, 2] = z[:5, 1] = 9  # the first of the largest counts
    y = rng.integers(0, 4, 60).astype(np.float32)
    y[:5] = 1, 2, 1, 2, 0
    p = np.asarray(jax.nn.softmax(z))
    fn = spu.jit(
        lambda y, p, z: (
            metrics.multiclass_accuracy(y, z),
            metrics.multiclass_log_loss(y, p),
            metrics.margin_multiclass_log_loss(y, z),
        )
    )
    share, loss, of_margins = (float(v) for v in spu.reveal(fn(y, p, z)))
    exact = sk.log_loss(y, p.astype(np.float64) / p.sum(axis=1, keepdims=True, dtype=np.float64), labels=range(4))
    assert share == pytest.approx(sk.accuracy_score(y, z.argmax(axis=1)), abs=1e-5)
    assert loss == pytest.approx(exact, abs=2e-4)  # of probabilities of 1e-4, known to 4e-6
    assert of_margins == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize(("n", "size"), [(1, 3.0), (10, 8000.0), (5000, 500.0), (5000, 0.1), (5000, 0.001)])
def test_rmse(n: int, size: float) -> None:
    rng = np.random.default_rng(2)
    y, p = (rng.uniform(-size, size, n).astype(np.float32) for _ in range(2))
    expected = sk.root_mean_squared_error(y, p)
    assert spu.reveal(spu.jit(metrics.rmse)(y, p)) == pytest.approx(expected, rel=2e-5, abs=2e-5)


# On a machine ------------------------------------------------------------------------------------------------


def test_every_metric_by_its_name(device: spu.SPU) -> None:
    y, s = scored(50, ties=False)
    p = (1 / (1 + np.exp(-s))).astype(np.float32)
    both = np.stack([1 - p, p], axis=1)
    expected = {
        "auc": sk.roc_auc_score(y, p),
        "accuracy": sk.accuracy_score(y, p > 0.5),
        "error": 1 - sk.accuracy_score(y, p > 0.5),
        "logloss": sk.log_loss(y, p.astype(np.float64)),
        "macc": sk.accuracy_score(y, p > 0.5),
        "merror": 1 - sk.accuracy_score(y, p > 0.5),
        "mlogloss": sk.log_loss(y, p.astype(np.float64)),
        "rmse": sk.root_mean_squared_error(y, p),
        "mae": sk.mean_absolute_error(y, p),
    }
    assert expected.keys() == metrics.METRICS.keys()
    secret = held(p, "bob").to(device), held(both, "bob").to(device)
    for name, value in expected.items():
        found = metrics.evaluate(device, name, held(y, "carol"), secret[name in ("macc", "merror", "mlogloss")])
        assert isinstance(found, float)
        assert found == pytest.approx(value, abs=5e-5), name


def test_one_number_is_revealed(device: spu.SPU) -> None:
    y, s = scored(10, ties=False)
    fn: Any = device(metrics._revealed("auc"))
    program = fn.compile([held(y, "carol")], [held(s, "bob").to(device)])
    assert re.findall(r'reveal .*?"to": ("?\w+"?)', program.text) == ['"public"']
    assert [v.type.shape for v in program.module.body.results] == [()]


def test_columns_and_labels_of_several_parties(device: spu.SPU) -> None:
    y, s = scored(40, ties=True)
    tables = {"alice": {"ill": y[:25] > 0}, "carol": {"ill": y[25:] > 0}}
    labels = spu.data.horizontal(tables)["ill"]
    area = metrics.evaluate(device, "auc", labels, [held(s[:10], "bob"), held(s[10:], "alice").to(device)])
    assert area == pytest.approx(sk.roc_auc_score(y, s), abs=2e-5)


@pytest.mark.parametrize(
    ("metric", "labels", "scores", "message"),
    [
        ("f1", [0, 1], [0, 1], "`metric` must be one of auc, accuracy"),
        ("auc", [0, 1, 2], [0, 1, 2], "`labels` of carol have more than two classes"),
        ("auc", [1, 1], [0, 1], "`labels` of carol are of one class"),
        ("logloss", [0, 0.5], [0, 1], "`labels` of carol are not classes"),
        ("mlogloss", [0, -1], [[0, 1], [1, 0]], "`labels` of carol are not classes"),
        ("rmse", [0, np.nan], [0, 1], "`labels` of carol have missing"),
        ("auc", [0, 1], [0, 1, 2], r"`scores` of shape \(3,\) do not fit `labels` of shape \(2,\)"),
        ("macc", [0, 1], [0, 1], r"`scores` of shape \(2,\) do not fit"),
        ("rmse", [[0, 1]], [[0, 1]], r"`labels` of shape \(1, 2\)"),
        ("rmse", [], [], "`labels` are empty"),
    ],
)
def test_bad_values(device: spu.SPU, metric: str, labels: Any, scores: Any, message: str) -> None:
    x = held(np.array(scores, np.float32), "bob")
    with pytest.raises(InputError, match=message):
        metrics.evaluate(device, metric, held(np.array(labels, np.float32), "carol"), x)


def test_scores_that_are_no_numbers(device: spu.SPU) -> None:
    with pytest.raises(EncodingError, match="NaN"):
        metrics.evaluate(device, "rmse", held([0.0, 1.0], "carol"), held([0.0, np.nan], "bob"))
