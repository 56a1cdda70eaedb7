"""Isolation forests: rows that random splits set apart early are unlike the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import rules, units
from spuvm.ml.common.by_column import learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import refuse_categories
from spuvm.ml.common.table import Table, secret
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.runtime.errors import InputError

OFFSET = -0.5  # scores below are of outliers: scikit-learn's, if no share is given
MOST_SAMPLES = 256
ELEMENTS = 1 << 21  # comparisons at once
NARROW = 2.0**-14  # a secret column's range below counts as this


@dataclass(eq=False, kw_only=True, repr=False)
class IsolationForest(Unsupervised):
    """Scores by how few random splits set a row apart (F. T. Liu, K. M. Ting, Z.-H. Zhou, ICDM 2008).

    Columns, places of splits within a column's range, and the rows of each tree are drawn by a public generator;
    ranges, counts of rows and the lengths of paths stay secret, and nothing is revealed. A place is drawn within what
    the splits above leave of the column's range; a split that sets no row of its tree apart counts for nothing, so that
    those which count are spread as in trees that know their rows. A cell far beyond all others makes a column's range
    too wide for splits among the rest: bring such a column to ranks first (`QuantileTransformer`). Rows that a tree of
    few rows has not seen leave it earlier than in scikit-learn's, and score some hundredths less: give `contamination`
    there, which goes by ranks.

    Args:
        n_estimators: trees.
        max_samples: rows of a tree, or a share of them; "auto": 256, or all if there are fewer.
        contamination: the share of the training rows that `predict` calls outliers; "auto": those with scores below
            -1/2.
        random_state: of the public generator.
    """

    n_estimators: int = 100
    max_samples: Any = "auto"
    contamination: Any = "auto"
    random_state: int = 0
    checks: ClassVar[Mapping[str, Rule]] = {
        "n_estimators": rules.whole(1, 1000),
        "max_samples": Rule(
            lambda x: x == "auto" or rules.whole(2, 4096).holds(x) or (isinstance(x, float) and 0 < x <= 1),
            "'auto', a whole number from 2 to 4096, or a share above 0.0 up to 1.0",
        ),
        "contamination": Rule(
            lambda x: x == "auto" or (isinstance(x, float) and 0 < x <= 0.5), "'auto', or a share above 0 up to 0.5"
        ),
        "random_state": rules.SEED,
    }

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        refuse_categories(table)
        known = learn(table, _range, _secret_range, "units")
        samples = self._samples(table.rows)
        learned = Fitted(machine, known, {}, {"rows": table.rows, "samples": samples})
        x = self._places(learned, known.match(table))
        forest = self._forest(learned)
        rows = _rows_of_trees(self.n_estimators, samples, table.rows, self.random_state)
        grown = [machine.run(_grown, x, rows[at], *forest.some(at), what="training") for at in forest.pieces(samples)]
        learned.arrays["lengths"] = machine.run(_all_trees, grown, what="training")
        if self.contamination == "auto":
            learned.arrays["offset"] = OFFSET
        else:
            run = _offset(self.n_estimators, samples, float(self.contamination))
            learned.arrays["offset"] = machine.run(run, self._paths(learned, x, "training"), what="training")
        return learned

    def _samples(self, rows: int) -> int:
        wanted = self.max_samples
        if wanted == "auto":
            return min(MOST_SAMPLES, rows)
        found = int(wanted * rows) if isinstance(wanted, float) else min(wanted, rows)
        if found < 2:
            raise InputError(f"`max_samples` is {wanted:g} of {rows} rows: a tree needs 2 or more.")
        return found

    def _forest(self, learned: Fitted) -> Forest:
        assert learned.columns is not None
        depth = (learned.facts["samples"] - 1).bit_length()
        return _drawn(self.n_estimators, depth, len(learned.columns.columns), self.random_state)

    def _places(self, learned: Fitted, table: Table) -> Any:
        """Cells as places in their columns' ranges of training, secret [rows, n]: 0 at the least, 1 at the largest."""
        assert learned.columns is not None
        return secret(learned.columns.apply(table, _place, _secret_place, "units"), "units")

    def _paths(self, learned: Fitted, x: Any, what: str) -> list[Any]:
        """The lengths of rows' paths, of some trees at once, [rows] each."""
        forest, lengths = self._forest(learned), learned.arrays["lengths"]
        pieces = forest.pieces(x.shape[0])
        return [learned.machine.run(_path, x, *forest.some(at), lengths, at, what=what) for at in pieces]

    def _run(self, function: Any, data: Any, to: str | None) -> Any:
        table, learned = self._table(data), self._fitted()
        paths = self._paths(learned, self._places(learned, table), "prediction")
        run = function(self.n_estimators, learned.facts["samples"])
        result = learned.machine.run(run, paths, learned.arrays["offset"], what="prediction")
        return self._given_to(result, to)

    def score_samples(self, data: Any, to: str | None = None) -> Any:
        """-2^(-mean path by the mean path among as many rows), float [rows]: near -1 an outlier, above -1/2 none."""
        return self._run(_scores, data, to)

    def decision_function(self, data: Any, to: str | None = None) -> Any:
        """`score_samples` less the score where outliers begin: float [rows], below 0 for outliers."""
        return self._run(_decisions, data, to)

    def predict(self, data: Any, to: str | None = None) -> Any:
        """-1 for outliers, 1 for others: int32 [rows]; secret, or shown to the party `to`."""
        return self._run(_signs, data, to)


