"""Boosting on rows of several parties: as if one had them all, and nobody learns edges, bins or labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boosting_reference as reference
import jax.numpy as jnp
import numpy as np
import pytest
from test_sgb import SMALL, edges_of, frame_of, table

import spuvm as spu
from spuvm.ml import Sgb, load
from spuvm.ml.binning import find_edges
from spuvm.ml.horizontal import LAST, ranks, sortable, sorted_floats
from spuvm.ml.horizontal import edges_of as secret_edges
from spuvm.runtime.errors import ConfigError, InputError

PARTIES = ("alice", "bob", "carol")
FEATURES = ("a", "b", "c", "d", "e")


@pytest.fixture
def parties() -> Iterator[tuple[str, ...]]:
    spu.init(parties=PARTIES, address="local")
    yield PARTIES
    spu.shutdown()


def rows_of(t: dict[str, Any], label: np.ndarray, counts: dict[str, int], **more: np.ndarray) -> Any:
    """The rows of a table, cut among the parties one after another."""
    sources, start = {}, 0
    for party, count in counts.items():
        some = slice(start, start + count)
        columns = {"label": label, **{k: t[k] for k in FEATURES}, **more}
        sources[party] = {k: v[some] for k, v in columns.items()}
        start += count
    return spu.data.horizontal(sources, missing=["b"], categories={"e": ["north", "south", "west"]})


UNEVEN = {"alice": 20, "bob": 90, "carol": 40}


# Numbers that sort ------------------------------------------------------------------------------------------


def test_sortable_keeps_the_order_of_all_floats_and_has_an_inverse() -> None:
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([-huge, -1.5, -1, -tiny, 0, tiny, 1, 1.5, huge], np.float32)
    keys = sortable(x)
    assert (np.diff(keys.astype(np.int64)) > 0).all() and keys.max() < LAST
    assert np.array_equal(sorted_floats(keys), x)
    assert np.ptp(sortable(np.array([-0.0, 0.0]))) == 0
    assert sortable(np.array([np.nan]))[0] == LAST and sorted_floats(np.array([LAST])) == np.inf


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1000, 2**31 - 1])
@pytest.mark.parametrize("max_bin", [2, 3, 32, 256])
def test_ranks_are_exact_where_products_would_not_fit(count: int, max_bin: int) -> None:
    want = [i * count // max_bin for i in range(1, max_bin)]
    assert np.asarray(ranks(jnp.int32(count), max_bin)).tolist() == want


@pytest.mark.parametrize("max_bin", [2, 5, 12])
def test_edges_of_secrets_are_those_of_one_owner(parties: Any, max_bin: int) -> None:
    r = np.random.default_rng(max_bin)
    columns = {
        "scattered": r.normal(size=60) * 1e-20,
        "large": r.normal(size=60) * 1e30,
        "ties": r.integers(-2, 3, 60).astype(float),
        "constant": np.ones(60),
        "gaps": np.where(r.random(60) < 0.4, np.nan, r.normal(size=60)),
        "mostly_gaps": np.where(np.arange(60) < 58, np.nan, r.normal(size=60)),
        "all_gaps": np.full(60, np.nan),
    }
    missing = tuple(bool(np.isnan(x).any()) for x in columns.values())
    keys = [sortable(x) for x in columns.values()]
    found = spu.reveal(spu.jit(secret_edges(max_bin, missing))(keys))
    for (name, x), edges in zip(columns.items(), found, strict=True):
        got = np.unique(sorted_floats(edges))
        got = got[np.isfinite(got) & (got > np.nanmin(x, initial=np.inf))]  # an edge below all rows splits none
        column = spu.data.Column(name, None, "float", bool(np.isnan(x).any()))
        want = np.array([]) if name in ("constant", "all_gaps") else find_edges(x[:, None], [column], max_bin)[0]
        assert np.array_equal(got, want[np.isfinite(want)]), name


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror"])
def test_trees_equal_the_reference_node_by_node(parties: Any, objective: str) -> None:
    t = table(150)
    logistic = objective == "binary:logistic"
    label = (t["signal"] > 0.5) if logistic else 40 * t["signal"] + 7000
    frame = rows_of(t, label, UNEVEN)
    secure = Sgb(objective=objective, n_estimators=2, max_depth=2, max_bin=8, gamma=0.1, min_child_weight=2.0)
    secure.fit(frame, "label")
    assert secure.reveals == ()
    score, predicted = secure.score(frame), spu.reveal(secure.predict(frame))
    plain = secure.reveal()
    x = np.concatenate([spu.reveal(frame.drop("label").at(p)) for p in PARTIES])
    y, edges = np.asarray(label, np.float64), edges_of(x, plain.columns, 8)
    gradients = reference.logistic if logistic else reference.squared
    base = np.log(y.mean() / (1 - y.mean())) if logistic else y.mean()
    unit = 1.0 if logistic else np.abs(y - y.mean()).max()
    margin = np.full(len(y), base)
    for (ours,) in plain.trees:
        theirs = reference.grow(x, plain.columns, *gradients(margin, y), secure.parameters, edges)
        reference.same(ours, theirs, 1e-4 * unit)
        margin += reference.apply(theirs, x, plain.columns)
    assert np.abs(plain.margins(x)[:, 0] - margin).max() < 2e-4 * unit
    want = np.mean((margin > 0) == y) if logistic else 1 - np.mean((margin - y) ** 2) / np.var(y)
    assert abs(score - want) < 2e-3
    assert np.allclose(predicted, margin > 0 if logistic else margin, atol=2e-4 * unit)


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "multi:softprob", "num_class": 3},
        {"objective": "reg:squarederror", "base_score": 2.5, "subsample": 0.8},
        {"objective": "binary:logistic", "colsample_bytree": 0.6},
    ],
    ids=lambda p: p["objective"],
)
def test_weighted_models_are_those_of_a_vertical_frame(parties: Any, parameters: dict[str, Any]) -> None:
    t, r = table(150, 4), np.random.default_rng(4)
    weight = r.uniform(0.2, 2, 150).astype(np.float32)
    label = {
        "multi:softprob": np.digitize(t["signal"], [0, 1.2]),
        "reg:squarederror": t["signal"] * 1e-2,
        "binary:logistic": t["signal"] > 0,
    }[parameters["objective"]]
    models, margins = [], []
    for frame in (rows_of(t, label, UNEVEN, weight=weight), frame_of(t, label, weight=weight)):
        model = Sgb(**(SMALL | parameters)).fit(frame, "label", sample_weight="weight", eval_set=frame)
        models.append(model)
        margins.append(spu.reveal(model.predict_margin(frame.drop("label", "weight"))))
    scale = np.abs(margins[1]).max()
    assert np.abs(margins[0] - margins[1]).max() < 1e-3 * scale
    ours, theirs = (next(iter(m.evals_result()["validation_0"].values())) for m in models)
    assert np.allclose(ours, theirs, rtol=2e-3)
    assert models[0].feature_importance() == models[1].feature_importance()


def test_labels_of_any_size_keep_their_precision(parties: Any) -> None:
    t = table(90)
    for scale, offset in ((1e-2, 0.0), (2.0, 2000.0), (1e6, -3e7)):
        y = t["signal"] * scale + offset
        model = Sgb(objective="reg:squarederror", n_estimators=1, max_depth=1, max_bin=4, learning_rate=1.0)
        frame = rows_of(t, y, {"alice": 30, "bob": 60})
        base = model.fit(frame, "label").reveal().base
        assert abs(base[0] - y.mean()) < 1e-4 * np.abs(y - y.mean()).max()


# Models -----------------------------------------------------------------------------------------------------


def test_a_stored_model_predicts_the_same_for_new_rows_of_one_party(parties: Any, tmp_path: Path) -> None:
    t = table(150)
    model = Sgb(**SMALL).fit(rows_of(t, t["signal"] > 0.5, UNEVEN), "label")
    later = table(7, seed=9)
    new = spu.data.horizontal(
        {"bob": {k: later[k] for k in FEATURES}}, missing=["b"], categories={"e": ["south", "west", "north"]}
    )
    seen = model.predict_proba(new, to="bob").value
    assert seen.shape == (7, 2)
    model.save({p: tmp_path / p for p in PARTIES})
    loaded = load({p: tmp_path / p for p in PARTIES})
    assert np.array_equal(seen, loaded.predict_proba(new, to="bob").value)
    revealed = loaded.reveal()
    codes = {"north": 0, "south": 1, "west": 2}
    x = np.column_stack([later["a"], later["b"], later["c"], later["d"], [codes[e] for e in later["e"]]])
    margin = revealed.margins(x.astype(np.float64))[:, 0]
    assert np.abs(1 / (1 + np.exp(-margin)) - seen[:, 1]).max() < 1e-4
    assert [str(r) for r in model.reveals] == ["prediction [7,2] to bob"]


def test_what_does_not_fit_is_said(parties: Any) -> None:
    t = table(60)
    label = t["signal"] > 0.5
    frame = rows_of(t, label, {"alice": 20, "bob": 40})
    vertical = frame_of(t, label)
    with pytest.raises(ConfigError, match="no feature of a horizontal frame has an owner"):
        Sgb(reveal_splits_to_owner=True, max_bin=8).fit(frame, "label")
    wrong = np.where(np.arange(60) < 20, label, 3)
    with pytest.raises(InputError, match="column `label` at bob: labels of 'binary:logistic' are 0 and 1"):
        Sgb(**SMALL).fit(rows_of(t, wrong, {"alice": 20, "bob": 40}), "label")
    with pytest.raises(InputError, match="column `label` at alice: labels are beyond"):
        Sgb(**(SMALL | {"objective": "reg:squarederror"})).fit(
            rows_of(t, t["signal"] * 1e12, {"alice": 20, "bob": 40}), "label"
        )
    model = Sgb(n_estimators=1, max_depth=1, max_bin=4).fit(frame, "label")
    with pytest.raises(InputError, match="the model was trained on a horizontal frame, this one is vertical"):
        model.predict(vertical)
    with pytest.raises(InputError, match="the model was trained on a horizontal frame, this one is vertical"):
        model.score(vertical)
