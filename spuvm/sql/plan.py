"""The relational IR: typed columns, relations with a public bound of rows and secret validity. Text, and a checker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spuvm.runtime.errors import IRError
from spuvm.sql.types import Type


@dataclass(frozen=True)
class Field:
    """A column of a relation; its name is its own in the whole plan.

    Attributes:
        origin: the owners' columns that it depends on, as (party, table, column).
        used: how: "value", or the name of an aggregate that it went through.
    """

    name: str
    type: Type
    nullable: bool
    origin: frozenset[tuple[str, str, str]] = frozenset()
    used: str = "value"

    def __str__(self) -> str:
        return f"{self.name} {self.type}" + ("" if self.nullable else " not null")


ALIKE = "alike"  # of an expression that says x = y or that both are NULL: its first argument is x = y


@dataclass(frozen=True, eq=False)
class Expr:
    """An expression of columns.

    Attributes:
        op: "col", "lit", or a function; see `functions`.
        value: a column's name, a literal's value, or what a function has besides its arguments.
        sql: the same in DuckDB's SQL, where the columns of one owner's table are all that it needs.
        sources: the scans that it reads.
    """

    op: str
    args: tuple[Expr, ...]
    type: Type
    nullable: bool
    value: Any = None
    sql: str | None = None
    sources: frozenset[str] = frozenset()
    origin: frozenset[tuple[str, str, str]] = frozenset()

    def __str__(self) -> str:
        if self.op == "col":
            return str(self.value)
        if self.op == "lit":
            return "null" if self.value is None else repr(self.value)
        more = "" if self.value is None else f"[{self.value}]"
        return f"{self.op}{more}({', '.join(map(str, self.args))})"

    def columns(self) -> set[str]:
        """The names of the columns that it reads."""
        if self.op == "col":
            return {self.value}
        return set().union(*(a.columns() for a in self.args)) if self.args else set()

    def walk(self) -> Iterator[Expr]:
        yield self
        for a in self.args:
            yield from a.walk()


@dataclass(eq=False)
class Node:
    """A relation. `bound`: its rows are at most so many, and all know it. `unique`: sets of columns that have no values
    twice among valid rows."""

    fields: tuple[Field, ...]
    bound: int
    unique: tuple[frozenset[str], ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    def __getitem__(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)


@dataclass(eq=False)
class Scan(Node):
    """What one owner's DuckDB computes: rows of a table, filtered, with expressions of its columns; or, without an
    owner, a table of shares."""

    owner: str = ""
    table: str = ""
    id: str = ""
    items: dict[str, str] = field(default_factory=dict)  # field -> SQL
    where: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)  # columns that filters read
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # that the owner states of columns
    compared: set[str] = field(default_factory=set)  # fields that are outcomes of comparisons
    guarded: bool = False  # what fails in a cell is NULL there: an error would tell of the cell

    @property
    def name(self) -> str:
        """Its own among a query's inputs."""
        return f"{self.id}@{self.owner}"

    @property
    def filtered(self) -> bool:
        return bool(self.where)

    def sql(self) -> str:
        shown = ", ".join(f'{self._tried(sql)} AS "{name}"' for name, sql in self.items.items()) or "1"
        where = f" WHERE {' AND '.join(f'({self._tried(w)})' for w in self.where)}" if self.where else ""
        return f'SELECT {shown} FROM "{self.table}"{where}'

    def _tried(self, sql: str) -> str:
        return f"TRY({sql})" if self.guarded and "(" in sql else sql


@dataclass(eq=False)
class Constants(Node):
    """Rows that the query itself writes (VALUES), which all know; without FROM, one row of no columns. `cells`: by
    field, a Python value for each row."""

    cells: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(eq=False)
class Filter(Node):
    input: Node = None  # type: ignore[assignment]
    predicate: Expr = None  # type: ignore[assignment]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(eq=False)
