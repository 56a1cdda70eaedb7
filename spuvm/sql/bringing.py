"""An owner's column, asked for late, brought from its scan up to a relation above: through subqueries and joins."""

from __future__ import annotations

from spuvm.sql.plan import Expand, Expr, Filter, Lookup, Node, Project, Sort, Union, Window
from spuvm.sql.scope import Bases


def brought(bases: Bases, node: Node, base: Node, column: Expr) -> tuple[str, bool] | None:
    """What the column of `base` is called in a relation above it, and whether rows are there that it has none of (of
    an outer join). None where rows are not rows of the base any more: groups, and sets.

    A subquery may be used twice, so each use gives it a name of its own.
    """
    match node:
        case _ if node is base:
            return str(column.value), False
        case Project():
            found = brought(bases, node.input, base, column)
            if found is None or node.keep:
                return found
            name = bases.brought.setdefault((id(node), found[0]), bases.names("brought"))
            field = Expr("col", (), column.type, column.nullable, found[0], origin=column.origin)
            node.items.setdefault(name, field)
            return name, found[1]
        case Filter() | Sort() | Window():
            return brought(bases, node.input, base, column)
        case Lookup():
            found = brought(bases, node.probe, base, column)
            if found is not None or node.kind == "mark":
                return found
            found = brought(bases, node.table, base, column)
            return found and (found[0], found[1] or node.kind == "left")
        case Expand():
            return brought(bases, node.left, base, column) or brought(bases, node.right, base, column)
        case Union():
            some = {found[0] for p in node.parts if (found := brought(bases, p, base, column)) is not None}
            return (some.pop(), True) if len(some) == 1 else None
    return None
