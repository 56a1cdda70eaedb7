"""What tests of joins have in common: generated tables, what DuckDB makes of them, and the rows of a shared table."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

import spuvm as spu

KEY = ["name", "born"]


def generated(rows: int, keys: int, prefix: str, unique: bool, seed: int = 1) -> pa.Table:
    """A table of names (some missing, some not ASCII) and dates, and columns of all kinds with missing cells."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(keys)[:rows] if unique else rng.integers(0, keys, rows)
    names = [None if rng.random() < 0.1 else f"Zoë {k}" if k % 3 else f"a{k}" for k in drawn]
    return pa.table(
        {
            "name": pa.array(names),
            "born": pa.array((drawn % 7).astype(np.int32), pa.int32()).cast(pa.date32()),
            f"{prefix}x": rng.normal(size=rows).round(3),
            f"{prefix}n": pa.array([None if rng.random() < 0.2 else int(v) for v in rng.integers(-9, 99, rows)]),
            f"{prefix}b": rng.random(rows) < 0.5,
        }
    )


def by_duckdb(query: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    """The rows of a query, sorted, floats to three digits."""
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return _sorted(connection.sql(query).fetchall())


def rows_of(table: spu.psi.SharedTable, names: list[str]) -> list[tuple[Any, ...]]:
    """The rows that are there, in the clear, like `by_duckdb`."""
    columns = spu.reveal({n: table.columns[n] for n in names})
    present = spu.reveal({n: table.present[n] for n in names if n in table.present})
    found = []
    for i in np.flatnonzero(spu.reveal(table.valid)):
        row = []
        for n in names:
            cell = columns[n][i].item() if present[n][i] else None
            if n in table.categories and cell is not None:
                cell = table.categories[n].value[cell]
            row.append(cell)
        found.append(tuple(row))
    return _sorted(found)


def _sorted(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted((tuple(round(x, 3) if isinstance(x, float) else x for x in r) for r in rows), key=str)
