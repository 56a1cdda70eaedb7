"""A parsed query as a plan: FROM, WHERE, GROUP BY, HAVING, windows, SELECT, DISTINCT, ORDER BY, LIMIT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql import aggregates, over, subqueries
from spuvm.sql.clauses import (
    OF_CTE,
    OF_PARENTHESES,
    OF_SELECT,
    OF_SETS,
    OF_TABLE,
    check_clauses,
    key_of,
    left_out,
    names_of,
    number_of,
)
from spuvm.sql.expressions import Binder, words
from spuvm.sql.functions import common
from spuvm.sql.joins import Joiner, outer
from spuvm.sql.plan import Aggregate, Constants, Expr, Field, Filter, Group, Lookup, Node, Order, Project, Sort, Union
from spuvm.sql.scope import Bases, Relation, Scope, column, renamed
from spuvm.sql.selected import name_columns
from spuvm.sql.types import BOOL, integer
from spuvm.sql.written import constants


@dataclass(frozen=True, eq=False)
class Output:
    """A relation with its columns' labels in order; `ordered` if its rows' order counts."""

    node: Node
    columns: tuple[tuple[str, Expr], ...]
    ordered: bool = False


@dataclass(frozen=True)
class Session:
    """What all SELECTs of a query share. `ctes`: the queries of WITH."""

    bases: Bases
    limit: int | None
    ctes: Mapping[str, Output]
    query: Callable[..., Output]


def query(session: Session, node: Any, outer_scope: Scope | None = None) -> Output:
    """A SELECT, a set operation, or either in parentheses.

    Raises:
        InputError: for what is not there, does not fit, or is not supported; it says what to write instead.
    """
    session = with_ctes(session, node)
    if isinstance(node, exp.Subquery):
        check_clauses(node, OF_PARENTHESES)
        return query(session, node.this, outer_scope)
    if isinstance(node, exp.SetOperation):
        return set_operation(session, node, outer_scope)
    if isinstance(node, exp.Values):
        return query(session, exp.select("*").from_(node.copy()), outer_scope)
    if isinstance(node, exp.Select):
        return Select(session, node, outer_scope).output()
    raise InputError(f"`{node.sql('duckdb')[:60]}` is not a query: write SELECT ..., or WITH ... SELECT ....")


def with_ctes(session: Session, node: Any) -> Session:
    clause = node.args.get("with_") or node.args.get("with")
    if clause is None:
        return session
    if clause.args.get("recursive"):
        raise InputError("WITH RECURSIVE is not supported: how often it runs depends on the data.")
    known = dict(session.ctes)
    for cte in clause.expressions:
        check_clauses(cte, OF_CTE)
        out = query(replace(session, ctes=known), cte.this)
        known[cte.alias.lower()] = labelled(out, names_of(cte))
    return replace(session, ctes=known)


def labelled(out: Output, names: Sequence[str]) -> Output:
    if not names:
        return out
    if len(names) != len(out.columns):
        raise InputError(f"{len(names)} names for a query of {len(out.columns)} columns.")
    return replace(out, columns=tuple((n, e) for n, (_, e) in zip(names, out.columns)))


class Select(subqueries.Subqueries, aggregates.Aggregates, over.Windows):
    """One SELECT."""

    def __init__(self, session: Session, node: exp.Select, outer_scope: Scope | None) -> None:
        check_clauses(node, OF_SELECT)
        self.session = session
        self.bases = session.bases
        self.ast = node
        self.outer_scope = outer_scope
        self.joiner = Joiner(self.bases, session.limit)
        self.pending: list[subqueries.Pending] = []
        self.correlated: list[Expr] = []
        self.calls: dict[str, Aggregate] = {}
        self.grouping = False
        self.merged: dict[str, Expr] = {}
        self.folded: set[tuple[str, str]] = set()
        relations, self.conditions = self._from()
        self.scope = Scope(relations, outer_scope, self.merged, self.folded)
        name_columns(node, self.scope)
        self.binder = Binder(self.bases, self.scope, self)
        self.node: Node = None  # type: ignore[assignment]

    # FROM -------------------------------------------------------------------------------------------------------------

    def _from(self) -> tuple[list[Relation], list[Expr]]:
        """The relations and the conditions of inner joins among them."""
        source = self.ast.args.get("from_") or self.ast.args.get("from")
        nothing = Relation(Constants((), 1, (frozenset(),)), {})
        relations = [nothing if source is None else self._relation(source.this)]
        conditions: list[Expr] = []
        for join in self.ast.args.get("joins") or ():
            right = self._relation(join.this)
            kind = " ".join(filter(None, (join.side, join.kind))).upper() or "INNER"
            using = self._using(join, relations, right)
            self.folded |= {(alias, n) for alias in right.columns for n in using}
            on = self._on(join, relations, right) + [self._same(n, x, y) for n, (x, y) in using.items()]
            if kind in ("INNER", "CROSS"):
                relations.append(right)
                conditions += on
                self.merged |= {n: x for n, (x, _) in using.items()}
                continue
            if kind.startswith(("SEMI", "ANTI")) or kind.split()[0] not in ("LEFT", "RIGHT", "FULL"):
                raise InputError(f"{kind} JOIN is not supported: write WHERE EXISTS (...) or NOT EXISTS (...).")
            relations, conditions = [self._outer(kind.split()[0], relations, conditions, right, on)], []
            self._merge(kind.split()[0], using)
        return relations, conditions

    def _using(self, join: exp.Join, relations: list[Relation], right: Relation) -> dict[str, tuple[Expr, Expr]]:
        """The columns that USING or NATURAL makes one, of both sides, by lower-case name."""
        method = str(join.args.get("method") or "").upper()
        if method not in ("", "NATURAL"):
            raise InputError(f"{method} JOIN is not supported: write JOIN ... ON ....")
        mine, theirs = Scope(relations, None, self.merged), Scope([right])
        names = [n.name.lower() for n in join.args.get("using") or ()]
        if method:
            there = {n for n, _ in theirs.all()}
            names = [n for n in dict(mine.all()) if n in there]
            if not names:
                raise InputError("NATURAL JOIN of tables that have no column in common: write JOIN ... ON ....")
        return {n: (mine.column(n, None), theirs.column(n, None)) for n in names}

    def _same(self, name: str, x: Expr, y: Expr) -> Expr:
        scope = Scope([], self.outer_scope)
        node = exp.EQ(this=exp.column(name), expression=exp.column(name))
        return replace(Binder(self.bases, scope).call("=", [x, y], node), sql=None)

    def _merge(self, kind: str, using: Mapping[str, tuple[Expr, Expr]]) -> None:
        """After an outer join: nothing more is pushed below it, and where one side has no row, the other's cell is
        it."""
        self.merged = renamed(self.merged)
        for name, pair in using.items():
            x, y = (replace(e, sql=None, sources=frozenset(), nullable=True) for e in pair)
            both = exp.Coalesce(this=exp.column(name), expressions=[exp.column(name)])
            full = Binder(self.bases, Scope([])).call("coalesce", [x, y], both) if kind == "FULL" else x
            self.merged[name] = y if kind == "RIGHT" else full

    def _on(self, join: exp.Join, relations: list[Relation], right: Relation) -> list[Expr]:
        scope = Scope([*relations, right], self.outer_scope, self.merged)
        binder = Binder(self.bases, scope)
        on = join.args.get("on")
        return [] if on is None else [binder.bind(c) for c in conjuncts(on)]

    def _outer(
        self, kind: str, relations: list[Relation], conditions: list[Expr], right: Relation, on: list[Expr]
    ) -> Relation:
        left = relations[0]
        if len(relations) > 1 or conditions:
            columns = {a: cs for r in relations for a, cs in r.columns.items()}
            left = Relation(self.joiner.join(relations, conditions), columns)
        if kind == "RIGHT":
            left, right = right, left
        self._all_columns(right)
        if kind == "FULL":
            self._all_columns(left)
        plain = kind != "FULL" and any(k for k in right.node.unique)
        node = outer(self.joiner, "full" if kind == "FULL" else "left", left, right, on)
        kept = isinstance(node, Lookup) and plain
        if not kept:
            self._all_columns(left)
        left_columns = left.columns if kept else {a: renamed(cs) for a, cs in left.columns.items()}
        if kind == "FULL":
            left_columns = {a: _nullable(cs) for a, cs in left_columns.items()}
        right_columns = {a: _nullable(renamed(cs)) for a, cs in right.columns.items()}
        sides = [right_columns, left_columns] if kind == "RIGHT" else [left_columns, right_columns]
        return Relation(node, {**sides[0], **sides[1]})

    def _all_columns(self, relation: Relation) -> None:
        """Whatever may be asked for later is in the scan: nothing can be pushed below an outer join."""
        for columns in relation.columns.values():
            for e in columns.values():
                self.bases.push(e)

    def _relation(self, source: Any) -> Relation:
        if isinstance(source, exp.Table):
            check_clauses(source, OF_TABLE)
            name, alias, names = source.name, source.alias or source.name, names_of(source)
            if (cte := self.session.ctes.get(name.lower())) is not None:
                return self._derived(cte, alias, names)
            if names:
                raise InputError(f"`{source.sql('duckdb')}`: name columns in a subquery, (SELECT a AS b FROM {name}).")
            return self.bases.add(self.bases.catalog[name], alias)
        if isinstance(source, exp.Subquery):
            alias = source.alias or self.bases.names("subquery")
            return self._derived(query(self.session, source), alias, names_of(source))
        if isinstance(source, exp.Values):
            return constants(self.bases, source)
        raise InputError(f"`{source.sql('duckdb')[:60]}` in FROM: write a table, or (SELECT ...) AS name.")

    def _derived(self, out: Output, alias: str, names: Sequence[str]) -> Relation:
        """A query's columns under new names: it may be used several times."""
        out = labelled(out, names)
        fresh = {label: self.bases.names(f"{alias}.{label}") for label, _ in out.columns}
        items = {fresh[label]: e for label, e in out.columns}
        back = {e.value: name for name, e in items.items()}
        unique = tuple(frozenset(back[c] for c in k) for k in out.node.unique if k <= back.keys())
        node = Project((), out.node.bound, unique, out.node, items)
        columns = {label.lower(): column(fresh[label], e.type, e.nullable, e.origin) for label, e in out.columns}
        known = self.bases.columns
        known |= {fresh[label]: known[e.value] for label, e in out.columns if e.op == "col" and e.value in known}
        return Relation(node, {alias.lower(): columns})

    # The rest -----------------------------------------------------------------------------------------------------

    def output(self) -> Output:
        """The plan of the whole SELECT."""
        if self.correlated_pairs():
            raise InputError(
                f"{self.correlated[0]} belongs to a query around: it can be used in WHERE of a subquery only."
            )
        self.join()
        return self.selected()

    def join(self) -> None:
        """FROM and WHERE; conditions on columns of a query around are kept in `correlated`."""
        where = self.ast.args.get("where")
        later: list[tuple[Expr, list[subqueries.Pending]]] = []
        for test in conjuncts(where.this) if where is not None else []:
            condition = self.binder.bind(test)
            outside = self.reads_outside(condition)
            pending, self.pending = self.pending, []
            if condition.type.kind not in ("bool", "null"):
                raise InputError(f"WHERE `{test.sql('duckdb')}` is {condition.type}: it must be true or false.")
            if outside:
                self.correlated.append(condition)
                later += [(condition, pending)] if pending else []
            elif pending:
                if not self.attach_early(condition, pending):
                    later.append((condition, pending))
            else:
                self.conditions.append(condition)
        self.node = self.joiner.join(self.scope.relations, self.conditions)
        for condition, pending in later:
            self.apply(pending)
            if condition not in self.correlated:
                self.filter(condition)

    def filter(self, condition: Expr) -> None:
        self.node = Filter((), self.node.bound, self.node.unique, self.node, self.bases.push(condition))

    def extended(self, expr: Expr, stem: str) -> Expr:
        """The expression as a column of the relation at hand."""
        pushed = self.bases.push(expr)
        if pushed.op == "col":
            return pushed
        name = self.bases.names(stem)
        self.node = Project((), self.node.bound, self.node.unique, self.node, {name: pushed}, True)
        return column(name, pushed.type, pushed.nullable, pushed.origin)

    def selected(self) -> Output:
        """From GROUP BY on."""
        items = self.items()
        self.group([e for _, e in items])
        columns = []
        for label, ast in items:
            expr = self.binder.bind(ast) if not isinstance(ast, Expr) else ast
            self.settle()
            columns.append((label, self.extended(expr, label)))
        if (qualify := self.ast.args.get("qualify")) is not None:
            condition = self.binder.bind(qualify.this)
            self.settle()
            self.filter(condition)
        keys = self.order_keys(items, columns)
        if self.ast.args.get("distinct") is not None:
            if self.ast.args["distinct"].args.get("on") is not None:
                raise InputError("DISTINCT ON is not supported: use row_number() in a subquery.")
            self.distinct(columns, keys)
        return self.limited(columns, keys)

    def items(self) -> list[tuple[str, Any]]:
        """The select list, with `*` written out."""
        out: list[tuple[str, Any]] = []
        for node in self.ast.expressions:
            if isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star)):
                table = node.table if isinstance(node, exp.Column) else None
                gone = left_out(node.this if isinstance(node, exp.Column) else node)
                known = list(self.scope.all(table or None))
                for name in gone - {n for n, _ in known}:
                    raise InputError(f"`{node.sql('duckdb')}` leaves out `{name}`, which is not there.")
                out += [(name, e) for name, e in known if name not in gone]
            else:
                label = node.alias_or_name
                out.append((node.sql("duckdb") if label in ("", "*") else label, node.unalias()))
        return out

    def distinct(self, columns: Sequence[tuple[str, Expr]], keys: Sequence[Order]) -> None:
        names = tuple(dict.fromkeys(e.value for _, e in columns))
        if any(k.column not in names for k in keys):
            raise InputError("SELECT DISTINCT ... ORDER BY: what it is ordered by must be selected.")
        self.node = Group((), self.node.bound, (frozenset(names),), self.node, names, ())

    def order_keys(self, items: Sequence[tuple[str, Any]], columns: Sequence[tuple[str, Expr]]) -> tuple[Order, ...]:
        clause = self.ast.args.get("order")
        out = []
        for ordered in clause.expressions if clause is not None else ():
            expr = self.order_column(ordered.this, items, columns)
            out.append(Order(expr.value, bool(ordered.args.get("desc")), bool(ordered.args.get("nulls_first"))))
        return tuple(out)

    def order_column(self, node: Any, items: Sequence[tuple[str, Any]], columns: Sequence[tuple[str, Expr]]) -> Expr:
        if isinstance(node, exp.Literal) and not node.is_string:
            place = int(node.name)
            if not 1 <= place <= len(columns):
                raise InputError(f"ORDER BY {place}: there are {len(columns)} columns.")
            return columns[place - 1][1]
        if isinstance(node, exp.Column) and not node.table:
            for label, e in columns:
                if label.lower() == node.name.lower():
                    return e
        for (_, ast), (_, e) in zip(items, columns):
            if not isinstance(ast, Expr) and key_of(ast) == key_of(node):
                return e
        expr = self.binder.bind(node)
        self.settle()
        return self.extended(expr, "order")

    def limited(self, columns: Sequence[tuple[str, Expr]], keys: tuple[Order, ...]) -> Output:
        limit = number_of(self.ast, "limit")
        offset = number_of(self.ast, "offset") or 0
        node = self.node
        if keys or limit is not None or offset:
            bound = node.bound if limit is None else max(1, min(node.bound, limit))
            node = Sort((), bound, node.unique, node, keys, limit, offset)
        return Output(node, tuple(columns), bool(keys))