class Project(Node):
    """`keep`: the input's columns stay, beside the new ones."""

    input: Node = None  # type: ignore[assignment]
    items: dict[str, Expr] = field(default_factory=dict)
    keep: bool = False

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(eq=False)
class Lookup(Node):
    """Every row of `probe` with the row of `table` that has the same keys, of which there is at most one.

    `kind`: "inner"; "left": without one, its columns are null; "mark": `mark` says whether there is one or more, as
    EXISTS does, or, `null_aware`, as IN does. `matching`: if two owners' own keys are compared (see `matching`), the
    name of that among the plan's; else both sides are sorted.
    """

    probe: Node = None  # type: ignore[assignment]
    table: Node = None  # type: ignore[assignment]
    pairs: tuple[tuple[str, str], ...] = ()
    kind: str = "inner"
    mark: str = ""
    null_aware: bool = False
    matching: str = ""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.probe, self.table)


@dataclass(eq=False)
class Expand(Node):
    """All pairs of rows with the same keys; of no keys, all pairs. `limited`: the bound is the user's."""

    left: Node = None  # type: ignore[assignment]
    right: Node = None  # type: ignore[assignment]
    pairs: tuple[tuple[str, str], ...] = ()
    limited: bool = False

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Aggregate:
    """`fn` of a column (None: of rows); see `groups`."""

    field: Field
    fn: str
    column: str | None
    distinct: bool = False
    value: Any = None


@dataclass(eq=False)
class Group(Node):
    """One row for each combination of keys; without keys, one row. `by`: keys that the others follow from."""

    input: Node = None  # type: ignore[assignment]
    keys: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    k: int = 0
    uncounted: frozenset[str] = frozenset()  # owners whose units its rows do not tell, nor a GROUP BY below
    noise: Any = None  # see `noise.Noise`
    by: tuple[str, ...] = ()
    cells: tuple[tuple[str, tuple[Any, ...]], ...] = ()  # the values of each key, if all know them; see `tallies`

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(frozen=True)
class Order:
    """A sort key."""

    column: str
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True)
class Near:
    """The rows whose key is at most so far from the current row's, in the order's direction.

    Attributes:
        span: from and to, negative before the current row; None is the partition's end, 0 the current row's equals.
        keys: the type in whose numbers distances are; None: of floats, in months, or without distances.
    """

    span: tuple[float | None, float | None]
    keys: Type | None = None
    months: bool = False

    def __str__(self) -> str:
        return f"keys {self.span[0]} to {self.span[1]}{' months' * self.months}" + (
            f" as {self.keys}" * bool(self.keys)
        )


@dataclass(frozen=True)
class Ranked:
    """A window function: `fn` of a column.

    Attributes:
        frame: "running" (to the current row and its equals), "rows" (to the current row), "all", "span", or "near".
        value: of lag and lead, how far; of ntile, how many; of nth_value, which.
        span: of "span", rows from and to the current one, negative before it; None is the partition's end.
    """

    field: Field
    fn: str
    column: str | None
    frame: str = "all"
    value: int = 1
    span: tuple[int | None, int | None] = (None, 0)
    near: Near | None = None

    def __str__(self) -> str:
        frame = f"rows {self.span[0]} to {self.span[1]}" if self.frame == "span" else str(self.near or self.frame)
        return f"{self.field.name} = {self.fn}({self.column or ''}, {self.value}) {frame}"


