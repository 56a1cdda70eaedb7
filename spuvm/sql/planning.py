"""SQL text as a checked plan: parse, bind, finish. What all parties agree on before anything runs is its text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spuvm.runtime.errors import InputError
from spuvm.sql.binding import Session, query
from spuvm.sql.catalog import Catalog
from spuvm.sql.expressions import listed_key, words
from spuvm.sql.finishing import finished
from spuvm.sql.plan import Expr, Node, Project, Scan, check, depth, nodes, text
from spuvm.sql.results import Label
from spuvm.sql.rewriting import rewritten
from spuvm.sql.scope import Bases, Names

DEEPEST = 120  # relations above each other
AS_TABLES = "give long lists and many conditions as a table, and join with it"
LONGEST = 1_000_000  # characters
WORDS, LISTED = 50_000, 200_000  # of a query, constants aside, and with them
CONSTANTS = frozenset({"NUMBER", "STRING", "COMMA", "DASH"})
TOO_DEEP = "the query is nested too deeply: split it, or write long sums, lists and chains of UNION as tables."


@dataclass(frozen=True, eq=False)
class Plan:
    """A query that can run.

    Attributes:
        sql: the query with its parameters' values.
        root: a relation whose fields are the result's columns, in order.
        labels: their names.
        ordered: whether the rows' order is the query's.
    """

    sql: str
    root: Node
    labels: tuple[Label, ...]
    ordered: bool

    @property
    def scans(self) -> tuple[Scan, ...]:
        return tuple(n for n in nodes(self.root) if isinstance(n, Scan))

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def text(self) -> str:
        return text(self.root)


def parsed(sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = ()) -> Any:
    """The syntax tree, with values for `?`, `$1` and `:name`; None leaves them.

    Raises:
        InputError: for a syntax error, several statements, and what is not a query.
    """
    try:
        import sqlglot
        from sqlglot import errors
    except ImportError:
        raise InputError("SQL needs packages that are missing: install spuvm[sql].") from None
    try:
        text_ = _numbered(_of_size(sql), parameters is not None)
        statements = [s for s in sqlglot.parse(text_, dialect="duckdb") if s is not None]
    except errors.SqlglotError as error:
        raise InputError(f"the query is not SQL: {_where(error)}") from None
    if len(statements) != 1:
        raise InputError(f"{len(statements)} statements: give one query.")
    tree = _without_negation(statements[0])
    return tree if parameters is None else _with_values(tree, parameters)


def _without_negation(tree: Any) -> Any:
    """`a NOT LIKE b` as NOT (a LIKE b)."""
    from sqlglot import exp

    def plain(node: Any) -> Any:
        if not node.args.get("negate"):
            return node
        node.set("negate", None)
        return exp.Not(this=exp.paren(node, copy=False))

    return tree.transform(plain, copy=False)


def _where(error: Any) -> str:
    first = next(iter(getattr(error, "errors", None) or [{}]))
    if not first:
        return str(error).partition("\n")[0]
    near = f", near `{first.get('highlight')}`" if first.get("highlight") else ""
    return f"{first.get('description')} (line {first.get('line')}, column {first.get('col')}{near})."


def _of_size(sql: str) -> str:
    if not isinstance(sql, str) or not sql.strip():
        raise InputError(f"a query is a text of SQL, got {sql!r}.")
    if len(sql) > LONGEST:
        raise InputError(f"the query has {len(sql):,} characters, {LONGEST:,} are the most: {AS_TABLES}.")
    return sql


def _numbered(sql: str, marked: bool) -> str:
    """`?` as $1, $2, ... in the order of the text, which the syntax tree does not keep, if it is asked for. What is too
    long to be parsed is refused here."""
    import sqlglot

    tokens = list(sqlglot.tokenize(sql, read="duckdb"))
    words = sum(t.token_type.name not in CONSTANTS for t in tokens)
    if words > WORDS or len(tokens) > LISTED:
        raise InputError(
            f"the query has {words:,} words beside {len(tokens) - words:,} constants and commas; {WORDS:,} are the "
            f"most, {LISTED:,} together: {AS_TABLES}."
        )
    if not marked:
        return sql
    marks = [t for t in tokens if t.token_type.name == "PLACEHOLDER"]
    if marks and any(t.token_type.name == "PARAMETER" for t in tokens):
        raise InputError("the query has both `?` and `$`: number all its parameters, or none.")
    for number, mark in reversed(list(enumerate(marks, 1))):
        sql = f"{sql[: mark.start]}${number}{sql[mark.end + 1 :]}"
    return sql


def _with_values(tree: Any, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    from sqlglot import exp

    found = list(tree.find_all(exp.Placeholder, exp.Parameter))
    if not found and parameters:
        raise InputError(f"{len(parameters)} parameters, but the query has no `?`.")
    used = set()
    for i, node in enumerate(found):
        name = node.name if isinstance(node, exp.Placeholder) else node.this.name
        place: Any = name if name and not name.isdigit() else int(name) - 1 if name else i
        try:
            if place == -1:  # $0
                raise IndexError
            value = parameters[place]
        except (KeyError, IndexError, TypeError):
            raise InputError(f"parameter `{name or i + 1}` has no value: pass it in `parameters`.") from None
        node.replace(_constant(value))
        used.add(place)
    named = isinstance(parameters, Mapping)
    for place in parameters if isinstance(parameters, Mapping) else range(len(parameters)):
        if place not in used:
            raise InputError(f"parameter `{place if named else place + 1}` is not in the query: leave it out.")
    return tree


def with_expressions(sql: str, parameters: Any, expressions: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A SELECT with these expressions as further columns, and the names of those: the expressions' own text.

    Raises:
        InputError: if it is no SELECT, or one of them no expression.
    """
    from sqlglot import exp

    tree = parsed(sql, parameters)
    if not isinstance(tree, exp.Select) or tree.args.get("distinct") is not None:
        raise InputError("`expressions` are computed beside the columns of a plain SELECT, not of a set or DISTINCT.")
    names = []
    for text_ in expressions:
        one = parsed(f"select {text_}", None)
        inside = [e.find(exp.Select, exp.AggFunc, exp.Window) for e in one.expressions]
        if inside != [None] or not one.expressions[0].find(exp.Column):
            raise InputError(
                f"`expressions` has `{text_}`: give one expression of columns each, as \"name like 'A%'\"."
            )
        names.append(listed_key(one.expressions[0]))
        tree = tree.select(exp.alias_(one.expressions[0], names[-1], quoted=True))
    return str(tree.sql("duckdb")), tuple(names)


