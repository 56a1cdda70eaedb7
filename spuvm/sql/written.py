"""VALUES: rows that the query itself writes, as a relation that all know."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.clauses import check_clauses, names_of
from spuvm.sql.expressions import Binder
from spuvm.sql.functions import common
from spuvm.sql.literals import VARYING
from spuvm.sql.plan import Constants, Expr, Field
from spuvm.sql.scope import Bases, Relation, Scope, column
from spuvm.sql.types import Type

OF_VALUES = frozenset({"expressions", "alias"})


def constants(bases: Bases, node: exp.Values) -> Relation:
    """VALUES (...), (...) AS name(columns); without names they are col0, col1, ....

    Raises:
        InputError: for rows of different lengths, names that do not fit, and cells that are no constants.
    """
    check_clauses(node, OF_VALUES)
    rows = [list(r.expressions) if isinstance(r, exp.Tuple) else [r] for r in node.expressions]
    given = names_of(node)
    width = len(rows[0])
    if any(len(r) != width for r in rows):
        raise InputError("VALUES has rows of different lengths: give each the same number of cells.")
    if len(given) > width:
        raise InputError(f"{len(given)} names for VALUES of {width} columns.")
    labels = given + [f"col{i}" for i in range(len(given), width)]
    alias = (node.alias or bases.names("values")).lower()
    binder = Binder(bases, Scope([]))
    made = [_column(_cells(binder, cells)) for cells in zip(*rows)]
    fields = [
        Field(bases.names(f"{alias}.{n}"), t, any(v is None for v in values)) for n, (t, values) in zip(labels, made)
    ]
    cells = {f.name: tuple(values) for f, (_, values) in zip(fields, made)}
    distinct = (f.name for f in fields if not f.nullable and len(set(cells[f.name])) == len(rows))
    relation = Constants(tuple(fields), len(rows), tuple(frozenset({n}) for n in distinct), cells)
    columns = {n.lower(): column(f.name, f.type, f.nullable) for n, f in zip(labels, fields)}
    if len(columns) < width:
        raise InputError("VALUES has two columns of one name: give each its own.")
    return Relation(relation, {alias: columns})


def _cells(binder: Binder, nodes: Sequence[Any]) -> list[Expr]:
    for node in nodes:
        if node.find(*VARYING):
            raise InputError(f"`{node.sql('duckdb')}` in VALUES: write constants, or SELECT ... UNION ALL SELECT ....")
    return binder.constants(nodes)


def _column(cells: Sequence[Expr]) -> tuple[Type, list[Any]]:
    """The common type, and the values as that type has them."""
    type_ = common([c.type for c in cells], "VALUES of")
    values = [c.value for c in cells]
    if type_.kind == "timestamp":
        values = [dt.datetime(v.year, v.month, v.day) if type(v) is dt.date else v for v in values]
    elif type_.kind == "float":
        values = [None if v is None else float(v) for v in values]
    return type_, values
