"""What a query does with each column of each owner: a pure function of its plan, from which policies decide.

Uses, by the relation where they happen: "join" (a key of a join) and "filter of groups", where what is shown is
aggregated after it (a key that is computed, or joined with what the query computes or writes, and not with a column, is
filtered by); "join shown" and "filter", where rows are shown as they are, and so which keys match and what is
true; "order"; and how it reaches the result: as its "value", "compared" with something, as a "group" key, or through an
aggregate: "count", "aggregate" (sum, avg, stddev) or "extreme" (min, max, median: a value of one row).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from spuvm.sql.computed import is_column
from spuvm.sql.marked import UNITS
from spuvm.sql.plan import (
    Constants,
    Expand,
    Expr,
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

Column = tuple[str, str, str]  # owner, table, column
Uses = frozenset[tuple[Column, str]]  # a column, and how a field depends on it
NOTHING: Uses = frozenset()
COMPARING = frozenset({"=", "<>", "<", ">", "<=", ">=", "in", "is null", "and", "or", "not"})
THROUGH = {
    "count": "count",
    "count_if": "count",
    "sum": "aggregate",
    "avg": "aggregate",
    "stddev": "aggregate",
    "stddev_pop": "aggregate",
    "variance": "aggregate",
    "var_pop": "aggregate",
    "bool_or": "extreme",
    "bool_and": "extreme",
    "min": "extreme",
    "max": "extreme",
    "median": "extreme",
    "quantile_cont": "extreme",
    "any": "extreme",
}
AGGREGATED = frozenset(THROUGH.values())
ASKING = frozenset({"filter", "filter of groups", "group", "compared", "extreme"})  # about single values of a key
RANKING = frozenset({"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile"})


@dataclass(frozen=True)
class Use:
    """A column, and what the query does with it."""

    column: Column
    use: str


def uses(root: Node) -> frozenset[Use]:
    """Everything that the result tells of owners' columns, and by which uses."""
    found: set[Use] = set()
    shown = _visible(root)
    fields: dict[int, dict[str, Uses]] = {}
    for node in nodes(root):
        fields[id(node)] = _fields(node, fields)
        for columns, use in _conditions(node, fields):
            if use == "filter" and id(node) not in shown:
                use = "filter of groups"
            elif use == "join" and id(node) in shown:
                use = "join shown"
            found |= {Use(c, _told(use, how)) for c, how in columns}
    for name in root.names:
        found |= {Use(c, how) for c, how in fields[id(root)][name]}
    found |= _of_keys(root, fields)
    asked = {u.column for u in found if u.use in ASKING}
    for node in nodes(root):
        for name, below in _asked(node):
            asked |= {c for c, how in fields[id(below)][name] if how not in ("count", "aggregate")}
    return frozenset(found | {Use(c, "join shown") for c in _partners(root, fields, asked)})


def _asked(node: Node) -> Iterator[tuple[str, Node]]:
    """Fields of an input of which a relation tells single values, or conditions: aggregates of what is computed from
    them, the order of rows that are cut off, and of windows."""
    match node:
        case Group():
            for a in node.aggregates:
                if a.column is not None and a.field.used != UNITS and not is_column(node.input, a.column):
                    yield a.column, node.input
        case Sort() if node.limit is not None or node.offset:
            yield from ((k.column, node.input) for k in node.keys)
        case Window():
            yield from ((o.column, node.input) for o in node.order)


def _partners(root: Node, fields: Mapping[int, Mapping[str, Uses]], asked: set[Column]) -> set[Column]:
    """What the columns that a query asks about are joined with, also by others between: it asks which of those keys
    match."""
    partners: dict[Column, set[Column]] = {}
    for node in nodes(root):
        if isinstance(node, Lookup | Expand) and _tells_matches(node):
            left, right = node.inputs
            for a, b in node.pairs:
                for (x, _), (y, _) in product(fields[id(left)][a], fields[id(right)][b]):
                    partners.setdefault(x, set()).add(y)
                    partners.setdefault(y, set()).add(x)
    found: set[Column] = set()
    todo = list(asked)
    while todo:
        x = todo.pop()
        new = partners.get(x, set()) - found - {x}
        found |= new
        todo += new
    return found


def _tells_matches(node: Lookup | Expand) -> bool:
    """Whether what follows depends on which keys match: of a left join alone, only if it brings more than keys."""
    return isinstance(node, Expand) or node.kind != "left" or bool({*node.table.names} - {b for _, b in node.pairs})


def _told(use: str, how: str) -> str:
    """What an aggregate told of a column filters and orders as that aggregate would be shown, and so does in an order
    what else is not its value."""
    if use == "order":
        return use if how == "value" else how
    return how if use.startswith("filter") and how in AGGREGATED else use


