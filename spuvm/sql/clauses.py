"""Clauses that a query may have: what nothing reads is refused, never passed over."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError

WITH = frozenset({"with_", "with"})
OF_SELECT = WITH | {"expressions", "distinct", "from_", "from", "joins", "where", "group", "having", "qualify"}
OF_SELECT |= {"order", "limit", "offset"}
OF_SETS = WITH | {"this", "expression", "distinct", "order", "limit", "offset"}
OF_PARENTHESES = WITH | {"this", "alias"}
OF_TABLE = frozenset({"this", "alias", "db", "catalog"})
OF_CTE = frozenset({"this", "alias", "materialized"})
OF_WINDOW = frozenset({"this", "partition_by", "order", "spec", "over"})
OF_MATCHING = frozenset({"limit", "offset", "qualify", "distinct"})  # what counts rows of a subquery as a whole


def check_clauses(node: Any, known: frozenset[str]) -> None:
    """InputError for a clause of `node` that is not among the `known`."""
    for name, clause in node.args.items():
        if clause and name not in known:
            called = name.strip("_").replace("_", " ").upper()
            shown = clause[0] if isinstance(clause, list) else clause
            shown = shown.sql("duckdb").strip() if isinstance(shown, exp.Expression) else called
            raise InputError(f"`{shown[:60]}` ({called}) is not supported: leave it out.")


def left_out(star: Any) -> set[str]:
    """The names that `* exclude (...)` leaves out, in lower case."""
    for name in ("replace", "rename", "ilike", "like"):
        if star.args.get(name):
            raise InputError(f"`{star.sql('duckdb')}`: name the columns instead.")
    return {e.name.lower() for e in star.args.get("except_") or star.args.get("except") or ()}


def names_of(node: Any) -> list[str]:
    """The names of columns that an alias gives, as in `AS t(a, b)`."""
    alias = node.args.get("alias")
    return [] if alias is None else [c.name for c in alias.args.get("columns") or ()]


def number_of(node: Any, name: str) -> int | None:
    """How many rows LIMIT (or FETCH FIRST), or OFFSET, says.

    Raises:
        InputError: for anything but a whole number of rows.
    """
    clause = node.args.get(name)
    if clause is None:
        return None
    value = clause.args.get("count") if isinstance(clause, exp.Fetch) else clause.expression
    options = clause.args.get("limit_options")
    part = options is not None and (options.args.get("percent") or options.args.get("with_ties"))
    if isinstance(value, exp.Literal) and not value.is_string and value.name.isdigit() and not part:
        return int(value.name)
    raise InputError(f"`{clause.sql('duckdb').strip()}`: it must be a whole number of rows.")


def key_of(node: Any) -> str:
    """Text by which equal expressions are found: names in lower case, constants as they are."""
    plain = node.copy()
    for name in plain.find_all(exp.Identifier):
        name.set("this", str(name.this).lower())
        name.set("quoted", False)
    return str(plain.sql("duckdb", comments=False))


def whole_call(node: Any) -> Any:
    """An aggregate with its WITHIN GROUP and FILTER."""
    while isinstance(node.parent, exp.WithinGroup | exp.Filter) and node.parent.this is node:
        node = node.parent
    return node
