"""The examples of learning do what they say, and one of them over TLS prints the same."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import run_script
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import spuvm as spu

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "learning"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"learning_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXAMPLES))
    try:
        sys.modules.pop("common", None)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
        sys.modules.pop("common", None)
    return module


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    spu.shutdown()


def test_a_score_card_ranks_as_a_plain_model_does() -> None:
    credit = example("credit")
    spu.init(parties=credit.PARTIES)
    _, area, report = credit.scored(None)
    known = credit.customers()
    x = np.stack([known["bank"]["income"], known["bank"]["debt"], known["phone"]["late"], known["phone"]["years"]], 1)
    z, y = (x - x.mean(axis=0)) / x.std(axis=0), known["bank"]["default"]
    plain = LogisticRegression().fit(z, y)
    assert area > roc_auc_score(y, plain.decision_function(z)) - 0.06
    assert 0.7 < report.disparate_impact < 1.4


def test_a_stream_is_learned_from_in_one_pass(tmp_path: Path) -> None:
    """Blocks of different sizes, the last one smaller than a batch; beside the same steps in the clear."""
    streamed = example("streamed")
    for party in streamed.PARTIES:
        streamed.write(tmp_path, party, 5000)
    spu.init(parties=streamed.PARTIES)
    w, right = streamed.trained(tmp_path, rows_per_block=2200)
    x, y = streamed.customers(0, 5000)
    state = np.zeros(21, np.float32), 0
    for block in (slice(0, 2200), slice(2200, 4400), slice(4400, 5000)):
        state = streamed.learn(state, x[block, :7], x[block, 7:14], x[block, 14:], y[block])
    np.testing.assert_allclose(w, state[0], atol=2e-3)
    assert abs(right - int(state[1])) <= 5 and right > 3500


def test_survival_is_that_of_lifelines() -> None:
    lifelines = pytest.importorskip("lifelines")
    survival = example("survival")
    spu.init(parties=survival.PARTIES)
    curve, test, cox = survival.studied(None)
    parts = [survival.patients(i) for i in range(3)]
    known = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    months = np.minimum(known["months"], survival.MONTHS)
    died = known["died"] * (known["months"] <= survival.MONTHS)
    theirs = lifelines.KaplanMeierFitter().fit(months, died)
    assert curve.survival_function_[11] == pytest.approx(float(theirs.predict(12)), abs=2e-3)
    assert test.pvalue < 0.05 and cox.summary().coef[1] < -0.3


@pytest.mark.usefixtures("preloaded")
def test_a_private_classifier_says_what_its_owner_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xgboost = pytest.importorskip("xgboost")
    service = example("private_classifier")
    spu.init(parties=service.PARTIES)
    model, risk = service.asked(None, tmp_path)
    plain = xgboost.Booster(model_file=tmp_path / "model.json")
    patients = service.drawn(3, service.PATIENTS)
    rows = np.stack([patients[name] for name in service.FEATURES], axis=1)
    truth = plain.predict(xgboost.DMatrix(rows, feature_names=service.FEATURES))
    assert np.abs(risk.value[:, 1] - truth).max() < 1e-4
    assert [str(r) for r in model.reveals] == ["prediction [40,2] to clinic"]
    spu.shutdown()
    assert run_script(EXAMPLES / "private_classifier.py", "--network") == 0
    said = capsys.readouterr().out
    first = int(np.argmax(truth))
    assert f"clinic | highest risks: patient {first}: {truth[first]:.3f}" in said
    assert "prediction [40,2] to clinic" in said and "bank | " not in said
