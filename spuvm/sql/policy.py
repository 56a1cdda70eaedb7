"""What owners allow: a rule for each column and receiver, the least size of groups, templates, and the tripwire.

    [alice]
    k = 10                                # groups of fewer units are left out, inside of the computation
    tripwire = "alice-queries.jsonl"      # refuse what differs from an answered query by one number in a filter
    templates = ["select region, sum(amount) from orders where day > ? group by region"]

    [alice.orders]
    unit = "customer"                     # what k counts; rows, if it is not given

    [alice.orders.columns]
    id = "join_key"                       # for every receiver
    amount = { carol = "after_aggregate", "*" = "never" }

A column that no rule names may not be used. An owner may see its own columns.

    [bob]                                 # differential privacy: others see counts, sums and averages with noise
    epsilon = 0.5                         # what a query costs for one row; `connect(budget=...)` has the ledger
    delta = 1e-7                          # and for showing which groups there are
    contributions = 3                     # how many rows one unit has at most, as the ledger has it

    [bob.bills]
    ranges = { amount = [0, 5000] }       # cells outside count as its ends; what is summed needs one
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError
from spuvm.runtime.located import located
from spuvm.sql.catalog import Catalog

# rule -> (what a query may do with the column, in words)
RULES: dict[str, tuple[frozenset[str], str]] = {
    "never": (frozenset(), "nothing"),
    "join_key": (frozenset({"join"}), "join by equality what is then aggregated, so that nobody sees which keys match"),
    "join_key visible": (
        frozenset({"join", "join shown", "value", "group"}),
        "join by equality, and show the key and which ones match",
    ),
    "filter_only": (frozenset({"filter"}), "filter rows by it"),
    "after_compare": (frozenset({"filter", "compared"}), "filter by it, and show the outcome of comparisons"),
    "after_group_by": (
        frozenset({"filter of groups", "group", "count"}),
        "group by it, count it, and filter by it what is aggregated",
    ),
    "after_aggregate": (
        frozenset({"filter of groups", "count", "aggregate"}),
        "sum, count, average and spread of it, and filter by it what is aggregated",
    ),
    "plaintext": (
        frozenset(
            {
                "join",
                "join shown",
                "filter",
                "filter of groups",
                "compared",
                "group",
                "count",
                "aggregate",
                "extreme",
                "value",
                "order",
            }
        ),
        "anything",
    ),
}
SETTINGS = {"k", "tripwire", "templates", "statistics", "epsilon", "delta", "contributions"}


@dataclass(frozen=True)
class TablePolicy:
    """`columns`: rules by column and receiver ("*": every other)."""

    columns: Mapping[str, Mapping[str, str]]
    unit: str | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnerPolicy:
    """What one owner allows."""

    owner: str
    tables: Mapping[str, TablePolicy]
    k: int = 0
    tripwire: str | None = None
    templates: tuple[str, ...] = ()
    statistics: bool = True
    given: bool = field(default=True)
    epsilon: float = 0.0
    delta: float = 0.0
    contributions: int = 1

    def rule(self, table: str, column: str, to: str) -> str:
        """The rule of a column for a receiver."""
        if to == self.owner or not self.given:
            return "plaintext"
        known = self.tables.get(table)
        by_receiver = known.columns.get(column.lower(), {}) if known is not None else {}
        return by_receiver.get(to, by_receiver.get("*", "never"))

    def ranges(self, table: str) -> Mapping[str, tuple[float, float]]:
        """By column in lower case."""
        known = self.tables.get(table)
        return {} if known is None else known.ranges

    def unit(self, table: str) -> str | None:
        known = self.tables.get(table)
        return None if known is None else known.unit


def everything(owner: str) -> OwnerPolicy:
    """Of an owner that gives no policy."""
    return OwnerPolicy(owner, {}, given=False)


def section(source: str | Path | Mapping[str, Any] | None, owner: str, owners: Sequence[str]) -> Any:
    """An owner's section of a TOML file, or of a mapping of the same form; None where there is no policy.

    Raises:
        InputError: for a file that cannot be read, and for sections of nobody.
    """
    if source is None:
        return None
    if isinstance(source, Mapping):
        return _own(source, owner, owners)
    with located(source):
        try:
            tree = tomllib.loads(Path(source).read_text())
        except OSError as error:
            raise InputError(f"the policy {source} cannot be read: {error.strerror}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the policy {source} is not TOML: {error}.") from None
        return _own(tree, owner, owners)


def _own(tree: Mapping[str, Any], owner: str, owners: Sequence[str]) -> Any:
    """The owner's section, if all is right: it is checked here, where the file is, and again by who gets it."""
    for name in tree:
        if name not in owners:
            raise InputError(f"the policy has [{name}], who owns no table{nearest(name, owners)}.")
    own = tree.get(owner, {})
    owner_policy(owner, own)
    return own


