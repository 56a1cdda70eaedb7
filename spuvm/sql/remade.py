"""Functions that an owner's DuckDB has and the machine has not by that name: of values that no owner can compute alone,
in the machine's words. One handler for each kind of node in `REMADE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.dates import DAY, PARTS, TRUNCATED
from spuvm.sql.plan import ALIKE, Expr

MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
TIMES = {"MICROSECOND": 1, "MILLISECOND": 1000, "SECOND": 10**6, "MINUTE": 60 * 10**6, "HOUR": 3600 * 10**6}
TIMES |= {"DAY": DAY, "WEEK": 7 * DAY}
NAMES = {"dow": "dayofweek", "weekday": "dayofweek", "doy": "dayofyear"}

Handler = Callable[[Any, Any], Expr | None]  # of a Binder and a node; None where there are no such words


def _number(value: int) -> Any:
    return exp.Literal.number(value)


def _unit(node: Any) -> str:
    return str(node.args.get("unit") or "").upper().removesuffix("S")


def _shifted(sign: int) -> Handler:
    """A date or time and an interval."""

    def handle(b: Any, node: Any) -> Expr | None:
        x, interval = node.this, node.expression
        if isinstance(x, exp.Interval) and sign > 0:
            x, interval = interval, x
        if not isinstance(interval, exp.Interval) or isinstance(x, exp.Interval):
            return None
        if not isinstance(interval.this, exp.Literal):
            return None
        count, unit = str(interval.this.name), _unit(interval)
        if not count.lstrip("-").isdigit() or unit not in (MONTHS.keys() | TIMES.keys()):
            return None
        moved: Expr = b.bind(exp.Cast(this=x.copy(), to=exp.DataType.build("timestamp")))
        n = sign * int(count)
        if unit in MONTHS:
            return b.call("later", [moved], node, n * MONTHS[unit])  # type: ignore[no-any-return]
        return b.call("+", [moved, b.constant(_number(n * TIMES[unit]))], node)  # type: ignore[no-any-return]

    return handle


def _date_diff(b: Any, node: exp.DateDiff) -> Expr | None:
    """How many borders of the unit lie between."""
    sides = []
    for side in (node.this, node.expression):
        while isinstance(side, exp.TsOrDsToDate):
            side = side.this
        sides.append(side)
    unit = _unit(node) or "DAY"
    if unit == "DAY":
        x, y = (exp.Cast(this=s.copy(), to=exp.DataType.build("date")) for s in sides)
    elif unit in MONTHS:
        x, y = (_counted(s, unit) for s in sides)
    else:
        return None
    return b.bind(exp.paren(exp.Sub(this=x, expression=y)))  # type: ignore[no-any-return]


def _counted(x: Any, unit: str) -> Any:
    """Years, quarters or months since year 0."""
    year = exp.Extract(this=exp.var("year"), expression=x.copy())
    if unit == "YEAR":
        return year
    inner = exp.Extract(this=exp.var(unit.lower()), expression=x.copy())
    scaled = exp.Mul(this=year, expression=_number(12 // MONTHS[unit]))
    return exp.paren(exp.Add(this=scaled, expression=inner))


def _part(name: str | None) -> Handler:
    def handle(b: Any, node: Any) -> Expr | None:
        inner = node.expression if name is None else node.this
        while isinstance(inner, exp.TsOrDsToDate):
            inner = inner.this
        part = NAMES.get(str(node.name).lower(), str(node.name).lower()) if name is None else name
        return b.call("extract", [b.bind(inner)], node, part) if part in PARTS else None

    return handle


def _truncated(b: Any, node: Any) -> Expr | None:
    unit = _unit(node).lower()
    if unit not in TRUNCATED:
        return None
    x = exp.Cast(this=node.this.copy(), to=exp.DataType.build("timestamp"))
    return b.call("date_trunc", [b.bind(x)], node, unit)  # type: ignore[no-any-return]


def _same(same: bool) -> Handler:
    """IS [NOT] DISTINCT FROM: NULL is a value."""

    def handle(b: Any, node: Any) -> Expr:
        x, y = node.this, node.expression
        nulls = exp.and_(*(exp.Is(this=v.copy(), expression=exp.null()) for v in (x, y)))
        found = exp.Coalesce(this=exp.EQ(this=x.copy(), expression=y.copy()), expressions=[nulls])
        if not same:
            return b.bind(exp.Not(this=found))  # type: ignore[no-any-return]
        made: Expr = b.bind(found)
        return replace(made, value=ALIKE) if made.op == "coalesce" else made

    return handle


def _sign(b: Any, node: exp.Sign) -> Expr:
    x, zero = node.this, _number(0)
    branches = [
        exp.If(this=exp.GT(this=x.copy(), expression=zero), true=_number(1)),
        exp.If(this=exp.LT(this=x.copy(), expression=zero.copy()), true=_number(-1)),
        exp.If(this=exp.Not(this=exp.Is(this=x.copy(), expression=exp.null())), true=zero.copy()),
    ]
    return b.bind(exp.Case(ifs=branches))  # type: ignore[no-any-return]


def _power(b: Any, node: exp.Pow) -> Expr | None:
    """Squares, cubes and roots, as doubles."""
    power = node.expression
    if not isinstance(power, exp.Literal) or power.name not in ("0.5", "1", "2", "3"):
        raise InputError(f"`{node.sql('duckdb')}`: of values that several parties hold, powers are 0.5, 1, 2 and 3.")
    x = exp.Cast(this=node.this.copy(), to=exp.DataType.build("double"))
    if power.name == "0.5":
        return b.bind(exp.Sqrt(this=x))  # type: ignore[no-any-return]
    out: Any = x
    for _ in range(int(power.name) - 1):
        out = exp.Mul(this=out, expression=x.copy())
    return b.bind(out)  # type: ignore[no-any-return]


def _whole(op: str) -> Handler:
    return lambda b, node: b.call(op, [b.bind(node.this)], node)


REMADE: dict[type[Any], Handler] = {
    exp.Add: _shifted(1),
    exp.Sub: _shifted(-1),
    exp.DateDiff: _date_diff,
    exp.TimestampTrunc: _truncated,
    exp.DateTrunc: _truncated,
    exp.Extract: _part(None),
    exp.Hour: _part("hour"),
    exp.Minute: _part("minute"),
    exp.Second: _part("second"),
    exp.DayOfWeek: _part("dayofweek"),
    exp.DayOfWeekIso: _part("isodow"),
    exp.DayOfYear: _part("dayofyear"),
    exp.NullSafeEQ: _same(True),
    exp.NullSafeNEQ: _same(False),
    exp.Sign: _sign,
    exp.Pow: _power,
    exp.Floor: _whole("floor"),
    exp.Ceil: _whole("ceil"),
}