def _nullable(columns: Mapping[str, Expr]) -> dict[str, Expr]:
    return {n: replace(e, nullable=True) for n, e in columns.items()}


def conjuncts(node: Any) -> list[Any]:
    """Conditions joined by AND; what all branches of an OR have in common is one of them."""
    node = node.unnest() if isinstance(node, exp.Paren) else node
    if isinstance(node, exp.And):
        return [c for part in node.flatten() for c in conjuncts(part)]
    if isinstance(node, exp.Or):
        branches = [conjuncts(part) for part in node.flatten()]
        shared = [c for c in branches[0] if all(key_of(c) in {key_of(o) for o in b} for b in branches[1:])]
        if shared:
            keys = {key_of(c) for c in shared}
            rest = [[c for c in b if key_of(c) not in keys] for b in branches]
            if not all(rest):
                return shared
            return [*shared, exp.or_(*(exp.and_(*b) for b in rest))]
    return [node]


# Set operations ---------------------------------------------------------------------------------------------------


def set_operation(session: Session, node: exp.SetOperation, outer_scope: Scope | None) -> Output:
    """UNION [ALL], INTERSECT, EXCEPT."""
    check_clauses(node, OF_SETS)
    left, right = (query(session, side, outer_scope) for side in (node.left, node.right))
    if len(left.columns) != len(right.columns):
        raise InputError(
            f"{type(node).__name__.upper()} of {len(left.columns)} and {len(right.columns)} columns: they "
            "must have the same number."
        )
    tags = [] if isinstance(node, exp.Union) else [(1, 0), (0, 1)]
    both, columns = united(session.bases, [left, right], tags)
    names = [e.value for _, e in columns]
    out: Node = both
    if isinstance(node, exp.Union):
        if node.args.get("distinct"):
            out = Group((), both.bound, (frozenset(names),), both, tuple(names), ())
    elif not node.args.get("distinct"):
        raise InputError(f"{type(node).__name__.upper()} ALL is not supported: leave out ALL.")
    else:
        out = _tagged(session.bases, both, names, isinstance(node, exp.Except))
    select = _Ordering(session, node, columns)
    return select.limited(out)


