"""Rankings: gradients and NDCG by their definitions, and a score beside XGBoost's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

import spuvm as spu
from spuvm.ml import Sgb, ranking
from spuvm.runtime.errors import ConfigError, InputError

GROUPS, SIZE = 12, 5
ROWS = GROUPS * SIZE


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, grades, and groups in no order."""
    r = np.random.default_rng(0)
    x = r.integers(0, 7, (ROWS, 2)).astype(np.float32)
    grade = np.clip(np.round(x[:, 0] / 3 - 0.2 * x[:, 1] + r.normal(size=ROWS) * 0.4), 0, 3)
    return x, grade, r.permutation(np.repeat(np.arange(GROUPS) * 7 + 3, SIZE))


def frame(x: np.ndarray, y: np.ndarray, group: np.ndarray, **more: Any) -> Any:
    ids = np.arange(len(y))
    alice, bob = {"id": ids, "a": x[:, 0]}, {"id": ids, "b": x[:, 1], "query": group}
    return spu.data.vertical({"alice": alice, "bob": bob, "carol": {"id": ids, "y": y, **more}}, "id", missing=False)


def ndcg(y: np.ndarray, margin: np.ndarray, group: np.ndarray) -> float:
    """The mean over groups, and over the orders of equal margins; of groups without any gain 1."""
    some = [(2 ** y[group == g] - 1, np.round(margin[group == g], 4)) for g in np.unique(group)]
    return float(np.mean([ndcg_score([gain], [m]) if gain.any() else 1.0 for gain, m in some]))


@pytest.mark.parametrize("gains", [False, True])
def test_gradients_are_sums_over_pairs(gains: bool) -> None:
    r = np.random.default_rng(1)
    code, y, s = r.integers(0, 4, 17), r.integers(0, 4, 17).astype(float), r.normal(size=17).astype(np.float32)
    groups = ranking.groups_of(code)
    made = ranking.pairs(y, groups, gains, "labels")
    target, size = jnp.asarray(made["target"]), jnp.asarray(made["size"])
    where = {k: jnp.asarray(v) for k, v in groups.items()}
    found = ranking.gradients(jnp.asarray(s)[:, None], target, size, where, gains)
    first, second = np.zeros(17), np.zeros(17)
    for g in np.unique(code):
        some = np.flatnonzero(code == g)
        counts = np.array([[abs(2 ** y[i] - 2 ** y[j]) if gains else float(y[i] != y[j]) for j in some] for i in some])
        if gains:
            best = np.sort(2 ** y[some] - 1)[::-1]
            counts /= max((best / np.log2(2 + np.arange(len(some)))).sum(), 1.0)
        total, start = 0.0, (first.copy(), second.copy())
        place = np.array([sum(s[j] > s[i] for j in some) for i in some])
        for a, i in enumerate(some):
            for b, j in enumerate(some):
                if y[i] > y[j]:
                    swap = abs(1 / np.log2(2 + place[a]) - 1 / np.log2(2 + place[b])) if gains else 1.0
                    p = 1 / (1 + np.exp(s[j] - s[i]))
                    swap = swap / (abs(s[i] - s[j]) + 0.01)
                    first[[i, j]] += np.array([p - 1, 1 - p]) * counts[a, b] * swap
                    second[[i, j]] += 2 * p * (1 - p) * counts[a, b] * swap
                    total += 2 * (1 - p) * counts[a, b] * swap
        for sums, before in zip((first, second), start):
            sums[some] = before[some] + (sums[some] - before[some]) * (np.log2(1 + total) / total if total else 1.0)
    assert np.abs(np.asarray(found[0])[:, 0] - first).max() < 1e-5
    assert np.abs(np.asarray(found[1])[:, 0] - second).max() < 1e-5


