"""Whether the owners allow a query: each column's uses against its rule, templates, tripwires. With reasons.

The tripwire refuses a query that differs from an answered one in a single constant: two such answers, subtracted, can
tell of one row. It is a tripwire only, easily walked around; what protects is a privacy budget.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError, PolicyError
from spuvm.sql.computed import chooses
from spuvm.sql.flows import RANKING, uses
from spuvm.sql.marked import UNITS
from spuvm.sql.noise import reasons
from spuvm.sql.plan import (
    Aggregate,
    Expand,
    Expr,
    Filter,
    Group,
    Lookup,
    Node,
    Project,
    Scan,
    Union,
    Window,
    nodes,
    reads,
)
from spuvm.sql.planning import parsed
from spuvm.sql.policy import RULES, OwnerPolicy

WORDS = {
    "join": "joins by it",
    "join shown": "shows rows that it joins by it, and so which keys match",
    "filter": "shows rows that it filters by it",
    "filter of groups": "filters by it what it aggregates",
    "order": "orders rows by it",
    "value": "shows its values",
    "compared": "shows what a comparison of it gave",
    "group": "shows it as the key of groups",
    "count": "counts it",
    "aggregate": "shows sums or averages of it",
    "extreme": "shows a least, greatest or middle value of it",
}
SHIFTS = frozenset({"lag", "lead"})
SMALL = "whether a join has at most {0} rows tells of fewer than k = {1}: state `join_rows` of {1} or more."
CHOSEN = (
    "{} is of something that depends on conditions, and could tell of fewer than k units. Choose rows by WHERE, by "
    "FILTER (WHERE ...), or by CASE of one WHEN without ELSE: then those are counted."
)
TAKEN = (
    "what a window takes of other rows (first_value, sum(...) OVER ...) is aggregated, and could tell of fewer than k "
    "units. Of windows below a GROUP BY, use ranks, lag and lead."
)
ONE = (
    "EXISTS that nothing ties to the query around tells whether a single row is there: compare its count in a "
    "subquery, (SELECT count(*) ...) > 0."
)
UNCOUNTED = (
    "how many units there are in a group cannot be counted where a query of WITH is used several times, or EXISTS or "
    "IN stands in a part of a UNION: write the query out at each place, or group the parts first."
)
UNKNOWN = (
    "whether `x IN (SELECT {} ...)` is NULL, or false, tells whether there is a NULL, which may be of one unit: ask "
    "only whether it is true, use NOT EXISTS, or leave NULLs out (WHERE {} IS NOT NULL) in the owner's own table."
)
TOTALS = (
    "`{}` is aggregated in several ways whose rows come together (UNION, ROLLUP, CUBE): their difference "
    "could tell of a group of fewer than k units. Ask for one, or total the groups, SELECT sum(s) FROM (SELECT sum(x) "
    "AS s ... GROUP BY ...)."
)


@dataclass(frozen=True)
class Refusal:
    """Why a query is not allowed: whose rule, of which column, and what it would allow."""

    owner: str
    reason: str

    def __str__(self) -> str:
        return f"{self.owner}: {self.reason}"


def refusals(root: Node, sql: str, policies: Mapping[str, OwnerPolicy], to: str) -> list[Refusal]:
    """What speaks against a query whose rows are for `to`; nothing runs. Tripwires aside, see `Ledger`."""
    out = []
    for use in sorted(uses(root), key=lambda u: (u.column, u.use)):
        owner, table, column = use.column
        policy = policies[owner]
        rule = policy.rule(table, column, to)
        allowed, words = RULES[rule]
        if not _permits(rule, allowed, use.use, policy):
            out.append(
                Refusal(
                    owner,
                    f"`{table}.{column}` is {rule} for {to}, and the query {WORDS[use.use]}. Allowed would be: "
                    f"{words}.",
                )
            )
    out += [Refusal(owner, reason) for owner, reason in reasons(root, policies, to)]
    out += _of_few(root, policies, to)
    for owner in dict.fromkeys(u.column[0] for u in uses(root)):
        out += _of_templates(policies[owner], sql)
    return out


def _permits(rule: str, allowed: frozenset[str], use: str, policy: OwnerPolicy) -> bool:
    return use in allowed or (use == "order" and bool(allowed & {"value", "group"}))


def _of_few(root: Node, policies: Mapping[str, OwnerPolicy], to: str) -> list[Refusal]:
    """Against what could tell of fewer than k units: stated bounds, and, in a group that has more, windows and
    aggregates."""
    out = []
    for node in nodes(root):
        asking = {o: policies[o].k for o in _owners(node) - {to} if o in policies and policies[o].k >= 2}
        if isinstance(node, Expand) and node.limited:
            out += [Refusal(o, SMALL.format(node.bound, k)) for o, k in sorted(asking.items()) if k > node.bound]
        elif isinstance(node, Lookup) and node.kind == "mark" and not node.pairs:
            there = {s.owner for g, s in _scans(node.table) if g is None}
            out += [Refusal(o, ONE) for o in sorted(asking.keys() & there)]
        elif isinstance(node, Lookup) and _tells_of_null(root, node):
            (name, *_), there = (b for _, b in node.pairs), {s.owner for g, s in _scans(node.table) if g is None}
            short = name.partition("#")[0].rpartition(".")[2]
            out += [Refusal(o, UNKNOWN.format(short, short)) for o in sorted(asking.keys() & there)]
        elif isinstance(node, Union):
            out += [Refusal(o, TOTALS.format(t)) for o, t in _grouped_again(node) if o in asking]
        elif isinstance(node, Group):
            told = {r.owner for r in out if r.reason == ONE}
            out += [Refusal(o, UNCOUNTED) for o in sorted((node.uncounted & asking.keys()) - told)]
        if isinstance(node, Group) and node.k:
            chosen = [a.fn for a in node.aggregates if _is_chosen(node, a)]
            out += [Refusal(o, CHOSEN.format(fn)) for fn in chosen for o in sorted(asking)]
            taken = [w for w in nodes(node.input) if isinstance(w, Window) and _takes_others(w)]
            out += [Refusal(o, TAKEN) for o in sorted(asking) if any(o in _owners(w) for w in taken)]
    return list(dict.fromkeys(out))


def _tells_of_null(root: Node, node: Lookup) -> bool:
    """Whether a query depends on IN being NULL rather than false, for a NULL among the values that it looks in."""
    if node.kind != "mark" or not node.null_aware or not node.table[node.pairs[0][1]].nullable:
        return False
    for other in nodes(root):
        match other:
            case Filter():
                tells = not _only_true(other.predicate, node.mark)
            case Project():
                tells = any(node.mark in e.columns() for e in other.items.values())
            case _:
                tells = node.mark in reads(other)
        if tells:
            return True
    return node.mark in root.names


def _only_true(e: Expr, mark: str) -> bool:
    """Whether a condition holds for a mark that is NULL if and only if it holds for one that is false."""
    if mark not in e.columns() or e.op == "col":
        return True
    if e.op == "coalesce":
        return e.args[0].op == "col" and e.args[1].op == "lit" and not e.args[1].value
    return e.op in ("and", "or") and all(_only_true(a, mark) for a in e.args)


def _owners(node: Node) -> set[str]:
    return {s.owner for s in nodes(node) if isinstance(s, Scan)}


def _is_chosen(group: Group, a: Aggregate) -> bool:
    """Whether an aggregate is of rows that the units of its group do not count."""
    return a.column is not None and a.fn != "count_if" and a.field.used != UNITS and chooses(group.input, a.column)


def _scans(node: Node, group: Group | None = None) -> Iterator[tuple[Group | None, Scan]]:
    """The scans below a relation, and of each the first GROUP BY on the way."""
    if isinstance(node, Scan):
        yield group, node
    for child in node.inputs:
        yield from _scans(child, group or (node if isinstance(node, Group) else None))


def _grouped_again(node: Union) -> list[tuple[str, str]]:
    """Owners' tables that are aggregated in several parts, not by the same GROUP BY."""
    groups: dict[tuple[str, str], set[int]] = {}
    for part in node.parts:
        for group, scan in _scans(part):
            if group is not None:
                groups.setdefault((scan.owner, scan.table), set()).add(id(group))
    return sorted(table for table, some in groups.items() if len(some) > 1)


