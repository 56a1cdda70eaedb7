"""Group by: rows in the order of the keys, running sums, and the last row of each group.

Construction. Rows are sorted by (absent, keys); a row is the last of its group if the next one's key differs: one
comparison for equality. Running sums of what is aggregated cost nothing; the last rows of all groups are brought to the
front by opened places of shuffled rows; there, a group's sum is the difference of two neighbours' running sums. What
needs an order inside of a group (min, max, count distinct, median) sorts once more with its column as the last key: the
groups come out in the same order each time, so the results stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from spuvm.sql.columns import Array, Vec, both, chosen, divided, floats, nulled, number
from spuvm.sql.lookups import lookup
from spuvm.sql.ordering import Part, changes, packed, partitioned, parts, rebuilt, shifted, sorted_vecs
from spuvm.sql.plan import Aggregate
from spuvm.sql.relation import Rows
from spuvm.sql.types import LIMIT, Type

ORDERED = frozenset({"min", "max", "median", "quantile_cont"})
SPREADS = {"stddev": (1, True), "stddev_pop": (0, True), "variance": (1, False), "var_pop": (0, False)}


def group(rows: Rows, keys: Sequence[str], aggregates: Sequence[Aggregate]) -> Rows:
    """One row for each combination of keys among the valid rows, in the order of the keys, at the front."""
    if not keys:
        return _all_rows(rows, aggregates)
    plain = [a for a in aggregates if not _needs_order(a)]
    others = [a for a in aggregates if _needs_order(a)]
    passes: dict[tuple[str, bool], list[Aggregate]] = {}
    for a in others:
        passes.setdefault((str(a.column), a.fn == "min"), []).append(a)
    out: dict[str, Vec] = {}
    done: Rows | None = None
    for i, ((column, descending), mine) in enumerate(passes.items() or [(("", False), [])]):
        now = _pass(rows, keys, column, descending, [*mine, *(plain if i == 0 else [])])
        done = done or now
        out.update(now.columns)
    assert done is not None
    return done.with_columns(out)


def _needs_order(a: Aggregate) -> bool:
    return a.fn in ORDERED or a.distinct


# One sort ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sorted:
    """Rows of which those of a group stand together, ordered within by `column`."""

    rows: Rows
    there: Array  # int64
    starts: Array  # bool: the first of its group
    fresh: Array  # bool: the first of its group and value of `column`
    ends: Array  # bool: the last of its group, which is there


def _pass(rows: Rows, keys: Sequence[str], column: str, descending: bool, aggregates: Sequence[Aggregate]) -> Rows:
    names = list(dict.fromkeys([*keys, *(a.column for a in aggregates if a.column)]))
    absent = [] if rows.valid is None else [Part(1 - rows.ones, 1)]
    by = [*absent, *(p for k in keys for p in parts(rows[k]))]
    # Values last, NULLs before them: the last row of a group has the greatest, or the least if descending.
    inner = parts(rows[column], descending, nulls_first=True) if column else []
    extra = [] if rows.valid is None else [rows.valid]
    vecs, flags = sorted_vecs([*by, *inner], rows.vecs(names), extra)
    found = Rows(dict(zip(names, vecs)), flags[0] if flags else None, rows.count)
    return _aggregated(_marked(found, keys, column, descending), keys, aggregates)


def _marked(rows: Rows, keys: Sequence[str], column: str, descending: bool) -> Sorted:
    absent = [] if rows.valid is None else [Part(1 - rows.ones, 1)]
    key = [*absent, *(p for k in keys for p in parts(rows[k]))]
    starts = changes(packed(key)) if key else _only_first(rows.count)
    fresh = starts | changes(packed(parts(rows[column], descending, nulls_first=True))) if column else starts
    ends = jnp.concatenate([starts[1:], jnp.ones(1, jnp.bool_)])
    return Sorted(rows, rows.ones, starts, fresh, ends if rows.valid is None else ends & rows.valid)


def _only_first(count: int) -> Array:
    return jnp.concatenate([jnp.ones(1, jnp.bool_), jnp.zeros(count - 1, jnp.bool_)])


def _aggregated(s: Sorted, keys: Sequence[str], aggregates: Sequence[Aggregate]) -> Rows:
    """Running sums at the last rows of groups, brought to the front; differences there."""
    sums: dict[tuple[Any, ...], Array] = {("rows",): s.there}
    carried: dict[str, Vec] = {k: s.rows[k] for k in keys}
    for a in aggregates:
        RULES[family(a)].collect(a, s, sums, carried)
    running = [jnp.cumsum(x) for x in sums.values()]
    vecs = list(carried.values())
    flat = [x for v in vecs for x in v.arrays]
    out = partitioned(s.ends, [s.ends, *running, *flat])
    totals = {k: x - shifted(x) for k, x in zip(sums, out[1 : 1 + len(sums)])}
    at_end = dict(zip(carried, rebuilt(vecs, out[1 + len(sums) :])))
    groups = Groups(s, totals, at_end, out[0])
    columns = {k: at_end[k] for k in keys}
    for a in aggregates:
        columns[a.field.name] = masked(RULES[family(a)].result(a, groups), a.field.type)
    return Rows(columns, out[0], s.rows.count)


def masked(v: Vec, type_: Type) -> Vec:
    return Vec(type_, nulled(v, v.valid).words, v.valid)


# Aggregates -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Groups:
    """What is known at the end: totals, columns of the last rows, and which rows are groups."""

    sorted: Sorted
    totals: Mapping[tuple[Any, ...], Array]
    last: Mapping[str, Vec]
    valid: Array


@dataclass(frozen=True)
class Rule:
    """`collect(aggregate, sorted, sums, carried)` adds what is summed and carried; `result(aggregate, groups)`."""

    collect: Callable[[Aggregate, Sorted, dict[tuple[Any, ...], Array], dict[str, Vec]], None]
    result: Callable[[Aggregate, Groups], Vec]


def family(a: Aggregate) -> str:
    if a.fn in ("min", "max"):
        return "extreme"
    if a.fn in ("median", "quantile_cont"):
        return "rank"
    return "spread" if a.fn in SPREADS else a.fn


def _counted(a: Aggregate, s: Sorted) -> Array | None:
    """Where a row counts, beyond being there: its value is not NULL, and, if distinct, it is the first of its value."""
    if a.column is None:
        return None
    first = s.fresh if a.distinct else None
    return both(s.rows[a.column].valid, first)


def _collect_count(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    condition = _counted(a, s)
    if condition is not None:
        sums.setdefault(("count", a.column, a.distinct), number(both(condition, s.rows.valid)))


def _count(a: Aggregate, totals: Mapping[tuple[Any, ...], Array]) -> Array:
    return totals.get(("count", a.column, a.distinct), totals[("rows",)])


def _collect_sum(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    _collect_count(a, s, sums, carried)
    assert a.column is not None
    condition = both(s.rows.valid, s.fresh) if a.distinct else s.rows.valid
    sums.setdefault(("sum", a.column, a.distinct), chosen(condition, _summand(s.rows[a.column])))


def _summand(v: Vec) -> Array:
    return number(v.value) if v.type.kind == "bool" else v.value


def _some(a: Aggregate, totals: Mapping[tuple[Any, ...], Array], nullable: bool) -> Array | None:
    """Whether there is a value to aggregate; None if there always is."""
    return _count(a, totals) != 0 if nullable else None


def _sum(a: Aggregate, g: Groups) -> Vec:
    return Vec(a.field.type, (g.totals[("sum", a.column, a.distinct)],), _some(a, g.totals, a.field.nullable))


def _avg(a: Aggregate, g: Groups) -> Vec:
    total, count = g.totals[("sum", a.column, a.distinct)], _count(a, g.totals)
    return mean(a, total, count, g.sorted.rows[str(a.column)].type, g.sorted.rows.count, a.field.nullable)


def mean(a: Aggregate, total: Array, count: Array, type_: Type, rows: int, nullable: bool) -> Vec:
    """total / count; of exact numbers a decimal, rounded half away from zero."""
    valid = count != 0 if nullable else None
    if type_.kind == "float":
        return Vec(a.field.type, (total / count.astype(jnp.float64),), valid)
    digits = a.field.type.scale - type_.scale + 1
    more = divided(total, count, min(LIMIT, type_.size * rows), rows, digits)
    away = jnp.where(more < 0, -5, 5)
    rounded = more + away
    return Vec(a.field.type, (divided(rounded, jnp.full_like(rounded, 10), a.field.type.size * 10 + 5, 10, 0),), valid)


def _collect_spread(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    _collect_count(a, s, sums, carried)
    assert a.column is not None
    v = s.rows[a.column]
    x = floats(v)
    sums.setdefault(("fsum", a.column), chosen(s.rows.valid, x))
    sums.setdefault(("squares", a.column), chosen(s.rows.valid, x * x))


def _spread(a: Aggregate, g: Groups) -> Vec:
    count = _count(a, g.totals)
    return spread(a, g.totals[("fsum", a.column)], g.totals[("squares", a.column)], count)


def spread(a: Aggregate, total: Array, squares: Array, count: Array) -> Vec:
    """sqrt((sum of squares - n mean^2) / (n - 1)), and its relatives, in fixed point."""
    less, root = SPREADS[a.fn]
    n = count.astype(jnp.float64)
    mean_ = total / n
    centred = jnp.maximum(squares - mean_ * total, 0.0)
    variance = centred / (n - less) if less else centred / n
    return Vec(a.field.type, (jnp.sqrt(variance) if root else variance,), count > less)


def _collect_extreme(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    assert a.column is not None
    carried[f"{a.fn} {a.column}"] = s.rows[a.column]


def _extreme(a: Aggregate, g: Groups) -> Vec:
    return g.last[f"{a.fn} {a.column}"]


def _collect_any(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    assert a.column is not None
    carried[f"any {a.column}"] = s.rows[a.column]


def _any(a: Aggregate, g: Groups) -> Vec:
    return g.last[f"any {a.column}"]


def _collect_bool(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    _collect_count(a, s, sums, carried)
    assert a.column is not None
    v = s.rows[a.column]
    sums.setdefault(("sum", a.column, False), number(both(s.rows.valid, v.value)))


def _bool(a: Aggregate, g: Groups) -> Vec:
    total, count = g.totals[("sum", a.column, False)], _count(a, g.totals)
    value = total != 0 if a.fn == "bool_or" else total == count
    return Vec(a.field.type, (value,), _some(a, g.totals, a.field.nullable))


def _count_if(a: Aggregate, g: Groups) -> Vec:
    """How many are true; NULL where all are NULL."""
    total = g.totals[("sum", a.column, False)]
    return Vec(a.field.type, (total,), _some(a, g.totals, a.field.nullable))


def _collect_rank(a: Aggregate, s: Sorted, sums: dict[tuple[Any, ...], Array], carried: dict[str, Vec]) -> None:
    _collect_count(a, s, sums, carried)
    carried["last row"] = Vec(Type("int", 0, s.rows.count), (jnp.arange(s.rows.count),))


def _rank(a: Aggregate, g: Groups) -> Vec:
    """The value at rank q (n - 1) of the n that are not NULL, between two ranks in proportion."""
    assert a.column is not None
    rows, v = g.sorted.rows.count, g.sorted.rows[a.column]
    count = _count(a, g.totals)
    start = g.last["last row"].value - count + 1
    low, high, weight = _ranks(count, a)
    values = Vec(v.type, v.words)
    at = [_taken(jnp.clip(start + r, 0, rows - 1), values) for r in (low, high)]
    valid = _some(a, g.totals, a.field.nullable)
    if a.field.type.kind == "float":
        x, y = (floats(Vec(v.type, (z,))) for z in at)
        return Vec(a.field.type, (x + (y - x) * weight,), valid)
    scale = 10 ** (a.field.type.scale - v.type.scale)
    assert a.fn == "median"
    return Vec(a.field.type, ((at[0] + at[1]) * (scale // 2),), valid)


def _ranks(count: Array, a: Aggregate) -> tuple[Array, Array, Array]:
    if a.fn == "median":
        return (count - 1) // 2, count // 2, jnp.full(count.shape, 0.5)
    at = (count - 1).astype(jnp.float64) * float(a.value)
    low = jnp.floor(at)
    return low.astype(jnp.int64), jnp.ceil(at).astype(jnp.int64), at - low


def _taken(index: Array, v: Vec) -> Array:
    """The sorted values at secret rows: found among all rows by their number."""
    rows = int(index.shape[0])
    type_ = Type("int", 0, rows)
    probe = Rows({"i": Vec(type_, (index,))}, None, rows)
    table = Rows({"j": Vec(type_, (jnp.arange(v.rows),)), "v": v}, None, v.rows)
    return lookup(probe, table, [("i", "j")], ["v"]).columns[0].value


RULES: dict[str, Rule] = {
    "count": Rule(_collect_count, lambda a, g: Vec(a.field.type, (_count(a, g.totals),))),
    "sum": Rule(_collect_sum, _sum),
    "avg": Rule(_collect_sum, _avg),
    "spread": Rule(_collect_spread, _spread),
    "extreme": Rule(_collect_extreme, _extreme),
    "any": Rule(_collect_any, _any),
    "bool_or": Rule(_collect_bool, _bool),
    "bool_and": Rule(_collect_bool, _bool),
    "count_if": Rule(_collect_bool, _count_if),
    "rank": Rule(_collect_rank, _rank),
}


# All rows as one group ------------------------------------------------------------------------------------------


def _all_rows(rows: Rows, aggregates: Sequence[Aggregate]) -> Rows:
    """One row, which is always there."""
    out: dict[str, Vec] = {}
    for a in aggregates:
        if _needs_order(a):
            out[a.field.name] = _ordered_total(rows, a)
        else:
            out[a.field.name] = _total(rows, a)
    return Rows(out, None, 1)


def _total(rows: Rows, a: Aggregate) -> Vec:
    s = Sorted(rows, rows.ones, rows.there, rows.there, rows.there)
    sums: dict[tuple[Any, ...], Array] = {("rows",): s.there}
    RULES[family(a)].collect(a, s, sums, {})
    totals = {k: jnp.sum(x, keepdims=True) for k, x in sums.items()}
    return masked(RULES[family(a)].result(a, Groups(s, totals, {}, jnp.ones(1, jnp.bool_))), a.field.type)


def _ordered_total(rows: Rows, a: Aggregate) -> Vec:
    """As a group of a constant key; nothing there gives NULL, or a count of 0."""
    assert a.column is not None
    key = Vec(Type("int", 0, 1), (jnp.zeros(rows.count, jnp.int64),))
    out = _pass(rows.with_columns({"": key}), [""], a.column, a.fn == "min", [a]).first(1)
    v = out[a.field.name]
    if a.fn == "count":
        return Vec(v.type, (chosen(out.valid, v.value),))
    return nulled(v, both(v.valid, out.valid))
