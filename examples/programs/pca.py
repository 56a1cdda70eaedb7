"""Principal components of wine: two laboratories analysed the same bottles for different substances.

Each standardises its own columns, which costs no message. The correlation matrix stays secret; what comes
out are the bottles' first two scores and the share of the variance that these explain.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main
from sklearn.datasets import load_wine

COMPONENTS = 2
COLUMNS = 6  # the first so many substances: an eigendecomposition has a sweep for each pair of them


def standardise(x: jax.Array) -> jax.Array:
    x = x / jnp.mean(x, axis=0)
    x = x - jnp.mean(x, axis=0)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=0))


def components(alice: jax.Array, bob: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores f32[rows, 2], up to the sign of each column, and the shares of the variance f32[2]."""
    x = jnp.concatenate([standardise(alice), standardise(bob)], axis=1)
    variances, directions = jnp.linalg.eigh(x.T @ x / x.shape[0])
    return x @ directions[:, : -COMPONENTS - 1 : -1], variances[: -COMPONENTS - 1 : -1] / x.shape[1]


def arguments() -> Mapping[str, Any]:
    x = load_wine().data[:, :COLUMNS].astype(np.float32)
    return {"alice": x[:, : COLUMNS // 2], "bob": x[:, COLUMNS // 2 :]}


def measures(secure: Any, clear: Any) -> list[Measure]:
    (scores, shares), (true_scores, true_shares) = secure, clear
    signs = np.sign(np.sum(scores * true_scores, axis=0))
    out = [
        Measure(f"variance explained by component {i + 1}", float(shares[i]), float(true_shares[i]), 1e-3)
        for i in range(COMPONENTS)
    ]
    return [*out, Measure("largest error of a score", float(np.max(np.abs(scores * signs - true_scores))), 0, 1e-2)]


PROGRAM = Program(components, {"alice": "alice", "bob": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