def united(
    bases: Bases, parts: Sequence[Output], tags: Sequence[tuple[int, int]]
) -> tuple[Node, tuple[tuple[str, Expr], ...]]:
    """All rows of all parts, in common types."""
    rows = [[words(e) if _mixed(es) else e for e in es] for es in zip(*([e for _, e in p.columns] for p in parts))]
    types = [common([e.type for e in es], "UNION of") for es in rows]
    names = [bases.names(label) for label, _ in parts[0].columns]
    inner = []
    for i, part in enumerate(parts):
        items = {n: replace(es[i]) if es[i].type == t else _as_type(es[i], t) for n, es, t in zip(names, rows, types)}
        for k, tag in enumerate(tags[i] if tags else ()):
            items[f"side {k}"] = Expr("lit", (), integer(0, 1), False, tag, str(tag))
        inner.append(Project((), part.node.bound, (), part.node, items))
    nullable = [any(e.nullable for e in es) for es in rows]
    origins = [frozenset().union(*(e.origin for e in es)) for es in rows]
    columns = tuple(
        (label, column(n, t, null, o))
        for (label, _), n, t, null, o in zip(parts[0].columns, names, types, nullable, origins)
    )
    return Union((), sum(p.node.bound for p in parts), (), tuple(inner)), columns