def _constant(value: Any) -> Any:
    import datetime as dt
    from decimal import Decimal

    from sqlglot import exp

    if isinstance(value, dt.datetime):
        return exp.cast(exp.Literal.string(value.isoformat(" ")), "timestamp")
    if isinstance(value, dt.date):
        return exp.cast(exp.Literal.string(value.isoformat()), "date")
    if isinstance(value, Decimal):
        return exp.Literal.number(str(value))
    if value is None or isinstance(value, bool | int | float | str):
        return exp.convert(value)
    raise InputError(f"a parameter is a `{type(value).__name__}`: give numbers, text, dates or None.")


def plan(
    catalog: Catalog,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
    join_rows: int | None = None,
    protect: Callable[[Node, Bases], Node] | None = None,
    codes: bool = True,
    guarded: Collection[str] = (),
) -> Plan:
    """The plan of a query over the catalog's tables; `protect` may change it before it is finished. `codes` and
    `guarded`: see `scope.Bases`.

    Raises:
        InputError: for what is wrong with it; see `binding.query`.
    """
    try:
        tree = parsed(sql, parameters)
        return _planned(Bases(catalog, Names(), codes, guarded), tree, join_rows, protect)
    except RecursionError:
        raise InputError(TOO_DEEP) from None


def _planned(bases: Bases, tree: Any, join_rows: int | None, protect: Callable[[Node, Bases], Node] | None) -> Plan:
    out = query(Session(bases, join_rows, {}, query), rewritten(tree))
    items: dict[str, Expr] = {}
    labels = []
    for i, (label, e) in enumerate(out.columns):
        shown = words(bases.push(e))
        items[f"{i}:{label}"] = shown
        labels.append(Label(label, shown.type))
    shown_as = {e.value: name for name, e in items.items() if e.op == "col"}
    unique = tuple(frozenset(shown_as[c] for c in k) for k in out.node.unique if k <= shown_as.keys())
    root: Node = Project((), out.node.bound, unique, out.node, items)
    if protect is not None:
        root = protect(root, bases)
    root = finished(root, bases)
    if not any(isinstance(n, Scan) for n in nodes(root)):
        raise InputError("the query reads no table of any party: there is nothing to compute together.")
    if depth(root) > DEEPEST:
        raise InputError(TOO_DEEP)
    check(root)
    return Plan(str(tree.sql("duckdb")), root, tuple(labels), out.ordered)
