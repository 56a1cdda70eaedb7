"""The relations of a FROM clause and the conditions between them, as a tree of joins.

A join whose table has its keys once is a lookup, which keeps the bound of the side that looks. Of all lookups that are
possible, the one that sorts the fewest rows comes first, so small tables are joined with each other before the large
one meets them. What no key decides are all pairs of rows, up to `PAIRS` or a bound that the user states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spuvm.runtime.errors import InputError
from spuvm.sql.plan import ALIKE, Expand, Expr, Filter, Group, Lookup, Node, Project, Sort, Union, Window
from spuvm.sql.scope import Bases, Relation, fields_of
from spuvm.sql.types import BOOL

PAIRS = 1 << 18  # rows of a product that need no bound of the user


@dataclass(eq=False)
class Edge:
    """Equality of a column of each of two relations; `whole` is the condition."""

    left: str
    right: str
    whole: Expr


class Joiner:
    """Joins the relations of one FROM clause. `limit`: the user's bound of rows that a join has."""

    def __init__(self, bases: Bases, limit: int | None) -> None:
        self.bases = bases
        self.limit = limit

    def join(self, relations: Sequence[Relation], conditions: Sequence[Expr]) -> Node:
        """One relation, with the conditions applied: those of one relation in its scan, if an owner can."""
        edges, rest = [], []
        for condition in conditions:
            home = self._home(relations, condition)
            if len(home) <= 1 and home:
                self.keep(home[0], condition)
            elif len(home) == 2 and (found := self.edges(relations, condition)):
                edges += found
            else:
                rest.append(self.bases.push(condition))
        nodes = [r.node for r in relations]
        while len(nodes) > 1:
            nodes, edges, more = self._merged(nodes, edges)
            rest += more
        node = nodes[0]
        for condition in rest:
            node = Filter((), node.bound, node.unique, node, condition)
        return node

    def keep(self, relation: Relation, condition: Expr) -> None:
        """Only the relation's rows where the condition is true."""
        if relation.base is not None and relation.node is relation.base.node and self.bases.of(condition):
            relation.base.keep(condition)
            return
        node = relation.node
        relation.node = Filter((), node.bound, node.unique, node, self.bases.push(condition))

    def _home(self, relations: Sequence[Relation], condition: Expr) -> list[Relation]:
        """The relations that a condition reads."""
        out = []
        for r in relations:
            mine = (r.base is not None and r.base.id in condition.sources) or self._reads(r, condition)
            if mine:
                out.append(r)
        return out

    def _reads(self, relation: Relation, expr: Expr) -> bool:
        for e in expr.walk():
            if relation.base is not None and relation.base.id in e.sources:
                return True
        names = expr.columns()
        known = {c.value for cs in relation.columns.values() for c in cs.values()} | relation.names
        return bool(names & known)

    def edges(self, relations: Sequence[Relation], condition: Expr) -> list[Edge]:
        """The equalities of columns that a condition between two relations is; none if it is none. NULL like NULL is
        that both are missing, and else equal."""
        if condition.op == "=":
            sides = [self._side_of(relations, a) for a in condition.args]
            pairs = [[self.column(r, a)] for r, a in sides if r is not None]
        elif condition.value == ALIKE:
            sides = [self._side_of(relations, a) for a in condition.args[0].args]
            pairs = [self._parts(r, a) for r, a in sides if r is not None]
        else:
            return []
        if len(pairs) < 2:
            return []
        whole = self.bases.push(condition)
        return [Edge(a, b, whole) for a, b in zip(*pairs)]

    def _side_of(self, relations: Sequence[Relation], expr: Expr) -> tuple[Relation | None, Expr]:
        home = self._home(relations, expr)
        return (home[0] if len(home) == 1 else None), expr

    def _parts(self, relation: Relation, expr: Expr) -> list[str]:
        """A column in two that are never NULL: its cells, and which of them are missing."""
        cells = Expr("or zero", (expr,), expr.type, False, None, None, expr.sources, expr.origin)
        missing = Expr("is null", (expr,), BOOL, False, None, None, expr.sources, expr.origin)
        names = [self.column(relation, e) for e in (cells, missing)]
        of = self.bases.push(expr).value
        if not expr.nullable or _null_once(relation.node, str(of)):
            relation.node.unique += tuple(key - {of} | {*names} for key in relation.node.unique if of in key)
        return names

    def column(self, relation: Relation, expr: Expr) -> str:
        """An expression of a relation as a column of it."""
        pushed = self.bases.push(expr)
        if pushed.op == "col":
            return str(pushed.value)
        name = self.bases.names("key")
        node = relation.node
        unique = node.unique
        if pushed.op == "words" and pushed.args[0].op == "col":  # different codes have different words
            code = pushed.args[0].value
            unique += tuple(key - {code} | {name} for key in unique if code in key)
        relation.node = Project((), node.bound, unique, node, {name: pushed}, True)
        return name

    # One step -------------------------------------------------------------------------------------------------------

    def _merged(self, nodes: list[Node], edges: list[Edge]) -> tuple[list[Node], list[Edge], list[Expr]]:
        have = [set(fields_of(n)) for n in nodes]
        best: tuple[Any, ...] | None = None
        for i, probe in enumerate(nodes):
            for j, table in enumerate(nodes):
                if i == j:
                    continue
                between = [e for e in edges if self._side(e, have[i], have[j]) is not None]
                pairs = [self._side(e, have[i], have[j]) for e in between]
                key = _unique_key(table, [p for p in pairs if p])
                if key is not None and (best is None or probe.bound + table.bound < best[0]):
                    best = (probe.bound + table.bound, i, j, key, between)
        if best is None:
            return self._by_pairs(nodes, edges, have)
        _, i, j, key, between = best
        joined: Node = Lookup((), nodes[i].bound, nodes[i].unique, nodes[i], nodes[j], tuple(key), "inner")
        used = {frozenset(p) for p in key}
        rest = [e.whole for e in between if frozenset((e.left, e.right)) not in used]
        others = [n for k, n in enumerate(nodes) if k not in (i, j)]
        return [*others, joined], [e for e in edges if e not in between], rest

    def _side(self, edge: Edge, left: set[str], right: set[str]) -> tuple[str, str] | None:
        if edge.left in left and edge.right in right:
            return edge.left, edge.right
        return (edge.right, edge.left) if edge.right in left and edge.left in right else None

    def _by_pairs(
        self, nodes: list[Node], edges: list[Edge], have: list[set[str]]
    ) -> tuple[list[Node], list[Edge], list[Expr]]:
        """Where no key is unique: the two whose product is least, of those with a condition between them if there
        are."""
        choices = []
        for i in range(len(nodes)):
            for j in range(i + 1, len(nodes)):
                between = [e for e in edges if self._side(e, have[i], have[j])]
                choices.append((not between, nodes[i].bound * nodes[j].bound, i, j, between))
        _, _product, i, j, between = min(choices, key=lambda c: c[:2])
        pairs = [self._side(e, have[i], have[j]) for e in between]
        joined = expanded(nodes[i], nodes[j], [p for p in pairs if p], self.limit)
        others = [n for k, n in enumerate(nodes) if k not in (i, j)]
        return [*others, joined], [e for e in edges if e not in between], []


