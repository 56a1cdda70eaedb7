"""Which columns follow from others, by keys of tables and equalities of joins: so GROUP BY sorts by fewer."""

from __future__ import annotations

from collections.abc import Iterable

from spuvm.sql.plan import Expand, Filter, Group, Lookup, Node, Project, Sort, Window
from spuvm.sql.types import Type

Names = frozenset[str]


def enough(node: Node, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the keys, one at least, from which all of them follow: without the widest that can be left out."""
    kept = list(keys)
    for key in sorted(keys, key=lambda k: -_width(node[k].type)):
        rest = frozenset(kept) - {key}
        if rest and key in determined(node, rest):
            kept.remove(key)
    return tuple(kept)


def _width(type_: Type) -> int:
    """Bits of a sort key."""
    return 64 * type_.parts if type_.kind in ("text", "float") and not type_.dictionary else type_.size.bit_length()


def determined(node: Node, known: Iterable[str]) -> Names:
    """The columns of a relation that are the same in all its rows in which the known ones are; NULL is like NULL."""
    found = frozenset(known) & frozenset(node.names)
    while True:
        if any(key <= found and not any(node[c].nullable for c in key) for key in node.unique):
            return frozenset(node.names)
        more = found | (_step(node, found) & frozenset(node.names))
        if more == found:
            return found
        found = more


def _step(node: Node, known: Names) -> Names:
    match node:
        case Filter() | Sort() | Window():
            return determined(node.input, known)
        case Project():
            mine = {e.value for n, e in node.items.items() if n in known and e.op == "col"}
            below = determined(node.input, mine | (known if node.keep else frozenset()))
            made = {n for n, e in node.items.items() if e.columns() <= below}
            return frozenset(made) | (below if node.keep else frozenset())
        case Lookup():
            found = determined(node.probe, known)
            same = [(a, b) for a, b in node.pairs if node.kind == "inner"]
            found |= {b for a, b in same if a in known} | {a for a, b in same if b in known}
            if all(a in known for a, _ in node.pairs):
                return found | (frozenset({node.mark}) if node.kind == "mark" else frozenset(node.table.names))
            if node.kind == "mark":
                return found
            # Without a row all of the table's columns are NULL, constants, too: something known must tell.
            tells = node.kind == "inner" or any(f.name in known and not f.nullable for f in node.table.fields)
            return found | (determined(node.table, known) if tells else frozenset())
        case Expand():
            equal = {b for a, b in node.pairs if a in known} | {a for a, b in node.pairs if b in known}
            return determined(node.left, known) | determined(node.right, known) | equal
        case Group():
            return frozenset(node.names) if set(node.keys) <= known else frozenset()
    return frozenset()
