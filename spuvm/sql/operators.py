"""Operators and conditions of the parsed query as typed expressions: a handler for each kind of node in `HANDLERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.casts import cast_type
from spuvm.sql.literals import VARYING, literal
from spuvm.sql.plan import Expr
from spuvm.sql.scope import Bases, Scope
from spuvm.sql.types import BOOL, from_duckdb


class Binder(Protocol):
    """What a handler asks of `expressions.Binder`."""

    bases: Bases
    scope: Scope
    select: Any

    def bind(self, node: Any) -> Expr:
        """A part of the node."""
        ...

    def call(self, op: str, args: Sequence[Expr], node: Any, value: Any = None, sql: str | None = None) -> Expr:
        """A function of expressions."""
        ...

    def constant(self, node: Any) -> Expr:
        """What no row changes."""
        ...

    def constants(self, nodes: Sequence[Any]) -> list[Expr]:
        """Several such."""
        ...

    def opaque(self, node: Any) -> Expr:
        """What only an owner's DuckDB computes."""
        ...


def _column(b: Binder, node: exp.Column) -> Expr:
    if isinstance(node.this, exp.Star):
        raise InputError("`*` cannot be used here.")
    return b.scope.column(node.name, node.table or None)


def _binary(op: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: exp.Binary) -> Expr:
        x, y = b.bind(node.this), b.bind(node.expression)
        return b.call(op, _coerced(b, op, x, y), node)

    return handle


def _coerced(b: Binder, op: str, x: Expr, y: Expr) -> list[Expr]:
    return [*_read_as(b, [x], y), *_read_as(b, [y], x)]


def _read_as(b: Binder, constants: Sequence[Expr], other: Expr) -> list[Expr]:
    """Constants of text beside a date or number are such, as DuckDB takes them."""
    if other.type.kind not in ("date", "timestamp", "int", "decimal", "float"):
        return list(constants)
    wanted = {"date": "DATE", "timestamp": "TIMESTAMP", "float": "DOUBLE"}.get(other.type.kind, "BIGINT")
    if other.type.kind == "decimal":
        wanted = f"DECIMAL(18,{other.type.scale})"
    sqls = [f"CAST({x.sql} AS {wanted})" for x in constants if x.op == "lit" and x.type.kind == "text"]
    read = (literal(*said, sql) for said, sql in zip(b.bases.catalog.constants(sqls), sqls))
    return [next(read) if x.op == "lit" and x.type.kind == "text" else x for x in constants]


def _variadic(op: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: exp.Func) -> Expr:
        args = [b.bind(a) for a in (node.this, *node.expressions) if a is not None]
        return b.call(op, args, node)

    return handle


def _unary(op: str) -> Callable[[Binder, Any], Expr]:
    return lambda b, node: b.call(op, [b.bind(node.this)], node)


def _connective(op: str) -> Callable[[Binder, Any], Expr]:
    return lambda b, node: b.call(op, [b.bind(a) for a in node.flatten()], node)


def _between(b: Binder, node: exp.Between) -> Expr:
    low = exp.GTE(this=node.this.copy(), expression=node.args["low"].copy())
    high = exp.LTE(this=node.this.copy(), expression=node.args["high"].copy())
    return b.bind(exp.and_(low, high))


def _in(b: Binder, node: exp.In) -> Expr:
    if node.args.get("query") is not None:
        assert b.select is not None
        marked: Expr = b.select.in_query(node)
        return marked
    if not node.expressions:  # of a list
        return b.opaque(node)
    values = [cell for x in node.expressions for cell in _written(x)]
    constant = [v for v in values if not v.find(*VARYING)]
    if len(constant) > 1:
        known = {id(v) for v in constant}
        tests = [_is_one_of(b, node, constant), *(_equals(b, node, v) for v in values if id(v) not in known)]
    else:
        tests = [_equals(b, node, v) for v in values]
    return b.call("or", tests, node) if len(tests) > 1 else tests[0]


def _equals(b: Binder, node: exp.In, value: Any) -> Expr:
    return b.bind(exp.EQ(this=node.this.copy(), expression=value.copy()))


def _is_one_of(b: Binder, node: exp.In, values: Sequence[Any]) -> Expr:
    """x IN of constants, which may be thousands."""
    x = b.bind(node.this)
    if x.op == "lit":
        return b.constant(exp.In(this=node.this.copy(), expressions=[v.copy() for v in values]))
    each = list({(c.value, c.type.kind): c for c in _read_as(b, b.constants(values), x)}.values())
    return b.call("in", [x, *each], node, sql=f"({x.sql} IN ({', '.join(str(c.sql) for c in each)}))")


def _written(x: Any) -> list[Any]:
    """The cells of IN (VALUES (...), ...), or the value itself."""
    if not isinstance(x, exp.Values):
        return [x]
    rows = [r.expressions if isinstance(r, exp.Tuple) else [r] for r in x.expressions]
    if any(len(r) != 1 for r in rows):
        raise InputError(f"`{x.sql('duckdb')[:60]}` in IN has rows of several columns: it must give one.")
    return [r[0] for r in rows]


def _is(b: Binder, node: exp.Is) -> Expr:
    x = b.bind(node.this)
    if isinstance(node.expression, exp.Null):
        return b.call("is null", [x], node)
    false = Expr("lit", (), BOOL, False, False, "false")
    true = b.call("coalesce", [x, false], exp.Coalesce(this=node.this.copy(), expressions=[exp.false()]))
    if isinstance(node.expression, exp.Boolean):
        if node.expression.this:
            return true
        opposite = exp.Not(this=node.this.copy())
        return b.call(
            "coalesce",
            [b.call("not", [x], opposite), false],
            exp.Coalesce(this=opposite.copy(), expressions=[exp.false()]),
        )
    raise InputError(f"`{node.sql('duckdb')}`: write `is null`, `is true` or `is false`.")