def _mixed(es: Sequence[Expr]) -> bool:
    return len({e.type.dictionary for e in es if e.type.kind == "text"}) > 1


def _as_type(e: Expr, type_: Any) -> Expr:
    return Expr("cast", (e,), type_, e.nullable, type_, None, frozenset(), e.origin)


def _tagged(bases: Bases, both: Node, names: Sequence[str], except_: bool) -> Node:
    top = integer(0, both.bound)
    counts = [Aggregate(Field(bases.names("side"), top, True), "sum", f"side {k}") for k in (0, 1)]
    group = Group((), both.bound, (frozenset(names),), both, tuple(names), tuple(counts))
    zero = Expr("lit", (), integer(0, 0), False, 0, "0")
    there = [Expr("<>", (column(c.field.name, top, True), zero), BOOL, True) for c in counts]
    second = Expr("not", (there[1],), BOOL, True) if except_ else there[1]
    return Filter((), both.bound, group.unique, group, Expr("and", (there[0], second), BOOL, True))


class _Ordering:
    """ORDER BY and LIMIT of a set operation: by its columns' names or numbers."""

    def __init__(self, session: Session, ast: Any, columns: tuple[tuple[str, Expr], ...]) -> None:
        self.ast = ast
        self.columns = columns

    def limited(self, node: Node) -> Output:
        clause = self.ast.args.get("order")
        keys = tuple(self._key(o) for o in clause.expressions) if clause is not None else ()
        limit, offset = number_of(self.ast, "limit"), number_of(self.ast, "offset") or 0
        if keys or limit is not None or offset:
            bound = node.bound if limit is None else max(1, min(node.bound, limit))
            node = Sort((), bound, node.unique, node, keys, limit, offset)
        return Output(node, self.columns, bool(keys))

    def _key(self, ordered: exp.Ordered) -> Order:
        node = ordered.this
        if isinstance(node, exp.Literal) and not node.is_string and 1 <= int(node.name) <= len(self.columns):
            found = self.columns[int(node.name) - 1][1]
        else:
            matches = [e for label, e in self.columns if label.lower() == node.name.lower()]
            if not matches:
                raise InputError(f"ORDER BY `{node.sql('duckdb')}`: use a column that the query gives.")
            found = matches[0]
        return Order(found.value, bool(ordered.args.get("desc")), bool(ordered.args.get("nulls_first")))
