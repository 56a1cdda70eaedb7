"""What all parties know of the tables: names, columns, types, owners, rows; and what DuckDB says of expressions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError
from spuvm.sql.sources import duckdb, quoted, without_division_errors
from spuvm.sql.types import Type, from_duckdb, text

TOGETHER = 100  # constants in one question to DuckDB
WRITTEN = re.compile(r"CAST\('[^']*' AS [A-Z]+\)")  # a value of one row, whatever it is


@dataclass(frozen=True)
class Column:
    """`declared`: its type in DuckDB; `values`: of text, all that it may be, if that is known to all."""

    name: str
    declared: str
    type: Type
    nullable: bool
    unique: bool
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The rows of a table that one owner has."""

    owner: str
    rows: int


@dataclass(frozen=True)
class Table:
    """`parts`: one owner's whole table, or rows of several owners. `listed`: of shares, the columns that hold
    expressions, by their text; see `shares.SharedRows`."""

    name: str
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    keys: tuple[frozenset[str], ...]
    listed: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(p.rows for p in self.parts)

    @property
    def owners(self) -> tuple[str, ...]:
        return tuple(p.owner for p in self.parts)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        names = [c.name for c in self.columns]
        raise InputError(
            f"table `{self.name}` has no column `{name}`{nearest(name, names)}: it has {', '.join(names)}."
        )


