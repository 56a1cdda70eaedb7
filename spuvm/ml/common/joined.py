"""Joined tables that nobody sees, as what estimators take: rows that are not there have weight 0.

A row counts where it is valid and none of the cells that are used is absent. Which rows these are, and how many, stays
secret; the public number of rows is the table's bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.data.schema import nearest
from spuvm.ml.common.table import Block, Table
from spuvm.ml.machine import Machine
from spuvm.objects import SPUObject
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import InputError


def learned(machine: Machine, table: SharedTable, label: Any, weight: Any) -> tuple[Table, SPUObject, SPUObject]:
    """Features, labels and weights of a joined table.

    Args:
        label: the name of a column; all others but the weights' are features.
        weight: the name of a column of weights, which count where a row does; None if there is none.

    Raises:
        InputError: for names that are not there, text, and times.
    """
    if not isinstance(label, str):
        raise InputError("`label` must be the name of a column of the joined table.")
    if weight is not None and not isinstance(weight, str):
        raise InputError("`sample_weight` must be the name of a column of the joined table.")
    for name in (label, weight):
        if name is not None and name not in table:
            raise InputError(f"the joined table has no column `{name}`{nearest(name, table.names)}.")
        if name is not None:
            check_column(table, name)
    features = features_of(machine, table, [n for n in table.names if n not in (label, weight)])
    used = [n for n in table.names if n in table.present and n != weight]
    given = [] if weight is None else [table[weight], *(table.present[n] for n in (weight,) if n in table.present)]
    weights = machine.run(_counting, table.valid, [table.present[n] for n in used], given, what="table")
    return features, machine.run(_as_numbers, table[label], what="table"), weights


def features_of(machine: Machine, table: SharedTable, names: Sequence[str]) -> Table:
    """Columns as one secret block, by name; absent cells are 0.

    Raises:
        InputError: for text, whose codes mean nothing to others, times, and a table without features.
    """
    if not names:
        raise InputError("the joined table has no columns left: there are no features.")
    for name in names:
        check_column(table, name)
    value = machine.run(_side_by_side, [table[n] for n in names], what="table")
    block = Block(tuple(Column(n, None, "float") for n in names), value)
    return Table(machine, table.rows, (block,), "arrays")


def check_column(table: SharedTable, name: str) -> None:
    """Refuse text, and integers of 64 bits."""
    if name in table.categories:
        raise InputError(
            f"`{name}` of the joined table is text, whose codes are its owner's: leave it out of the join, "
            f"drop=['{name}'], or code it before."
        )
    if table[name].dtype == np.int64:
        raise InputError(
            f"`{name}` of the joined table has integers of 64 bits, as times have (microseconds): fixed point has no "
            f"room for them: leave it out of the join, drop=['{name}'], or bring days or hours as numbers."
        )


def _side_by_side(columns: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([c.astype(jnp.float32) for c in columns], axis=1)


def _as_numbers(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


def _counting(valid: jax.Array, present: Sequence[jax.Array], weight: Sequence[jax.Array]) -> jax.Array:
    for flag in present:
        valid = valid & flag
    if not weight:
        return valid.astype(jnp.float32)
    there = valid & weight[1] if len(weight) > 1 else valid
    return jnp.where(there, weight[0].astype(jnp.float32), 0.0)
