"""Ranking: pairs of rows of one group, of which the better one is to have the larger margin; and NDCG.

LambdaRank (Burges, "From RankNet to LambdaRank to LambdaMART", 2010): the gradient of a pair is that of a logistic
loss, of "rank:ndcg" times what the NDCG would change if both rows changed places. Every pair of a group counts, as
XGBoost normalises it: by the difference of both margins, unless all of the group are equal, and together they add up to
the logarithm of what they would add up to. Which rows are of one group is public; labels, margins, ranks and pairs are
secret.

Notation: G groups of at most m rows, P = m (m - 1) / 2 pairs of places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Frame
from spuvm.devices import PYU, fetch
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError, DataError, InputError

LARGEST_GROUP = 256  # rows: a group costs half of its square
LARGEST_LABEL = 20  # of NDCG, whose gain is 2^label - 1
Groups = Mapping[str, np.ndarray]  # what the machine takes, public; see `groups_of`


def groups_of(codes: np.ndarray) -> dict[str, np.ndarray]:
    """Where each group's rows are, by a number of each row's group.

    Returns:
        rows: int32 [G, m], the row at each place, 0 where there is none; pairs: float32 [G, P], 1 where both places
        have a row; at: int32 [rows], the place of each row, counted through all groups.
    """
    _, code = np.unique(np.asarray(codes), return_inverse=True)
    order = np.argsort(code, kind="stable")
    sizes = np.bincount(code)
    largest = max(int(sizes.max()), 2)
    if largest > LARGEST_GROUP:
        raise InputError(f"a group has {largest} rows: {LARGEST_GROUP} at most can be ranked, draw some of them.")
    place = np.concatenate([np.arange(n) for n in sizes])
    rows, there = np.zeros((len(sizes), largest), np.int32), np.zeros((len(sizes), largest), bool)
    rows[code[order], place], there[code[order], place] = order, True
    at = np.empty(len(code), np.int32)
    at[order] = code[order] * largest + place
    before, after = np.triu_indices(largest, 1)
    return {"rows": rows, "pairs": (there[:, before] & there[:, after]).astype(np.float32), "at": at}


def told(machine: Machine, frame: Frame, group: str | Sequence[int]) -> dict[str, np.ndarray]:
    """The groups of a frame, by a column whose equal cells all parties are told, or by public sizes.

    Raises:
        ConfigError: for sizes that are none.
        InputError: for no column, missing cells, or sizes that do not add up to the rows.
    """
    if not isinstance(group, str):
        return groups_of(_of_sizes(group, frame.rows))
    owner = PYU(str(frame.schema[group].party))
    where = frame.schema[group].where

    def codes(values: np.ndarray) -> np.ndarray:
        x = np.asarray(values, np.float64)
        if np.isnan(x).any():
            raise DataError(f"{where}: {int(np.isnan(x).sum())} of {x.size} cells are missing: leave these rows out.")
        return np.unique(x, return_inverse=True)[1].astype(np.int32)

    machine.note("which rows are of one group", "all parties", (frame.rows,))
    return groups_of(fetch(owner(codes)(frame[group].at(owner.party))))


def _of_sizes(sizes: Sequence[int], rows: int) -> np.ndarray:
    given = np.asarray(sizes)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not (given > 0).all():
        raise ConfigError(f"`group` must be a column's name, or the groups' sizes, got {sizes!r}.")
    if given.sum() != rows:
        raise InputError(f"the sizes in `group` add up to {int(given.sum())}, and there are {rows} rows.")
    return np.repeat(np.arange(len(given)), given)


# At the label holder --------------------------------------------------------------------------------------------


def pairs(y: np.ndarray, groups: Groups, gains: bool, where: str) -> dict[str, np.ndarray]:
    """Labels [rows] as pairs.

    Returns:
        target: float32 [G, P], 1 where the row at the earlier place is better; size: float32 [G, P], what the pair
        counts, 0 of rows that are equally good or not there.
    """
    value = gain_of(y) if gains else y
    before, after = np.triu_indices(groups["rows"].shape[1], 1)
    one, other = (value[groups["rows"][:, places]] for places in (before, after))
    counts = np.abs(one - other) if gains else (one != other).astype(np.float64)
    counts = counts * groups["pairs"]
    if gains:
        counts = counts / np.maximum(_best(value, groups), 1.0)[:, None]
    if not counts.any():
        raise DataError(f"{where}: all labels of each group are the same: there is nothing to rank.")
    return {"target": (one > other).astype(np.float32), "size": counts.astype(np.float32)}


def _best(gain: np.ndarray, groups: Groups) -> np.ndarray:
    """The best discounted gain that each group can have: float64 [G]."""
    group = groups["at"] // groups["rows"].shape[1]
    best = np.zeros(groups["rows"].shape[0])
    for g in range(len(best)):
        some = np.sort(gain[group == g])[::-1]
        best[g] = (some / np.log2(2 + np.arange(len(some)))).sum()
    return best


def gain_of(y: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp2(y) - 1
    return out


def gains(y: np.ndarray, groups: Groups) -> np.ndarray:
    """Labels as gains by the best that their group can have, and last how many groups have none: float32 [rows + 1]."""
    gain, group = gain_of(y), groups["at"] // groups["rows"].shape[1]
    best = _best(gain, groups)
    return np.append(gain / np.where(best == 0, 1, best)[group], (best == 0).sum()).astype(np.float32)


def check(y: np.ndarray) -> str | None:
    """What is wrong with labels, or None."""
    if not ((y == np.rint(y)) & (y >= 0) & (y <= LARGEST_LABEL)).all():
        return f"labels of a ranking are whole numbers from 0 to {LARGEST_LABEL}, the larger the better."
    return None


# On the machine -------------------------------------------------------------------------------------------------


@cache
def _incidence(largest: int) -> np.ndarray:
    """[P, m]: 1 at a pair's earlier place, -1 at its later one."""
    before, after = np.triu_indices(largest, 1)
    out = np.zeros((len(before), largest), np.float32)
    out[np.arange(len(before)), before], out[np.arange(len(before)), after] = 1, -1
    return out


