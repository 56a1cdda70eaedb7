"""What names mean: the relations of a FROM clause and their columns, and base tables that expressions are pushed
into."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError
from spuvm.sql.catalog import Catalog, Table
from spuvm.sql.plan import Constants, Expand, Expr, Filter, Group, Lookup, Node, Project, Scan, Sort, Union, Window
from spuvm.sql.sources import quoted
from spuvm.sql.types import SHORT, Type

Origin = frozenset[tuple[str, str, str]]
PARTS = 50_000  # that a query may have, written out


@dataclass(eq=False)
class Base:
    """A table in a FROM clause: scans at its owners, into which expressions of its columns are pushed."""

    id: str
    table: Table
    node: Node
    scans: tuple[Scan, ...]
    types: dict[str, tuple[Type, bool]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def add(self, name: str, expr: Expr) -> None:
        """The scans give this expression as a column."""
        assert expr.sql is not None
        for scan in self.scans:
            scan.items.setdefault(name, expr.sql)
            if expr.type.kind == "bool" and expr.op != "col":
                scan.compared.add(name)
        self.types.setdefault(name, (expr.type, expr.nullable))
        self.origins.setdefault(name, expr.origin)

    def keep(self, condition: Expr) -> None:
        """The scans give only rows where the condition is true."""
        assert condition.sql is not None
        for scan in self.scans:
            scan.where.append(condition.sql)
            scan.reads |= {c for p, t, c in condition.origin if p == scan.owner and t == scan.table}


@dataclass(eq=False)
class Relation:
    """A relation of a FROM clause.

    Attributes:
        columns: by alias, its columns' expressions by lower-case name.
        listed: of a table of shares, expressions that were computed when it was shared, by their text.
    """

    node: Node
    columns: dict[str, dict[str, Expr]]
    base: Base | None = None
    listed: dict[str, Expr] = field(default_factory=dict)

    def has(self, expr: Expr) -> bool:
        """Whether it is one of the columns."""
        return any(expr.value == e.value for cs in self.columns.values() for e in cs.values())

    @property
    def names(self) -> set[str]:
        """All fields that come from here."""
        return set(fields_of(self.node))


class Names:
    """Makes names that nothing else in the plan has."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, stem: str) -> str:
        return f"{stem}#{next(self._numbers)}"


def column(name: str, type_: Type, nullable: bool, origin: Origin = frozenset()) -> Expr:
    return Expr("col", (), type_, nullable, name, origin=origin)


def base_relation(
    table: Table, alias: str, names: Names, codes: bool = True, guarded: Collection[str] = ()
) -> Relation:
    """A table as a relation; its columns are read when something asks for them. `codes`: longer text is carried by
    code; `guarded`: see `Bases`."""
    id_ = names(alias)
    whole = len(table.parts) == 1
    fields = {c.name: f"{alias}.{c.name}#{id_.rpartition('#')[2]}" for c in table.columns}
    unique = tuple(frozenset(fields[c] for c in key) for key in table.keys)
    scans = tuple(
        Scan(
            *((), max(1, p.rows), unique, p.owner, table.name, id_),
            where=[] if p.rows else ["false"],
            guarded=p.owner in guarded,
        )
        for p in table.parts
    )
    node: Node = scans[0] if whole else Union((), sum(s.bound for s in scans), unique, scans)
    base = Base(id_, table, node, scans)
    columns = {}
    for c in table.columns:
        origin = frozenset((p.owner, table.name, c.name) for p in table.parts)
        type_ = coded(c.type, f"{id_}.{c.name}", whole and codes, scans[0].bound)
        columns[c.name.lower()] = Expr(
            "col", (), type_, c.nullable, fields[c.name], quoted(c.name), frozenset({id_}), origin
        )
    return Relation(node, {alias.lower(): columns}, base)


def shared_relation(table: Table, alias: str, names: Names) -> tuple[Relation, Base]:
    """A table of shares as a relation: nothing is pushed into its scan."""
    id_ = names(alias)
    fields = {c.name: f"{alias}.{c.name}#{id_.rpartition('#')[2]}" for c in table.columns}
    unique = tuple(frozenset(fields[c] for c in key) for key in table.keys)
    scan = Scan(
        (), max(1, table.rows), unique, "", table.name, id_, {fields[c.name]: quoted(c.name) for c in table.columns}
    )
    types = {fields[c.name]: (c.type, c.nullable) for c in table.columns}
    base = Base(id_, table, scan, (scan,), types, dict.fromkeys(types, frozenset()))
    known = {c.name: column(fields[c.name], c.type, c.nullable) for c in table.columns}
    columns = {name.lower(): e for name, e in known.items() if name not in table.listed}
    return Relation(scan, {alias.lower(): columns}, listed={name: known[name] for name in table.listed}), base


