"""Clusters and components beside scikit-learn: the same groups, the same directions, and the same from saved parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from estimators import PARTIES
from sklearn import cluster, datasets, decomposition, metrics, mixture

import spuvm as spu
from spuvm import ml
from spuvm.ml.unsupervised import kmeans
from spuvm.ml.unsupervised.kmeans import best_of
from spuvm.runtime.errors import ConfigError, InputError

N = 48


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Three groups in columns of very different sizes, and which each row is of."""
    r = np.random.default_rng(0)
    group = np.arange(N) % 3
    x = np.array([[0.0, 0, 0], [4, 1, 3], [-3, 4, 1]])[group] + r.normal(size=(N, 3)) * 0.6
    return x * [1, 3, 2] + [5, 100, -7], group


def frame(x: np.ndarray) -> Any:
    ids = np.arange(len(x))
    alice, bob = {"id": ids, "a": x[:, 0]}, {"id": ids, "b": x[:, 1], "c": x[:, 2]}
    return spu.data.vertical({"alice": alice, "bob": bob}, "id", missing=False)


def from_parts(model: Any, folder: Path) -> Any:
    folders = {p: folder / p for p in PARTIES}
    model.save(folders)
    return ml.load(folders)


def test_groups_are_those_of_scikit_learn(tmp_path: Path) -> None:
    x, group = rows()
    data = frame(x)
    ours = ml.KMeans(3, n_init=4, max_iter=6).fit(data)
    theirs = cluster.KMeans(3, n_init=4, random_state=0).fit(x)
    found = np.asarray(ours.predict(data, to="carol").value)
    assert metrics.adjusted_rand_score(theirs.labels_, found) == 1
    assert metrics.adjusted_rand_score(group, found) > 0.9
    assert {(r.what, r.to) for r in ours.reveals} == {("prediction", "carol")}
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-2)
    assert ours.score(data) == pytest.approx(theirs.score(x), rel=1e-2)
    centres = ours.cluster_centers_
    order = [int(np.argmin(np.linalg.norm(theirs.cluster_centers_ - c, axis=1))) for c in centres]
    assert sorted(order) == [0, 1, 2]
    assert np.abs(centres - theirs.cluster_centers_[order]).max() < 0.01 * np.ptp(x)
    again = from_parts(ours, tmp_path)
    assert np.array_equal(again.predict(data, to="carol").value, found)


@pytest.mark.parametrize("seed", range(3))
def test_eight_starts_of_which_two_go_on_are_next_to_the_best_of_ten(seed: int) -> None:
    """In the clear; by parts of the variance."""
    x, _ = datasets.make_blobs(300, 4, centers=8, random_state=1)
    x, count = x.astype(np.float32), 3
    variance = ((x - x.mean(axis=0)) ** 2).sum()
    drawn = np.random.RandomState(seed).uniform(0.001, 0.999, (count, ml.KMeans().n_init)).astype(np.float32)
    found = np.asarray(best_of(jnp.asarray(x), jnp.asarray(drawn), count, ml.KMeans().max_iter))
    inertia = min(((x[:, None] - centres) ** 2).sum(axis=-1).min(axis=1).sum() for centres in found)
    best = cluster.KMeans(count, n_init=10, random_state=0).fit(x).inertia_
    assert len(found) == 2 and (inertia - best) / variance < 0.015


def test_starts_of_many_rows_are_tried_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "SAMPLED", 24)
    monkeypatch.setattr(kmeans, "EACH", 8)
    assert kmeans.drawn_starts(3, 2, 24, 0)[1] is None
    drawn, sample = kmeans.drawn_starts(3, 2, N, 0)
    assert drawn.shape == (3, 4) and sample is not None
    assert len(sample) == 24 and (np.diff(sample) > 0).all() and sample.max() < N
    x, _ = rows()
    data = frame(x)
    best = cluster.KMeans(3, n_init=4, random_state=0).fit(x)
    ours = ml.KMeans(3, n_init=2, max_iter=6).fit(data)
    assert ours.inertia_ == pytest.approx(best.inertia_, rel=1e-2)
    few = ml.KMeans(3, n_init=2, max_iter=2).fit(data)  # one step, the last, is made on all rows
    assert few.inertia_ == pytest.approx(few.score(data) * -1, rel=1e-3)