def owner_policy(owner: str, tree: Mapping[str, Any]) -> OwnerPolicy:
    """One owner's section."""
    if not isinstance(tree, Mapping):
        raise InputError(f"the policy of `{owner}` must be a table [{owner}], got {tree!r:.100}.")
    tables = {}
    for name, value in tree.items():
        if name in SETTINGS:
            continue
        if not isinstance(value, Mapping):
            raise InputError(f"the policy of {owner} has `{name}`: settings are {', '.join(sorted(SETTINGS))}.")
        tables[name.lower()] = _table(owner, name, value)
    k = tree.get("k", 0)
    if not isinstance(k, int) or isinstance(k, bool) or k < 0:
        raise InputError(f"`k` of {owner} must be a whole number, got {k!r}.")
    templates = tree.get("templates", [])
    if not isinstance(templates, list) or not all(isinstance(t, str) for t in templates):
        raise InputError(f"`templates` of {owner} must be a list of queries.")
    tripwire = tree.get("tripwire")
    if tripwire is not None and not isinstance(tripwire, str):
        raise InputError(f"`tripwire` of {owner} must be the path of its ledger.")
    epsilon, delta, contributions = _privacy(owner, tree)
    if epsilon and (k >= 2 or tree.get("statistics")):
        raise InputError(f"`epsilon` of {owner} excludes `k` and `statistics = true`, which tell of rows exactly.")
    statistics = tree.get("statistics", not epsilon)
    if not isinstance(statistics, bool):
        raise InputError(f"`statistics` of {owner} must be true or false, got {statistics!r:.100}.")
    return OwnerPolicy(owner, tables, k, tripwire, tuple(templates), statistics, True, epsilon, delta, contributions)


def _privacy(owner: str, tree: Mapping[str, Any]) -> tuple[float, float, int]:
    epsilon, delta, contributions = tree.get("epsilon", 0.0), tree.get("delta", 0.0), tree.get("contributions", 1)
    for name, value, most in (("epsilon", epsilon, math.inf), ("delta", delta, 1.0)):
        if not _is_number(value) or not 0 <= value < most:
            raise InputError(f"`{name}` of {owner} must be a number from 0, delta below 1, got {value!r}.")
    if type(contributions) is not int or contributions < 1:
        raise InputError(f"`contributions` of {owner} must be a whole number, 1 or more, got {contributions!r}.")
    if not epsilon and ("delta" in tree or "contributions" in tree):
        raise InputError(f"`delta` and `contributions` of {owner} are of noise: give `epsilon`, too.")
    return float(epsilon), float(delta), contributions


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _table(owner: str, name: str, tree: Mapping[str, Any]) -> TablePolicy:
    where = f"[{owner}.{name}]"
    for key in tree:
        if key not in ("columns", "unit", "ranges"):
            raise InputError(f"the policy {where} has `{key}`: it takes `columns`, `ranges` and `unit`.")
    unit = tree.get("unit")
    if unit is not None and not isinstance(unit, str):
        raise InputError(f"`unit` of {where} must be the name of a column.")
    given = tree.get("columns", {})
    if not isinstance(given, Mapping):
        raise InputError(f"`columns` of {where} must be a table of rules by column, got {given!r:.100}.")
    columns = {c.lower(): _rules(f"`{c}` of {where}", rule) for c, rule in given.items()}
    return TablePolicy(columns, unit, {c.lower(): _ends(f"`{c}` of {where}", r) for c, r in _listed(where, tree)})


def _listed(where: str, tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    ranges = tree.get("ranges", {})
    if not isinstance(ranges, Mapping):
        raise InputError(f"`ranges` of {where} must be [low, high] by column, got {ranges!r}.")
    return list(ranges.items())


def _ends(where: str, given: Any) -> tuple[float, float]:
    ends = list(given) if isinstance(given, list | tuple) else []
    if len(ends) != 2 or not all(map(_is_number, ends)) or not ends[0] < ends[1]:
        raise InputError(f"the range of {where} must be [low, high], low below high, got {given!r}.")
    return ends[0], ends[1]


def _rules(where: str, given: Any) -> dict[str, str]:
    rules = {"*": given} if isinstance(given, str) else given
    if not isinstance(rules, Mapping) or not rules:
        raise InputError(f"{where} must be a rule, or rules by receiver, got {given!r}.")
    for rule in rules.values():
        if rule not in RULES:
            known = ", ".join(RULES)
            raise InputError(f"{where} is {rule!r}{nearest(str(rule), list(RULES))}: rules are {known}.")
    return dict(rules)


def checked(policies: Mapping[str, OwnerPolicy], catalog: Catalog) -> None:
    """That policies speak of tables and columns that are there: a slip of the pen must not let anything through.

    Raises:
        InputError: naming what is not there.
    """
    for owner, policy in policies.items():
        for name, table in policy.tables.items():
            known = catalog.tables.get(name)
            if known is None or owner not in known.owners:
                mine = [n for n, t in catalog.tables.items() if owner in t.owners]
                raise InputError(
                    f"the policy of {owner} has table `{name}`{nearest(name, mine)}: it has {', '.join(mine)}."
                )
            columns = [c.name.lower() for c in known.columns]
            for column in [*table.columns, *table.ranges, *([] if table.unit is None else [table.unit])]:
                if column.lower() not in columns:
                    raise InputError(
                        f"the policy of {owner} names `{column}` of `{name}`{nearest(column, columns)}: there are "
                        f"{', '.join(columns)}."
                    )