def _case(b: Binder, node: exp.Case) -> Expr:
    conditions, values = [], []
    for branch in node.args["ifs"]:
        test = branch.this if node.this is None else exp.EQ(this=node.this.copy(), expression=branch.this.copy())
        conditions.append(b.bind(test))
        values.append(b.bind(branch.args["true"]))
    default = node.args.get("default")
    return _chosen(b, node, conditions, values, exp.null() if default is None else default)


def _if(b: Binder, node: exp.If) -> Expr:
    other = node.args.get("false")
    return _chosen(b, node, [b.bind(node.this)], [b.bind(node.args["true"])], exp.null() if other is None else other)


def _chosen(b: Binder, node: Any, conditions: list[Expr], values: list[Expr], default: Any) -> Expr:
    true = Expr("lit", (), BOOL, False, True, "true")
    return b.call("case", [*conditions, true, *values, b.bind(default)], node)


def _nullif(b: Binder, node: exp.Nullif) -> Expr:
    test = exp.EQ(this=node.this.copy(), expression=node.expression.copy())
    return b.bind(exp.Case(ifs=[exp.If(this=test, true=exp.null())], default=node.this.copy()))


def _cast(b: Binder, node: exp.Cast) -> Expr:
    x = b.bind(node.this)
    if x.op == "lit":
        return b.constant(node)
    want = from_duckdb(b.bases.catalog.constant(f"CAST(NULL AS {node.to.sql('duckdb')})")[1], f"`{node.sql('duckdb')}`")
    if want.kind == "text":
        if x.type.kind == "text":
            return x
        return b.opaque(node)
    if x.type.kind == "text" or (x.type.kind in ("date", "timestamp")) != (want.kind in ("date", "timestamp")):
        return b.opaque(node)
    return b.call("cast", [x], node, cast_type(x.type, want))


def _extract(b: Binder, node: exp.Extract) -> Expr:
    part = node.name.lower()
    x = b.bind(node.expression)
    return b.call("extract", [x], node, part) if part in ("year", "month", "day", "quarter") else b.opaque(node)


def _date_part(part: str) -> Callable[[Binder, Any], Expr]:
    def handle(b: Binder, node: Any) -> Expr:
        inner = node.this
        while isinstance(inner, exp.TsOrDsToDate):
            inner = inner.this
        return b.call("extract", [b.bind(inner)], exp.Extract(this=exp.var(part), expression=inner.copy()), part)

    return handle


def _round(b: Binder, node: exp.Round) -> Expr:
    digits = node.args.get("decimals")
    places = 0 if digits is None else b.bind(digits).value
    if not isinstance(places, int):
        raise InputError(f"`{node.sql('duckdb')}`: the number of digits must be a constant.")
    return b.call("round", [b.bind(node.this)], node, places)


def _literal(b: Binder, node: Any) -> Expr:
    return b.constant(node)


def _parameter(b: Binder, node: Any) -> Expr:
    raise InputError(f"`{node.sql('duckdb')}` is a parameter without a value: pass `parameters`.")


def _subquery(b: Binder, node: exp.Subquery) -> Expr:
    assert b.select is not None, "a subquery where there is no select"
    found: Expr = b.select.scalar_query(node)
    return found


def _exists(b: Binder, node: exp.Exists) -> Expr:
    assert b.select is not None
    found: Expr = b.select.exists(node.this)
    return found


def _window(b: Binder, node: exp.Window) -> Expr:
    if b.select is None:
        raise InputError(f"`{node.sql('duckdb')}`: a window function cannot be used here.")
    found: Expr = b.select.window(node)
    return found


HANDLERS: dict[type[Any], Callable[[Binder, Any], Expr]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: _literal,
    exp.Null: _literal,
    exp.Paren: lambda b, node: b.bind(node.this),
    exp.Alias: lambda b, node: b.bind(node.this),
    exp.Add: _binary("+"),
    exp.Sub: _binary("-"),
    exp.Mul: _binary("*"),
    exp.Div: _binary("/"),
    exp.IntDiv: _binary("//"),
    exp.Mod: _binary("%"),
    exp.EQ: _binary("="),
    exp.NEQ: _binary("<>"),
    exp.LT: _binary("<"),
    exp.GT: _binary(">"),
    exp.LTE: _binary("<="),
    exp.GTE: _binary(">="),
    exp.Neg: _unary("negative"),
    exp.Not: _unary("not"),
    exp.Abs: _unary("abs"),
    exp.Sqrt: _unary("sqrt"),
    exp.Ln: _unary("ln"),
    exp.Exp: _unary("exp"),
    exp.And: _connective("and"),
    exp.Or: _connective("or"),
    exp.Coalesce: _variadic("coalesce"),
    exp.Greatest: _variadic("greatest"),
    exp.Least: _variadic("least"),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Case: _case,
    exp.If: _if,
    exp.Nullif: _nullif,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Extract: _extract,
    exp.Year: _date_part("year"),
    exp.Month: _date_part("month"),
    exp.Day: _date_part("day"),
    exp.Quarter: _date_part("quarter"),
    exp.Round: _round,
    exp.Subquery: _subquery,
    exp.Exists: _exists,
    exp.Window: _window,
    exp.Filter: lambda b, node: b.bind(node.this),
    exp.WithinGroup: lambda b, node: b.bind(node.this),
    exp.Placeholder: _parameter,
    exp.Parameter: _parameter,
}
