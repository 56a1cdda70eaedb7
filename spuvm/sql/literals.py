"""What does not hang on rows: constants as DuckDB reads them, and what is another value whenever it is asked."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlglot import exp

from spuvm.sql.plan import Expr
from spuvm.sql.types import NULL, from_duckdb, raw, text

MOMENTS = frozenset({"now", "today", "get_current_timestamp", "get_current_time", "transaction_timestamp"})
MOMENTS |= {"current_localtimestamp", "current_localtime", "random", "uuidv4", "uuidv7", "nextval", "currval"}
OF_THE_MOMENT = (exp.CurrentTimestamp, exp.CurrentTime, exp.CurrentDatetime, exp.CurrentDate, exp.Rand, exp.Uuid)
VARYING = (exp.Column, exp.Select, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter)


def varies(node: Any) -> bool:
    """Whether a function in it gives something else whenever it is asked."""
    if isinstance(node, exp.Literal):
        return False
    called = {f.name.lower() for f in node.find_all(exp.Anonymous)}
    return node.find(*OF_THE_MOMENT) is not None or bool(called & MOMENTS)


def dialect(node: Any) -> str:
    """As DuckDB writes it, without the names of tables."""
    if isinstance(node, exp.Literal):
        return "'{}'".format(node.name.replace("'", "''")) if node.is_string else str(node.name)
    plain = node.copy()
    for column in plain.find_all(exp.Column):
        column.set("table", None)
        column.this.set("quoted", True)
    return str(plain.sql("duckdb"))


def plain(node: Any) -> tuple[Any, str] | None:
    """The value and DuckDB's type of text and of whole numbers, which need no asking."""
    if not isinstance(node, exp.Literal):
        return None
    if node.is_string:
        return node.name, "VARCHAR"
    if not (node.name.isascii() and node.name.isdigit()):
        return None
    value = int(node.name)
    return None if value >= 1 << 63 else (value, "BIGINT" if value >= 1 << 31 else "INTEGER")


def literal(value: Any, type_name: str, sql: str | None = None) -> Expr:
    """A constant as DuckDB gave it."""
    if value is None:
        return Expr("lit", (), NULL, True, None, sql)
    type_ = from_duckdb(type_name, f"`{sql}`")
    if type_.kind == "text":
        type_ = text(max(1, len(str(value).encode())))
    elif type_.kind == "date" and isinstance(value, dt.datetime):
        value = value.date()
    if type_.is_integer:
        number = raw(value, type_)
        type_ = type_.within(number, number)
    return Expr("lit", (), type_, False, value, sql)
