"""Columns that say whose row it is, brought up to a relation: also from a table that is only asked by EXISTS or IN."""

from __future__ import annotations

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
)
from spuvm.sql.scope import Bases
from spuvm.sql.types import integer

UNITS = "units"  # the stem of names of counts, and of what is counted


def carried(node: Node, scan: Scan, name: str) -> bool:
    """Bring the scan's column up to a relation; whether nothing is in the way."""
    match node:
        case Scan():
            return node is scan
        case Project():
            if not carried(node.input, scan, name):
                return False
            if not node.keep:
                node.items.setdefault(name, Expr("col", (), integer(0, 1), True, name))
            return True
        case Filter() | Sort() | Window():
            return carried(node.input, scan, name)
        case Lookup():
            return carried(node.probe, scan, name) or (node.kind != "mark" and carried(node.table, scan, name))
        case Expand():
            return carried(node.left, scan, name) or carried(node.right, scan, name)
        case Union():
            return bool([p for p in node.parts if carried(p, scan, name)])  # into every part
    return False


def of_marks(node: Node, scan: Scan, name: str, bases: Bases) -> str | None:
    """Bring one unit of the rows of the scan that a row of the relation found, or NULL, up to it; what it is called.

    None if the scan is not below EXISTS or IN, by an equality, or a GROUP BY or a UNION is between.
    """
    match node:
        case Lookup():
            below = of_marks(node.probe, scan, name, bases)
            if below is not None or (node.kind == "mark" and not node.pairs):
                return below
            if node.kind != "mark":
                return of_marks(node.table, scan, name, bases)
            held = name if carried(node.table, scan, name) else of_marks(node.table, scan, name, bases)
            return None if held is None else _found(node, scan, held, bases)
        case Project():
            found = of_marks(node.input, scan, name, bases)
            if found is not None and not node.keep:
                node.items.setdefault(found, Expr("col", (), bases.known[scan.id].types[name][0], True, found))
            return found
        case Filter() | Sort() | Window():
            return of_marks(node.input, scan, name, bases)
        case Expand():
            return of_marks(node.left, scan, name, bases) or of_marks(node.right, scan, name, bases)
    return None


def times(node: Node, scan: Scan) -> int:
    """How often the scan's rows are in one row of the relation, or are asked for it, with no GROUP BY between."""
    known: dict[int, int] = {}

    def count(node: Node) -> int:
        if node is scan or isinstance(node, Group):
            return int(node is scan)
        if id(node) not in known:
            below = [count(child) for child in node.inputs]
            known[id(node)] = max(below) if isinstance(node, Union) else sum(below)
        return known[id(node)]

    return count(node)


def _found(node: Lookup, scan: Scan, name: str, bases: Bases) -> str:
    """The rows that look, beside the least unit of those that they find."""
    keys, base = tuple(dict.fromkeys(b for _, b in node.pairs)), bases.known[scan.id]
    found = Field(bases.names(f"{UNITS} found"), base.types[name][0], True, frozenset(), UNITS)
    base.types[found.name] = (found.type, True)
    table = Group((), node.table.bound, (frozenset(keys),), node.table, keys, (Aggregate(found, "min", name),))
    fresh = {k: bases.names("key") for k in keys}
    items = {n: Expr("col", (), integer(0, 1), True, k) for k, n in fresh.items()}
    items[found.name] = Expr("col", (), found.type, True, found.name)
    renamed = Project((), table.bound, (frozenset(fresh.values()),), table, items)
    pairs = tuple((a, fresh[b]) for a, b in node.pairs)
    node.probe = Lookup((), node.probe.bound, node.probe.unique, node.probe, renamed, pairs, "left")
    return found.name
