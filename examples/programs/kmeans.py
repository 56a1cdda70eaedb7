"""k-means on iris: two botanists hold different measurements of the same flowers.

Lloyd's algorithm; the centres stay secret while it runs. What comes out: the cluster of each flower.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main
from jax import lax
from sklearn.datasets import load_iris

CLUSTERS = 3
STEPS = 10
FIRST = (0, 50, 100)  # the flowers that the centres start at


def distances(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Squared distances f32[rows, clusters], but for a summand that is the same in each row."""
    return jnp.sum(centres**2, axis=1) - 2 * x @ centres.T


def cluster(sepals: jax.Array, petals: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Clusters int32[rows], and the mean squared distance to their centres."""
    x = jnp.concatenate([sepals, petals], axis=1)

    def step(centres: jax.Array, _: None) -> tuple[jax.Array, None]:
        nearest = jax.nn.one_hot(jnp.argmin(distances(x, centres), axis=1), CLUSTERS)
        sizes = jnp.maximum(jnp.sum(nearest, axis=0), 1)
        return nearest.T @ x / sizes[:, None], None

    centres, _ = lax.scan(step, x[jnp.array(FIRST)], None, length=STEPS)
    to_centres = distances(x, centres)
    spread = jnp.mean(jnp.min(to_centres, axis=1) + jnp.sum(x**2, axis=1))
    return jnp.argmin(to_centres, axis=1), spread


def arguments() -> Mapping[str, Any]:
    x = load_iris().data.astype(np.float32)
    return {"sepals": x[:, :2], "petals": x[:, 2:]}


def measures(secure: Any, clear: Any) -> list[Measure]:
    (clusters, spread), (true_clusters, true_spread) = secure, clear
    return [
        Measure("flowers in the same cluster", float(np.mean(clusters == true_clusters)), 1, 0.01),
        Measure("mean squared distance", float(spread), float(true_spread), 1e-3),
    ]


PROGRAM = Program(cluster, {"sepals": "alice", "petals": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