@dataclass(eq=False)
class Window(Node):
    input: Node = None  # type: ignore[assignment]
    partition: tuple[str, ...] = ()
    order: tuple[Order, ...] = ()
    items: tuple[Ranked, ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(eq=False)
class Sort(Node):
    input: Node = None  # type: ignore[assignment]
    keys: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(eq=False)
class Union(Node):
    """All rows of all inputs. Columns correspond by name; one that an input lacks is NULL there."""

    parts: tuple[Node, ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts


# Walking, text, checking --------------------------------------------------------------------------------------


def nodes(root: Node) -> list[Node]:
    """All relations, each once, inputs first."""
    out: list[Node] = []
    seen: set[int] = set()

    def visit(node: Node) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            for child in node.inputs:
                visit(child)
            out.append(node)

    visit(root)
    return out


def depth(root: Node) -> int:
    """How many relations stand above each other."""
    levels: dict[int, int] = {}
    for node in nodes(root):
        levels[id(node)] = 1 + max((levels[id(c)] for c in node.inputs), default=0)
    return levels[id(root)]


def detail(node: Node) -> str:
    """What a relation does, in a line."""
    match node:
        case Scan():
            return f"at {node.owner}: {node.sql()}" if node.owner else f"shares: {node.sql()}"
        case Constants():
            return ", ".join(f"({', '.join(map(repr, row))})" for row in zip(*node.cells.values()))
        case Filter():
            return str(node.predicate)
        case Project():
            return ", ".join(f"{n} = {e}" for n, e in node.items.items() if str(e) != n)
        case Lookup():
            on = ", ".join(f"{a} = {b}" for a, b in node.pairs)
            how = f", {node.matching}" if node.matching else ""
            return f"{node.kind} on {on}" + (f" -> {node.mark}" if node.mark else "") + how
        case Expand():
            return "on " + ", ".join(f"{a} = {b}" for a, b in node.pairs) if node.pairs else "all pairs"
        case Group():
            calls = ", ".join(
                f"{a.field.name} = {a.fn}({'distinct ' * a.distinct}{a.column or '*'}{_at(a.value)})"
                for a in node.aggregates
            )
            by = f"by {', '.join(node.keys)}" if node.keys else "all rows"
            by += f" (which follow from {', '.join(node.by)})" if node.by != node.keys and not node.cells else ""
            by += f" (a total for each of {node.bound} combinations of known values)" if node.cells else ""
            noise = "" if node.noise is None else str(node.noise)
            return f"{by}: {calls}" + (f"; at least {node.k} units" if node.k else "") + noise
        case Window():
            calls = ", ".join(map(str, node.items))
            return f"partition by {', '.join(node.partition)} order by {_keys(node.order)}: {calls}"
        case Sort():
            limit = "" if node.limit is None else f" limit {node.limit}"
            limit += f" offset {node.offset}" if node.offset else ""
            return f"by {_keys(node.keys)}{limit}"
    return ""


def _at(value: Any) -> str:
    return "" if value is None else f", {value}"


def _keys(keys: Sequence[Order]) -> str:
    return ", ".join(k.column + " desc" * k.descending + " nulls first" * k.nulls_first for k in keys)


def text(root: Node) -> str:
    """The plan, a line a relation: %number, what it does, its rows at most, its inputs, its columns."""
    numbers = {id(n): i for i, n in enumerate(nodes(root))}
    lines = []
    for node in nodes(root):
        inputs = " ".join(f"%{numbers[id(c)]}" for c in node.inputs)
        head = f"%{numbers[id(node)]} = {type(node).__name__.lower()} {inputs}".rstrip()
        lines.append(f"{head} [{node.bound:,} rows] {detail(node)}".rstrip())
        lines.append("    " + ", ".join(map(str, node.fields)))
    return "\n".join(lines)


def check(root: Node) -> None:
    """That every relation reads columns that its inputs have, and states a bound that can hold.

    Raises:
        IRError: naming the relation.
    """
    for node in nodes(root):
        have = {n for c in node.inputs for n in c.names}
        name = type(node).__name__.lower()
        missing = reads(node) - have
        if missing:
            raise IRError(f"{name} reads {', '.join(sorted(missing))}, which its inputs do not have.")
        if len(set(node.names)) < len(node.names):
            raise IRError(f"{name} has two columns of one name.")
        if node.bound < 1:
            raise IRError(f"{name} has a bound of {node.bound} rows.")
        for keys in node.unique:
            if not keys <= set(node.names):
                raise IRError(f"{name} says that {sorted(keys)} are unique, which it does not have.")
        single = isinstance(node, Lookup) and not node.pairs and node.table.bound == 1
        if (
            isinstance(node, Lookup)
            and not single
            and node.kind != "mark"
            and not any(keys <= {b for _, b in node.pairs} for keys in node.table.unique)
        ):
            raise IRError("lookup in a table whose keys may occur twice.")


def reads(node: Node) -> set[str]:
    """The columns of its inputs that it computes with."""
    match node:
        case Filter():
            return node.predicate.columns()
        case Project():
            return set().union(*(e.columns() for e in node.items.values())) if node.items else set()
        case Lookup() | Expand():
            return {n for pair in node.pairs for n in pair}
        case Group():
            return {*node.keys, *(a.column for a in node.aggregates if a.column)}
        case Window():
            return {*node.partition, *(o.column for o in node.order), *(r.column for r in node.items if r.column)}
        case Sort():
            return {k.column for k in node.keys}
    return set()
