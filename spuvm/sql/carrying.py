"""Sorted rows of a window, and values carried from flagged rows to those behind.

To carry, the flagged rows are brought together by opened places of shuffled rows, where each takes the difference to
the one before; back at their places, running sums of the differences are the carried values (as in `lookups`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from spuvm.sql.columns import Array, Vec, number
from spuvm.sql.ordering import partitioned, placed, shifted
from spuvm.sql.plan import Order
from spuvm.sql.relation import Rows


def carried(flags: Array, values: Sequence[Array]) -> list[Array]:
    """For each row the values at the last flagged row that is not behind it; zero before the first."""
    rows = int(flags.shape[0])
    out = partitioned(flags, [flags, jnp.arange(rows), *values])
    flag = number(out[0])
    steps = [(x - shifted(x)) * flag for x in out[2:]]
    return [jnp.cumsum(x) for x in placed(out[1], steps)]


def carried_back(flags: Array, values: Sequence[Array]) -> list[Array]:
    """The same of the first flagged row that is not before it."""
    return [x[::-1] for x in carried(flags[::-1], [v[::-1] for v in values])]


@dataclass(eq=False)
class Frame:
    """Sorted rows. Flags of first and last rows of partitions (`starts`, `ends`) and of rows that are equal in the
    order (`fresh`, `stale`); what several functions need is worked out once."""

    rows: Rows
    partition: Sequence[str]
    order: Sequence[Order]
    starts: Array
    fresh: Array

    def __post_init__(self) -> None:
        count, one = self.rows.count, jnp.ones(1, jnp.bool_)
        self.place = jnp.arange(count)
        self.ends = jnp.concatenate([self.starts[1:], one])
        self.stale = jnp.concatenate([self.fresh[1:], one])
        (self.begin,) = carried(self.starts, [self.place])

    @property
    def number(self) -> Array:
        """0 for the first row of a partition."""
        return self.place - self.begin


def from_behind(flags: Array, v: Vec) -> Vec:
    """The column at the first flagged row that is not before."""
    arrays = [number(a) if a.dtype == jnp.bool_ else a for a in v.arrays]
    out = carried_back(flags, arrays)
    return v.rebuilt([o != 0 if a.dtype == jnp.bool_ else o for o, a in zip(out, v.arrays)])