def test_a_mixture_finds_the_groups() -> None:
    x, group = rows()
    data = frame(x)
    model = ml.GaussianMixture(3, n_init=2, max_iter=8).fit(data)
    found = np.asarray(model.predict(data, to="bob").value)
    assert metrics.adjusted_rand_score(group, found) > 0.9
    share = np.asarray(spu.reveal(model.predict_proba(data)))
    assert np.abs(share.sum(axis=1) - 1).max() < 1e-3 and np.array_equal(share.argmax(axis=1), found)
    assert {(r.what, r.to) for r in model.reveals} == {("prediction", "bob")}
    theirs = mixture.GaussianMixture(3, covariance_type="diag", n_init=4, random_state=0).fit(x)
    assert model.score(data) == pytest.approx(theirs.score(x), abs=0.05)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ml.PCA(2), decomposition.PCA(2)), (ml.TruncatedSVD(2), decomposition.TruncatedSVD(2, algorithm="arpack"))],
)
def test_directions_are_those_of_scikit_learn(ours: Any, theirs: Any, tmp_path: Path) -> None:
    x, _ = rows()
    data = frame(x)
    ours.fit(data)
    theirs.fit(x)
    found = ours.transform(data)
    assert ours.reveals == ()
    directions = ours.components_
    assert np.abs(np.abs((directions * theirs.components_).sum(axis=1)) - 1).max() < 1e-3
    sign = np.sign((directions * theirs.components_).sum(axis=1))
    if isinstance(ours, ml.TruncatedSVD):
        assert np.allclose(ours.singular_values_, theirs.singular_values_, rtol=0.01)
    else:
        assert np.allclose(ours.explained_variance_, theirs.explained_variance_, rtol=0.01)
        assert np.abs(ours.explained_variance_ratio_ - theirs.explained_variance_ratio_).max() < 1e-3
    block = found.blocks[0]
    value = np.asarray(spu.reveal(block.value), np.float64) * 2.0 ** np.asarray(spu.reveal(block.power))
    wanted = theirs.transform(x) * sign
    off = value - wanted
    assert np.abs(off - off.mean(axis=0)).max() < 0.01 * np.ptp(wanted)  # means may be taken off, as they say nothing
    again = from_parts(ours, tmp_path)
    after = np.asarray(spu.reveal(again.transform(data).blocks[0].value))
    assert np.abs(after - np.asarray(spu.reveal(block.value))).max() < 1e-4  # units of fixed point


def test_what_they_refuse() -> None:
    x, _ = rows()
    with pytest.raises(InputError, match="needs 40 or more"):
        ml.KMeans(40).fit(frame(x[:9]))
    with pytest.raises(ConfigError, match="`n_components` is 4, but there are 3 columns"):
        ml.PCA(4).fit(frame(x))
    with pytest.raises(ConfigError, match="`n_clusters` of KMeans"):
        ml.KMeans(1)
    gone = x.copy()
    gone[0, 0] = np.nan
    ids = np.arange(N)
    data = spu.data.vertical({"alice": {"id": ids, "a": gone[:, 0]}, "bob": {"id": ids, "b": x[:, 1]}}, "id")
    for model in (ml.KMeans(2), ml.PCA(1), ml.GaussianMixture(2)):
        with pytest.raises(InputError, match="1 of 48 cells missing"):
            model.fit(data)
        with pytest.raises(InputError, match="has learned nothing yet"):
            type(model)(2).transform(data) if isinstance(model, ml.PCA) else type(model)(2).predict(data)
