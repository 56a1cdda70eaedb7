"""What a plan's function gives and shows: in, the owners' arrays; out, the result's columns, revealed to one party."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.lower.rows import shuffle_p
from spuvm.marking import reveal
from spuvm.sql import machine, tallies
from spuvm.sql.columns import chosen
from spuvm.sql.ordering import rebuilt
from spuvm.sql.plan import Expand, Node, nodes
from spuvm.sql.planning import Plan
from spuvm.sql.relation import Rows
from spuvm.sql.results import decoded

SHARED = "*"  # the receiver of rows that stay shares


def cells(chosen_plan: Plan, shown: Any) -> tuple[list[Any], ...]:
    """The result's columns as Python values."""
    shown = jax.tree.map(np.asarray, shown)
    keep = slice(None) if shown["there"] is None else shown["there"]
    return tuple(
        decoded(label.type, [w[keep] for w in words], None if valid is None else valid[keep])
        for label, (words, valid) in zip(chosen_plan.labels, shown["columns"])
    )


def query_function(chosen_plan: Plan, to: str, frac: int) -> Any:
    """The plan as a JAX function of the owners' arrays, which reveals rows to one party, or to nobody."""

    return lambda given: revealed(computed(chosen_plan, {**given, "frac": frac}, to != SHARED), to)


def revealed(out: Any, to: str) -> Any:
    """What `ended` gave, shown to one party; whether the bounds held, to all."""
    fits = None if out["fits"] is None else reveal(out["fits"])
    if to == SHARED:
        return {**out, "fits": fits}
    return {**reveal({"columns": out["columns"], "there": out["there"]}, to=to), "fits": fits}


def computed(chosen_plan: Plan, given: Any, shown: bool = True) -> Any:
    """What is revealed of a result: its columns, of which rows that are not there are zeros; which rows are; and
    whether stated bounds held. Unless the query orders the rows, they are shuffled."""
    run = machine.run_of(given)
    rows = run.rows(chosen_plan.root)
    return ended(chosen_plan, rows, run.limits, shown)


def beyond(root: Node) -> str:
    """What is wrong where stated bounds did not hold; of several kinds nobody knows which."""
    joins = any(isinstance(n, Expand) and n.limited for n in nodes(root))
    texts = any(map(tallies.declared, nodes(root)))
    said = ["a join has more rows than `join_rows` states: give a larger bound."] * joins
    said += ["a column of shares has other texts than its `values` list: list them all, or none."] * texts
    return " Or ".join(said)


def ended(chosen_plan: Plan, rows: Rows, limits: Sequence[Any], shown: bool = True) -> Any:
    """What `computed` gives, of the rows of the whole plan, and of whether each stated bound held."""
    fits = functools.reduce(jax.numpy.logical_and, limits) if limits else None
    if fits is not None:
        rows = rows.where(jax.numpy.broadcast_to(fits, (rows.count,)))
    vecs, there = list(rows.columns.values()), rows.valid
    arrays = [chosen(there, a) for v in vecs for a in v.arrays]
    if shown and not chosen_plan.ordered and rows.count > 1:
        mixed = shuffle_p.bind(*arrays, *([] if there is None else [there]))
        arrays, there = mixed[: len(arrays)], None if there is None else mixed[-1]
    columns = [(list(v.words), v.valid) for v in rebuilt(vecs, arrays)]
    return {"columns": columns, "there": there, "fits": fits}
