"""What learns without labels beside scikit-learn: what is measured of both, in the clear, on the same tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from estimators import PARTIES, TABLES
from estimators import frame as frame_of
from estimators import table as table_of
from scipy.special import digamma
from scipy.stats import spearmanr
from sklearn import cluster, datasets, decomposition, ensemble, manifold, mixture

import spuvm as spu
from spuvm import ml


@dataclass(frozen=True)
class Unlabelled:
    """Two estimators, and a number of each model that is the better the larger it is.

    Attributes:
        ours_score: of a model, its data, features and labels; what it needs is revealed.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tables: tuple[str, ...]
    ours_score: Callable[[Any, Any, np.ndarray, np.ndarray], float]
    theirs_score: Callable[[Any, np.ndarray, np.ndarray], float]

    def table(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return table_of(name) if name in TABLES else digits()

    def frame(self, name: str) -> Any:
        """The features among three parties."""
        if name in TABLES:
            return frame_of(name).drop("y")
        x, ids = self.table(name)[0], np.arange(90)
        own = {p: {"id": ids} | {f"x{i}": x[:, i] for i in range(k, x.shape[1], 3)} for k, p in enumerate(PARTIES)}
        return spu.data.vertical(own, "id", missing=False)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Counts [90, 16]: how dark each part of an image is."""
    data = datasets.load_digits()
    x = data.data[:90].reshape(90, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(90, 16)
    return x, data.target[:90]


ORDER = np.argsort([i for k in range(3) for i in range(k, 16, 3)])  # of the frame's columns


def _within(x: np.ndarray, inertia: float) -> float:
    """The share of the variance that centres explain."""
    return float(1 - inertia / ((x - x.mean(axis=0)) ** 2).sum())


def _explained(x: np.ndarray, components: np.ndarray) -> float:
    """The share of squares that directions hold."""
    return float(((x @ components.T) ** 2).sum() / (x**2).sum())


def _centred(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = x - x.mean(axis=0)
    return out


def _nearby(x: np.ndarray, places: np.ndarray) -> float:
    return float(manifold.trustworthiness(x, places))


def _as_many(x: np.ndarray, scores: np.ndarray) -> float:
    known = ensemble.IsolationForest(n_estimators=1000, random_state=1).fit(x).score_samples(x)
    return float(spearmanr(scores, known)[0])


def _embedding(ours: Callable[[], Any], theirs: Callable[[], Any]) -> Unlabelled:
    """Trustworthiness: how many of a row's five neighbours were near before."""
    return Unlabelled(
        ours,
        theirs,
        ("wine", "diabetes"),
        lambda m, d, x, y: _nearby(x, m.embedding_),
        lambda m, x, y: _nearby(x, m.embedding_),
    )


def _likelihood(components: np.ndarray, x: np.ndarray) -> float:
    """The logarithm of a word's probability, by scikit-learn's bound, of topics that may be ours."""
    judge = decomposition.LatentDirichletAllocation(len(components), random_state=0, max_iter=1).fit(x)
    judge.components_ = components
    expected = digamma(components) - digamma(components.sum(axis=1))[:, None]
    judge.exp_dirichlet_component_ = np.exp(expected)
    return float(-np.log(judge.perplexity(x)))


UNLABELLED: dict[str, Unlabelled] = {
    "KMeans": Unlabelled(
        lambda: ml.KMeans(3),
        lambda: cluster.KMeans(3, n_init=10, random_state=0),
        ("iris", "wine"),
        lambda m, d, x, y: _within(x, m.inertia_),
        lambda m, x, y: _within(x, m.inertia_),
    ),
    "GaussianMixture": Unlabelled(  # the logarithm of a row's density, which is what both make large
        lambda: ml.GaussianMixture(3),
        lambda: mixture.GaussianMixture(3, covariance_type="diag", n_init=4, random_state=0),
        ("iris", "wine"),
        lambda m, d, x, y: float(m.score(d)),
        lambda m, x, y: float(m.score(x)),
    ),
    "PCA": Unlabelled(
        lambda: ml.PCA(2),
        lambda: decomposition.PCA(2),
        ("iris", "wine"),
        lambda m, d, x, y: _explained(_centred(x), m.components_),
        lambda m, x, y: _explained(_centred(x), m.components_),
    ),
    "TruncatedSVD": Unlabelled(
        lambda: ml.TruncatedSVD(2),
        lambda: decomposition.TruncatedSVD(2, algorithm="arpack"),
        ("iris", "wine"),
        lambda m, d, x, y: _explained(x, m.components_),
        lambda m, x, y: _explained(x, m.components_),
    ),
    "NMF": Unlabelled(
        lambda: ml.NMF(2, max_iter=40),
        lambda: decomposition.NMF(2, max_iter=400),
        ("iris", "wine"),
        lambda m, d, x, y: float(1 - m.reconstruction_err_**2 / (x**2).sum()),
        lambda m, x, y: float(1 - m.reconstruction_err_**2 / (x**2).sum()),
    ),
    "LatentDirichletAllocation": Unlabelled(
        lambda: ml.LatentDirichletAllocation(4),
        lambda: decomposition.LatentDirichletAllocation(4, max_iter=20, random_state=0),
        ("digits",),
        lambda m, d, x, y: _likelihood(m.components_[:, ORDER], x),
        lambda m, x, y: _likelihood(m.components_, x),
    ),
    "IsolationForest": Unlabelled(  # correlation of ranks with those that a thousand trees give
        lambda: ml.IsolationForest(n_estimators=40),
        lambda: ensemble.IsolationForest(n_estimators=40, random_state=0),
        ("breast cancer",),
        lambda m, d, x, y: _as_many(x, m.score_samples(d, to="carol").value),
        lambda m, x, y: _as_many(x, m.score_samples(x)),
    ),
    "SpectralEmbedding": _embedding(ml.SpectralEmbedding, lambda: manifold.SpectralEmbedding(random_state=0)),
    "Isomap": _embedding(lambda: ml.Isomap(n_neighbors=10), lambda: manifold.Isomap(n_neighbors=10)),
    "TSNE": _embedding(ml.TSNE, lambda: manifold.TSNE(init="pca", method="exact", random_state=0)),
}
