"""Subqueries as joins: EXISTS and IN as marks, scalar subqueries as lookups by what ties them to the query around.

A condition of the subquery that names a column of the query around must be an equality with a column of its own: the
subquery is then computed once for all values (grouped by them if it aggregates), and looked up. Of EXISTS, one further
comparison is possible: some row has a value other than, below or above x if the least or greatest has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.clauses import OF_MATCHING, OF_PARENTHESES, check_clauses, number_of, whole_call
from spuvm.sql.expressions import AGGREGATES, words
from spuvm.sql.literals import VARYING
from spuvm.sql.plan import Aggregate, Expr, Field, Filter, Group, Lookup, Node, Project
from spuvm.sql.scope import column, fields_of
from spuvm.sql.types import BOOL

TRUE = Expr("lit", (), BOOL, False, True, "true")
OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "<>": "<>", "=": "="}


@dataclass(frozen=True, eq=False)
class Pending:
    """A lookup that is still to be made: `pairs` of expressions of the query around and columns of `table`."""

    kind: str
    table: Node
    pairs: tuple[tuple[Expr, str], ...]
    mark: str = ""
    null_aware: bool = False

    @property
    def gives(self) -> set[str]:
        return {self.mark} if self.kind == "mark" else set(self.table_names)

    @property
    def table_names(self) -> tuple[str, ...]:
        return tuple(fields_of(self.table))


class Subqueries:
    """What a SELECT does with the queries in its conditions."""

    def inner(self, node: Any) -> Any:
        me: Any = self
        while isinstance(node, exp.Subquery | exp.Paren):
            check_clauses(node, OF_PARENTHESES)
            node = node.this
        if isinstance(node, exp.Select) and not node.args.get("with_") and not node.args.get("with"):
            return type(me)(me.session, node, me.scope)
        return me.session.query(me.session, node)

    def exists(self, node: Any) -> Expr:
        me: Any = self
        inner = self.inner(node)
        mark = me.bases.names("exists")
        if not hasattr(inner, "join"):
            pending = Pending("mark", inner.node, (), mark)
            me.pending.append(pending)
            return column(mark, BOOL, False)
        inner.join()
        pairs, rest = inner.tied()
        if inner.aggregated() or inner.ast.args.get("group"):
            raise InputError("EXISTS of a query that aggregates: write IN, or compare with a scalar subquery.")
        for name in ("having", "qualify", "offset"):
            if inner.ast.args.get(name) is not None or (name == "offset" and number_of(inner.ast, "limit") == 0):
                raise InputError("EXISTS of a query with HAVING, QUALIFY, OFFSET or LIMIT 0: leave it out.")
        if not rest:
            me.pending.append(Pending("mark", inner.node, tuple((o, i.value) for o, i in pairs), mark))
            return column(mark, BOOL, False)
        if len(rest) > 1:
            raise InputError("EXISTS with several comparisons, besides equalities, with the query around: use one.")
        return self._exists_beyond(inner, pairs, rest[0])

    def _exists_beyond(self, inner: Any, pairs: Sequence[tuple[Expr, Expr]], test: tuple[Expr, str, Expr]) -> Expr:
        """EXISTS of rows with `mine op theirs`: by the least or the greatest of mine for each key."""
        me: Any = self
        outer, op, mine = test
        ends = {"<": ["min"], "<=": ["min"], ">": ["max"], ">=": ["max"], "<>": ["min", "max"]}[op]
        calls = [Aggregate(Field(me.bases.names(fn), mine.type, True, mine.origin, fn), fn, mine.value) for fn in ends]
        keys = tuple(i.value for _, i in pairs)
        group = Group((), inner.node.bound, (frozenset(keys),), inner.node, keys, tuple(calls))
        me.pending.append(Pending("left", group, tuple((o, i.value) for o, i in pairs)))
        tests = []
        for c in calls:
            found = column(c.field.name, mine.type, True, mine.origin)
            tests.append(
                Expr(op, (words(found), words(me.bases.push(outer))), BOOL, True, origin=mine.origin | outer.origin)
            )
        either = tests[0] if len(tests) == 1 else Expr("or", tuple(tests), BOOL, True)
        return Expr("coalesce", (either, Expr("lit", (), BOOL, False, False, "false")), BOOL, False)

    def in_query(self, node: exp.In) -> Expr:
        me: Any = self
        x = me.binder.bind(node.this)
        out, pairs = self._value(node.args["query"])
        if len(out.columns) != 1:
            raise InputError(f"IN (SELECT ...) of {len(out.columns)} columns: it must give one.")
        if pairs and of_nothing(node.args["query"].unnest()) is not None:
            raise InputError(
                "IN of a subquery that names columns of the query around and aggregates: compare, x = (SELECT ...)."
            )
        y = out.columns[0][1]
        x, y = _comparable(me, x, y)
        if pairs and (x.nullable or y.nullable) and isinstance(node.parent, exp.Not):
            raise InputError(
                "NOT IN of a subquery that names columns of the query around, with NULLs: write NOT EXISTS."
            )
        mark = me.bases.names("in")
        null_aware = not pairs and (x.nullable or y.nullable)
        table = out.node
        if y.op != "col":
            table, y = _projected(me, table, y)
        me.pending.append(Pending("mark", table, ((x, y.value), *((o, i.value) for o, i in pairs)), mark, null_aware))
        return column(mark, BOOL, null_aware)

    def _value(self, node: Any) -> tuple[Any, list[tuple[Expr, Expr]]]:
        """A subquery, and what ties it to the query around."""
        inner = self.inner(node)
        if not hasattr(inner, "join"):
            return inner, []
        inner.join()
        pairs, rest = inner.tied()
        if rest:
            raise InputError(
                "a subquery is tied to the query around by another comparison than `=`: use EXISTS, or a join."
            )
        if pairs and (any(inner.ast.args.get(n) for n in OF_MATCHING) or inner.ast.find(exp.Window)):
            raise InputError(
                "a subquery is tied to the query around: LIMIT, OFFSET, DISTINCT and windows would be of all its rows, "
                "not of those that match. Aggregate, or use a join."
            )
        inner.extra_keys = [i for _, i in pairs]
        return inner.selected(), pairs

    def scalar_query(self, node: exp.Subquery) -> Expr:
        me: Any = self
        out, pairs = self._value(node)
        if len(out.columns) != 1:
            raise InputError(f"a subquery of {len(out.columns)} columns where one value is needed.")
        value = out.columns[0][1]
        keys = {i.value for _, i in pairs}
        if not pairs and out.node.bound != 1:
            raise InputError(
                "a subquery that may give several rows where one value is needed: aggregate, or add LIMIT 1."
            )
        if pairs and not any(k <= keys for k in out.node.unique):
            raise InputError(
                "a subquery may give several rows for one of the query around: aggregate, or say which columns are "
                "a `key` "
                "of the table."
            )
        name, seen = me.bases.names("value"), me.bases.names("seen")
        unique = out.node.unique if pairs else ()
        nothing = self._of_nothing(node) if pairs else None
        items = {name: value} | ({seen: TRUE} if nothing is not None and value.nullable else {})
        table = Project((), out.node.bound, unique, out.node, items, True)
        me.pending.append(Pending("left", table, tuple((o, i.value) for o, i in pairs)))
        found = column(name, value.type, True, value.origin)
        return found if nothing is None else self._or(nothing, found, seen, value.nullable, node)

    def _or(self, nothing: Expr, found: Expr, seen: str, nullable: bool, node: Any) -> Expr:
        """What was found, or a constant where there is no row that `seen` is of."""
        me: Any = self
        if not nullable:
            either: Expr = me.binder.call("coalesce", [found, nothing], node)
            return either
        gone = Expr("is null", (column(seen, BOOL, True),), BOOL, False)
        chosen: Expr = me.binder.call("case", [gone, TRUE, nothing, found], node)
        return chosen

    def _of_nothing(self, node: Any) -> Expr | None:
        """The value of a query that aggregates, where it has no rows; None if that is NULL."""
        me: Any = self
        said = of_nothing(node.unnest())
        if said is None:
            return None
        if said.find(*VARYING):
            raise InputError(
                f"`{node.sql('duckdb')[:80]}` is tied to the query around and computes with more than its aggregates: "
                "use a join."
            )
        found: Expr = me.binder.constant(said)
        return None if found.value is None else found

    # Ties -----------------------------------------------------------------------------------------------------------

    def outside(self, expr: Expr) -> bool:
        """Whether a column belongs to the query around."""
        me: Any = self
        if expr.args or expr.op != "col":
            return any(self.outside(a) for a in expr.args)
        ids = {r.base.id for r in me.scope.relations if r.base is not None}
        if expr.sources:
            return not expr.sources & ids and expr.value not in self._mine()
        return expr.value not in self._mine()

    def _mine(self) -> set[str]:
        me: Any = self
        mine = {c.value for r in me.scope.relations for cs in r.columns.values() for c in cs.values()}
        for r in me.scope.relations:
            mine |= r.names
        return mine.union(*(p.gives for p in me.pending))

    def reads_outside(self, expr: Expr) -> bool:
        return self.outside(expr)

    def correlated_pairs(self) -> bool:
        return bool(self.correlated)  # type: ignore[attr-defined]

    def tied(self) -> tuple[list[tuple[Expr, Expr]], list[tuple[Expr, str, Expr]]]:
        """Equalities (of the query around, mine), and other comparisons (of the query around, op, mine): mine op
        theirs."""
        me: Any = self
        pairs, rest = [], []
        for condition in me.correlated:
            if condition.op not in OPPOSITE:
                raise InputError(
                    f"{condition} ties a subquery to the query around: it must be a comparison of a column of each."
                )
            x, y = condition.args
            op = condition.op
            if self.outside(x) == self.outside(y):
                raise InputError(
                    f"{condition} ties a subquery to the query around: it must be a comparison of a column of each."
                )
            outer, mine = (x, y) if self.outside(x) else (y, x)
            if self.outside(y):
                pass  # mine op theirs already
            else:
                op = OPPOSITE[op]
            if condition.op == "=":
                outer, mine = _comparable(me, outer, mine)
                pairs.append((outer, me.extended(mine, "tie")))
            else:
                rest.append((outer, op, me.extended(mine, "tie")))
        me.correlated = []
        return pairs, rest

    # Attaching ------------------------------------------------------------------------------------------------------

    def attach_early(self, condition: Expr, pending: Sequence[Pending]) -> bool:
        """If condition and subqueries read one relation only: attached to it before anything is joined."""
        me: Any = self
        given = set().union(*(p.gives for p in pending))
        needed = [e for p in pending for e, _ in p.pairs]
        homes = {id(r): r for e in needed for r in me.joiner._home(me.scope.relations, e)}
        homes |= {id(r): r for r in me.joiner._home(me.scope.relations, condition)}
        if len(homes) != 1:
            return False
        (relation,) = homes.values()
        assert given
        for p in pending:
            pairs = tuple((me.joiner.column(relation, e), i) for e, i in p.pairs)
            relation.node = attached(relation.node, p, pairs)
        node = relation.node
        relation.node = Filter((), node.bound, node.unique, node, me.bases.push(condition))
        return True

    def apply(self, pending: Sequence[Pending]) -> None:
        """Attached to all that is joined so far."""
        me: Any = self
        for p in pending:
            pairs = tuple((me.extended(e, "tie").value, i) for e, i in p.pairs)
            me.node = attached(me.node, p, pairs)


def attached(node: Node, p: Pending, pairs: tuple[tuple[str, str], ...]) -> Node:
    return Lookup((), node.bound, node.unique, node, p.table, pairs, p.kind, p.mark, p.null_aware)


def of_nothing(select: exp.Select) -> Any | None:
    """What a query that aggregates all its rows gives of none, written out: counts are 0, all else is NULL. None if it
    gives no row, then."""
    value: Any = exp.paren(select.expressions[0].unalias().copy())
    if (having := select.args.get("having")) is not None:
        value = exp.Case(ifs=[exp.If(this=having.this.copy(), true=value)])
    calls = list(value.find_all(*AGGREGATES))
    if select.args.get("group") is not None or not calls:
        return None
    for call in calls:
        whole_call(call).replace(exp.Literal.number(0) if isinstance(call, exp.Count) else exp.null())
    return value


def _comparable(me: Any, x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """Text by different codes as text."""
    if x.type.kind == "text" and y.type.kind == "text":
        x, y = me.bases.push(x), me.bases.push(y)
        if x.type.dictionary != y.type.dictionary:
            return words(x), words(y)
    return x, y


def _projected(me: Any, table: Node, y: Expr) -> tuple[Node, Expr]:
    name = me.bases.names("value")
    return Project((), table.bound, table.unique, table, {name: me.bases.push(y)}, True), column(
        name, y.type, y.nullable
    )
