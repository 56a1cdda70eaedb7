"""Private linear models: what clipping bounds, what is spent before anything runs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import three_owners
from three_owners import PARTIES, budgets

import spuvm as spu
from spuvm import ml
from spuvm.dp import Budget, spending
from spuvm.ml.linear import private
from spuvm.ml.linear.sgd import LOSSES
from spuvm.runtime.errors import ConfigError, InputError

ROWS, STEPS = 60, 6
BOUNDS = {"x0": (0.0, 10.0), "x1": (-1.0, 1.0), "x2": (100.0, 200.0)}
UNLIMITED: dict[str, Any] = {"epsilon": 1e4, "delta": 1e-5, "bounds": BOUNDS, "label": (0.0, 40.0)}
parties, state = three_owners.parties, three_owners.state  # fixtures


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features of which some lie far outside of their ranges, and labels."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(0, 10, ROWS), rng.uniform(-1, 1, ROWS), rng.uniform(100, 200, ROWS)], axis=1)
    y = (x[:, 0] / 5 - 1 + x[:, 1] > 0).astype(float)
    x[0], x[1, 2] = (1e5, -50.0, -3e6), 199.0
    return x, y


def frame(kind: str = "vertical", label: np.ndarray | None = None) -> Any:
    x, y = rows()
    y, ids = y if label is None else label, np.arange(ROWS)
    named = {f"x{i}": x[:, i] for i in range(3)}
    if kind == "horizontal":
        thirds = np.array_split(ids, 3)
        return spu.data.horizontal(
            {p: {k: v[at] for k, v in named.items()} | {"y": y[at]} for p, at in zip(PARTIES, thirds)}, missing=False
        )
    alice, bob = {"id": ids, "x0": named["x0"], "x1": named["x1"]}, {"id": ids, "x2": named["x2"]}
    return spu.data.vertical({"alice": alice, "bob": bob, "carol": {"id": ids, "y": y}}, "id", missing=False)


def expected(y: np.ndarray, slope: Any, alpha: float, rate: float, clip: float) -> np.ndarray:
    """The same steps without noise, of features in units of half their ranges' power of two."""
    x, units = rows()[0], [private.unit_of(BOUNDS[f"x{i}"]) for i in range(3)]
    ends = np.array(list(BOUNDS.values())).T
    mean, power = np.array([m for m, _ in units]), np.array([2.0**p for _, p in units])
    design = np.c_[np.clip(x, *ends) / power - mean, np.ones(ROWS)]
    weight = np.minimum(1, clip / np.linalg.norm(design, axis=1))
    w, ridge = np.zeros(4), alpha / np.r_[power**2, np.inf]
    for t in range(STEPS):
        gradient = (design * weight[:, None]).T @ np.clip(slope(design @ w, y), -1, 1) / ROWS
        w = w - rate * (1 - t / STEPS) * (gradient + ridge * w)
    return np.asarray(w[:3] / power)


@pytest.mark.parametrize("kind", ["vertical", "horizontal"])
def test_steps_are_of_clipped_rows_and_every_party_spends(kind: str, tmp_path: Path) -> None:
    ledgers = budgets(tmp_path, 1e4, delta=1e-5)
    dp = ml.Private(**UNLIMITED, clip=0.8, budget=ledgers)
    model = ml.SGDClassifier(loss="log_loss", max_iter=STEPS, eta0=2.0, alpha=0.01, dp=dp).fit(frame(kind), label="y")
    want = expected(rows()[1], lambda z, y: 1 / (1 + np.exp(-z)) - y, 0.01, 2.0, 0.8)
    got = model.reveal().coef
    assert got * [5, 1, 50] == pytest.approx(want * [5, 1, 50], abs=0.02)
    for ledger in ledgers.values():
        (use,) = ledger.uses
        assert list(use.spent) == dp.spent(STEPS)
        assert 0.99e4 < ledger.spent <= 1e4
    assert "epsilon 10000" in model.explain() and "rows clipped to norm 0.8" in model.explain()
    assert {r.what for r in model.reveals} == {"coefficients"}
    folders = {p: tmp_path / f"model {p}" for p in PARTIES}
    model.save(folders)
    assert "epsilon 10000" in ml.load(folders).explain()


