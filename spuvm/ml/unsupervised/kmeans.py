"""k-means."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.table import Table
from spuvm.ml.common.units import as_float, times_power
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.space import common, number

TRIED, KEPT = 3, 2  # steps of all starts, and how many of them go on
SAMPLED, EACH = 4096, 64  # rows on which all starts are tried, and at least how many for a cluster


@dataclass(eq=False, kw_only=True, repr=False)
class KMeans(Unsupervised):
    """Lloyd's algorithm from centres that are drawn as k-means++ does, of which the best of some are taken.

    Nothing is revealed: all `max_iter` steps are made. Centres, clusters and their sizes stay secret. Of more than
    4,096 rows (64 a cluster), starts are drawn and tried on that many, picked at random for all to see, and there are
    twice as many starts (P. Bradley, U. Fayyad, ICML 1998).

    Args:
        n_init: how many starts are tried, side by side. After three steps the two with the least inertia go on: eight
            starts cost about what four do that all go on, and find the groups more often.
        max_iter: steps, in all.
        random_state: of the public numbers that k-means++ compares with secret distances, and of the rows it sees.
    """

    n_clusters: int = field(default=8, kw_only=False)
    n_init: int = 8
    max_iter: int = 12
    random_state: int = 0
    checks: ClassVar[dict[str, Rule]] = {
        "n_clusters": rules.whole(2, 1000),
        "n_init": rules.whole(1, 50),
        "max_iter": rules.COUNT,
        "random_state": rules.SEED,
    }

    def _needed(self) -> int:
        return self.n_clusters

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        known, z, scale = self._prepared(table)
        drawn, sample = drawn_starts(self.n_clusters, self.n_init, table.rows, self.random_state)
        run = cluster(self.n_clusters, self.max_iter)
        found = machine.run(run, z, scale["power"], drawn, sample, what="training")
        return Fitted(machine, known, found, {"rows": table.rows})

    def predict(self, data: Any, to: str | None = None) -> Any:
        """The nearest centre of each row, int32 [rows]; secret, or shown to the party `to`."""
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays["centres"]
        return self._given_to(learned.machine.run(_nearest, *operands, what="prediction"), to)

    def transform(self, data: Any) -> Any:
        """Squared distances to the centres, in the largest column's unit: secret [rows, clusters]."""
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays["centres"]
        return learned.machine.run(_distances_to, *operands, what="prediction")

    def score(self, data: Any) -> float:
        """Less the sum of squared distances to the centres, revealed to all parties."""
        table, learned = self._table(data), self._fitted()
        assert learned.columns is not None
        operands = matrix(learned.columns, table), scales(learned.columns)["power"], learned.arrays["centres"]
        shown = spu.reveal(learned.machine.run(_inertia, *operands, what="score"))
        return -float(number(shown)) * table.rows

    @property
    def inertia_(self) -> float:
        """Of the training rows, revealed to all parties."""
        learned = self._fitted()
        return float(number(learned.machine.reveal(learned.arrays["inertia"], "inertia")) * learned.facts["rows"])

    @property
    def cluster_centers_(self) -> np.ndarray:
        """The centres float64 [clusters, n], revealed to all parties."""
        learned = self._fitted()
        assert learned.columns is not None
        floats = learned.machine.run(_centres, learned.arrays["centres"], scales(learned.columns), what="centres")
        return number(learned.machine.reveal(floats, "centres"))


