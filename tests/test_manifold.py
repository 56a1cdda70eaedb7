"""Embeddings and topics beside scikit-learn: the same places, or ones that keep as many neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from estimators import PARTIES, frame, table
from scipy.special import digamma
from sklearn import decomposition, manifold

import spuvm as spu
from spuvm import ml
from spuvm.ml.manifold.eigen import leading
from spuvm.runtime.errors import ConfigError, InputError


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def wine(rows: int = 24) -> tuple[np.ndarray, Any]:
    return table("wine")[0][:rows], frame("wine").drop("y").take(np.arange(rows))


def places(model: Any, data: Any) -> np.ndarray:
    return np.asarray(model.fit_transform(data, to="carol").value)


def same_up_to_sign(ours: np.ndarray, theirs: np.ndarray, within: float) -> None:
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert np.abs(a * np.sign(a @ b) - b).max() < within * np.abs(b).max()


def test_the_largest_eigenvalues() -> None:
    r = np.random.default_rng(0)
    q = np.linalg.qr(r.normal(size=(16, 16)))[0]
    known = np.append([0.9, 0.6, 0.35], np.linspace(0.2, 0, 13))
    a = (q * known) @ q.T
    values, vectors = spu.reveal(spu.jit(lambda a: leading(a, 3, 6))(jnp.asarray(a, jnp.float32)))
    assert np.abs(values - known[:3]).max() < 2e-3
    assert np.abs(np.abs(np.sum(vectors * q[:, :3], axis=0)) - 1).max() < 1e-2


@pytest.mark.parametrize("affinity", ["nearest_neighbors", "rbf"])
def test_spectral_places_are_those_of_scikit_learn(affinity: str) -> None:
    x, data = wine()
    x, data = (x / [1, 1, 1, 300], None) if affinity == "rbf" else (x, data)
    settings: dict[str, Any] = {"affinity": affinity, "n_neighbors": 8}  # next to which none is nearly as near
    model = ml.SpectralEmbedding(**settings)
    found = places(model, x if data is None else data)
    theirs = manifold.SpectralEmbedding(**settings, random_state=0).fit_transform(x)
    same_up_to_sign(found, theirs, 0.02)
    assert {(r.what, r.to) for r in model.reveals} == {("prediction", "carol")}


def test_isomap_keeps_the_ways_and_places_other_rows(tmp_path: Path) -> None:
    data = wine()[0] / [1, 1, 4, 300]  # columns of one size
    model = ml.Isomap(n_neighbors=8)
    found, theirs = places(model, data), manifold.Isomap(n_neighbors=8).fit(data)
    same_up_to_sign(found, theirs.embedding_, 0.02)
    small = places(ml.Isomap(n_neighbors=7), wine()[1])  # a second place that spreads a hundredth
    same_up_to_sign(small, manifold.Isomap(n_neighbors=7).fit_transform(wine()[0]), 0.02)
    assert {r.what for r in model.reveals} == {"whether the graph is connected", "prediction"}
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    again = np.asarray(ml.load(folders).transform(data, to="bob").value)
    assert np.abs(again - found).max() < 0.02 * np.ptp(found)
    assert np.abs(model.embedding_ - found).max() == 0


def test_a_graph_in_pieces_has_no_ways() -> None:
    x, _ = wine(20)
    with pytest.raises(InputError, match="in several pieces, between which there is no way"):
        ml.Isomap(n_neighbors=8).fit(np.concatenate([x, x + 1e5]))


def test_tsne_keeps_as_many_neighbours() -> None:
    """Rounding is by chance, and steps make it large: places differ each time, and groups of rows stay groups."""
    group = np.arange(24) % 3
    x = np.random.default_rng(0).normal(size=(24, 4)) + 12 * np.eye(4)[group]
    model = ml.TSNE(perplexity=5.0, max_iter=60, learning_rate=10.0, early_exaggeration=2.0)
    found = places(model, x)
    known = manifold.TSNE(perplexity=5.0, init="pca", method="exact", random_state=0).fit_transform(x)
    ours, theirs = (manifold.trustworthiness(x, e) for e in (found, known))
    gaps = np.linalg.norm(found[:, None] - found, axis=-1) + np.diag(np.full(24, np.inf))
    assert ours > theirs - 0.03 and found.std() > 1
    assert (group[gaps.argmin(axis=1)] == group).all()
    assert {(r.what, r.to) for r in model.reveals} == {("prediction", "carol")}


def test_topics_explain_as_much(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    parts = np.kron(np.eye(3), np.ones(4)) + 0.05
    x = np.array([r.multinomial(60, m @ parts / (m @ parts).sum()) for m in r.dirichlet([0.3] * 3, 30)], float)
    model = ml.LatentDirichletAllocation(3, max_iter=20).fit(x)
    assert model.reveals == ()
    theirs = decomposition.LatentDirichletAllocation(3, max_iter=20, random_state=0).fit(x)
    known = theirs.perplexity(x)
    shares = np.asarray(model.transform(x, to="bob").value)
    theirs.components_ = model.components_
    theirs.exp_dirichlet_component_ = np.exp(expectation(model.components_))
    assert theirs.perplexity(x) < 1.01 * known
    assert np.abs(shares - theirs.transform(x)).max() < 0.03 and np.abs(shares.sum(axis=1) - 1).max() < 1e-3
    folders = {p: tmp_path / p for p in PARTIES}
    model.save(folders)
    assert np.abs(np.asarray(ml.load(folders).transform(x, to="bob").value) - shares).max() < 0.01


def expectation(components: np.ndarray) -> np.ndarray:
    """E[log] of Dirichlet variables."""
    out: np.ndarray = digamma(components) - digamma(components.sum(axis=1))[:, None]
    return out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: ml.TSNE().fit(x[:20]), "`perplexity` of TSNE is 30, but there are 20 rows"),
        (lambda x: ml.Isomap(n_neighbors=20).fit(x[:20]), "20 rows for 20 neighbours"),
        (lambda x: ml.SpectralEmbedding(n_neighbors=21).fit(x[:20]), "20 rows for 21 neighbours"),
        (lambda x: ml.TSNE().fit(np.ones((1001, 1))), "compares all pairs of them, and takes 1000 at most"),
        (lambda x: ml.LatentDirichletAllocation(2).fit(-x), "negative cells: topics are of counts"),
        (lambda x: ml.LatentDirichletAllocation(2).fit(x * 1e6), "topics are of counts of words"),
        (lambda x: ml.SpectralEmbedding(affinity="cosine"), "`affinity` of SpectralEmbedding must be one of"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        make(wine()[0])
