"""Spectral embedding: eigenvectors of a graph's Laplacian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from spuvm.ml.common import rules
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.units import times_power
from spuvm.ml.machine import Machine
from spuvm.ml.manifold.base import Embedding, gaps_of, neighbours, spread_out
from spuvm.ml.manifold.eigen import leading, turned
from spuvm.ml.others.svm import kernel_of
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import InputError

LEAST_DEGREE = 2.0**-10  # of a row that is far from all others


@dataclass(eq=False, kw_only=True, repr=False)
class SpectralEmbedding(Embedding):
    """Laplacian eigenmaps (M. Belkin, P. Niyogi, Neural Computation 15, 2003), of a normalised Laplacian.

    Nothing is revealed. A graph in several pieces has several eigenvalues 1, whose vectors may be any that span the
    same: places then tell the pieces apart and little else.

    Args:
        affinity: "nearest_neighbors": rows that are among the nearest of each other (or of one, by half); "rbf":
            exp(-gamma |x - x'|^2).
        gamma: of "rbf"; 1 / columns if not given.
        n_neighbors: a row itself included; a tenth of the rows if not given.
        max_iter: steps of subspace iteration; all are made.
    """

    affinity: str = "nearest_neighbors"
    gamma: float | None = None
    n_neighbors: int | None = None
    max_iter: int = 12
    checks: ClassVar[dict[str, Rule]] = {
        "n_components": rules.whole(1, 20),
        "affinity": rules.one_of("nearest_neighbors", "rbf"),
        "gamma": rules.optional(rules.between(1e-9, 1e9)),
        "n_neighbors": rules.optional(rules.whole(2, 1000)),
        "max_iter": rules.COUNT,
    }

    def _embedded(self, machine: Machine, z: Any, power: Any) -> dict[str, Any]:
        rows = z.shape[0]
        near = max(2, rows // 10) if self.n_neighbors is None else self.n_neighbors
        if near > rows:
            raise InputError(f"there are {rows} rows for {near} neighbours: use fewer.")
        gamma = (1 / z.shape[1] if self.gamma is None else float(self.gamma)) if self.affinity == "rbf" else None
        run = _maps(self.n_components, near, gamma, self.max_iter)
        return {"embedding": machine.run(run, z, power, what="training")}


@cache
def _maps(count: int, near: int, gamma: float | None, steps: int) -> Any:
    """A function of features and powers: places [rows, count].

    With weights W without the diagonal, and d their sums: vectors u of D^-1/2 W D^-1/2 after the first, by d^1/2.
    Eigenvalues, which are from -1 to 1, are brought to 0 to 1. The first vector is known, d^1/2 with eigenvalue 1, and
    taken away: beside a second that is nearly 1 rounding would mix the two.
    """

    def run(z: jax.Array, power: jax.Array) -> jax.Array:
        x, unit = common(z, power)
        rows = x.shape[0]
        eye = jnp.eye(rows, dtype=x.dtype)
        if gamma is None:
            one_way = neighbours(gaps_of(spread_out(x)), near - 1)
            weight = (one_way + one_way.T) * 0.5
        else:
            share, exponent = math.frexp(gamma)
            sharp = times_power(jnp.full((), share, jnp.float32), 2 * unit + exponent)
            weight = kernel_of(x, x, sharp) * (1 - eye)
        degree = jnp.sum(weight, axis=1)
        scale = lax.rsqrt(jnp.maximum(degree, LEAST_DEGREE))
        first = degree * scale * lax.rsqrt(jnp.sum(degree))
        others = (weight * scale[:, None] * scale + eye) * 0.5 - first[:, None] * first
        _, vectors = leading(others, count, steps)
        return turned(vectors * scale[:, None])

    return run