def squared_distances(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Of rows [rows, n] to centres [..., k, n], less what is the same for all centres: [..., rows, k]."""
    return jnp.sum(centres * centres, axis=-1)[..., None, :] - 2 * (x @ jnp.swapaxes(centres, -1, -2))


def drawn_starts(count: int, starts: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers in (0, 1) [count, starts], and positions of the rows that starts are tried on; None: on all."""
    r = np.random.RandomState(seed)  # its numbers are the same in every version of NumPy
    tried = max(SAMPLED, EACH * count)
    few = rows > tried
    drawn = r.uniform(0.001, 0.999, (count, 2 * starts if few else starts)).astype(np.float32)
    return drawn, np.sort(r.permutation(rows)[:tried]) if few else None


@cache
def cluster(count: int, steps: int) -> Any:
    """A function of features, powers and what `drawn_starts` gives: centres [count, n], inertia a row."""

    def run(z: jax.Array, power: jax.Array, drawn: jax.Array, sample: jax.Array | None) -> dict[str, Any]:
        x, unit = common(z, power)
        centres = best_of(x, drawn, count, steps, sample)
        inertia = spread_within(x, centres) + jnp.mean(jnp.sum(x * x, axis=1))
        best = (jnp.arange(inertia.shape[0]) == jnp.argmin(inertia)).astype(x.dtype)
        return {
            "centres": jnp.tensordot(best, centres, axes=1),
            "inertia": as_float(jnp.sum(best * inertia), 2 * unit),
        }

    return run


def best_of(x: jax.Array, drawn: jax.Array, count: int, steps: int, sample: jax.Array | None = None) -> jax.Array:
    """Centres [starts, count, n] of rows [rows, n] after so many of Lloyd's steps, of those starts that went on.

    The first steps, after which most starts are left out, are made on the rows `sample`; the last one is always on all.
    """
    few = x if sample is None else x[sample]
    tried = min(steps, TRIED)
    centres = lax.fori_loop(0, tried, partial(_step, few), _started(few, jnp.sum(few * few, axis=1), drawn, count))
    if steps > TRIED and centres.shape[0] > KEPT:
        centres = _least(centres, spread_within(few, centres), KEPT)
    out: jax.Array = lax.fori_loop(0, max(steps - TRIED, int(sample is not None)), partial(_step, x), centres)
    return out


def _step(x: jax.Array, _: jax.Array, centres: jax.Array) -> jax.Array:
    member = _member(x, centres)
    sizes = jnp.mean(member, axis=1)[..., None]
    sums = jnp.swapaxes(member, 1, 2) @ x / x.shape[0]
    return jnp.where(sizes > 0.5 / x.shape[0], sums / jnp.maximum(sizes, 0.5 / x.shape[0]), centres)


def spread_within(x: jax.Array, centres: jax.Array) -> jax.Array:
    """Of centres [starts, k, n] the mean squared distance to the nearest, less what is the same for all: [starts]."""
    return jnp.mean(jnp.min(squared_distances(x, centres), axis=-1), axis=-1)


def _least(centres: jax.Array, inertia: jax.Array, kept: int) -> jax.Array:
    """Those of the starts [starts, k, n] whose inertia [starts] is least, `kept` of them; which they are is secret."""
    starts = jnp.arange(inertia.shape[0])
    before = (inertia[None] < inertia[:, None]) | ((inertia[None] == inertia[:, None]) & (starts < starts[:, None]))
    place = jnp.sum(before.astype(jnp.int32), axis=1)
    chosen = (place == jnp.arange(kept)[:, None]).astype(centres.dtype)
    return jnp.tensordot(chosen, centres, axes=1)


def _started(x: jax.Array, square: jax.Array, drawn: jax.Array, count: int) -> jax.Array:
    """k-means++ (D. Arthur, S. Vassilvitskii, SODA 2007) for all starts at once: centres [starts, count, n]."""
    rows, starts = x.shape[0], drawn.shape[1]
    weights = jnp.ones((starts, rows), x.dtype)
    chosen: list[jax.Array] = []
    least = None
    for k in range(count):
        total = jnp.cumsum(weights / rows, axis=1)
        below = (total < drawn[k][:, None] * total[:, -1:]).astype(x.dtype)
        picked = jnp.concatenate([jnp.ones((starts, 1), x.dtype), below[:, :-1]], axis=1) - below
        centre = picked @ x
        chosen.append(centre)
        gap = jax.nn.relu(square[None] + jnp.sum(centre * centre, axis=1)[:, None] - 2 * centre @ x.T)
        least = gap if least is None else jnp.minimum(least, gap)
        weights = least
    return jnp.stack(chosen, axis=1)


def _member(x: jax.Array, centres: jax.Array) -> jax.Array:
    """1 where a centre is the nearest: [starts, rows, count]."""
    nearest = jnp.argmin(squared_distances(x, centres), axis=-1)
    return (nearest[..., None] == jnp.arange(centres.shape[1])).astype(x.dtype)


def _nearest(z: jax.Array, power: jax.Array, centres: jax.Array) -> jax.Array:
    return jnp.argmin(squared_distances(common(z, power)[0], centres), axis=1).astype(jnp.int32)


def _distances_to(z: jax.Array, power: jax.Array, centres: jax.Array) -> jax.Array:
    x, _ = common(z, power)
    return squared_distances(x, centres) + jnp.sum(x * x, axis=1, keepdims=True)


def _inertia(z: jax.Array, power: jax.Array, centres: jax.Array) -> Any:
    x, unit = common(z, power)
    mean = jnp.mean(jnp.min(squared_distances(x, centres), axis=1)) + jnp.mean(jnp.sum(x * x, axis=1))
    return spu.reveal(as_float(mean, 2 * unit))


def _centres(centres: jax.Array, scale: Any) -> Any:
    # In each column's own unit the mean can be added.
    own = times_power(centres, jnp.max(scale["power"]) - scale["power"])
    return as_float(own + scale["mean"], scale["power"] + jnp.zeros(own.shape, jnp.int32))
