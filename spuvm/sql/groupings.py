"""ROLLUP, CUBE and GROUPING SETS as what they stand for: a query for each set of keys, their rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.clauses import key_of

SEVERAL = (exp.Rollup, exp.Cube, exp.GroupingSets)
MOST = 64  # sets of keys, each of which is a query
OF_ROWS = (exp.AggFunc, exp.Filter, exp.WithinGroup, exp.Select)  # in which keys are what the rows have


def named(key: Any, select: exp.Select, first: bool = False) -> Any:
    """What a key stands for that is a number or another name of what is selected; `first`: also if a column has it."""
    items = select.expressions
    if isinstance(key, exp.Literal) and not key.is_string and key.name in map(str, range(1, len(items) + 1)):
        return items[int(key.name) - 1].unalias()
    if isinstance(key, exp.Column) and not key.table:
        for item in items:
            own = {c.name.lower() for c in item.find_all(exp.Column)}
            if (
                isinstance(item, exp.Alias)
                and item.alias.lower() == key.name.lower()
                and (first or key.name.lower() not in own)
            ):
                return item.this
    return key


def grouping_sets(node: exp.Select) -> Any:
    """ROLLUP, CUBE and GROUPING SETS: a query for each set, their rows together."""
    clause = node.args.get("group")
    if clause is None or not any(isinstance(e, SEVERAL) for e in clause.expressions):
        return node
    windows = any(w.find_ancestor(exp.Select) is node for w in node.find_all(exp.Window))
    if windows or node.args.get("qualify") is not None:
        raise InputError("ROLLUP, CUBE or GROUPING SETS beside windows: compute the windows of a subquery that groups.")
    sets: list[list[Any]] = [[]]
    for e in clause.expressions:
        sets = [[*s, *more] for s in sets for more in _sets(e)]
        if len(sets) > MOST:
            raise InputError(f"the GROUP BY has more than {MOST} sets of keys: a CUBE of n keys has 2^n. Name fewer.")
    if any(isinstance(k, exp.Literal) for s in sets for k in s):
        raise InputError("a number in ROLLUP, CUBE or GROUPING SETS is no column: write its name.")
    sets = [[named(k, node) for k in s] for s in sets]
    known = {key_of(k): k for s in sets for k in s}
    parts = [_of_set(node, {key_of(k): k for k in s}, known) for s in sets]
    out: Any = parts[0]
    distinct = bool(node.args.get("distinct"))
    for part in parts[1:]:
        out = exp.Union(this=out, expression=part, distinct=distinct)
    for name in ("with_", "with", "limit", "offset"):
        out.set(name, node.args.get(name))
    if (order := node.args.get("order")) is not None:
        out.set("order", exp.Order(expressions=[_place(o, node) for o in order.expressions]))
    return out


def _sets(e: Any) -> list[list[Any]]:
    if isinstance(e, exp.GroupingSets):
        return [s for inner in e.expressions for s in _sets(inner)]
    if isinstance(e, exp.Rollup):
        keys = [_members(x) for x in e.expressions]
        return [[k for part in keys[:n] for k in part] for n in range(len(keys), -1, -1)]
    if isinstance(e, exp.Cube):
        keys = [_members(x) for x in e.expressions]
        if 1 << len(keys) > MOST:
            raise InputError(
                f"a CUBE of {len(keys)} keys has 2^{len(keys)} sets of them, of {MOST} at most: name fewer."
            )
        counts = range(len(keys), -1, -1)
        return [[k for part in some for k in part] for n in counts for some in combinations(keys, n)]
    return [_members(e)]


def _members(e: Any) -> list[Any]:
    return list(e.expressions) if isinstance(e, exp.Tuple) else [e.unnest()]


def _of_set(node: exp.Select, mine: dict[str, Any], known: dict[str, Any]) -> exp.Select:
    """The query grouped by some of the keys; the others are NULL."""
    out = node.copy()
    for name in ("with_", "with", "order", "limit", "offset"):
        out.set(name, None)
    out.set("group", exp.Group(expressions=[k.copy() for k in mine.values()]) if mine else None)
    for item in out.expressions:
        if not isinstance(item, exp.Alias):
            item.replace(exp.alias_(item.copy(), item.alias_or_name or item.sql("duckdb"), quoted=True))
    having = out.args.get("having")
    for top in [*out.expressions, *([having] if having is not None else [])]:
        for at in list(top.walk(prune=lambda n: isinstance(n, OF_ROWS) or key_of(n) in known)):
            if isinstance(at, exp.Grouping):
                keys = [key_of(named(k, node)) for k in at.expressions]
                at.replace(exp.Literal.number(_grouping(at, keys, mine, known)))
            elif at is not top and key_of(at) in known and key_of(at) not in mine:
                at.replace(exp.null())
    if not mine and having is None:  # one group, whatever is selected
        some = exp.GTE(this=exp.Count(this=exp.Star()), expression=exp.Literal.number(0))
        out.set("having", exp.Having(this=some))
    return out


def _grouping(call: Any, keys: Sequence[str], mine: Mapping[str, Any], known: Mapping[str, Any]) -> int:
    """A bit for each key, the first one's highest: 1 if the set does not have it."""
    if not keys or any(k not in known for k in keys):
        raise InputError(f"`{call.sql('duckdb')}`: it takes keys, written as in GROUP BY: {', '.join(known)}.")
    return int("".join(str(int(k not in mine)) for k in keys), 2)


def _place(ordered: exp.Ordered, node: exp.Select) -> exp.Ordered:
    """A key of the order by its number in what is selected."""
    out = ordered.copy()
    for i, item in enumerate(node.expressions, 1):
        alias = item.alias_or_name.lower() if isinstance(item, exp.Alias | exp.Column) else ""
        same = isinstance(out.this, exp.Column) and not out.this.table and alias == out.this.name.lower()
        if same or key_of(item.unalias()) == key_of(out.this):
            out.set("this", exp.Literal.number(i))
            return out
    return out
