"""Habits that every estimator has, as scikit-learn's `check_estimator` asks for them where they make sense here.

The table is that of all classes that `spuvm.ml` has; a new one is in it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from estimators import PARTIES
from scipy import sparse

import spuvm as spu
from spuvm import ml
from spuvm.ml.common.estimator import CLASSES
from spuvm.ml.common.predictors import Predictor
from spuvm.ml.common.transformers import Transformer
from spuvm.ml.trees.forest import TreeEstimator
from spuvm.runtime.errors import ConfigError, InputError, NotFittedError

ROWS = 24
COMPOSED = ("Pipeline", "ColumnTransformer", "ScoreCard", "RFE")  # whose parameters are other estimators
NAMES = sorted(
    name
    for name, cls in CLASSES.items()
    if hasattr(ml, name) and cls.__module__.split(".")[2] != "imported" and name not in COMPOSED
)
SURVIVAL = ("CoxPHFitter", "KaplanMeierFitter")  # whose `fit` takes names of columns
ARRAYS = [name for name in NAMES if name not in SURVIVAL]


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 3, (ROWS, 3))


def y(name: str) -> np.ndarray | None:
    cls = CLASSES[name]
    if not (issubclass(cls, Predictor | TreeEstimator) or getattr(cls, "needs_labels", False) or name == "Sgb"):
        return None
    return np.arange(ROWS) % 2


def takes_text(name: str) -> bool:
    return issubclass(CLASSES[name], TreeEstimator) or name == "Sgb" or "Encoder" in name or "Imputer" in name


def made_of(name: str) -> Any:
    return CLASSES[name](k=2) if name == "SelectKBest" else CLASSES[name]()


def fitted(name: str, features: Any, labels: Any = None) -> Any:
    given = y(name) if labels is None else labels
    return made_of(name).fit(features, *(() if given is None else (given,)))


def test_the_table_has_all() -> None:
    assert len(NAMES) > 45 and {"LogisticRegression", "Sgb", "KMeans", "StandardScaler", "RFE"} - set(NAMES) == {"RFE"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_go_in_and_come_out(name: str) -> None:
    made = CLASSES[name]()
    parameters = made.get_params()
    assert ml.clone(made).get_params() == parameters and ml.clone(made) is not made
    assert made.set_params(**parameters) is made and made.get_params() == parameters
    assert repr(made) == f"{name}()"
    for key, value in parameters.items():
        if isinstance(value, int) and not isinstance(value, bool) and value > 2:
            changed = CLASSES[name](**{key: value - 1})
            assert repr(changed) == f"{name}({key}={value - 1})"
            assert eval(f"ml.{changed!r}").get_params() == changed.get_params()
    with pytest.raises(ConfigError, match="`no_such_parameter`"):
        made.set_params(no_such_parameter=1)
    with pytest.raises((ConfigError, TypeError), match="no_such_parameter"):
        CLASSES[name](no_such_parameter=1)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_learned_nothing_says_so(name: str, tmp_path: Path) -> None:
    made = CLASSES[name]()
    assert made.reveals == () and not hasattr(made, "n_features_in_")
    for verb in ("predict", "transform", "predict_proba", "decision_function", "score_samples"):
        if hasattr(made, verb) and (verb != "predict_proba" or getattr(made, "probabilities", True)):
            with pytest.raises(NotFittedError, match=f"{name} has learned nothing yet: call `fit`"):
                getattr(made, verb)(x())
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        made.save({p: tmp_path / p for p in PARTIES})
    assert not list(tmp_path.iterdir())


TEXTS = ("text", "text of digits", "times")
BAD_FEATURES: dict[str, tuple[Any, str]] = {
    "sparse": (lambda: sparse.csr_matrix(x()), "is sparse"),
    "complex": (lambda: x() + 1j, "complex numbers"),
    "one axis": (lambda: x()[:, 0], r"rows and columns, got shape \(24,\)"),
    "three axes": (lambda: x()[:, :, None], r"rows and columns, got shape \(24, 3, 1\)"),
    "no rows": (lambda: x()[:0], "there is nothing to compute with"),
    "no columns": (lambda: x()[:, :0], "there is nothing to compute with"),
    "text": (lambda: [["a", "b"]] * ROWS, "no numbers|text"),
    "text of digits": (lambda: [["1", "2"]] * ROWS, "no numbers|text"),
    "times": (lambda: x().astype("datetime64[s]"), "no numbers|text|times"),
    "two names alike": (lambda: pd.DataFrame(x(), columns=["a", "b", "a"]), "two columns `a`"),
    "infinite": (lambda: np.where(x() > 2.9, np.inf, x()), "infinite"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_features_that_cannot_be(name: str) -> None:
    for what, (made, message) in BAD_FEATURES.items():
        if what in TEXTS and takes_text(name):
            continue
        with pytest.raises((InputError, ConfigError), match=message) as caught:
            fitted(name, made())
        assert "\n" not in str(caught.value), what


BAD_LABELS: dict[str, tuple[Any, str]] = {
    "too few": (lambda: (np.arange(ROWS) % 2)[1:], "23"),
    "two columns": (lambda: np.ones((ROWS, 2)), r"one axis, got shape \(24, 2\)"),
    "missing": (lambda: np.where(np.arange(ROWS) < 3, np.nan, np.arange(ROWS) % 2), "3 of 24 labels are missing"),
    "infinite": (lambda: np.where(np.arange(ROWS) < 3, np.inf, np.arange(ROWS) % 2), "infinite"),
    "text": (lambda: np.array(["yes", "no"] * (ROWS // 2)), "must be numbers"),
    "text of digits": (lambda: np.array(["1", "0"] * (ROWS // 2), object), "must be numbers"),
    "sparse": (lambda: sparse.csr_matrix(np.ones((ROWS, 1))), "is sparse"),
}


@pytest.mark.parametrize("name", [n for n in ARRAYS if y(n) is not None])
def test_labels_that_cannot_be(name: str) -> None:
    for what, (made, message) in BAD_LABELS.items():
        with pytest.raises((InputError, ConfigError), match=message) as caught:
            fitted(name, x(), made())
        assert "\n" not in str(caught.value), what
    with pytest.raises(InputError, match="`label` is missing"):
        made_of(name).fit(x())


# Transformers learn at the columns' owners: cheap enough to be fitted here, all of them -------------------------------

TRANSFORMERS = [n for n in ARRAYS if issubclass(CLASSES[n], Transformer)]


def cells(table: Any) -> np.ndarray:
    return np.concatenate([np.asarray(spu.reveal(b.value), np.float64) for b in table.blocks], axis=1)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_are_the_same_again_and_from_their_parts(name: str, tmp_path: Path) -> None:
    named = pd.DataFrame(np.round(x()), columns=["age", "dose", "days"])
    made = fitted(name, named)
    first = made.transform(named)
    assert list(made.feature_names_in_) == ["age", "dose", "days"] and made.n_features_in_ == 3
    assert len(made.get_feature_names_out()) == len(first.columns)
    assert np.allclose(cells(fitted(name, named).transform(named)), cells(first), atol=1e-4)
    assert np.allclose(cells(made.transform(named[["days", "age", "dose"]])), cells(first), atol=1e-4)
    folders = {p: tmp_path / p for p in PARTIES}
    made.save(folders)
    assert np.allclose(cells(ml.load(folders).transform(named)), cells(first), atol=1e-4)
    part = folders["carol"] / "model.share"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        ml.load(folders)
    with pytest.raises(InputError, match="2 columns, this was trained on 3"):
        made.transform(x()[:, :2])