def test_a_regression_of_labels_within_a_range() -> None:
    y = 20 + 10 * rows()[1] + rows()[0][:, 1] * 0
    y[5] = 1e6
    model = ml.SGDRegressor(max_iter=STEPS, eta0=1.0, alpha=0.0, dp=ml.Private(**UNLIMITED)).fit(
        frame(label=y), label="y"
    )
    mean, power = private.unit_of((0.0, 40.0))
    goal = np.clip(y, 0, 40) * 2.0**-power - mean
    want = expected(goal, lambda z, y: z - y, 0.0, 1.0, 1.0) * 2.0**power
    assert model.reveal().coef * [5, 1, 50] == pytest.approx(want * [5, 1, 50], abs=0.5)


def test_no_row_is_longer_than_the_noise_is_for() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 5)) * 10 ** rng.uniform(-3, 0, (300, 1))
    x = np.clip(x, -1, 1).astype(np.float32)
    for clip in (0.1, 1.0, 2.0):
        bounded = spu.reveal(spu.jit(lambda x, c=clip: x * private.row_weights(x, c)[:, None])(x))
        norms, want = np.linalg.norm(bounded, axis=1), np.minimum(np.linalg.norm(x, axis=1), clip)
        assert norms.max() <= private.ROUNDED * clip
        assert norms == pytest.approx(want, abs=0.01 * clip)


def test_what_is_spent_is_what_the_program_draws() -> None:
    dp = ml.Private(epsilon=1.0, bounds=(0, 1))
    run = private.descend(LOSSES["log_loss"], (0.0, 0.0), True, 0.5, 7, 1.0, dp.noise(7))
    floats = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((20, 3), (20,), (3,), (3,))]
    x, y, low, high = floats
    found = spending(run, x, y, jax.ShapeDtypeStruct((3,), np.int32), 0, low, high)
    assert [(s.mechanism, s.times, s.sampling) for s in found] == [("gaussian", 7, 1.0)]
    assert found[0].ratio == pytest.approx(dp.noise(7))
    assert dp.noise(70) > 2 * dp.noise(7) and ml.Private(epsilon=0.5, bounds=(0, 1)).noise(7) > 1.8 * dp.noise(7)


def test_who_cannot_pay_stops_all_before_anything_is_spent(tmp_path: Path) -> None:
    ledgers = {**budgets(tmp_path, 5.0, delta=1e-5), "bob": Budget(0.5, 1e-5, path=tmp_path / "poor")}
    dp = ml.Private(epsilon=1.0, delta=1e-5, bounds=BOUNDS, budget=ledgers)
    with pytest.raises(InputError, match="would spend"):
        ml.SGDClassifier(dp=dp).fit(frame(), label="y")
    assert all(ledger.uses == [] for ledger in ledgers.values())


def test_what_would_not_be_private_is_refused() -> None:
    dp = ml.Private(epsilon=1.0, bounds={"x0": (0, 1)}, delta=1e-5)
    everywhere = ml.Private(epsilon=1.0, bounds=(-1, 1))
    scaled = ml.StandardScaler().fit_transform(frame().drop("y"))
    with pytest.raises(InputError, match="has no range"):
        ml.SGDClassifier(dp=dp).fit(frame(), label="y")
    with pytest.raises(InputError, match="not private"):
        ml.SGDClassifier(dp=everywhere).fit(scaled, frame()["y"])
    with pytest.raises(ConfigError, match="sample_weight"):
        ml.SGDClassifier(dp=everywhere).fit(frame(), label="y", sample_weight="x0")
    with pytest.raises(ConfigError, match="range of its labels"):
        ml.SGDRegressor(dp=everywhere).fit(frame(), label="y")
    with pytest.raises(ConfigError, match="`dp` of SGDClassifier"):
        ml.SGDClassifier(dp=1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="inside of a jitted"):
        spu.jit(lambda x, y: ml.SGDClassifier(dp=everywhere).fit(x, y).coef_)(rows()[0][:, :2], rows()[1])


@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon": 0.0}, {"epsilon": np.inf}, {"delta": 0.0}, {"clip": 0.0}, {"bounds": (1, 1)}, {"bounds": {"x": 3}},
        {"label": (0, np.nan)}, {"budget": 1.0},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ml.Private(**{"epsilon": 1.0, "bounds": (0, 1), **settings})
