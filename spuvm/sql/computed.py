"""How a field of a plan comes about: as a column itself, or computed; and whether what is aggregated chooses rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlglot
from sqlglot import exp

from spuvm.sql.plan import Expand, Expr, Filter, Group, Lookup, Node, Project, Scan, Sort, Union, Window, nodes

PICKING = frozenset({"min", "max", "any"})  # give one of a column's values
SPELLING = frozenset({"words", "cast"})  # the same value otherwise written
ARITHMETIC = frozenset({"col", "lit", "+", "-", "*", "negative", "words"})  # makes no condition of its arguments
NAMES = (exp.Identifier, exp.DataType, exp.DataTypeParam, exp.Var)
IN_SQL = (exp.Column, exp.Literal, exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Paren, exp.TsOrDsToDate, *NAMES)


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
            return _is_cell(node, node.items[name]) if name in node.items else is_column(node.input, name)
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


def _is_cell(node: Project, e: Expr) -> bool:
    while e.op in SPELLING and e.type.kind != "bool":
        e = e.args[0]
    if e.op == "coalesce":
        return all(_is_cell(node, a) for a in e.args)
    return e.op == "col" and is_column(node.input, e.value)


def _parsed(sql: str) -> Any:
    return sqlglot.parse_one(sql, dialect="duckdb")


def _plain_sql(sql: str) -> bool:
    node = _parsed(sql)
    while isinstance(node, exp.Paren | exp.Lower | exp.Upper | exp.Trim | exp.Cast) and not _sets(node):
        node = node.this
    return isinstance(node, exp.Column)


def _sets(node: Any) -> bool:
    """Whether it makes of many values one that the query says: trim(x, 'abc'), and true."""
    return node.args.get("expression") is not None or _is_bool(node)


def _is_bool(node: Any) -> bool:
    return isinstance(node, exp.Cast) and bool(node.is_type("boolean"))


# What is aggregated ---------------------------------------------------------------------------------------------------


def chooses(node: Node, name: str) -> bool:
    """Whether a field of what is aggregated depends on conditions otherwise than by being NULL where they do not hold:
    anything but arithmetic of columns, or CASE of one WHEN without ELSE of that; and weights that the query writes."""
    return any(e is None or _chooses(n, e) for n, e in _made(node, name))


def _made(node: Node, name: str) -> Iterator[tuple[Node, Expr | str | None]]:
    """What computes a field: expressions, or an owner's SQL; None: several rows that the query writes."""
    if node.bound > 1 and not any(isinstance(n, Scan) for n in nodes(node)):
        yield node, None
        return
    match node:
        case Scan():
            yield node, node.items[name]
        case Project() if name in node.items:
            e = _value(node.items[name])
            yield node, e
            for column in e.columns():
                yield from _made(node.input, column)
        case Window() if name not in node.input.names:
            (item,) = (r for r in node.items if r.field.name == name)
            if item.column is not None:
                yield from _made(node.input, item.column)
        case Group():
            of = name if name in node.keys else next(a.column for a in node.aggregates if a.field.name == name)
            if of is not None:  # what it chooses among an owner's rows is told of there
                yield from ((n, e) for n, e in _made(node.input, of) if e is None)
        case _:
            for child in node.inputs:
                if name in child.names:
                    yield from _made(child, name)


def _value(e: Expr) -> Expr:
    """What an expression gives where it is not NULL by its own condition."""
    while e.op == "case" and len(e.args) == 4 and e.args[3].op == "lit" and e.args[3].value is None:
        e = e.args[2]
    return e


def _chooses(node: Node, e: Expr | str) -> bool:
    if isinstance(e, str):
        return _sql_chooses(_parsed(e))
    return any(_makes_condition(node, x) for x in e.walk())


def _makes_condition(node: Node, e: Expr) -> bool:
    """Whether an operation can tell numbers on two sides of one that the query sets. What rounds can; of a column
    itself it does not depend on the query."""
    plain = bool(e.args) and e.args[0].op == "col" and is_column(node.inputs[0], e.args[0].value)
    match e.op:
        case "cast":
            return e.type.kind == "bool" or not (plain or e.type.kind == "float" or e.args[0].type.kind == "int")
        case "extract":
            return not plain
        case "/":
            return e.args[1].op != "lit"
    return e.op not in ARITHMETIC


def _sql_chooses(node: Any) -> bool:
    node = node.unnest()
    if isinstance(node, exp.Case) and node.this is None and len(node.args["ifs"]) == 1:
        default = node.args.get("default")
        if default is None or isinstance(default, exp.Null):
            return _sql_chooses(node.args["ifs"][0].args["true"])
    return any(_sql_makes_condition(n) for n in node.walk())


def _sql_makes_condition(node: Any) -> bool:
    """As `_makes_condition`, in an owner's SQL."""
    match node:
        case exp.Cast():
            return _is_bool(node) or not (_is_plain(node.this) or node.is_type("double"))
        case exp.Extract():
            return not _is_plain(node.expression)
        case exp.Year() | exp.Month() | exp.Day():
            return not _is_plain(node.this)
        case exp.Div():
            return not isinstance(node.expression.unnest(), exp.Literal)
    return not isinstance(node, IN_SQL)


def _is_plain(node: Any) -> bool:
    while isinstance(node, exp.Paren | exp.TsOrDsToDate):
        node = node.this
    return isinstance(node, exp.Column | exp.Literal)