def _null_once(node: Node, name: str) -> bool:
    """Whether NULL counts as a value where a key is unique: of groups, but not of tables, which may have more."""
    match node:
        case Group():
            return name in node.keys
        case Filter() | Sort() | Window():
            return _null_once(node.input, name)
        case Project():
            item = node.items.get(name)
            return _null_once(node.input, name if item is None else str(item.value))
        case Lookup():
            return name in fields_of(node.probe) and _null_once(node.probe, name)
    return False


def expanded(left: Node, right: Node, pairs: Sequence[tuple[str, str]], limit: int | None) -> Node:
    """All pairs of rows with equal keys."""
    product = left.bound * right.bound
    if pairs and limit is not None and limit < product:
        return Expand((), limit, (), left, right, tuple(pairs), True)
    if product > PAIRS:
        on = " and ".join(f"{a.partition('#')[0]} = {b.partition('#')[0]}" for a, b in pairs) or "no equality"
        raise InputError(
            f"a join by {on} may have up to {product:,} rows, as no side is known to have its keys once. State how "
            f"many it "
            "has at most with `join_rows` (whether they fit is revealed), say which columns are a `key` of a table, or "
            "group one side by the key first."
        )
    return Expand((), product, (), left, right, tuple(pairs), False)


def _unique_key(table: Node, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The pairs that make a lookup of the table: those of the shortest key that they cover."""
    if table.bound == 1 and not pairs:
        return None
    columns = {b for _, b in pairs}
    keys = sorted((k for k in table.unique if k <= columns), key=len)
    if not keys:
        return None
    chosen: dict[str, tuple[str, str]] = {}
    for a, b in pairs:
        if b in keys[0]:
            chosen.setdefault(b, (a, b))
    return list(chosen.values())


# Outer joins -----------------------------------------------------------------------------------------------------


def outer(joiner: Joiner, kind: str, left: Relation, right: Relation, conditions: Sequence[Expr]) -> Node:
    """A left or full join.

    Args:
        kind: "left" or "full".
        conditions: equalities of a column of each side, and conditions on one side alone.

    Raises:
        InputError: for other conditions.
    """
    bases, pairs = joiner.bases, []
    for condition in conditions:
        sides = (joiner._reads(left, condition), joiner._reads(right, condition))
        if sides == (False, True) and kind == "left":
            joiner.keep(right, condition)
        elif all(sides) and (edges := joiner.edges([left, right], condition)):
            mine = edges[0].left in left.names
            pairs += [(e.left, e.right) if mine else (e.right, e.left) for e in edges]
        elif sides == (True, False) and kind == "left":
            true = Expr("lit", (), BOOL, False, True, "true")
            pairs.append((joiner.column(left, condition), _constant(right, bases, true)))
        else:
            raise InputError(
                f"the condition {condition} of an outer join is neither an equality of both sides nor about one side: "
                "use an inner join, or filter one side in a subquery first."
            )
    if not pairs:
        raise InputError("an outer join needs an equality of both sides in its condition.")
    columns = {b for _, b in pairs}
    if kind == "left" and any(k <= columns for k in right.node.unique):
        node = left.node
        return Lookup((), node.bound, node.unique, node, right.node, tuple(pairs), "left")
    return _by_union(joiner, kind, left.node, right.node, pairs)


def _constant(relation: Relation, bases: Bases, value: Expr) -> str:
    name, node = bases.names("true"), relation.node
    relation.node = Project((), node.bound, node.unique, node, {name: value}, True)
    return name


def _by_union(joiner: Joiner, kind: str, left: Node, right: Node, pairs: Sequence[tuple[str, str]]) -> Node:
    """The inner join, and rows of one side that have no partner, or of both."""
    flipped = [(b, a) for a, b in pairs]
    if any(k <= {b for _, b in pairs} for k in right.unique):
        inner: Node = Lookup((), left.bound, left.unique, left, right, tuple(pairs), "inner")
    elif any(k <= {a for a, _ in pairs} for k in left.unique):
        inner = Lookup((), right.bound, right.unique, right, left, tuple(flipped), "inner")
    else:
        inner = expanded(left, right, pairs, joiner.limit)
    parts = [inner, without(joiner.bases, left, right, pairs)]
    if kind == "full":
        parts.append(without(joiner.bases, right, left, flipped))
    return Union((), sum(p.bound for p in parts), (), tuple(parts))


def without(bases: Bases, rows: Node, table: Node, pairs: Sequence[tuple[str, str]]) -> Node:
    """Rows that have no partner in the table."""
    mark = bases.names("mark")
    marked = Lookup((), rows.bound, rows.unique, rows, table, tuple(pairs), "mark", mark)
    seen = Expr("col", (), BOOL, False, mark)
    return Filter((), rows.bound, rows.unique, marked, Expr("not", (seen,), BOOL, False))
