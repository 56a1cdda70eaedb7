"""Scalar functions: for each, the type of its result and its meaning on the machine's columns.

What an owner's DuckDB computes by itself may use all of DuckDB's functions; these are those that may also meet other
parties' columns. Most give NULL if an argument is NULL; `NULLS` has the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax.numpy as jnp

from spuvm.compiler.lower.rows import below_p
from spuvm.runtime.errors import InputError
from spuvm.sql import dates
from spuvm.sql.columns import (
    Array,
    Vec,
    both,
    chosen,
    converted,
    divided,
    dtype,
    either,
    floats,
    literal,
    nulled,
    rescaled,
)
from spuvm.sql.types import BOOL, FLOATING, LIMIT, NULL, Type, checked, decimal, integer

Types = Sequence[Type]
DIGITS = 6  # that a quotient has at least behind the point


# Types ------------------------------------------------------------------------------------------------------


def common(types: Types, what: str) -> Type:
    """The type that values of all these become, to be compared or chosen among.

    Raises:
        InputError: if they do not compare.
    """
    known = [t for t in types if t.kind != "null"]
    if not known:
        return NULL
    kinds = {t.kind for t in known}
    if kinds == {"text"}:
        if len({t.dictionary for t in known}) == 1:
            return replace(known[0], hi=max(t.hi for t in known), words=max(t.words for t in known))
        return Type("text", words=max(t.words for t in known))
    if kinds <= {"int", "decimal", "float", "bool"} and (len(kinds) == 1 or "bool" not in kinds):
        if "float" in kinds:
            return FLOATING
        if kinds == {"bool"}:
            return BOOL
        scale = max(t.scale for t in known)
        lo, hi = (
            f(getattr(t, side) * 10 ** (scale - t.scale) for t in known) for f, side in ((min, "lo"), (max, "hi"))
        )
        return checked(Type("decimal" if "decimal" in kinds else "int", lo, hi, scale))
    if kinds <= {"date", "timestamp"}:
        kind = "timestamp" if "timestamp" in kinds else "date"
        day = 86_400_000_000
        sides = [(t.lo * day, t.hi * day) if t.kind != kind else (t.lo, t.hi) for t in known]
        return Type(kind, max(-LIMIT, min(a for a, _ in sides)), min(LIMIT, max(b for _, b in sides)))
    shown = " and ".join(dict.fromkeys(str(t) for t in known))
    raise InputError(f"{what} {shown}: they do not compare. Cast one of them.")


def _numbers(types: Types, what: str) -> None:
    for t in types:
        if t.kind not in ("int", "decimal", "float", "null"):
            raise InputError(f"`{what}` of {t}: it takes numbers. Cast it first.")


def _sum_type(sign: int) -> Callable[[Types, Any], Type]:
    what = "+" if sign > 0 else "-"

    def rule(types: Types, value: Any) -> Type:
        x, y = types
        if NULL in types:
            return x if y is NULL else y
        if x.kind in ("date", "timestamp") and y.kind == "int":
            return dates.moved_type(x, y.lo, y.hi) if sign > 0 else dates.moved_type(x, -y.hi, -y.lo)
        if {x.kind, y.kind} == {"date"} and sign < 0:
            return integer(*_ends(x, y, sign))
        _numbers(types, what)
        if FLOATING in types:
            return FLOATING
        scale = max(x.scale, y.scale)
        x, y = (t.within(t.lo * 10 ** (scale - t.scale), t.hi * 10 ** (scale - t.scale)) for t in (x, y))
        return checked(Type("decimal" if "decimal" in (x.kind, y.kind) else "int", *_ends(x, y, sign), scale))

    return rule


def _ends(x: Type, y: Type, sign: int) -> tuple[int, int]:
    return (x.lo + y.lo, x.hi + y.hi) if sign > 0 else (x.lo - y.hi, x.hi - y.lo)


def _product_type(types: Types, value: Any) -> Type:
    x, y = types
    _numbers(types, "*")
    if NULL in types:
        return x if y is NULL else y
    if FLOATING in types:
        return FLOATING
    ends = [a * b for a in (x.lo, x.hi) for b in (y.lo, y.hi)]
    kind, scale = "decimal" if "decimal" in (x.kind, y.kind) else "int", x.scale + y.scale
    if max(map(abs, ends)) > LIMIT:  # 100.00 is 100
        spare = _zeros(x) + _zeros(y)
        ends, scale = [e // 10**spare for e in ends], scale - spare
    return checked(Type(kind, min(ends), max(ends), scale), "a product")


def _zeros(x: Type) -> int:
    """How many digits behind the point of a constant are zeros at its end."""
    if x.lo != x.hi or not x.lo:
        return 0
    return next(d for d in range(x.scale, -1, -1) if x.lo % 10**d == 0)


def quotient_type(types: Types, value: Any = None) -> Type:
    """Of exact numbers a decimal of `DIGITS` digits or more; see `divided`."""
    x, y = types
    _numbers(types, "/")
    if NULL in types:
        return NULL
    if FLOATING in types:
        return FLOATING
    scale = max(DIGITS, x.scale)
    top = min(LIMIT, x.size * 10 ** max(0, scale - x.scale + y.scale))
    return Type("decimal", -top, top, scale)


def _whole_type(types: Types, value: Any) -> Type:
    _numbers(types, "//")
    if any(t.kind != "int" for t in types if t is not NULL):
        raise InputError("`//` and `%` take integers: use `/`, or cast.")
    return types[0]


def _of_common(types: Types, value: Any) -> Type:
    return common(types, "a choice among")


def _compared(types: Types, value: Any) -> Type:
    common(types, "a comparison of")
    return BOOL


def _bools(types: Types, value: Any) -> Type:
    for t in types:
        if t.kind not in ("bool", "null"):
            raise InputError(f"a condition of type {t}: it must be true or false, as in `x > 0`.")
    return BOOL


def _case_type(types: Types, value: Any) -> Type:
    conditions, values = types[: len(types) // 2], types[len(types) // 2 :]
    _bools(conditions, value)
    return common(values, "a choice among")


def _negative_type(types: Types, value: Any) -> Type:
    _numbers(types, "-")
    return types[0].within(-types[0].hi, -types[0].lo)


def _magnitude_type(types: Types, value: Any) -> Type:
    _numbers(types, "abs")
    return types[0].within(0, types[0].size)


def _rounded_type(types: Types, value: Any) -> Type:
    _numbers(types, "round")
    t = types[0]
    if t.kind == "float":
        return t
    digits = max(0, min(int(value), t.scale))
    drop = 10 ** (t.scale - digits)
    return decimal(digits, -(-t.lo // drop) - 1 if t.lo < 0 else 0, t.hi // drop + 1)


def _float_type(types: Types, value: Any) -> Type:
    _numbers(types, "a function")
    return FLOATING


def _whole_part_type(types: Types, value: Any) -> Type:
    _numbers(types, "floor")
    (t,) = types
    unit = 10**t.scale
    return t if t.kind in ("float", "null") else decimal(0, t.lo // unit, -(-t.hi // unit))


# Meanings ---------------------------------------------------------------------------------------------------


def _aligned(xs: Sequence[Vec], type_: Type) -> list[Array]:
    """Numbers in the scale of the result, without its range."""
    if type_.kind == "float":
        return [floats(x) for x in xs]
    return [
        x.value if x.type.kind != "decimal" and not type_.scale else rescaled(x.value, type_.scale - x.type.scale)
        for x in xs
    ]


def _add(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    x, y = _aligned(xs, type_)
    return (x + y,)


def _sub(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    x, y = _aligned(xs, type_)
    return (x - y,)


def _mul(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    if type_.kind == "float":
        return (floats(xs[0]) * floats(xs[1]),)
    if type_.scale < sum(x.type.scale for x in xs):
        x, y = (jnp.full_like(x.value, x.type.lo // 10 ** _zeros(x.type)) if _zeros(x.type) else x.value for x in xs)
        return (x * y,)
    return (xs[0].value * xs[1].value,)


def _div(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    x, y = xs
    if type_.kind == "float":
        return (floats(x) / floats(y),)
    return (divided(x.value, y.value, x.type.size, y.type.size, type_.scale - x.type.scale + y.type.scale),)


def _whole_quotient(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    x, y = xs
    return (divided(x.value, y.value, x.type.size, y.type.size, 0),)


def _modulo(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    return (xs[0].value - _whole_quotient(xs, type_, value)[0] * xs[1].value,)


def _by_nonzero(xs: Sequence[Vec]) -> Array:
    zero = xs[1].value == 0
    return both(*(x.valid for x in xs), ~zero)


def equal(x: Vec, y: Vec) -> Array:
    """Of columns of one type."""
    return reduce(jnp.logical_and, (a == b for a, b in zip(x.words, y.words)))


def less(x: Vec, y: Vec) -> Array:
    """The first word decides, then the next."""
    out = None
    for a, b in reversed(list(zip(x.words, y.words))):
        if a.dtype == jnp.bool_:
            now = ~a & b
        elif a.dtype == jnp.int64 and (x.type.kind == "text" or x.type.size + y.type.size <= LIMIT):
            now = below_p.bind(*jnp.broadcast_arrays(a, b))
        else:
            now = a < b
        out = now if out is None else now | ((a == b) & out)
    return out


def _comparison(f: Callable[[Vec, Vec], Array]) -> Callable[..., tuple[Array, ...]]:
    def run(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
        same = common([x.type for x in xs], "a comparison of")
        if same is NULL:
            return (jnp.zeros(xs[0].rows, jnp.bool_),)
        x, y = (converted(v, same) for v in xs)
        return (f(x, y),)

    return run


PAIRS = 1 << 22  # cells that are compared with constants at once


def _one_of(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
    """Whether the first is one of the others, which are constants: many compared at once. NULL where one is, unless
    another one is equal."""
    same = common([x.type for x in xs], "a comparison of")
    if same is NULL:
        return literal(BOOL, None, xs[0].rows)
    x, *others = (converted(v, same) for v in xs)
    step = max(1, PAIRS // x.rows)
    found = [_one_of_some(x, others[i : i + step]) for i in range(0, len(others), step)]
    true = chosen(x.valid, _balanced(jnp.logical_or, found))
    null = [o.valid for o in others if o.valid is not None]
    valid = x.valid if not null else true
    return Vec(BOOL, (true,), valid)


def _one_of_some(x: Vec, others: Sequence[Vec]) -> Array:
    each = zip(x.words, *(o.words for o in others))
    same = [w[:, None] == jnp.concatenate([o[:1] for o in row])[None, :] for w, *row in each]
    there = [None if o.valid is None else o.valid[:1] for o in others]
    if any(v is not None for v in there):
        one = jnp.ones(1, jnp.bool_)
        same.append(jnp.concatenate([one if v is None else v for v in there])[None, :])
    return reduce(jnp.logical_and, same).any(axis=1)


def _balanced(f: Callable[[Array, Array], Array], xs: Sequence[Array]) -> Array:
    """f of all, in as few rounds as there are."""
    while len(xs) > 1:
        xs = [f(*xs[i : i + 2]) if i + 1 < len(xs) else xs[i] for i in range(0, len(xs), 2)]
    return xs[0]


def _choice(condition: Array, x: Vec, y: Vec) -> Vec:
    """x where the condition holds, else y; of one type."""
    words = tuple(_where(condition, a, b) for a, b in zip(x.words, y.words))
    if x.valid is None and y.valid is None:
        return Vec(x.type, words)
    ones = jnp.ones_like(condition)
    return Vec(
        x.type, words, _where(condition, ones if x.valid is None else x.valid, ones if y.valid is None else y.valid)
    )


def _where(condition: Array, x: Array, y: Array) -> Array:
    return (condition & x) | (~condition & y) if x.dtype == jnp.bool_ else jnp.where(condition, x, y)


def _case(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
    """Conditions, then as many values; the last condition is true."""
    count = len(xs) // 2
    out = converted(xs[-1], type_)
    for condition, x in reversed(list(zip(xs[: count - 1], xs[count:-1]))):
        out = _choice(chosen(condition.valid, condition.value), converted(x, type_), out)
    return out


def _coalesce(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
    out = converted(xs[-1], type_)
    for x in reversed([converted(x, type_) for x in xs[:-1]]):
        out = x if x.valid is None else _choice(x.valid, x, out)
    return out


def _and(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
    """NULL, unless one is false."""
    true = _balanced(jnp.logical_and, [x.value for x in xs])  # where NULL, values are false
    if all(x.valid is None for x in xs):
        return Vec(BOOL, (true,))
    false = _balanced(jnp.logical_or, [~x.value if x.valid is None else ~x.value & x.valid for x in xs])
    return Vec(BOOL, (true,), true | false)


def _or(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
    """NULL, unless one is true."""
    true = _balanced(jnp.logical_or, [x.value for x in xs])
    if all(x.valid is None for x in xs):
        return Vec(BOOL, (true,))
    return Vec(BOOL, (true,), true | both(*(x.valid for x in xs)))


def _extreme(greatest: bool) -> Callable[..., Vec]:
    def run(xs: Sequence[Vec], type_: Type, value: Any) -> Vec:
        """NULLs are left out, as DuckDB does."""

        def better(x: Vec, y: Vec) -> Vec:
            first = less(y, x) if greatest else less(x, y)
            if y.valid is not None:
                first = first | ~y.valid
            if x.valid is not None:
                first = first & x.valid
            return replace(_choice(first, x, y), valid=either(x.valid, y.valid))

        return reduce(better, [converted(x, type_) for x in xs])

    return run


def _round(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    x = xs[0]
    if type_.kind == "float":
        unit = 10.0 ** int(value)
        return (jnp.sign(x.value) * jnp.floor(jnp.abs(x.value) * unit + 0.5) / unit,)
    out = rescaled(x.value, min(0, int(value) - x.type.scale))
    return (rescaled(out, type_.scale - int(value)) if int(value) < 0 else out,)


def _floor(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    (x,) = xs
    return (jnp.floor(x.value) if x.type.kind == "float" else x.value // 10**x.type.scale,)


def _ceil(xs: Sequence[Vec], type_: Type, value: Any) -> tuple[Array, ...]:
    (x,) = xs
    return (-_floor([replace(x, words=(-x.value,))], type_, value)[0],)


@dataclass(frozen=True)
class Function:
    """`typed(types, value)` and `run(columns, type, value)`, which gives words; of `NULLS`, a column."""

    typed: Callable[[Types, Any], Type]
    run: Callable[..., Any]


FUNCTIONS: dict[str, Function] = {
    "+": Function(_sum_type(1), _add),
    "-": Function(_sum_type(-1), _sub),
    "*": Function(_product_type, _mul),
    "/": Function(quotient_type, _div),
    "//": Function(_whole_type, _whole_quotient),
    "%": Function(_whole_type, _modulo),
    "=": Function(_compared, _comparison(equal)),
    "<>": Function(_compared, _comparison(lambda x, y: ~equal(x, y))),
    "<": Function(_compared, _comparison(less)),
    ">": Function(_compared, _comparison(lambda x, y: less(y, x))),
    "<=": Function(_compared, _comparison(lambda x, y: ~less(y, x))),
    ">=": Function(_compared, _comparison(lambda x, y: ~less(x, y))),
    "in": Function(_compared, _one_of),
    "not": Function(_bools, lambda xs, t, v: (~xs[0].value,)),
    "negative": Function(_negative_type, lambda xs, t, v: (-xs[0].value,)),
    "abs": Function(_magnitude_type, lambda xs, t, v: (jnp.abs(xs[0].value),)),
    "round": Function(_rounded_type, _round),
    "extract": Function(dates.part_type, dates.part),
    "date_trunc": Function(dates.truncated_type, dates.truncated),
    "later": Function(dates.later_type, dates.later),
    "floor": Function(_whole_part_type, _floor),
    "ceil": Function(_whole_part_type, _ceil),
    "sqrt": Function(_float_type, lambda xs, t, v: (jnp.sqrt(floats(xs[0])),)),
    "ln": Function(_float_type, lambda xs, t, v: (jnp.log(floats(xs[0])),)),
    "exp": Function(_float_type, lambda xs, t, v: (jnp.exp(floats(xs[0])),)),
    "cast": Function(lambda types, value: value, lambda xs, t, v: converted(xs[0], t).words),
    "and": Function(_bools, _and),
    "or": Function(_bools, _or),
    "case": Function(_case_type, _case),
    "coalesce": Function(_of_common, _coalesce),
    "greatest": Function(_of_common, _extreme(True)),
    "least": Function(_of_common, _extreme(False)),
    "or zero": Function(lambda types, value: types[0], lambda xs, t, v: Vec(t, xs[0].words)),
    "is null": Function(lambda types, value: BOOL, lambda xs, t, v: Vec(BOOL, (_is_null(xs[0]),))),
}
NULLS = frozenset({"and", "or", "in", "case", "coalesce", "greatest", "least", "is null", "or zero"})
NULL_BY_ZERO = frozenset({"/", "//", "%"})
NEVER_NULL = frozenset({"is null", "or zero"})


def _is_null(x: Vec) -> Array:
    return jnp.zeros(x.rows, jnp.bool_) if x.valid is None else ~x.valid


def nullable(op: str, args: Sequence[bool], divisor_is_known: bool = False) -> bool:
    """Whether a function's result may be NULL."""
    if op in NEVER_NULL:
        return False
    if op in ("coalesce", "greatest", "least"):
        return all(args)
    if op == "case":
        return any(args[len(args) // 2 :])
    return any(args) or (op in NULL_BY_ZERO and not divisor_is_known)


def apply(op: str, xs: Sequence[Vec], type_: Type, value: Any, may_be_null: bool) -> Vec:
    """The function of columns."""
    result = FUNCTIONS[op].run(xs, type_, value)
    if isinstance(result, Vec):
        return result
    valid = _by_nonzero(xs) if op in NULL_BY_ZERO and may_be_null else both(*(x.valid for x in xs))
    out = Vec(type_, tuple(w.astype(dtype(type_)) for w in result), valid)
    # A function of zeros need not be zero.
    return nulled(out, valid) if valid is not None else out