class Catalog:
    """All tables, by lower-case name."""

    def __init__(self, announced: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.tables: dict[str, Table] = {}
        for owner, tables in announced.items():
            for entry in tables:
                self._add(owner, entry)
        self._constants: dict[str, tuple[Any, str]] = {}
        self._empty = duckdb().connect(":memory:")
        self._empty.execute("SET enable_external_access = false")
        without_division_errors(self._empty)
        for table in self.tables.values():
            columns = ", ".join(f"{quoted(c.name)} {c.declared}" for c in table.columns)
            self._empty.execute(f"CREATE TABLE {quoted(table.name)} ({columns})")

    def _add(self, owner: str, said: Mapping[str, Any]) -> None:
        name = str(said["name"]).lower()
        columns = tuple(_column(c, f"column `{c['name']}` of table `{name}` of {owner}") for c in said["columns"])
        keys = [frozenset(c.name for c in columns if c.name in k) for k in said["keys"]]
        keys += [frozenset({c.name}) for c in columns if c.unique]
        here = Part(owner, int(said["rows"]))
        known = self.tables.get(name)
        if known is None:
            self.tables[name] = Table(name, columns, (here,), tuple(dict.fromkeys(keys)))
            return
        if [(c.name, c.type.kind, c.type.scale) for c in known.columns] != [
            (c.name, c.type.kind, c.type.scale) for c in columns
        ]:
            raise InputError(
                f"table `{name}` has other columns at {owner} than at {known.owners[0]}: rows of one table must "
                f"agree in "
                "names, order and types. Give one of the tables another name."
            )
        declared = {frozenset(k) for k in said["keys"]} & {k for k in known.keys if len(k) >= 1}
        both = tuple(_wider(a, b) for a, b in zip(known.columns, columns))
        self.tables[name] = Table(name, both, (*known.parts, here), tuple(declared))

    def add_shares(self, table: Table) -> None:
        """A table that nobody owns."""
        if table.name in self.tables:
            raise InputError(f"shares `{table.name}` have the name of another table: give one of them another.")
        self.tables[table.name] = table

    def __getitem__(self, name: str) -> Table:
        found = self.tables.get(name.lower())
        if found is None:
            raise InputError(
                f"there is no table `{name}`{nearest(name.lower(), list(self.tables))}: there are "
                f"{', '.join(self.tables)}."
            )
        return found

    def values(self) -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
        """By owner and table, the columns, quoted, whose texts are known to all."""
        return {
            (part.owner, t.name): {quoted(c.name): c.values for c in t.columns if c.values}
            for t in self.tables.values()
            for part in t.parts
        }

    # What DuckDB says, of tables without rows ------------------------------------------------------------------

    def type_of(self, sql: str, table: str, columns: Collection[str], what: str) -> Type:
        """The type of an expression of these columns of a table, and no others.

        Raises:
            InputError: if DuckDB has no such function, or not for these types.
        """
        source = f"(SELECT {', '.join(map(quoted, sorted(columns)))} FROM {quoted(table)})"
        try:
            described = self._empty.execute(f"DESCRIBE SELECT {sql} AS x FROM {source}").fetchall()
        except duckdb().Error as error:
            raise InputError(f"{what}: {_message(error)}") from None
        if len(described) != 1:
            raise InputError(f"{what} gives {len(described)} columns where one value is needed: name the column.")
        self._check_rowwise(sql, source, what)
        return from_duckdb(described[0][1], what)

    def _check_rowwise(self, sql: str, source: str, what: str) -> None:
        """DuckDB has aggregates and functions of several rows that no list here names: of no row they give some, or of
        two rows not two."""
        for count in (0, 2):
            rows = f"(SELECT * FROM range({count}) LEFT JOIN {source} ON true)"
            try:
                found = len(self._empty.execute(f"SELECT {sql} FROM {rows}").fetchall())
            except duckdb().Error as error:
                raise InputError(f"{what}: {_message(error)}") from None
            if found != count:
                raise InputError(
                    f"{what} is no function of one row: of those that work on several there are sum, count, avg, min, "
                    "max, stddev, variance, median, quantile_cont, bool_and, bool_or and any_value, and windows."
                )

    def of_nulls(self, sql: str, table: str, columns: Collection[str], what: str) -> Any:
        """The value of an expression where these columns of a table are all NULL.

        Raises:
            InputError: as `type_of`.
        """
        source = f"(SELECT {', '.join(map(quoted, sorted(columns)))} FROM {quoted(table)})"
        try:
            found = self._empty.execute(f"SELECT {sql} FROM (SELECT 1) LEFT JOIN {source} ON true").fetchall()
        except duckdb().Error as error:
            raise InputError(f"{what}: {_message(error)}") from None
        return found[0][0]

    def constant(self, sql: str) -> tuple[Any, str]:
        """The value and the type's name of an expression without columns."""
        return self.constants([sql])[0]

    def constants(self, sqls: Sequence[str]) -> list[tuple[Any, str]]:
        """As `constant`, of many: DuckDB is asked of `TOGETHER` at once, and of each once.

        Raises:
            InputError: for the first that has no value.
        """
        fresh = [sql for sql in dict.fromkeys(sqls) if sql not in self._constants]
        for start in range(0, len(fresh), TOGETHER):
            some = fresh[start : start + TOGETHER]
            try:
                found = dict(zip(some, self._values(some)))
            except InputError:
                for one in some if len(some) > 1 else ():
                    self._values([one])
                raise
            self._constants |= found
        return [self._constants[sql] for sql in sqls]

    def _values(self, sqls: Sequence[str]) -> list[tuple[Any, str]]:
        what = f"`{sqls[0]}`"
        if calls := [sql for sql in sqls if "(" in sql.lstrip("(") and not WRITTEN.fullmatch(sql)]:
            self._check_rowwise(", ".join(calls), "(SELECT 1)", what)
        named = ", ".join(f"{sql} AS x{i}" for i, sql in enumerate(sqls))
        shown = ", ".join(f"x{i}, typeof(x{i})" for i in range(len(sqls)))
        try:
            (row,) = self._empty.execute(f"SELECT {shown} FROM (SELECT {named})").fetchall()
        except duckdb().Error as error:
            raise InputError(f"{what}: {_message(error)}") from None
        return list(zip(row[::2], row[1::2]))


def _column(said: Mapping[str, Any], where: str) -> Column:
    type_ = from_duckdb(said["type"], where)
    if said["range"] is not None:
        lo, hi = said["range"]
        type_ = text(hi) if type_.kind == "text" else type_.within(max(lo, type_.lo), min(hi, type_.hi))
    return Column(
        said["name"], said["type"], type_, bool(said["nullable"]), bool(said["unique"]), tuple(said["values"])
    )


def _wider(a: Column, b: Column) -> Column:
    """A column of rows at two owners."""
    type_ = Type(
        a.type.kind, min(a.type.lo, b.type.lo), max(a.type.hi, b.type.hi), a.type.scale, max(a.type.words, b.type.words)
    )
    values = tuple(sorted({*a.values, *b.values})) if a.values and b.values else ()
    return Column(a.name, a.declared, type_, a.nullable or b.nullable, False, values)


def _message(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].split(": ", 1)[-1].rstrip(".") + "."
