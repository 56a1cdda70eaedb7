"""A DB-API 2.0 connection (PEP 249), so that notebooks and tools connect: `dbapi.connect(tables, to="carol")`.

Queries only; `?` and `:name` are parameters. There are no transactions: tables are read once, at the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spuvm.runtime.errors import InputError, LinkError, SpuError
from spuvm.sql import database
from spuvm.sql.results import Result

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

Warning = UserWarning
Error = SpuError
InterfaceError = DatabaseError = DataError = IntegrityError = InternalError = SpuError
OperationalError = LinkError
ProgrammingError = NotSupportedError = InputError


def connect(tables: Mapping[str, Mapping[str, Any]], to: str, policy: Any = None, **options: Any) -> Connection:
    """A connection whose rows are for the party `to`; the rest as `spu.sql.connect`."""
    return Connection(database.connect(tables, policy, **options), to)


class Connection:
    """Of one receiver."""

    def __init__(self, db: database.Database, to: str) -> None:
        self.db = db
        self.to = to
        self._closed = False

    def cursor(self) -> Cursor:
        if self._closed:
            raise InputError("the connection is closed: make another.")
        return Cursor(self)

    def commit(self) -> None:
        """Nothing: there are no transactions."""

    def rollback(self) -> None:
        raise InputError("there are no transactions: queries change nothing.")

    def cancel(self) -> None:
        """From another thread: end the query that runs; see `Database.cancel`."""
        self.db.cancel()

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cursor:
    """The rows of the last query. At other parties than the receiver there are none."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.result: Result | None = None
        self._rows: list[tuple[Any, ...]] = []
        self._at = 0

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """Run a query.

        Raises:
            InputError, PolicyError: as `Database.sql`.
        """
        self.connection.cursor()  # refuses a closed connection
        result = self.connection.db.sql(sql, self.connection.to, parameters=parameters)
        self.result, self._at = result, 0
        self._rows = [] if result.values is None else result.rows()
        return self

    def executemany(self, sql: str, parameters: Sequence[Any]) -> Cursor:
        raise InputError("`executemany` is for changes: run each query by `execute`.")

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """(name, type, None, None, None, None, None) of each column."""
        if self.result is None:
            return None
        return [(label.name, str(label.type), None, None, None, None, None) for label in self.result.labels]

    @property
    def rowcount(self) -> int:
        return -1 if self.result is None or self.result.values is None else len(self._rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        if self.result is None:
            raise InputError("nothing to fetch: `execute` a query first.")
        found = self._rows[self._at : self._at + (self.arraysize if size is None else size)]
        self._at += len(found)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        self.result, self._rows = None, []

    def setinputsizes(self, sizes: Any) -> None:
        """Nothing: types are the columns'."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Nothing."""


__all__ = ["Connection", "Cursor", "apilevel", "connect", "paramstyle", "threadsafety"]
