"""The ledgers of the parties that are here: one budget, or one for each party; each writes into its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spuvm.context import abort_everyone_on_error
from spuvm.devices import PYU
from spuvm.dp.budget import Budget
from spuvm.dp.spending import Spent
from spuvm.runtime.errors import ConfigError

Budgets = Budget | Mapping[str, Budget] | None


def ledgers(budget: Budgets, parties: Sequence[str]) -> list[Budget]:
    """Those of the parties that are here, each once; ConfigError if one has none."""
    if budget is None:
        return []
    home = [p for p in parties if PYU(p).is_here]
    if isinstance(budget, Budget):
        return [budget] if home else []
    missing = [p for p in home if p not in budget]
    if missing:
        raise ConfigError(f"`budget` has no ledger of {', '.join(missing)}.")
    found = [budget[p] for p in home]
    return [b for i, b in enumerate(found) if b.path not in [o.path for o in found[:i]]]


def spend_all(budget: Budgets, parties: Sequence[str], spent: Sequence[Spent], label: str) -> None:
    """Written by every party that is here, if all of them allow it; one that refuses stops all, before anything runs.

    Raises:
        InputError: if it would overspend.
    """
    with abort_everyone_on_error():
        mine = ledgers(budget, parties)
        for one in mine:
            one.allows(spent)
        for one in mine:
            one.spend(spent, label)


def check_budgets(name: str, budget: object) -> None:
    """ConfigError for what is no budget and no budgets by party."""
    several = isinstance(budget, Mapping) and all(isinstance(b, Budget) for b in budget.values())
    if budget is not None and not isinstance(budget, Budget) and not several:
        raise ConfigError(f"`{name}` must be a `spu.dp.Budget`, or one for each party, got {budget!r}.")