def _of_keys(root: Node, fields: Mapping[int, Mapping[str, Uses]]) -> set[Use]:
    """Which rows there are tells of the keys that they are grouped by, shown or not: as a "group", or, where another
    GROUP BY stands above, a "count". Keys that are joined by, too, are told of there."""
    found: set[Use] = set()
    seen: set[tuple[int, str, frozenset[Column]]] = set()

    def visit(node: Node, use: str, joined: frozenset[Column]) -> None:
        if (id(node), use, joined) in seen:
            return
        seen.add((id(node), use, joined))
        if isinstance(node, Lookup | Expand):
            sides = [fields[id(c)] for c in node.inputs]
            joined |= {c for pair in node.pairs for side, name in zip(sides, pair) for c, _ in side[name]}
        elif isinstance(node, Group):
            below = frozenset().union(*(fields[id(node.input)][k] for k in node.keys))
            found.update(Use(c, use if how == "value" else how) for c, how in below if c not in joined)
            use = "count"
        for child in node.inputs:
            visit(child, use, joined)

    visit(root, "group", frozenset())
    return found


def _visible(root: Node) -> set[int]:
    """The relations whose rows are rows of the result: those that no GROUP BY stands above of."""
    out: set[int] = set()

    def visit(node: Node) -> None:
        if id(node) in out:
            return
        out.add(id(node))
        if isinstance(node, Lookup) and node.kind == "mark":
            visit(node.probe)
            visit(node.table)
        elif not isinstance(node, Group):
            for child in node.inputs:
                visit(child)

    visit(root)
    return out


def _conditions(node: Node, fields: Mapping[int, Mapping[str, Uses]]) -> Iterator[tuple[Uses, str]]:
    """What the presence or order of a relation's rows depends on."""
    match node:
        case Scan():
            yield frozenset(((node.owner, node.table, c), "value") for c in node.reads), "filter"
        case Filter():
            yield _expr(node.predicate, fields[id(node.input)]), "filter"
        case Lookup() | Expand():
            left, right = node.inputs
            for a, b in node.pairs:
                use = "join" if is_column(left, a) and is_column(right, b) else "filter"
                yield fields[id(left)][a] | fields[id(right)][b], use
        case Sort():
            for k in node.keys:
                yield fields[id(node.input)][k.column], "order"
        case Window():
            below = fields[id(node.input)]
            for name in (*node.partition, *(o.column for o in node.order)):
                yield below[name], "order"


def _fields(node: Node, fields: Mapping[int, Mapping[str, Uses]]) -> dict[str, Uses]:
    match node:
        case Scan():
            return {f.name: _scanned(node, f.name, f.origin) for f in node.fields}
        case Constants():
            return dict.fromkeys(node.names, NOTHING)
        case Project():
            below = fields[id(node.input)]
            kept = dict(below) if node.keep else {}
            return kept | {n: _expr(e, below) for n, e in node.items.items()}
        case Lookup():
            mine = dict(fields[id(node.probe)])
            if node.kind == "mark":
                return mine | {node.mark: NOTHING}
            return {**mine, **fields[id(node.table)]}
        case Group():
            below = fields[id(node.input)]
            keys = {k: _as(below[k], "group", {"value"}) for k in node.keys}
            calls = {
                a.field.name: _as(below[a.column], THROUGH[a.fn], {"value", "compared"}) if a.column else NOTHING
                for a in node.aggregates
            }
            return keys | calls
        case Window():
            below = dict(fields[id(node.input)])
            return below | {r.field.name: _ranked(r.fn, below[r.column] if r.column else NOTHING) for r in node.items}
        case Union():
            out: dict[str, Uses] = {}
            for part in node.parts:
                for n, u in fields[id(part)].items():
                    out[n] = out.get(n, NOTHING) | u
            return out
    out = {}
    for child in node.inputs:
        out |= fields[id(child)]
    return out


def _scanned(node: Scan, name: str, origin: frozenset[Column]) -> Uses:
    how = "compared" if name in node.compared else "value"
    return frozenset((c, how) for c in origin if c[0] == node.owner)


def _ranked(fn: str, below: Uses) -> Uses:
    """A window function's values belong to single rows: what they show is of rows."""
    return NOTHING if fn in RANKING else below


def _as(below: Uses, how: str, changed: set[str]) -> Uses:
    return frozenset((c, how if h in changed else h) for c, h in below)


def _expr(e: Expr, below: Mapping[str, Uses]) -> Uses:
    if e.op == "col":
        return below[e.value]
    args = [_expr(a, below) for a in e.args]
    if e.op in COMPARING:
        return _as(frozenset().union(*args), "compared", {"value"})
    if e.op == "case":
        half = len(args) // 2
        tests = _as(frozenset().union(*args[:half]), "compared", {"value"})
        return tests | frozenset().union(*args[half:])
    return frozenset().union(*args) if args else NOTHING
