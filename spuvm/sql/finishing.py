"""From what the binder built to a plan: columns that nobody reads are dropped, and every relation says its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spuvm.sql.dependencies import enough
from spuvm.sql.plan import (
    Constants,
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
from spuvm.sql.scope import Bases, fields_of
from spuvm.sql.types import BOOL

Names = set[str]


def finished(root: Node, bases: Bases) -> Node:
    """The same relation, pruned in place, with fields."""
    _prune(root)
    for node in nodes(root):
        node.fields = tuple(_fields(node, bases))
        names = set(node.names)
        node.unique = tuple(k for k in dict.fromkeys(node.unique) if k <= names)
        if isinstance(node, Group):
            node.by = enough(node.input, node.keys)
    return root


# Pruning ----------------------------------------------------------------------------------------------------


def _prune(root: Node) -> None:
    """What is read of a relation that several others use is read by any of them."""
    needed: dict[int, Names] = {id(n): set() for n in nodes(root)}
    needed[id(root)] = set(fields_of(root))
    for node in reversed(nodes(root)):
        _trim(node, needed[id(node)])
        for child, names in _reads(node, needed[id(node)]):
            needed[id(child)] |= names


def _trim(node: Node, needed: Names) -> None:
    match node:
        case Scan():
            node.items = {n: s for n, s in node.items.items() if n in needed}
        case Constants():
            node.cells = {n: c for n, c in node.cells.items() if n in needed}
        case Project():
            node.items = {n: e for n, e in node.items.items() if n in needed}
        case Group():
            node.aggregates = tuple(a for a in node.aggregates if a.field.name in needed)
        case Window():
            node.items = tuple(r for r in node.items if r.field.name in needed)


def _reads(node: Node, needed: Names) -> list[tuple[Node, Names]]:
    """Of each input, what is read of it if `needed` is read of the relation."""
    match node:
        case Filter():
            return [(node.input, needed | node.predicate.columns())]
        case Project():
            used = set().union(*(e.columns() for e in node.items.values())) if node.items else set()
            return [(node.input, used | (needed - set(node.items)) if node.keep else used)]
        case Lookup():
            table = set(fields_of(node.table))
            keys = ({a for a, _ in node.pairs}, {b for _, b in node.pairs})
            mine = needed & set(fields_of(node.probe))
            return [
                (node.probe, mine | keys[0]),
                (node.table, keys[1] | (needed & table if node.kind != "mark" else set())),
            ]
        case Expand():
            left, right = set(fields_of(node.left)), set(fields_of(node.right))
            return [
                (node.left, (needed & left) | {a for a, _ in node.pairs}),
                (node.right, (needed & right) | {b for _, b in node.pairs}),
            ]
        case Group():
            return [(node.input, {*node.keys, *(a.column for a in node.aggregates if a.column)})]
        case Window():
            used = {*node.partition, *(o.column for o in node.order), *(r.column for r in node.items if r.column)}
            return [(node.input, used | (needed - {r.field.name for r in node.items}))]
        case Sort():
            return [(node.input, needed | {k.column for k in node.keys})]
        case Union():
            return [(p, needed & set(fields_of(p))) for p in node.parts]
    return []


# Fields -------------------------------------------------------------------------------------------------------


def _field(name: str, e: Expr) -> Field:
    return Field(name, e.type, e.nullable, e.origin)


def _fields(node: Node, bases: Bases) -> list[Field]:
    match node:
        case Scan():
            base = bases.known[node.id]
            return [Field(n, *base.types[n], base.origins[n]) for n in node.items]
        case Constants():
            return [f for f in node.fields if f.name in node.cells]
        case Filter() | Sort():
            return list(node.input.fields)
        case Project():
            kept = [f for f in node.input.fields if f.name not in node.items] if node.keep else []
            have = {f.name: f for f in node.input.fields}
            return [*kept, *(_projected(n, e, have) for n, e in node.items.items())]
        case Lookup():
            if node.kind == "mark":
                return [*node.probe.fields, Field(node.mark, BOOL, node.null_aware)]
            left = node.kind == "left"
            return [*node.probe.fields, *(replace(f, nullable=f.nullable or left) for f in node.table.fields)]
        case Expand():
            return [*node.left.fields, *node.right.fields]
        case Group():
            return [*(node.input[k] for k in node.keys), *(a.field for a in node.aggregates)]
        case Window():
            return [*node.input.fields, *(r.field for r in node.items)]
        case Union():
            return _united(node)
    raise AssertionError(type(node))


def _projected(name: str, e: Expr, have: Mapping[str, Field]) -> Field:
    if e.op == "col":  # whatever it went through below
        return replace(have[e.value], name=name)
    return _field(name, e)


def _united(node: Union) -> list[Field]:
    """A field that some part lacks is NULL there."""
    found: dict[str, Field] = {}
    for part in node.parts:
        for f in part.fields:
            known = found.get(f.name)
            found[f.name] = f if known is None else _either(known, f)
    return [replace(f, nullable=f.nullable or any(n not in p.names for p in node.parts)) for n, f in found.items()]


def _either(a: Field, b: Field) -> Field:
    type_ = replace(
        a.type, lo=min(a.type.lo, b.type.lo), hi=max(a.type.hi, b.type.hi), words=max(a.type.words, b.type.words)
    )
    return replace(a, type=type_, nullable=a.nullable or b.nullable, origin=a.origin | b.origin)