def coded(type_: Type, dictionary: str, whole: bool, bound: int) -> Type:
    """Longer text of one owner travels by code."""
    if type_.kind != "text" or type_.words <= SHORT or not whole:
        return type_
    return replace(type_, dictionary=dictionary, lo=0, hi=bound - 1)


class Scope:
    """The relations that a name may belong to, and those of the query around. `merged`: columns that USING made one,
    by lower-case name; `folded`: the right sides' of them, as (alias, name)."""

    def __init__(
        self,
        relations: list[Relation],
        outer: Scope | None = None,
        merged: Mapping[str, Expr] | None = None,
        folded: Collection[tuple[str, str]] = (),
    ) -> None:
        self.relations = relations
        self.outer = outer
        self.merged = merged or {}
        self.folded = folded

    def find(self, name: str, table: str | None) -> Expr | None:
        if table is None and name.lower() in self.merged:
            return self.merged[name.lower()]
        found = []
        for relation in self.relations:
            for alias, columns in relation.columns.items():
                if (table is None or alias == table.lower()) and name.lower() in columns:
                    found.append((alias, columns[name.lower()]))
        if len(found) > 1:
            where = " and ".join(f"`{alias}`" for alias, _ in found)
            raise InputError(f"column `{name}` is in {where}: say which, as in `{found[0][0]}.{name}`.")
        return found[0][1] if found else None

    def column(self, name: str, table: str | None) -> Expr:
        """A column by its name, here or, if it is not here, around.

        Raises:
            InputError: if it is nowhere, or at several places.
        """
        scope: Scope | None = self
        while scope is not None:
            if (found := scope.find(name, table)) is not None:
                return found
            scope = scope.outer
        raise self._unknown(name, table)

    def _unknown(self, name: str, table: str | None) -> InputError:
        aliases = [a for r in self.relations for a in r.columns]
        if table is not None and table.lower() not in aliases:
            return InputError(f"`{table}.{name}`: there is no table `{table}` here{nearest(table, aliases)}.")
        known = [c for r in self.relations for a, cs in r.columns.items() if table in (None, a) for c in cs]
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        return InputError(f"there is no column `{name}`{nearest(name, known)}: there are {shown}.")

    def all(self, table: str | None = None) -> Iterable[tuple[str, Expr]]:
        """All columns, of one relation if named, in order."""
        seen, once = False, dict(self.merged)
        for relation in self.relations:
            for alias, columns in relation.columns.items():
                if table is not None and alias == table.lower():
                    yield from columns.items()
                elif table is None:
                    yield from ((n, once.pop(n, e)) for n, e in columns.items() if (alias, n) not in self.folded)
                seen = seen or table is None or alias == table.lower()
        if not seen:
            what = (
                f"`{table}.*`: there is no table `{table}` here" if table else "`*` without FROM: there are no columns"
            )
            raise InputError(f"{what}.")


def fields_of(node: Node) -> Iterable[str]:
    """The fields that a relation has or can be asked for."""
    match node:
        case Scan():
            yield from node.items
        case Constants():
            yield from node.cells
        case Filter() | Sort():
            yield from fields_of(node.input)
        case Project():
            if node.keep:
                yield from fields_of(node.input)
            yield from node.items
        case Lookup():
            yield from fields_of(node.probe)
            if node.kind != "mark":
                yield from fields_of(node.table)
            else:
                yield node.mark
        case Expand():
            yield from fields_of(node.left)
            yield from fields_of(node.right)
        case Group():
            yield from node.keys
            yield from (a.field.name for a in node.aggregates)
        case Window():
            yield from fields_of(node.input)
            yield from (r.field.name for r in node.items)
        case Union():
            yield from dict.fromkeys(n for p in node.parts for n in fields_of(p))