def _takes_others(window: Window) -> bool:
    """Whether one row's cell may be in many rows."""
    return any(r.fn not in RANKING | SHIFTS for r in window.items)


def _of_templates(policy: OwnerPolicy, sql: str) -> list[Refusal]:
    if not policy.templates or not policy.given:
        return []
    mine = shape(sql)[0]
    if any(shape(t)[0] == mine for t in policy.templates):
        return []
    return [Refusal(policy.owner, f"the query is none of the {len(policy.templates)} templates: {policy.templates[0]}")]


def shape(sql: str) -> tuple[str, list[str]]:
    """A query with `?` for its constants, and the constants in order."""
    tree = parsed(sql, None)
    constants: list[str] = []
    for node in list(tree.find_all(exp.Literal, exp.Placeholder, exp.Boolean)):
        constants.append(node.sql("duckdb"))
        node.replace(exp.Placeholder())
    return str(tree.sql("duckdb", normalize=True, comments=False)).lower(), constants


def enforce(root: Node, sql: str, policies: Mapping[str, OwnerPolicy], to: str, mine: Sequence[str]) -> None:
    """Refuse what the owners `mine`, who decide here, do not allow.

    Raises:
        PolicyError: with all reasons.
    """
    against = [r for r in refusals(root, sql, policies, to) if r.owner in mine]
    against += [r for o in mine for r in Ledger(policies[o]).refusals(sql, to)]
    if against:
        raise PolicyError("the query is not allowed. " + " ".join(map(str, against)))


@dataclass(frozen=True)
class Ledger:
    """The answered queries of an owner whose policy has a tripwire: one line of JSON each, in a file of the owner's."""

    policy: OwnerPolicy

    @property
    def path(self) -> Path | None:
        return None if self.policy.tripwire is None else Path(self.policy.tripwire)

    def refusals(self, sql: str, to: str) -> list[Refusal]:
        """Against a query that differs from an answered one in one constant."""
        mine, constants = shape(sql)
        for line in self._lines():
            if line["shape"] != mine or line["to"] != to:
                continue
            if sum(a != b for a, b in zip(line["constants"], constants)) == 1:
                return [
                    Refusal(
                        self.policy.owner,
                        "the query differs in one constant from one that was answered: the difference of the two "
                        "can tell "
                        "of single rows (a tripwire; ask the owner).",
                    )
                ]
        return []

    def answered(self, sql: str, to: str) -> None:
        """Note a query; it counts as answered before it runs."""
        if self.path is None:
            return
        mine, constants = shape(sql)
        line = json.dumps({"shape": mine, "constants": constants, "to": to}) + "\n"
        try:
            with self.path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"the tripwire's ledger {self.path} cannot be written: {error.strerror}.") from None

    def _lines(self) -> list[dict[str, Any]]:
        if self.path is None or not self.path.exists():
            return []
        try:
            return [json.loads(line) for line in self.path.read_text().splitlines()]
        except (OSError, json.JSONDecodeError):
            raise InputError(
                f"the tripwire's ledger {self.path} is damaged: nothing is answered until it is put right."
            ) from None
