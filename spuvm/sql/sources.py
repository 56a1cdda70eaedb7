"""An owner's tables in its DuckDB: read once, so that all queries see one snapshot. Nothing here is sent anywhere.

A source is a path (.parquet, .csv, .json), `sqlite:///file.db`, `duckdb:///file.db`, `postgresql://...` (each with the
table of the same name, or `?table=name`), a pandas frame, or an arrow table.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from spuvm.data.formats.table_file import pyarrow_module
from spuvm.data.schema import nearest
from spuvm.runtime.errors import InputError
from spuvm.sql.types import WORD, from_duckdb

INSTALL = "install spuvm[sql]"
Ranges = Mapping[str, tuple[float, float]]  # by column in lower case
SETTINGS = ("source", "key", "values")
READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".json": "read_json"}


def duckdb() -> Any:
    """The module, imported when the first table is read."""
    try:
        import duckdb
    except ImportError:
        raise InputError(f"SQL needs packages that are missing: {INSTALL}.") from None
    return duckdb


def checked_values(said: Any, where: str) -> Mapping[str, Sequence[str]]:
    """`values`: by column, the texts that it may be. InputError for anything else."""
    good = isinstance(said, Mapping) and all(
        isinstance(texts, list | tuple) and texts and all(isinstance(t, str) for t in texts) for texts in said.values()
    )
    if not good:
        raise InputError(f"`values` of {where} must be lists of texts by column, as {{'status': ['open', 'paid']}}.")
    return dict(said)


def without_division_errors(db: Any) -> None:
    """A division by zero is NULL, of integers, too; older versions know nothing else."""
    with contextlib.suppress(duckdb().Error):
        db.execute("SET error_on_division_by_zero = false")


def quoted(name: str) -> str:
    """An identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class Store:
    """One owner's tables.

    Raises:
        InputError: for what cannot be read.
    """

    def __init__(self, party: str, tables: Mapping[str, Any]) -> None:
        self.party = party
        self.keys: dict[str, list[list[str]]] = {}
        self.values: dict[str, Mapping[str, Sequence[str]]] = {}
        self.db = duckdb().connect(":memory:")
        self.db.execute("SET enable_progress_bar = false")
        without_division_errors(self.db)
        for name, source in tables.items():
            self._add(name, source)
        self.db.execute("SET enable_external_access = false")

    def _add(self, name: str, source: Any) -> None:
        key = None
        if isinstance(source, Mapping) and "source" in source and not isinstance(source["source"], list | tuple):
            for setting in source:
                if setting not in SETTINGS:
                    raise InputError(
                        f"table `{name}` of {self.party} has `{setting}`{nearest(setting, SETTINGS)}: it takes "
                        f"{', '.join(SETTINGS)}."
                    )
            self.values[name] = checked_values(source.get("values", {}), f"table `{name}` of {self.party}")
            key, source = source.get("key"), source["source"]
        if source is None:
            raise InputError(
                f"table `{name}` of {self.party} is None: where {self.party} runs, give its path or table."
            )
        try:
            if isinstance(source, str | Path):
                self._add_path(name, str(source))
            else:
                self._register(name, source)
        except duckdb().Error as error:
            raise InputError(f"table `{name}` of {self.party} cannot be read: {first_line(error)}.") from None
        if key is not None:
            columns = [key] if isinstance(key, str) else list(key)
            if not columns:
                raise InputError(f"`key` of table `{name}` of {self.party} is empty: name columns, or leave it out.")
            self.keys.setdefault(name, []).append(columns)

    def _register(self, name: str, table: Any) -> None:
        arrow, _ = pyarrow_module("types")
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(table, pandas.DataFrame):
            table = arrow.Table.from_pandas(table, preserve_index=False)
        elif isinstance(table, Mapping):
            table = arrow.table({k: arrow.array(v) for k, v in table.items()})
        elif not isinstance(table, arrow.Table):
            try:
                table = arrow.table(table)
            except (TypeError, ValueError, arrow.ArrowException):
                raise InputError(
                    f"table `{name}` of {self.party} is a `{type(table).__name__}`: give a path, a pandas frame, "
                    f"an arrow "
                    "table, or lists by column."
                ) from None
        self.db.register("incoming", table)
        self.db.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM incoming")
        self.db.unregister("incoming")

    def _add_path(self, name: str, source: str) -> None:
        if "://" in source:
            return self._add_database(name, source)
        path = Path(source)
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(
                f"table `{name}`: {source} must end in one of {', '.join(READERS)}, or be a database's URL."
            )
        if not path.exists():
            raise InputError(f"table `{name}` of {self.party}: there is no file {source}.")
        self.db.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM {reader}(?)", [str(path)])

    def _add_database(self, name: str, source: str) -> None:
        url = urlsplit(source)
        asked = parse_qs(url.query)
        table = asked.pop("table", [name])[0]
        scheme = url.scheme.split("+")[0]
        plain = source.partition("?")[0]
        match scheme:
            case "sqlite":
                self._from_sqlite(name, plain.removeprefix("sqlite:///"), table)
            case "duckdb":
                self._from_duckdb(name, plain.removeprefix("duckdb:///"), table)
            case "postgresql" | "postgres":
                self._from_postgres(name, f"{plain}?{urlencode(asked, doseq=True)}", table)
            case _:
                raise InputError(
                    f"table `{name}`: {scheme}:// is not known: use sqlite:///, duckdb:/// or postgresql://."
                )

    def _from_duckdb(self, name: str, path: str, table: str) -> None:
        self._there(name, path)
        self.db.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS other (READ_ONLY)")
        self.db.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM other.{quoted(table)}")
        found = self.db.execute(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = 'other' AND table_name = ? "
            "AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
            [table],
        ).fetchall()
        self.keys.setdefault(name, []).extend(list(names) for (names,) in found)
        self.db.execute("DETACH other")

    def _there(self, name: str, path: str) -> None:
        if not Path(path).exists():
            raise InputError(f"table `{name}` of {self.party}: there is no file {path}.")

    def _from_sqlite(self, name: str, path: str, table: str) -> None:
        self._there(name, path)
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                cursor = db.execute(f"SELECT * FROM {quoted(table)}")
                self._from_rows(name, [d[0] for d in cursor.description], cursor.fetchall())
                info = db.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
        except sqlite3.Error as error:
            raise InputError(f"table `{name}` of {self.party} cannot be read: {first_line(error)}.") from None
        if primary := [row[1] for row in info if row[5]]:
            self.keys.setdefault(name, []).append(primary)
        for _, column, declared, *_ in info:  # SQLite has no dates or decimals of its own: the declared type says
            if any(word in str(declared).upper() for word in ("DATE", "TIMESTAMP", "DECIMAL", "NUMERIC(", "BOOL")):
                self.db.execute(f"ALTER TABLE {quoted(name)} ALTER {quoted(column)} TYPE {declared}")
        self._type_empty(name, {row[1]: str(row[2]) for row in info})

    def _from_postgres(self, name: str, url: str, table: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise InputError(f"table `{name}`: Postgres needs the package psycopg: install spuvm[postgres].") from None
        try:
            with psycopg.connect(url, connect_timeout=10) as db:
                db.read_only = True
                names = psycopg.sql.Identifier(*table.split("."))
                cursor = db.execute(psycopg.sql.SQL("SELECT * FROM {}").format(names))
                self._from_rows(name, [d.name for d in cursor.description or ()], cursor.fetchall())
                keys = db.execute(
                    "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
                    "ANY(i.indkey) WHERE i.indrelid = %s::regclass AND i.indisprimary",
                    [table],
                ).fetchall()
                declared = db.execute(
                    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass "
                    "AND attnum > 0 AND NOT attisdropped",
                    [table],
                ).fetchall()
        except psycopg.Error as error:
            raise InputError(f"table `{name}` of {self.party} cannot be read: {first_line(error)}.") from None
        if keys:
            self.keys.setdefault(name, []).append([k for (k,) in keys])
        self._type_empty(name, dict(declared))

    def _type_empty(self, name: str, declared: Mapping[str, str]) -> None:
        """Columns without any cell have the type that the database declares, where DuckDB knows it."""
        for column, type_name in declared.items():
            c = quoted(column)
            if self.db.execute(f"SELECT count({c}) FROM {quoted(name)}").fetchall() == [(0,)]:
                plain = type_name.replace(" without time zone", "")
                with contextlib.suppress(duckdb().Error):
                    self.db.execute(f"ALTER TABLE {quoted(name)} ALTER {c} TYPE {plain}")

    def _from_rows(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        cells = list(zip(*rows)) if rows else [() for _ in columns]
        arrow, _ = pyarrow_module("types")
        try:
            self._register(name, arrow.table({c: arrow.array(list(v)) for c, v in zip(columns, cells)}))
        except (arrow.ArrowException, TypeError):
            raise InputError(
                f"table `{name}` of {self.party} has a column of mixed types: cast it in the database."
            ) from None

    # What all may know ------------------------------------------------------------------------------------------

    def announced(self, statistics: bool, ranges: Mapping[str, Ranges] | None = None) -> list[dict[str, Any]]:
        """Of each table: its rows, names and types, and, with `statistics`, of each column whether values repeat,
        whether any is NULL, and a range of whole bytes (of text: of words) that holds them; of columns with a stated
        range that, to which cells are clipped."""
        names = [n for (n,) in self.db.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        found = [self._announced(n, statistics) for n in names]
        for table in found:
            stated = (ranges or {}).get(str(table["name"]).lower(), {})
            for entry in table["columns"]:
                if (ends := stated.get(entry["name"].lower())) is not None:
                    entry["range"] = self._within(table["name"], entry["name"], ends)
        return found

    def _within(self, table: str, column: str, ends: tuple[float, float]) -> list[int] | None:
        """Clip a column; its range in the machine's numbers, None of floats."""
        c, type_name = quoted(column), self._type_of(table, column)
        type_ = from_duckdb(type_name, f"column `{column}` of table `{table}` of {self.party}")
        if type_.kind not in ("int", "decimal", "float"):
            raise InputError(f"`ranges` has `{column}` of `{table}`, which is {type_}: ranges are of numbers.")
        low, high = (e * 10**type_.scale for e in ends)
        if type_.kind != "float" and (low != int(low) or high != int(high)):
            raise InputError(f"the range of `{column}` of `{table}` has more digits than its cells: {list(ends)}.")
        if type_.kind != "float" and not (type_.lo <= low and high <= type_.hi):
            raise InputError(f"the range of `{column}` of `{table}` is wider than its type {type_name}: {list(ends)}.")
        least, most = (int(e) if e == int(e) else e for e in ends)
        clipped = f"least(greatest({c}, {least!r}), {most!r})::{type_name}"
        self.db.execute(f"UPDATE {quoted(table)} SET {c} = {clipped} WHERE {c} IS NOT NULL")
        return None if type_.kind == "float" else [int(low), int(high)]

    def _type_of(self, table: str, column: str) -> str:
        described = self.db.execute(f"DESCRIBE {quoted(table)}").fetchall()
        return next(str(kind) for name, kind, *_ in described if name == column)

    def _announced(self, name: str, statistics: bool) -> dict[str, Any]:
        rows = self.db.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0]
        described = self.db.execute(f"DESCRIBE {quoted(name)}").fetchall()
        columns = []
        for column, type_name, *_ in described:
            entry = {"name": column, "type": type_name, "nullable": True, "unique": False, "range": None}
            entry["values"] = sorted(self.values.get(name, {}).get(column, ()))
            kind = from_duckdb(type_name, f"column `{column}` of table `{name}` of {self.party}").kind
            if statistics:
                entry.update(self._statistics(name, column, kind))
            columns.append(entry)
        self._check_keys(name, [c["name"] for c in columns])
        self._check_values(name, {c["name"]: c["values"] for c in columns})
        return {"name": name, "rows": rows, "columns": columns, "keys": self.keys.get(name, [])}

    def _check_keys(self, name: str, columns: Sequence[str]) -> None:
        for key in self.keys.get(name, []):
            for column in key:
                if column not in columns:
                    raise InputError(f"`key` of table `{name}` names `{column}`, which it does not have.")
            listed = ", ".join(map(quoted, key))
            twice = f"SELECT 1 FROM {quoted(name)} GROUP BY {listed} HAVING count(*) > 1 LIMIT 1"
            if self.db.execute(twice).fetchall():
                raise InputError(
                    f"`key` of table `{name}` of {self.party} ({', '.join(key)}) is not unique: name another."
                )

    def _check_values(self, name: str, columns: Mapping[str, Sequence[str]]) -> None:
        where = f"`values` of table `{name}` of {self.party}"
        for column in self.values.get(name, {}):
            if column not in columns:
                raise InputError(f"{where} has `{column}`{nearest(column, list(columns))}, which the table has not.")
        for column, texts in columns.items():
            if not texts:
                continue
            c = quoted(column)
            if not self._type_of(name, column).upper().startswith(("VARCHAR", "ENUM")):
                raise InputError(f"{where}: `{column}` is no text; of numbers, the range is known.")
            # By bytes, as the machine compares: a column's collation may take others for the same.
            beyond = f"SELECT 1 FROM {quoted(name)} WHERE NOT list_contains(?::BLOB[], encode({c}::VARCHAR)) LIMIT 1"
            if self.db.execute(beyond, [[t.encode() for t in texts]]).fetchall():
                raise InputError(f"{where}: `{column}` has others than the {len(texts)} that are listed.")

    def _statistics(self, name: str, column: str, kind: str) -> dict[str, Any]:
        c = quoted(column)
        value = {"text": f"strlen({c})", "date": f"datediff('day', DATE '1970-01-01', {c})"}.get(kind, c)
        ends = "NULL, NULL" if kind in ("bool", "float", "timestamp") else f"min({value}), max({value})"
        count, filled, distinct, low, high = self.db.execute(
            f"SELECT count(*), count({c}), count(DISTINCT {c}), {ends} FROM {quoted(name)}"
        ).fetchall()[0]
        scale = 1
        if kind in ("int", "decimal", "date") and not filled:  # as a column of small numbers
            low = high = 0
        elif low is not None and kind == "decimal":
            scale = 10 ** -low.as_tuple().exponent
        found = (
            None if low is None else _rounded(int(low * scale), int(high * scale), 8 * WORD if kind == "text" else 4)
        )
        if kind == "text":
            found = [0, max(WORD, -(-int(high or 0) // WORD) * WORD)]
        return {"nullable": filled < count, "unique": filled == distinct, "range": found}


def _rounded(low: int, high: int, step: int) -> list[int]:
    """A range of -2^i to 2^j - 1, i and j multiples of `step`; 0 in place of the first if nothing is negative."""

    def up(value: int) -> int:
        bits = max(1, value.bit_length())
        return int((1 << -(-bits // step) * step) - 1)

    return [-up(-low) - 1 if low < 0 else 0, up(max(high, 0))]


def first_line(error: BaseException) -> str:
    """Without what follows the first line, and without values: DuckDB and SQLite quote cells."""
    return re.split("[\n\"']", str(error).strip())[0].rstrip(". ") or type(error).__name__
