"""Differentially private boosting: noise in the sums that splits and leaves are made of; nothing else is looked at.

At a level of a tree a row is at one node, and there in one bin of each feature. So the sums of gradients and hessians
of all bins and nodes, and of all nodes, change by its own once for each feature and once more: a Gaussian mechanism
(Grislain and Gonzalvez, "DP-XGBoost", 2021; Maddock, Cormode, Wang, Maple, Jha, "Federated boosted decision trees
with differential privacy", CCS 2022). Splits, gains, leaves, margins and predictions follow from the noisy sums and
cost nothing more. Edges are those of stated ranges, as quantiles would tell of rows; so are the base score and the unit
of labels. The noise is drawn in the machine; owners are to bin their rows as they say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.dp.mechanisms import gaussian_of
from spuvm.ml.layout import Layout

ROUNDED = 1.01  # times the sensitivity: what secret sigmoids and roundings may add
LARGEST_HESSIAN = {"binary:logistic": 0.25, "reg:squarederror": 1.0}  # of a row


@dataclass(frozen=True)
class Noise:
    """Of one level.

    Attributes:
        ratio: sigma by the sensitivity.
        features: in how many bins a row is.
        hessian, gradient: the largest of a row; gradients are cut there.
    """

    ratio: float
    features: int
    hessian: float
    gradient: float = 1.0

    @property
    def scale(self) -> float:
        """Of hessians, so that a row's is one half where its gradient is 1: they are less to be protected."""
        return 0.5 / self.hessian

    @property
    def sensitivity(self) -> float:
        return ROUNDED * math.sqrt((self.features + 1) * 1.25)

    @property
    def sigma(self) -> float:
        """Of a sum of gradients, by the largest of a row."""
        return self.ratio * self.sensitivity

    @property
    def floor(self) -> float:
        """Of sums of hessians: what is below is noise."""
        return self.sigma / self.scale


def noisy(sums: jax.Array, totals: jax.Array, layout: Layout, noise: Noise) -> tuple[jax.Array, jax.Array]:
    """Sums of the rows left of each split [width, 2, K, N] and of all rows [2, K, N], made of noisy sums of bins."""
    scale = jnp.asarray([1 / noise.gradient, noise.scale], sums.dtype).reshape(2, 1, 1)
    starts = first_columns(layout)
    before = jnp.concatenate([jnp.zeros_like(sums[:1]), sums[:-1]])
    bins = sums - before * (~starts)[:, None, None, None].astype(np.float32)
    told = gaussian_of(jnp.concatenate([totals[None], bins]) * scale, noise.sensitivity, noise.ratio) / scale
    ends = [*np.flatnonzero(starts), len(starts)]
    left = [jnp.cumsum(told[1 + a : 1 + b], axis=0) for a, b in pairwise(ends)]
    return jnp.concatenate(left), told[0]


def first_columns(layout: Layout) -> np.ndarray:
    """Whether a column is the first of its feature's splits, or of missing cells: bool [width]."""
    feature = np.full(layout.width, -1)
    feature[layout.columns] = layout.feature
    starts = np.ones(layout.width, bool)
    starts[1:] = (feature[1:] != feature[:-1]) | (feature[1:] < 0)
    return starts


def ranged_edges(ranges: tuple[tuple[float, float] | None, ...], max_bin: int) -> list[np.ndarray]:
    """Edges of equal distance, of bools one: float32 [splits] of each feature."""
    return [
        np.ones(1, np.float32) if ends is None else np.linspace(*ends, max_bin + 1)[1:-1].astype(np.float32)
        for ends in ranges
    ]
