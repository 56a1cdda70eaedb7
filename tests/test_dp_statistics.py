"""Statistics with noise: near the truth of clipped cells, one entry of epsilon each at every party, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import three_owners
from three_owners import budgets

import spuvm as spu
from spuvm import ml
from spuvm.dp import Budget, spending
from spuvm.ml.statistics import private
from spuvm.runtime.errors import ConfigError, InputError

ROWS = 400
BOUNDS = {"age": (0.0, 100.0), "pay": (0.0, 8000.0)}
parties, state = three_owners.parties, three_owners.state  # fixtures


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    age = rng.uniform(18, 90, ROWS)
    pay = 60 * age + rng.normal(0, 600, ROWS)
    age[3], pay[4] = np.nan, 1e9
    return {"age": age, "pay": pay, "kind": rng.integers(0, 3, ROWS).astype(float)}


def frame(*left_out: str) -> Any:
    c, ids = columns(), np.arange(ROWS)
    alice, bob = {"id": ids, "age": c["age"]}, {"id": ids, "pay": c["pay"], "kind": c["kind"]}
    return spu.data.vertical({"alice": alice, "bob": bob}, "id", missing=True).drop("kind", *left_out)


def test_a_description_with_noise(tmp_path: Path) -> None:
    ledgers = budgets(tmp_path, 100.0)
    found = ml.describe(frame(), epsilon=60.0, bounds=BOUNDS, budget=ledgers)
    c = columns()
    pay = np.clip(c["pay"], *BOUNDS["pay"])
    assert found.rows == ("count", "missing", "mean", "std")
    assert found["age"]["count"] == pytest.approx(ROWS - 1, abs=2)
    assert found["age"]["mean"] == pytest.approx(np.nanmean(c["age"]), abs=0.7)
    assert found["pay"]["mean"] == pytest.approx(pay.mean(), abs=60)
    assert found["pay"]["std"] == pytest.approx(pay.std(ddof=1), abs=120)
    assert [b.spent for b in ledgers.values()] == pytest.approx([60.0] * 3)
    with pytest.raises(InputError, match="would spend"):
        ml.describe(frame(), epsilon=60.0, bounds=BOUNDS, budget=ledgers)
    assert len(ledgers["carol"].uses) == 1


def test_counts_histograms_and_correlations(tmp_path: Path) -> None:
    budget = Budget(300.0, path=tmp_path / "b")
    c, ids = columns(), np.arange(ROWS)
    other = c["kind"] > 0
    data = spu.data.vertical({"alice": {"id": ids, "k": c["kind"]}, "bob": {"id": ids, "o": other * 1.0}}, "id")
    table = ml.crosstab(data, "k", "o", epsilon=40.0, levels=(3, 2), budget=budget)
    want = np.array([[((c["kind"] == i) & (other == j)).sum() for j in range(2)] for i in range(3)])
    assert np.abs(table - want).max() <= 1
    edges = [0.0, 2000.0, 4000.0, 8000.0]
    bins = ml.histogram(frame("age"), "pay", edges, epsilon=40.0, budget=budget)
    assert np.abs(bins - np.histogram(c["pay"], edges)[0]).max() <= 1
    age = np.nan_to_num(c["age"], nan=50.0)
    whole = spu.data.vertical({"alice": {"id": ids, "age": age}, "bob": {"id": ids, "pay": c["pay"]}}, "id")
    clipped = np.clip(c["pay"], *BOUNDS["pay"])
    found = ml.corr(whole, epsilon=200.0, bounds=BOUNDS, budget=budget)
    assert found["age"][1] == pytest.approx(np.corrcoef(age, clipped)[0, 1], abs=0.05)
    assert budget.spent == pytest.approx(280.0)
    assert [use.label for use in budget.uses] == [
        "counts with noise",
        "histogram with noise",
        "correlations with noise",
    ]


def test_what_is_spent_is_what_the_programs_draw() -> None:
    def struct(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, np.float32)

    there = [jax.ShapeDtypeStruct((9, 2), np.bool_)]
    programs = [
        (private._sums(0.9), (struct(9, 2), there, struct(2), struct(2))),
        (private._products(2, 0.9), (struct(9, 2), struct(2), struct(2))),
        (private._cells(3, 2, 0.9), (struct(9), struct(9))),
        (private._bins((0.0, 1.0, 2.0), 0.9), (struct(9),)),
    ]
    for program, args in programs:
        assert sum(s.epsilon for s in spending(program, *args)) == pytest.approx(0.9)


def test_what_would_not_be_private_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs `bounds`"):
        ml.describe(frame(), epsilon=1.0)
    with pytest.raises(ConfigError, match="give `epsilon`"):
        ml.corr(frame(), bounds=BOUNDS)
    with pytest.raises(InputError, match="has no range"):
        ml.describe(frame(), epsilon=1.0, bounds={"age": (0, 100)})
    with pytest.raises(ConfigError, match="`levels`"):
        ml.crosstab(frame(), "age", "pay", epsilon=1.0)
    with pytest.raises(ConfigError, match="`epsilon` must be above 0"):
        ml.histogram(frame(), "pay", [0, 1], epsilon=-1.0)
    with pytest.raises(InputError, match="`edges`"):
        ml.histogram(frame(), "pay", [0, 0], epsilon=1.0)
