"""How a field of a plan comes about: as a column itself, or computed; and whether what is aggregated chooses rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spuvm.sql.plan import Expand, Expr, Filter, Group, Lookup, Node, Project, Scan, Sort, Union, Window

PICKING = frozenset({"min", "max", "any"})  # give one of a column's values
SPELLING = frozenset({"words", "cast"})  # the same value otherwise written
ARITHMETIC = frozenset({"col", "lit", "+", "-", "*", "negative", "cast", "round", "extract", "words"})


def is_column(node: Node, name: str) -> bool:
    """Whether a field holds cells of a column, as they are, in other letters or as another type: nothing that the
    query could set to a value of its own."""
    match node:
        case Scan():
            return _plain_sql(node.items[name])
        case Filter() | Sort():
            return is_column(node.input, name)
        case Window():
            return name in node.input.names and is_column(node.input, name)
        case Project():
            e = node.items.get(name)
            while e is not None and e.op in SPELLING:
                e = e.args[0]
            if e is None:
                return is_column(node.input, name)
            return e.op == "col" and is_column(node.input, e.value)
        case Lookup():
            if name in node.probe.names:
                return is_column(node.probe, name)
            return node.kind != "mark" and is_column(node.table, name)
        case Expand():
            return is_column(node.left if name in node.left.names else node.right, name)
        case Group():
            if name in node.keys:
                return is_column(node.input, name)
            (call,) = (a for a in node.aggregates if a.field.name == name)
            return call.fn in PICKING and call.column is not None and is_column(node.input, call.column)
        case Union():
            having = [p for p in node.parts if name in p.names]
            return bool(having) and all(is_column(p, name) for p in having)
    return False


def _parsed(sql: str) -> Any:
    import sqlglot

    return sqlglot.parse_one(sql, dialect="duckdb")


def _plain_sql(sql: str) -> bool:
    from sqlglot import exp

    node = _parsed(sql)
    while isinstance(node, exp.Paren | exp.Lower | exp.Upper | exp.Trim | exp.Cast | exp.TryCast):
        node = node.this
    return isinstance(node, exp.Column)


# What is aggregated ---------------------------------------------------------------------------------------------------


def chooses(node: Node, name: str) -> bool:
    """Whether a field of what is aggregated depends on conditions otherwise than by being NULL where they do not hold:
    anything but arithmetic of columns, or CASE of one WHEN without ELSE of that."""
    return any(_chooses(n, e) for n, e in _made(node, name))


def _made(node: Node, name: str) -> Iterator[tuple[Node, Expr | str]]:
    """What computes a field: expressions, or an owner's SQL."""
    match node:
        case Scan():
            yield node, node.items[name]
        case Project() if name in node.items:
            e = node.items[name]
            yield node, e
            for column in e.columns():
                yield from _made(node.input, column)
        case Group():
            return
        case _:
            for child in node.inputs:
                if name in child.names:
                    yield from _made(child, name)


def _chooses(node: Node, e: Expr | str) -> bool:
    if isinstance(e, str):
        return _sql_chooses(_parsed(e))
    if e.op == "case" and len(e.args) == 4 and e.args[3].op == "lit" and e.args[3].value is None:
        return _chooses(node, e.args[2])
    return any(x.op not in ARITHMETIC for x in e.walk())


def _sql_chooses(node: Any) -> bool:
    from sqlglot import exp

    node = node.unnest() if isinstance(node, exp.Paren) else node
    if isinstance(node, exp.Case) and node.this is None and len(node.args["ifs"]) == 1:
        default = node.args.get("default")
        if default is None or isinstance(default, exp.Null):
            return _sql_chooses(node.args["ifs"][0].args["true"])
    plain = (exp.Column, exp.Identifier, exp.Literal, exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Paren, exp.Cast)
    return not all(isinstance(n, (*plain, exp.DataType, exp.DataTypeParam, exp.Round)) for n in node.walk())