def gradients(
    margin: jax.Array, target: jax.Array, size: jax.Array, groups: Mapping[str, jax.Array], ndcg: bool
) -> tuple[jax.Array, jax.Array]:
    """First and second derivatives by the margins [rows, 1]."""
    largest = groups["rows"].shape[1]
    apart = _apart(margin, groups)
    below = _below(apart)
    if ndcg:
        size = size * (_discounts(below, groups) @ _incidence(largest).T) * (1 - 2 * below)
    size = _by_distance(size, apart * (1 - 2 * below), groups)
    p = jax.nn.sigmoid(apart)
    off = p - target
    slope = (size * off) @ _incidence(largest)
    bend = (2 * size * (p * (1 - p))) @ np.abs(_incidence(largest))
    factor, unit = _logarithmic(jnp.sum(2 * size * (target * (1 - 2 * p) + p), axis=1, keepdims=True), largest)
    first, second = ((x * factor * unit).reshape(-1)[groups["at"]][:, None] for x in (slope, bend))
    return first, second


NEAR = 0.01  # XGBoost's: is added to a distance that divides
LITTLE = 2.0**-8  # of a sum, below which its logarithm is nearly the sum


def _by_distance(size: jax.Array, distance: jax.Array, groups: Mapping[str, jax.Array]) -> jax.Array:
    """Pairs [G, P] by how far their margins are apart; as they are where all margins of a group are equal."""
    some = jnp.sum(distance * groups["pairs"], axis=1, keepdims=True) > 0
    return size / jnp.where(some, distance + NEAR, 1.0)


def _logarithmic(total: jax.Array, largest: int) -> tuple[jax.Array, float]:
    """log2(1 + total) / total of each group [G, 1], as a number near 1 and a public power of two."""
    unit = 2.0 ** -max(largest.bit_length() - 1, 0)
    little = total < LITTLE
    quotient = jnp.log(1 + total) / jnp.where(little, 1.0, total * unit)
    return jnp.where(little, (1 - total / 2) / unit, quotient) * np.float32(1 / np.log(2)), unit


def _apart(margin: jax.Array, groups: Mapping[str, jax.Array]) -> jax.Array:
    """Of each pair, how far the earlier place's margin is above the later's: [G, P]."""
    placed = margin[:, 0][groups["rows"]]
    before, after = np.triu_indices(groups["rows"].shape[1], 1)
    return placed[:, before] - placed[:, after]


def _below(apart: jax.Array) -> jax.Array:
    """1 where the later place ranks first; of equal margins the earlier one does."""
    return (apart < 0).astype(apart.dtype)


def _discounts(below: jax.Array, groups: Mapping[str, jax.Array]) -> jax.Array:
    """1 / log2(2 + rank) of each place, ranks from 0: [G, m]."""
    incidence = _incidence(groups["rows"].shape[1])
    there = groups["pairs"]
    # A place has before it the later ones that rank first, and the earlier ones that are not below it.
    rank = (below * there) @ incidence + there @ np.maximum(-incidence, 0)
    return np.float32(np.log(2)) / jnp.log(2 + rank)


@cache
def score() -> Callable[..., jax.Array]:
    """A function of `gains`, margins [rows, 1] and groups that reveals the mean NDCG of the groups."""

    def ndcg(gain: jax.Array, margin: jax.Array, groups: Mapping[str, jax.Array]) -> Any:
        discount = _discounts(_below(_apart(margin, groups)), groups).reshape(-1)[groups["at"]]
        return spu.reveal((jnp.dot(gain[:-1], discount) + gain[-1]) / groups["rows"].shape[0])

    return ndcg