def test_ndcg_is_that_of_scikit_learn() -> None:
    r = np.random.default_rng(2)
    code, y, s = r.integers(0, 5, 40), r.integers(0, 4, 40).astype(float), r.normal(size=40).astype(np.float32)
    y[code == 3] = 0
    groups = ranking.groups_of(code)
    secure = spu.jit(ranking.score())
    found = float(spu.reveal(secure(ranking.gains(y, groups), s[:, None], groups)))
    assert found == pytest.approx(ndcg(y, s, code), abs=1e-4)


def test_ndcg_beside_xgboost() -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y, group = table()
    data = frame(x, y, group)
    settings: dict[str, Any] = {
        "objective": "rank:ndcg",
        "max_depth": 2,
        "max_bin": 8,
        "min_child_weight": 0.0,
        "reg_lambda": 0.1,
    }
    model = Sgb(n_estimators=2, **settings).fit(data, "y", group="query", eval_set=data)
    margin = np.asarray(model.predict(data, to="carol").value)
    found = model.evals_result()["validation_0"]["ndcg"]
    least, most = (ndcg(y, np.round(margin, 3) + side * 1e-3 * y / 4, group) for side in (-1, 1))  # of equal ones
    assert least - 1e-3 <= found[-1] <= most + 1e-3
    order = np.argsort(group, kind="stable")
    matrix = xgboost.DMatrix(x[order], y[order], qid=group[order])
    theirs = xgboost.train({**settings, "tree_method": "hist", "base_score": 0.0}, matrix, 2)
    assert ndcg(y, margin, group) >= ndcg(y[order], theirs.predict(matrix), group[order]) - 0.005
    assert {(r.what, r.to) for r in model.reveals if "group" in r.what} == {
        ("which rows are of one group", "all parties")
    }
    assert np.abs(margin - model.reveal().margins(x)[:, 0]).max() < 1e-3


@pytest.mark.parametrize("objective", ["rank:pairwise", "rank:ndcg"])
def test_margins_are_those_of_xgboost(objective: str) -> None:
    """Features of which no two rows have the same: no splits are equally good."""
    xgboost = pytest.importorskip("xgboost")
    r = np.random.default_rng(3)
    group, x = np.repeat(np.arange(GROUPS), SIZE), r.normal(size=(ROWS, 2)).astype(np.float32)
    y = np.clip(np.round(x[:, 0] + 0.5 * r.normal(size=ROWS) + 1), 0, 3)
    settings: dict[str, Any] = {"objective": objective, "max_depth": 2, "max_bin": 64, "min_child_weight": 0.1}
    data = frame(x, y, group)
    ours = np.asarray(Sgb(n_estimators=3, **settings).fit(data, "y", group="query").predict(data, to="bob").value)
    matrix = xgboost.DMatrix(x, y, qid=group)
    theirs = xgboost.train({**settings, "tree_method": "hist"}, matrix, 3).predict(matrix)
    assert np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max() < 5e-3


def test_groups_that_cannot_be() -> None:
    x, y, group = table()
    ranker = Sgb(objective="rank:ndcg", n_estimators=1)
    for data, options, message in (
        (frame(x, y, group), {}, "needs the `group` of each row"),
        (frame(x, y, group), {"group": [3, 4]}, "add up to 7, and there are 60 rows"),
        (frame(x, y, group), {"group": [1.5] * 40}, "or the groups' sizes"),
        (frame(x, y, group), {"group": "querry"}, "there is no column `querry`"),
        (frame(x, y + 0.5, group), {"group": "query"}, "whole numbers from 0 to 20"),
        (frame(x, y, np.arange(ROWS)), {"group": "query"}, "there is nothing to rank"),
        (frame(x, y, group, w=y + 1), {"group": "query", "sample_weight": "w"}, "pairs have no weights"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            ranker.fit(data, "y", **options)
    with pytest.raises(ConfigError, match="takes no `group`"):
        Sgb().fit(frame(x, y > 1, group), "y", group="query")
    with pytest.raises(InputError, match="at most can be ranked"):
        ranking.groups_of(np.zeros(300))
