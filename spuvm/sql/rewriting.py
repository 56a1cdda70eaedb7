"""What SQL says in several ways, said in one: a rewrite of the parsed query for each kind of node in `REWRITES`.

Planned are the words that are left. What the owners' policies and templates compare is the query as it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.groupings import grouping_sets, named

LEAST = (exp.GT, exp.GTE)  # more than all is more than the greatest; more than any, than the least


def rewritten(tree: Any) -> Any:
    """The query in the words that `binding` takes; `tree` stays as it is.

    Raises:
        InputError: for what has no such words; it says what to write instead.
    """
    root = exp.Subquery(this=tree.copy())
    for node in reversed(list(root.walk(bfs=True))):  # the inner ones first
        rewrite = REWRITES.get(type(node))
        if rewrite is not None and (new := rewrite(node)) is not node:
            node.replace(new)
    return root.this


# Conditions -----------------------------------------------------------------------------------------------------


def _tuple_in(node: exp.In) -> Any:
    """(a, b) IN ..., where NULL and false are the same: EXISTS, or equalities."""
    if not isinstance(node.this, exp.Tuple) or not (_only_filters(node) or node.args.get("query")):
        return node
    if not _only_filters(node):
        raise InputError(f"`{node.sql('duckdb')[:80]}`: where NULL differs from false, write EXISTS or NOT EXISTS.")
    mine = node.this.expressions
    if (inner := node.args.get("query")) is None:
        if not all(isinstance(x, exp.Tuple) and len(x.expressions) == len(mine) for x in node.expressions):
            return node
        return exp.paren(exp.or_(*(_alike(mine, x.expressions) for x in node.expressions)))
    names = [f"column {i}" for i in range(len(mine))]
    alias = exp.TableAlias(this=exp.to_identifier("in it"), columns=[exp.to_identifier(n) for n in names])
    theirs = [exp.column(n, "in it", quoted=True) for n in names]
    source = exp.Subquery(this=inner.unnest().copy(), alias=alias)
    return exp.Exists(this=exp.select("1").from_(source).where(_equal(theirs, mine)))


def _equal(xs: Sequence[Any], ys: Sequence[Any]) -> Any:
    return exp.and_(*(exp.EQ(this=x.copy(), expression=y.copy()) for x, y in zip(xs, ys)))


def _alike(xs: Sequence[Any], ys: Sequence[Any]) -> Any:
    """Values side by side, not of a query: NULL is like NULL."""
    kinds = [exp.EQ if isinstance(y, exp.Literal) else exp.NullSafeEQ for y in ys]
    return exp.and_(*(kind(this=x.copy(), expression=y.copy()) for kind, x, y in zip(kinds, xs, ys)))


def _only_filters(node: Any) -> bool:
    """Whether a condition stands where it keeps rows, below nothing but AND and OR."""
    around = node.parent
    while isinstance(around, exp.And | exp.Or | exp.Paren):
        around = around.parent
    return isinstance(around, exp.Where | exp.Having | exp.Qualify)


def _quantified(node: Any) -> Any:
    """x > ALL (SELECT ...), x = ANY (SELECT ...): by the least or greatest, and what NULLs make of it."""
    side = node.expression
    if not isinstance(side, exp.All | exp.Any) or not isinstance(side.this, exp.Select | exp.Subquery):
        return node
    x, every, select = node.this, isinstance(side, exp.All), side.this.unnest()
    if isinstance(node, exp.EQ if not every else exp.NEQ):
        found = exp.In(this=x.copy(), query=exp.Subquery(this=select.copy()))
        return exp.Not(this=found) if every else found
    if not isinstance(node, exp.GT | exp.GTE | exp.LT | exp.LTE):
        raise InputError(f"`{node.sql('duckdb')[:80]}`: write IN, NOT IN, or compare with a least or greatest value.")
    extreme = exp.Max if isinstance(node, LEAST) == every else exp.Min
    compared = type(node)(this=x.copy(), expression=_over(select, lambda v: extreme(this=v)))
    missing = _over(select, lambda v: exp.CountIf(this=exp.Is(this=v, expression=exp.null())))
    unknown = exp.Case(
        ifs=[exp.If(this=exp.GT(this=missing, expression=exp.Literal.number(0)), true=exp.null())],
        default=exp.true() if every else exp.false(),
    )
    rows = _over(select, lambda v: exp.Count(this=exp.Star()))
    zero = exp.Literal.number(0)
    if every:
        return exp.paren(exp.or_(exp.EQ(this=rows, expression=zero), exp.and_(compared, unknown)))
    return exp.paren(exp.and_(exp.GT(this=rows, expression=zero), exp.or_(compared, unknown)))


def _over(select: Any, call: Callable[[Any], Any]) -> Any:
    """One value: an aggregate of a query's only column."""
    wrapped = ("group", "distinct", "limit", "offset", "having", "qualify")
    if isinstance(select, exp.Select) and not any(select.args.get(n) for n in wrapped) and len(select.expressions) == 1:
        value = select.expressions[0].unalias()
        if not value.find(exp.AggFunc, exp.Window):
            inner = select.copy()
            inner.set("expressions", [call(value.copy())])
            return exp.Subquery(this=inner)
    alias = exp.TableAlias(this=exp.to_identifier("all of it"), columns=[exp.to_identifier("value")])
    source = exp.Subquery(this=select.copy(), alias=alias)
    return exp.Subquery(this=exp.select(call(exp.column("value", "all of it", quoted=True))).from_(source))


# One SELECT -----------------------------------------------------------------------------------------------------


