"""Components at one party: read, write, filter, derive columns, ask in SQL. The party alone sees the rows."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import numpy as np

from spuvm.data.files import open_table, table_writer
from spuvm.data.part import _plain_text, pyarrow
from spuvm.devices import PYU, PYUObject
from spuvm.flow.components import Reads, component
from spuvm.flow.kinds import File, Model, PartyTable, Predictions, Written
from spuvm.flow.parameters import Party
from spuvm.flow.places import Places, arrow_table
from spuvm.objects import SPUObject
from spuvm.runtime.errors import InputError, VisibilityError

Names = tuple[str, ...]
INSTALL = "expressions need a package that is missing: pip install 'spuvm[sql]'"


@component(at="party", reads=lambda p: Reads(p["party"], p["table"], p["columns"]))
def read(
    *,
    party: Annotated[Party, "the owner"],
    table: Annotated[str, "its name in the owner's catalogue"],
    columns: Annotated[Names, "to read, keys included; all if none are named"] = (),
    text: Annotated[Names, "columns of a CSV file that are text, whatever they look like"] = (),
    places: Places,
) -> PartyTable:
    """Read a table at its owner."""
    return PYU(party)(lambda: _opened(places.table(party, table), columns, text))()


def _opened(source: Any, columns: Names, text: Names) -> Any:
    from pathlib import Path

    if isinstance(source, str | Path):
        return _plain_text(open_table(source, columns, text).read())
    found = _plain_text(arrow_table(source))
    missing = [c for c in columns if c not in found.column_names]
    if missing:
        raise InputError(f"the table has no column `{missing[0]}`.")
    return found.select(list(columns)) if columns else found


@component(kept=False)
def write(
    data: PartyTable,
    *,
    file: Annotated[str, "its name among the party's results: .parquet, .csv, .arrow"],
    places: Places,
) -> File:
    """Write a table among its party's results."""
    party = data.device.party
    return Written(party, file, PYU(party)(lambda t: _written(t, places.result(party, file)))(data))


@component(kept=False)
def write_predictions(
    predictions: Predictions,
    *,
    file: Annotated[str, "its name among the party's results: .parquet, .csv, .npy"],
    places: Places,
) -> File:
    """Write predictions that a party was shown among its results, in the order of the rows."""
    if isinstance(predictions, SPUObject):
        raise VisibilityError("`predictions` are secret: predict with `to` a party, which alone then sees them.")
    party = predictions.device.party
    return Written(party, file, PYU(party)(lambda x: _array_written(x, places.result(party, file)))(predictions))


@component(kept=False)
def export(
    model: Model,
    *,
    party: Annotated[Party, "who writes the file"],
    file: Annotated[str, "its name among the party's results: .json, XGBoost's form"],
    places: Places,
) -> File:
    """Show the trees of `sgb` to all parties, and write them as XGBoost's package loads them."""
    plain = model.reveal()
    if not hasattr(plain, "save"):
        raise InputError("`export` writes models of `sgb`: of others, `coefficients` or `predict` show what is asked.")
    return Written(party, file, PYU(party)(lambda: _saved(plain, places.result(party, file)))())


def _saved(plain: Any, path: Any) -> bytes:
    plain.save(path)
    return hashlib.sha256(path.read_bytes()).digest()


def _written(table: Any, path: Any) -> bytes:
    with table_writer(path, table.schema, True) as writer:
        writer.write_table(table) if hasattr(writer, "write_table") else writer.write(table)
    return hashlib.sha256(path.read_bytes()).digest()


def _array_written(x: Any, path: Any) -> bytes:
    from spuvm.data import tables

    tables.write(path, np.asarray(x), "prediction", force=True)
    return hashlib.sha256(path.read_bytes()).digest()


# Expressions ----------------------------------------------------------------------------------------------


@component(name="filter")
def filter_(data: PartyTable, *, where: Annotated[str, "a condition of SQL, such as age >= 18"]) -> PartyTable:
    """Keep rows that fulfil a condition, at their owner."""
    return _at(data, lambda t: _asked({"rows": t}, f"select * from rows where ({_expression(where)})"))


@component
def derive(
    data: PartyTable, *, columns: Annotated[dict[str, str], "expressions of SQL by the name of the new column"]
) -> PartyTable:
    """Add columns that are computed of a row's others, at their owner."""
    made = {name: _expression(text) for name, text in columns.items()}

    def add(t: Any) -> Any:
        kept = [n for n in t.column_names if n not in made]
        both = [_quoted(n) for n in kept] + [f"({e}) as {_quoted(n)}" for n, e in made.items()]
        return _asked({"rows": t}, f"select {', '.join(both)} from rows")

    return _at(data, add)


@component
def rename(data: PartyTable, *, columns: Annotated[dict[str, str], "new names by old ones"]) -> PartyTable:
    """Rename columns, at their owner."""
    return _at(data, lambda t: t.rename_columns([columns.get(n, n) for n in t.column_names]))


def _at(data: PYUObject, function: Any) -> PYUObject:
    return PYU(data.device.party)(function)(data)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _expression(text: str) -> str:
    """An expression over a row's columns, as the agreed flow has it, which reads nothing else. InputError if not."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError:
        raise InputError(f"{INSTALL}.") from None
    try:
        tree = sqlglot.parse_one(text, read="duckdb", into=exp.Condition)
    except sqlglot.errors.SqlglotError:
        raise InputError(f"{text!r:.80} is no expression over a row's columns.") from None
    if tree.find(exp.Query, exp.Table, exp.Command, exp.AggFunc, exp.Window):
        raise InputError(f"{text!r:.80} reads more than a row's own columns: write an expression of these.")
    return str(tree.sql(dialect="duckdb"))


def _asked(tables: dict[str, Any], query: str) -> Any:
    """A query over tables in memory by DuckDB, which is kept from files, networks and this process's variables."""
    try:
        import duckdb
    except ImportError:
        raise InputError(f"{INSTALL}.") from None
    arrow, _ = pyarrow()
    locked: dict[str, Any] = {"enable_external_access": False, "python_enable_replacements": False}
    locked["lock_configuration"] = True
    with duckdb.connect(":memory:", config=locked) as db:
        for name, table in tables.items():
            db.register(name, table)
        try:
            found = db.sql(query).to_arrow_table()
        except (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException) as error:
            why = str(error).partition("\n")[0]  # of names and types alone
            raise InputError(f"an expression does not fit this party's table: {why}.") from None
        except duckdb.Error as error:
            kind = type(error).__name__.removesuffix("Exception")
            raise InputError(f"an expression fails on a row of this party's table ({kind}).") from None
    return _plain_text(found) if isinstance(found, arrow.Table) else found


@component
def sql(
    *tables: PartyTable,
    query: Annotated[str, "over tables t1, t2, ... as they are given; see docs/sql.md"],
    to: Annotated[Party, "who is given the rows"],
) -> PartyTable:
    """Ask in SQL over tables of several owners; the rows are the receiver's, and nobody else sees any."""
    from spuvm.sql import connect

    named: dict[str, dict[str, Any]] = {}
    for i, table in enumerate(tables, 1):
        named.setdefault(table.device.party, {})[f"t{i}"] = table
    result = connect(named).sql(query, to=to)
    return PYU(to)(result.arrow)()
