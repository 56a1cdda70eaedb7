"""Differentially private boosting: the noise that is claimed, in the sums alone, spent before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boosting_reference as reference
import jax.numpy as jnp
import numpy as np
import pytest
import three_owners
from three_owners import frame

import spuvm as spu
from spuvm import ml
from spuvm.data import Column
from spuvm.ml.binning import indicators
from spuvm.ml.layout import Layout
from spuvm.ml.noisy import Noise, first_columns, noisy, ranged_edges
from spuvm.runtime.errors import ConfigError, InputError

ROWS, BINS = 90, 8
RANGES = {"a": (-3.0, 3.0), "b": (0.0, 7.0)}
parties, state = three_owners.parties, three_owners.state  # fixtures


def features() -> np.ndarray:
    r = np.random.default_rng(0)
    return np.stack([r.normal(size=ROWS), r.integers(0, 7, ROWS)], axis=1).astype(np.float32)


def private(**more: Any) -> ml.Private:
    return ml.Private(**{"epsilon": 1.0, "delta": 1e-5, "bounds": RANGES, **more})


# Features with missing cells, of two owners; a row is in one bin of each.
COLUMNS = (
    (Column("a", "alice", "float"), Column("c", "alice", "bool", missing=False)),
    (Column("b", "bob", "float", missing=False),),
)


def test_what_a_row_adds_to_the_sums_is_within_the_sensitivity() -> None:
    layout = Layout(("alice", "bob"), COLUMNS, BINS)
    edges = [ranged_edges(r, BINS) for r in (((-3.0, 3.0), None), ((0.0, 7.0),))]
    r = np.random.default_rng(1)
    alice = np.stack([r.normal(size=50), r.integers(0, 2, 50)], axis=1)
    alice[::7, 0] = np.nan
    owned = alice, r.uniform(-1, 9, (50, 1))
    matrix = np.concatenate([indicators(x, c, e) for x, c, e in zip(owned, COLUMNS, edges)], axis=1).astype(float)
    starts = first_columns(layout)
    before = np.concatenate([np.zeros((50, 1)), matrix[:, :-1]], axis=1)
    bins = matrix - before * ~starts
    assert ((bins == 0) | (bins == 1)).all()
    for hessian in (0.25, 1.0):
        noise = Noise(1.0, 3, hessian)
        row = np.concatenate([np.ones((50, 1)), bins], axis=1)
        most = np.sqrt((row**2).sum(axis=1) * (1 + (noise.scale * hessian) ** 2)).max()
        assert 0.8 * noise.sensitivity < most <= noise.sensitivity


def test_noise_is_as_large_as_is_said_and_ends_at_a_feature() -> None:
    layout, noise = Layout(("alice", "bob"), COLUMNS, BINS), Noise(3.0, 3, 0.25)

    @spu.jit
    def run(sums: Any, totals: Any) -> Any:
        return noisy(sums, totals, layout, noise)

    sums, totals = spu.reveal(run(jnp.zeros((layout.width, 2, 1, 4)), jnp.zeros((2, 1, 4))))
    starts = first_columns(layout)
    before = np.concatenate([np.zeros_like(sums[:1]), sums[:-1]])
    bins = np.concatenate([totals[None], sums - before * ~starts[:, None, None, None]])
    for part, sigma in ((bins[:, 0], noise.sigma), (bins[:, 1], noise.sigma / noise.scale)):
        # Rounding to a grid adds up to a quarter (here 0.155); five standard deviations of 68 numbers' to each side.
        assert 0.65 * sigma < part.std() < 1.66 * sigma
        assert abs(part.mean()) < 5 * sigma / np.sqrt(part.size)
    assert noise.floor == pytest.approx(noise.sigma / noise.scale)


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_with_next_to_no_noise_trees_are_those_of_stated_ranges(objective: str) -> None:
    x = features()
    binary = objective == "binary:logistic"
    signal = x[:, 0] + (0.4 if binary else 0.1) * x[:, 1]
    y = (signal > 1.2).astype(float) if objective == "binary:logistic" else 10 * signal
    dp = private(epsilon=1e7, label=(-40.0, 60.0))
    settings: dict[str, Any] = {
        "objective": objective,
        "n_estimators": 1 + binary,
        "max_depth": 2,
        "max_bin": BINS,
        "min_child_weight": 0.9,  # four rows of a first tree have 1: noise would decide
    }
    model = ml.Sgb(dp=dp, **settings).fit(frame(x, y), "y")
    plain, p = model.reveal(), model.parameters
    edges = ranged_edges(tuple(RANGES.values()), BINS)
    margin = np.full(ROWS, 0.0 if objective == "binary:logistic" else 10.0)
    assert plain.base[0] == pytest.approx(margin[0])
    gradients = reference.logistic if objective == "binary:logistic" else reference.squared
    for (ours,) in plain.trees:
        theirs = reference.grow(x, plain.columns, *gradients(margin, y), p, edges)
        reference.same(ours, theirs, 5e-3 * np.ptp(y))
        margin += reference.apply(ours, x, plain.columns)
    assert "differentially private: epsilon 1e+07" in model.explain()


def test_the_ledger_has_it_first_and_refuses_a_second_time(tmp_path: Path) -> None:
    x = features()
    y = (x[:, 0] > 0).astype(float)
    budget = spu.dp.Budget(epsilon=1.2, delta=1e-5, unit="row", contributions=1, path=tmp_path / "ledger")
    model = ml.Sgb(dp=private(budget=budget), n_estimators=1, max_depth=1, max_bin=BINS)
    model.fit(frame(x, y), "y")
    assert " of 1.2 spent" in repr(budget)
    with pytest.raises(InputError, match=r"1\.2"):
        model.fit(frame(x, y), "y")
    folders = {p: tmp_path / p for p in ("alice", "bob", "carol")}
    model.save(folders)
    again = ml.load(folders)
    assert again.dp is None
    data = frame(x, y)
    assert np.array_equal(again.predict(data, to="bob").value, model.predict(data, to="bob").value)


def test_what_private_boosting_refuses() -> None:
    x = features()
    y = (x[:, 0] > 0).astype(float)
    words = np.array(["u", "v"] * (ROWS // 2))
    with pytest.raises(InputError, match="`b` of bob has no range"):
        ml.Sgb(dp=private(bounds={"a": (-3.0, 3.0)})).fit(frame(x, y), "y")
    with pytest.raises(InputError, match="has categories: with `dp`"):
        ml.Sgb(dp=private()).fit(frame(x, y, w=words), "y")
    with pytest.raises(ConfigError, match="`sample_weight` and `dp` exclude"):
        ml.Sgb(dp=private()).fit(frame(x, y, w=np.ones(ROWS)), "y", sample_weight="w")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"objective": "count:poisson"}, "takes `objective`"),
        ({"objective": "reg:squarederror"}, "needs the range of its labels"),
        ({"sampling_method": "goss"}, "exclude each other"),
        ({"scale_pos_weight": 2.0}, "exclude each other"),
    ]
    for more, message in refused:
        with pytest.raises(ConfigError, match=message):
            ml.Sgb(dp=private(), **more).fit(frame(x, y), "y")
    with pytest.raises(ConfigError, match="`dp` must be a"):
        ml.Sgb(dp=1.0)  # type: ignore[arg-type]
    rows = spu.data.horizontal({p: {"a": x[:9, 0], "b": x[:9, 1], "y": y[:9]} for p in ("alice", "bob")}, missing=False)
    with pytest.raises(ConfigError, match="takes a vertical frame"):
        ml.Sgb(dp=private()).fit(rows, "y")
