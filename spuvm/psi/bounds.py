"""A shared table cut to fewer rows than it could have: to a bound that all agree on, or to its rows and some noise."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from spuvm.dp.ledgers import Budgets, spend_all
from spuvm.dp.spending import DELTA as BY_CHANCE
from spuvm.dp.spending import Spent
from spuvm.psi.plan import Plan
from spuvm.psi.shared import SharedTable
from spuvm.psi.sharing import machine_function
from spuvm.runtime.errors import InputError

DELTA = 2.0**-40
UNIFORM = 53  # bits


def cut(plan: Plan, table: SharedTable, bound: int) -> SharedTable:
    """The table's rows in a table of `bound` rows, by a secret sort. All learn whether they fit, and nothing else.

    Raises:
        InputError: if more rows are there, at every party.
    """
    checked_bound(bound)
    if bound >= table.rows:
        return table
    values = [dict(table.columns), dict(table.present), dict(table.matched)]
    with jax.enable_x64(True):
        run = machine_function(plan.vm, _cut)
        ordered, fits = run(table.valid, values, jnp.arange(bound))
        (enough,) = plan.vm.reveal([fits])
    if not bool(enough):
        raise InputError(f"`bound` of {bound:,} rows is too small for the joined rows: give a larger one, or none.")
    valid, (columns, present, matched) = ordered
    learns = (*table.learns, f"all parties: that at most {bound:,} rows are joined")
    return replace(table, rows=bound, valid=valid, columns=columns, present=present, matched=matched, learns=learns)


def checked_bound(bound: Any) -> None:
    if not isinstance(bound, int) or bound < 1:
        raise InputError(f"`bound` must be a positive number of rows, got {bound!r}.")


def _cut(valid: Any, values: Any, places: Any) -> Any:
    """Rows that are there before all others, as many as there are places; and whether that is all of them."""
    leaves, tree = jax.tree.flatten(values)
    drop, *ordered = jax.lax.sort((~valid, *leaves), num_keys=1, is_stable=True)
    size = places.shape[0]
    first = ~drop[:size], jax.tree.unflatten(tree, [x[:size] for x in ordered])
    return first, drop[size]


def noisy_count(plan: Plan, table: SharedTable, epsilon: float, budget: Budgets = None) -> int:
    """The helper's count of joined rows, and noise that only adds: all parties learn the sum.

    Security: the sum is (epsilon, 2^-40)-differentially private for a row more or less, towards all but the helper,
    who knows the count in helper mode anyway. Noise is max(0, s + L): L discrete Laplace of scale 1 / epsilon, s such
    that what is cut off has probability 2^-40 (C. Dwork, A. Roth: The algorithmic foundations of differential privacy,
    2014).

    Raises:
        InputError: for another mode, an epsilon that is no positive number, and a budget that it is too much for.
    """
    if plan.helper is None:
        raise InputError(
            "`epsilon` needs a helper, who counts rows and draws the noise: mode='helper', or give `bound`."
        )
    if not 0 < epsilon <= 10:
        raise InputError(f"`epsilon` must be a positive number, 10 at most, got {epsilon!r}.")
    spent = [Spent("laplace", 1 / epsilon), Spent(BY_CHANCE, DELTA)]
    spend_all(budget, plan.vm.config.members, spent, "rows of a join")
    (count,) = plan.vm.convert([machine_function(plan.vm, _count)(table.valid)], "reveal", _rank(plan))
    known = None if count.parts[0] is None else int(count.known_value())
    places = plan.places
    said = places.run(plan.helper, lambda: min(table.rows, max(1, int(known or 0) + one_sided(epsilon))))
    return int(places.tell(plan.helper, said, int))


def _rank(plan: Plan) -> int:
    assert plan.helper is not None
    return plan.vm.config.members.index(plan.helper)


def _count(valid: Any) -> Any:
    return jnp.sum(valid, dtype=jnp.int32)


def one_sided(epsilon: float) -> int:
    """Noise that is never negative: a shifted discrete Laplace, the difference of two geometric numbers."""
    shift = math.ceil(math.log(1 / DELTA) / epsilon)
    return max(0, shift + _geometric(epsilon) - _geometric(epsilon))


def _geometric(epsilon: float) -> int:
    """P(k) ~ exp(-k epsilon), from the operating system's randomness."""
    uniform = (secrets.randbits(UNIFORM) + 1) / 2.0**UNIFORM  # (0, 1]
    return math.floor(-math.log(uniform) / epsilon)