# What is drawn, public -------------------------------------------------------------------------------------------


class Forest(NamedTuple):
    """Splits of whole trees, level after level: column int32 and place float32, both [trees, 2^depth - 1]."""

    column: np.ndarray
    place: np.ndarray

    def some(self, trees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The splits of the trees at these positions."""
        return self.column[trees], self.place[trees]

    def pieces(self, rows: int) -> list[np.ndarray]:
        """Positions of trees, as many at once as `ELEMENTS` has room for."""
        trees, nodes = self.column.shape
        at_once = max(1, ELEMENTS // (rows * nodes))
        return [np.arange(i, min(i + at_once, trees)) for i in range(0, trees, at_once)]


def _drawn(trees: int, depth: int, columns: int, seed: int) -> Forest:
    """Columns, and places within what the splits above leave of them."""
    r = np.random.RandomState(seed)
    low, high = np.zeros((trees, 1, columns)), np.ones((trees, 1, columns))
    found, places = [], []
    for level in range(depth):
        column = r.randint(0, columns, (trees, 1 << level))
        here = column[..., None] == np.arange(columns)
        start, end = (np.sum(side * here, axis=-1) for side in (low, high))
        place = start + r.uniform(size=column.shape) * (end - start)
        found.append(column)
        places.append(place)
        right, left = (np.where(here, place[..., None], side) for side in (low, high))
        low = np.stack([low, right], axis=2).reshape(trees, -1, columns)
        high = np.stack([left, high], axis=2).reshape(trees, -1, columns)
    return Forest(np.concatenate(found, axis=1).astype(np.int32), np.concatenate(places, axis=1).astype(np.float32))


def _rows_of_trees(trees: int, samples: int, rows: int, seed: int) -> np.ndarray:
    """Positions int32 [trees, samples], without any twice in a tree."""
    r = np.random.RandomState(seed)
    return np.stack([r.permutation(rows)[:samples] for _ in range(trees)]).astype(np.int32)


# At the owner, and of secret columns ---------------------------------------------------------------------------


def _range(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"low": x.min(axis=0), "width": np.ptp(x, axis=0)}


def _place(x: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    width = np.where(state["width"] > 0, state["width"], 1.0)
    out: np.ndarray = np.clip((x - state["low"]) / width, 0.0, 1.0)
    return out


def _secret_range(x: jax.Array) -> dict[str, jax.Array]:
    low = jnp.min(x, axis=0)
    width = jnp.maximum(jnp.max(x, axis=0) - low, NARROW)
    power = units.magnitude(width)
    return {"low": low, "power": power, "inverse": 1 / units.times_power(width, -power)}


def _secret_place(x: jax.Array, state: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.clip(units.times_power(x - state["low"], -state["power"]) * state["inverse"], 0.0, 1.0)


# On the machine ------------------------------------------------------------------------------------------------


def mean_path(rows: int) -> float:
    """The mean length of an unsuccessful search in a binary tree of so many rows."""
    if rows <= 2:
        return float(rows > 1)
    return 2 * (math.log(rows - 1) + float(np.euler_gamma)) - 2 * (rows - 1) / rows


def _mean_paths(rows: jax.Array) -> jax.Array:
    """`mean_path` of secret counts, float."""
    several = jnp.maximum(rows, 3.0)
    found = 2 * jnp.log(several - 1) + 2 / several + (2 * np.euler_gamma - 2)
    return jnp.where(rows > 2.5, found, (rows > 1.5).astype(jnp.float32))


def _leaves(below: jax.Array) -> jax.Array:
    """Whether a row goes left at each node, bool [rows, trees, nodes] -> which leaf is its, [rows, trees, leaves]."""
    rows, trees, nodes = below.shape
    here = jnp.ones((rows, trees, 1), bool)
    start = 0
    while start < nodes:
        count = here.shape[2]
        left = here & below[:, :, start : start + count]
        here = jnp.stack([left, here ^ left], axis=3).reshape(rows, trees, 2 * count)
        start += count
    return here.astype(jnp.float32)


def _lengths(counts: jax.Array) -> jax.Array:
    """Rows in each leaf, float [trees, leaves] -> the length of its path, which goes on as paths of so many rows do."""
    trees, leaves = counts.shape
    out = _mean_paths(counts)
    here = counts
    while here.shape[1] > 1:
        pairs = here.reshape(trees, -1, 2)
        above = pairs[..., 0] + pairs[..., 1]
        apart = (pairs[..., ::-1] > 0.5) & (above > 1.5)[..., None]
        steps = apart.astype(jnp.float32).reshape(here.shape)
        out = out + jnp.repeat(steps, leaves // here.shape[1], axis=1)
        here = above
    return out


def _grown(x: jax.Array, rows: jax.Array, column: jax.Array, place: jax.Array) -> jax.Array:
    """Places [all rows, n], rows of trees [trees, samples], splits -> lengths of paths [trees, leaves]."""
    at = rows.T[:, :, None] * x.shape[1] + column[None]
    cells = x.reshape(-1)[at.reshape(-1)].reshape(at.shape)
    return _lengths(jnp.sum(_leaves(cells < place), axis=0))


def _all_trees(some: list[jax.Array]) -> jax.Array:
    return jnp.concatenate(some)


def _path(x: jax.Array, column: jax.Array, place: jax.Array, lengths: jax.Array, at: jax.Array) -> jax.Array:
    """The sum of the lengths of rows' paths in the trees `at`, [rows]."""
    rows = x.shape[0]
    cells = x[:, column.reshape(-1)].reshape(rows, *column.shape)
    out: jax.Array = _leaves(cells < place).reshape(rows, -1) @ lengths[at].reshape(-1)
    return out


def _score(paths: list[jax.Array], trees: int, samples: int) -> jax.Array:
    return -jnp.exp(sum(paths[1:], paths[0]) / trees * (-np.log(2.0) / mean_path(samples)))


@cache
def _scores(trees: int, samples: int) -> Any:
    return lambda paths, offset: _score(paths, trees, samples)


@cache
def _decisions(trees: int, samples: int) -> Any:
    return lambda paths, offset: _score(paths, trees, samples) - offset


@cache
def _signs(trees: int, samples: int) -> Any:
    return lambda paths, offset: jnp.where(_score(paths, trees, samples) < offset, -1, 1).astype(jnp.int32)


@cache
def _offset(trees: int, samples: int, share: float) -> Any:
    """The score below which a share of the rows is."""
    return lambda paths: jnp.quantile(_score(paths, trees, samples), share)
