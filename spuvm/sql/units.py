"""Groups of fewer than k units are left out inside of the computation: the plan counts each owner's units and filters.

A unit is a value of the owner's column `unit`, or a row of its table; joins repeat rows, so distinct ones are counted.
Where a GROUP BY stands below another, units do not reach the upper one: then the lower one leaves out its small
groups, and what the upper one totals has none of them. An aggregate that passes over rows (FILTER, CASE without ELSE,
NULLs) must take in k units, too; what chooses rows otherwise is refused (see `verdicts`). Of a table that is only asked
whether it has a row (EXISTS, IN), the rows' units are those that were found (`marked`).
"""

from __future__ import annotations

from collections.abc import Mapping

from spuvm.sql.marked import UNITS, carried, of_marks, times
from spuvm.sql.plan import (
    Aggregate,
    Expand,
    Expr,
    Field,
    Filter,
    Group,
    Lookup,
    Node,
    Project,
    Scan,
    Sort,
    Union,
    Window,
    nodes,
)
from spuvm.sql.policy import OwnerPolicy
from spuvm.sql.scope import Bases, coded, column, fields_of
from spuvm.sql.sources import quoted
from spuvm.sql.types import BOOL, NULL, integer


def protected(root: Node, bases: Bases, policies: Mapping[str, OwnerPolicy], to: str) -> Node:
    """The plan with the filters of all owners that ask for them, before it is finished: those with k, other than the
    receiver."""
    asking = {o: p for o, p in policies.items() if p.k >= 2 and o != to}
    return _under(root, bases, asking) if asking else root


def _under(node: Node, bases: Bases, policies: Mapping[str, OwnerPolicy]) -> Node:
    """Replace the first GROUP BY on each way down by one that is filtered."""
    if isinstance(node, Group):
        return _filtered(node, bases, policies)
    match node:
        case Filter() | Project() | Sort() | Window():
            node.input = _under(node.input, bases, policies)
        case Lookup():
            node.probe = _under(node.probe, bases, policies)
            node.table = _under(node.table, bases, policies)
        case Expand():
            node.left = _under(node.left, bases, policies)
            node.right = _under(node.right, bases, policies)
        case Union():
            node.parts = tuple(_under(p, bases, policies) for p in node.parts)
    return node


def _filtered(group: Group, bases: Bases, policies: Mapping[str, OwnerPolicy]) -> Node:
    out: Node = group
    group.input = _under(group.input, bases, policies)
    for scan in [n for n in nodes(group.input) if isinstance(n, Scan) and n.owner in policies]:
        policy, there = policies[scan.owner], times(group.input, scan)
        own = _unit(scan, policy, bases)
        unit = own if carried(group.input, scan, own) else of_marks(group.input, scan, own, bases)
        if there > 1 or (there and unit is None):
            group.uncounted |= {scan.owner}
        elif unit is not None:
            out = _at_least(out, group, unit, policy, scan, bases)
    return out


def _unit(scan: Scan, policy: OwnerPolicy, bases: Bases) -> str:
    """The scan's column that says whose row it is."""
    base = bases.known[scan.id]
    named = policy.unit(scan.table)
    if named is None:
        name, sql, type_, nullable = f"{scan.id}.unit", "rowid", integer(0, scan.bound), False
    else:
        found = base.table[next(c.name for c in base.table.columns if c.name.lower() == named.lower())]
        name, sql, type_, nullable = f"{scan.id}.unit", quoted(found.name), found.type, found.nullable
    several = len(base.scans) > 1
    for part in base.scans:  # rows of several owners: a unit is one owner's
        name = f"{scan.id}.unit of {scan.owner}"
        part.items.setdefault(name, sql if part is scan else "NULL")
    base.types.setdefault(name, (coded(type_, name, not several, scan.bound), nullable or several))
    base.origins.setdefault(name, frozenset())
    return name


def _once(node: Node, scan: Scan) -> bool:
    """Whether every row of the scan is one row of the relation at most."""
    match node:
        case Scan():
            return node is scan
        case Filter() | Project() | Sort() | Window():
            return _once(node.input, scan)
        case Lookup():
            return _once(node.probe, scan)
        case Union():
            return sum(any(n is scan for n in nodes(p)) for p in node.parts) == 1 and any(
                _once(p, scan) for p in node.parts
            )
    return False


def _at_least(node: Node, group: Group, unit: str, policy: OwnerPolicy, scan: Scan, bases: Bases) -> Node:
    """Only groups with k units or more."""
    k, repeated = policy.k, policy.unit(scan.table) is not None or not _once(group.input, scan)
    group.k = max(group.k, k)
    asked = [a for a in group.aggregates if not a.field.name.startswith(f"{UNITS}#")]
    counted = dict.fromkeys([unit, *(_of_aggregate(group, a, unit, scan, bases) for a in asked)])
    for name in filter(None, counted):
        node = _filter(node, group, name, k, repeated, bases)
    return node


def _filter(node: Node, group: Group, units: str, k: int, repeated: bool, bases: Bases) -> Node:
    top = integer(0, group.input.bound)
    field = Field(bases.names(UNITS), top, False, frozenset(), UNITS)
    group.aggregates = (*group.aggregates, Aggregate(field, "count", units, repeated))
    enough = Expr(">=", (column(field.name, top, False), Expr("lit", (), integer(k, k), False, k, str(k))), BOOL, False)
    return Filter((), node.bound, node.unique, node, enough)


def _of_aggregate(group: Group, call: Aggregate, unit: str, scan: Scan, bases: Bases) -> str | None:
    """A column with the units of the rows that an aggregate takes in: those where its column is not NULL, or true.
    None if it takes in all."""
    if call.column is None or not (call.fn == "count_if" or may_be_null(group.input, call.column, bases)):
        return None
    type_, own = bases.known[scan.id].types[unit][0], Expr("col", (), BOOL, True, call.column)
    taken = own if call.fn == "count_if" else Expr("not", (Expr("is null", (own,), BOOL, False),), BOOL, False)
    true, null = Expr("lit", (), BOOL, False, True, "true"), Expr("lit", (), NULL, True, None, "NULL")
    name = bases.names(f"{scan.id}.taken")
    chosen = Expr("case", (taken, true, Expr("col", (), type_, True, unit), null), type_, True)
    group.input = Project((), group.input.bound, group.input.unique, group.input, {name: chosen}, True)
    return name


def may_be_null(node: Node, name: str, bases: Bases) -> bool:
    """Whether a field of a plan that is not finished may be NULL."""
    match node:
        case Scan():
            return bases.known[node.id].types[name][1]
        case Filter() | Sort():
            return may_be_null(node.input, name, bases)
        case Project():
            e = node.items.get(name)
            if e is not None and e.op != "col":
                return e.nullable
            return may_be_null(node.input, name if e is None else e.value, bases)
        case Lookup():
            if name in fields_of(node.probe):
                return may_be_null(node.probe, name, bases)
            return node.kind == "left" or may_be_null(node.table, name, bases)
        case Expand():
            return may_be_null(node.left if name in fields_of(node.left) else node.right, name, bases)
    return True