class Bases:
    """All base tables of a query, by their scans' name; where expressions of one of them are pushed.

    `codes`: whether longer text travels as its rank in its owner's dictionary. What becomes shares does not.
    `guarded`: owners where a cell that a function cannot take gives NULL, as an error would tell of it.
    """

    def __init__(self, catalog: Catalog, names: Names, codes: bool = True, guarded: Collection[str] = ()) -> None:
        self.codes = codes
        self.guarded = guarded
        self.catalog = catalog
        self.names = names
        self.known: dict[str, Base] = {}
        self.parts = 0
        self.columns: dict[str, Expr] = {}  # what owners have and compute, by fields, those of subqueries included
        self.brought: dict[tuple[int, str], str] = {}  # see `bringing`
        self._pushed: dict[tuple[str, str], str] = {}

    def add(self, table: Table, alias: str) -> Relation:
        if table.owners == ("",):
            relation, base = shared_relation(table, alias, self.names)
            self.known[base.id] = base
            return relation
        relation = base_relation(table, alias, self.names, self.codes, self.guarded)
        assert relation.base is not None
        self.known[relation.base.id] = relation.base
        self.columns |= {e.value: e for cs in relation.columns.values() for e in cs.values()}
        return relation

    def count_part(self) -> None:
        """A part of the query more: names, NULLIF and CASE within each other double it with each level."""
        self.parts += 1
        if self.parts > PARTS:
            raise InputError(
                f"the query, written out, has more than {PARTS:,} parts, as its expressions stand for each other again "
                "and again: compute what repeats in a subquery."
            )

    def guards(self, sources: Collection[str]) -> bool:
        """Whether an owner of these scans' tables is guarded."""
        return any(s.guarded for id_ in sources for s in self.known[id_].scans)

    def of(self, expr: Expr) -> Base | None:
        """The table of whose columns alone the expression is made, if there is one."""
        if expr.sql is None or len(expr.sources) != 1:
            return None
        return self.known[next(iter(expr.sources))]

    def push(self, expr: Expr) -> Expr:
        """The expression with all that one owner can compute as columns of scans."""
        base = self.of(expr)
        if base is not None:
            return self._as_column(base, expr)
        if not expr.args:
            return expr
        if expr.op in ("and", "or"):
            return self._regrouped(expr)
        return replace(expr, args=tuple(self.push(a) for a in expr.args), sql=None)

    def _as_column(self, base: Base, expr: Expr) -> Expr:
        assert expr.sql is not None
        if expr.op == "col":
            base.add(expr.value, expr)
            return expr
        name = self._pushed.setdefault((base.id, expr.sql), self.names(expr.op.replace(" ", "_")))
        whole = len(base.scans) == 1 and self.codes
        expr = replace(
            expr, type=coded(replace(expr.type, dictionary=None), f"{base.id}.{name}", whole, base.scans[0].bound)
        )
        base.add(name, expr)
        self.columns.setdefault(name, expr)
        return Expr("col", (), expr.type, expr.nullable, name, None, frozenset(), expr.origin)

    def _regrouped(self, expr: Expr) -> Expr:
        """AND and OR: those of one table's conditions together."""
        flat = list(_flattened(expr, expr.op))
        together: dict[str, list[Expr]] = {}
        rest: list[Expr] = []
        for x in flat:
            base = self.of(x)
            (together.setdefault(base.id, []) if base else rest).append(x)
        parts = [self.push(_joined(expr.op, xs)) for xs in together.values()] + [self.push(x) for x in rest]
        return replace(expr, args=tuple(parts), sql=None)


def _flattened(expr: Expr, op: str) -> Iterable[Expr]:
    if expr.op == op:
        for a in expr.args:
            yield from _flattened(a, op)
    else:
        yield expr


def _joined(op: str, xs: list[Expr]) -> Expr:
    if len(xs) == 1:
        return xs[0]
    sql = f" {op.upper()} ".join(f"({x.sql})" for x in xs)
    return Expr(
        op,
        tuple(xs),
        xs[0].type,
        any(x.nullable for x in xs),
        None,
        sql,
        frozenset().union(*(x.sources for x in xs)),
        frozenset().union(*(x.origin for x in xs)),
    )


def renamed(columns: Mapping[str, Expr]) -> dict[str, Expr]:
    """Columns that nothing more can be pushed below."""
    return {n: replace(e, sql=None, sources=frozenset()) for n, e in columns.items()}
