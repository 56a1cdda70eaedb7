"""CSV: the first line names the columns, and a column's type is the narrowest that holds all its cells.

The types are found in one pass, which also counts the rows: it starts with those of the first piece and begins
anew, one type further, where a cell does not fit. Empty cells are missing, quoted ones too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spuvm.data.formats.table_file import TableFile, check_header, pyarrow_module, reading, select
from spuvm.runtime.errors import DataError

CSV_BYTES = 1 << 20  # of a file that are parsed at once
WIDER = ("null", "int64", "bool", "date32[day]", "time32[s]", "timestamp[s]", "timestamp[ns]", "double", "string")
MISFIT = re.compile(r"In CSV column #(\d+): .*CSV conversion error to ([^:]+): invalid value")
EXACT = 1 << 53  # integers beyond it are not exact as float64
INTEGER = r"^\s*[-+]?\d+\s*$"


def open_csv(path: Path, columns: tuple[str, ...], text: frozenset[str] = frozenset()) -> TableFile:
    """See `spuvm.data.files.open_table`."""
    arrow, _ = pyarrow_module("csv")
    with reading(path, "CSV"):
        with _reader(path) as reader:
            schema = reader.schema
        check_header(path, schema.names)
        names = select(path, schema.names, columns)
        first = {n: arrow.string() if n in text else schema.field(n).type for n in names}
        types, rows = _types_and_rows(path, first)

    def batches(row: int, size: int) -> tuple[int, Iterator[Any]]:
        return 0, iter(_reader(path, types))

    return TableFile(path, "CSV", arrow.schema(list(types.items())), rows, batches, typed=False)


@contextmanager
def csv_writer(path: Path, schema: Any) -> Iterator[Any]:
    """What takes batches by `write`."""
    _, csv = pyarrow_module("csv")
    with csv.CSVWriter(path, schema) as writer:
        yield writer


def _reader(path: Path, types: Mapping[str, Any] | None = None) -> Any:
    """One thread: only then do the reader's errors give a row."""
    _, csv = pyarrow_module("csv")
    options = csv.ConvertOptions(
        include_columns=list(types or ()) or None, column_types=types, strings_can_be_null=True
    )
    return csv.open_csv(path, csv.ReadOptions(use_threads=False, block_size=CSV_BYTES), convert_options=options)


def _types_and_rows(path: Path, types: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The types that all cells have, from those of the first piece on, and the number of rows."""
    arrow, _ = pyarrow_module("csv")
    names = list(types)
    while True:
        try:
            rows, large = _pass(path, types)
        except arrow.ArrowInvalid as error:
            found = MISFIT.search(str(error))
            if found is None or found[2] not in WIDER[:-1]:
                raise
            name = names[_position(path, int(found[1]), names)]
            types[name] = _type_named(WIDER[WIDER.index(found[2]) + 1])
        else:
            for name in large:
                _refuse_rounded(path, name)
            return types, rows


def _pass(path: Path, types: Mapping[str, Any]) -> tuple[int, set[str]]:
    """Rows, and columns of fractions with a number so large that an integer there was rounded."""
    arrow, compute = pyarrow_module("compute")
    rows, large = 0, set()
    floats = [n for n, t in types.items() if arrow.types.is_floating(t)]
    with _reader(path, types) as reader:
        for batch in reader:
            rows += batch.num_rows
            for name in floats:
                if compute.any(compute.greater_equal(compute.abs(batch.column(name)), float(EXACT))).as_py():
                    large.add(name)
    return rows, large


def _refuse_rounded(path: Path, name: str) -> None:
    """Refuse a column of floats where a cell is an integer that a float64 rounds."""
    arrow, compute = pyarrow_module("compute")
    row = 1
    with _reader(path, {name: arrow.string()}) as reader:
        for batch in reader:
            for cell in batch.column(0).filter(compute.match_substring_regex(batch.column(0), INTEGER)).to_pylist():
                if cell is not None and abs(int(cell)) > EXACT:
                    raise DataError(
                        f"column `{name}` of {path} has integers of more than 64 bits, or beyond 2^53 among fractions "
                        f"(in the part from row {row} on): they would be rounded. Leave the column out, or make it "
                        "text."
                    )
            row += batch.num_rows


def _position(path: Path, column: int, names: Sequence[str]) -> int:
    """Which of the columns read the reader's number means: it counts all of the file."""
    with _reader(path) as reader:
        return names.index(reader.schema.names[column])


def _type_named(name: str) -> Any:
    arrow, _ = pyarrow_module("csv")
    kinds = {
        "int64": arrow.int64(),
        "bool": arrow.bool_(),
        "date32[day]": arrow.date32(),
        "time32[s]": arrow.time32("s"),
        "timestamp[s]": arrow.timestamp("s"),
        "timestamp[ns]": arrow.timestamp("ns"),
        "double": arrow.float64(),
        "string": arrow.string(),
    }
    return kinds[name]