def _select(node: exp.Select) -> Any:
    for rewrite in (_named_windows, _half_joins, _distinct_on, grouping_sets):
        new = rewrite(node)
        if new is not node:
            return new
    return node


def _named_windows(node: exp.Select) -> exp.Select:
    """OVER w with what WINDOW w says."""
    given = {w.name.lower(): w for w in node.args.get("windows") or ()}
    for use in list(node.find_all(exp.Window)):
        if use.find_ancestor(exp.Select) is node:
            _fill(use, given)
    node.set("windows", None)
    return node


def _fill(use: exp.Window, given: dict[str, Any]) -> None:
    while (name := use.args.get("alias")) is not None:
        if (said := given.get(name.name.lower())) is None:
            raise InputError(f"there is no window `{name.name}`: name it in WINDOW {name.name} AS (...).")
        use.set("alias", None)
        for part in ("partition_by", "order", "spec", "alias"):
            if (value := said.args.get(part)) and not use.args.get(part):
                use.set(part, [v.copy() for v in value] if isinstance(value, list) else value.copy())
        given = {n: w for n, w in given.items() if w is not said}


def _half_joins(node: exp.Select) -> exp.Select:
    """SEMI and ANTI JOIN as [NOT] EXISTS."""
    for join in list(node.args.get("joins") or ()):
        kind = " ".join(filter(None, (join.side, join.kind))).upper().removeprefix("LEFT ")
        if kind not in ("SEMI", "ANTI"):
            continue
        on, shown = join.args.get("on"), join.sql("duckdb").strip()[:80]
        if on is None:
            raise InputError(f"`{shown}`: write its condition, ON ....")
        behind = node.args["joins"][node.args["joins"].index(join) :]
        if any(str(j.side).upper() in ("RIGHT", "FULL") for j in behind):  # WHERE would drop rows that these add
            raise InputError(f"`{shown}` before a RIGHT or FULL JOIN: write it in a subquery, (SELECT ...).")
        found: Any = exp.Exists(this=exp.select("1").from_(join.this.copy()).where(on.copy()))
        node.where(exp.Not(this=found) if kind == "ANTI" else found, copy=False)
        join.pop()
    return node


def _distinct_on(node: exp.Select) -> exp.Select:
    """The first row of each combination, in the query's order."""
    clause = node.args.get("distinct")
    if clause is None or (on := clause.args.get("on")) is None:
        return node
    if node.args.get("qualify") is not None:
        raise InputError("DISTINCT ON beside QUALIFY: use row_number() in a subquery.")
    order = node.args.get("order")
    by = None if order is None else order.copy()
    for key in [] if by is None else by.expressions:
        key.set("this", named(key.this, node, True).copy())
    each = [named(x, node, True).copy() for x in on.expressions]
    first = exp.Window(this=exp.RowNumber(), partition_by=each, order=by)
    node.set("distinct", None)
    node.set("qualify", exp.Qualify(this=exp.EQ(this=first, expression=exp.Literal.number(1))))
    return node


# Functions ------------------------------------------------------------------------------------------------------


def _moved_with_default(node: exp.Window) -> Any:
    """lag(x, n, default): the default where there is no such row, whatever x is."""
    call = node.this
    if not isinstance(call, exp.Lag | exp.Lead) or (default := call.args.get("default")) is None:
        return node
    plain, there = node.copy(), node.copy()
    plain.this.set("default", None)
    there.this.set("default", None)
    there.this.set("this", exp.Literal.number(1))
    absent = exp.Is(this=there, expression=exp.null())
    return exp.Case(ifs=[exp.If(this=absent, true=default.copy())], default=plain)


COLLATIONS: dict[str, Callable[[Any], Any]] = {
    "NOCASE": lambda x: exp.Lower(this=x),
    "NOACCENT": lambda x: exp.func("strip_accents", x),
    **dict.fromkeys(("BINARY", "C", "POSIX"), lambda x: x),
}
COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


def _collated(node: exp.Collate) -> Any:
    """x COLLATE NOCASE where it is ordered or compared: what DuckDB orders and compares then."""
    names = node.expression.sql("duckdb").replace('"', "").upper().split(".")
    around, value = node.parent, node.this.copy()
    if not set(names) <= COLLATIONS.keys():
        raise InputError(f"`{node.sql('duckdb')}`: there are the collations {', '.join(COLLATIONS)}.")
    while isinstance(around, exp.Paren):
        around = around.parent
    if not {"NOCASE", "NOACCENT"} & {*names}:
        return value
    if not isinstance(around, (exp.Ordered, *COMPARISONS)):
        raise InputError(f"`{node.sql('duckdb')}`: here, write what is meant, lower(x) or strip_accents(x).")
    if isinstance(around, COMPARISONS):
        side = "expression" if around.this.find(exp.Collate) is not None else "this"
        other = around.args[side]
        if other.find(exp.Collate) is None:
            around.set(side, _collation(names, other.copy()))
    return _collation(names, value)


def _collation(names: Sequence[str], x: Any) -> Any:
    for name in names:
        x = COLLATIONS[name](x)
    return x


REWRITES: dict[type[Any], Callable[[Any], Any]] = {
    exp.Collate: _collated,
    exp.In: _tuple_in,
    exp.GT: _quantified,
    exp.GTE: _quantified,
    exp.LT: _quantified,
    exp.LTE: _quantified,
    exp.EQ: _quantified,
    exp.NEQ: _quantified,
    exp.Window: _moved_with_default,
    exp.AnyValue: lambda node: exp.Min(this=node.this.copy()),
    exp.IgnoreNulls: lambda node: node.this.copy() if isinstance(node.this, exp.Min) else node,
    exp.Select: _select,
}
