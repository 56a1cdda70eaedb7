"""The formats of tables: written in batches, read from any row on, with one schema whatever the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from spuvm.data.files import FORMATS, open_table, table_writer
from spuvm.data.formats import csv
from spuvm.runtime.errors import DataError, InputError

ROWS = 500
TABLE = pa.table(
    {
        "n": np.arange(ROWS) - 7,
        "x": np.linspace(-1, 1, ROWS).astype(np.float32),
        "ill": np.arange(ROWS) % 3 == 0,
    }
)


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of each format, written in four batches."""
    monkeypatch.setattr(csv, "CSV_BYTES", 300)
    out: Path = tmp_path / f"t{request.param}"
    with table_writer(out, TABLE.schema) as writer:
        for start in range(0, ROWS, 130):
            writer.write(TABLE.slice(start, 130))
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    return out


def test_what_was_written_in_batches_is_read(path: Path) -> None:
    file = open_table(path)
    assert (file.rows, file.names) == (ROWS, ("n", "x", "ill"))
    found = file.read()
    assert found["n"].to_pylist() == TABLE["n"].to_pylist()
    assert found["ill"].to_pylist() == TABLE["ill"].to_pylist()
    np.testing.assert_allclose(found["x"].to_numpy(), TABLE["x"].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize("row", [0, 1, 129, 130, 389, 499, 500])
def test_batches_begin_at_any_row(path: Path, row: int) -> None:
    batches = list(open_table(path, ["ill", "n"]).batches(row, 50))
    assert all(b.num_rows and b.schema.names == ["ill", "n"] for b in batches)
    assert [x for b in batches for x in b.column(1).to_pylist()] == TABLE["n"].to_pylist()[row:]


def test_a_file_that_was_cut_off(path: Path) -> None:
    file = open_table(path)
    path.write_bytes(path.read_bytes()[:-100])

    def again() -> None:
        list(file.batches())
        open_table(path).read()  # of .npy the old content may still be mapped

    with pytest.raises(InputError, match=str(path)):
        again()


def test_columns_that_are_missing(path: Path) -> None:
    with pytest.raises(InputError, match=r"no column `il` \(did you mean `ill`\?\)"):
        open_table(path, ["il"])
    assert open_table(path, ["-x"]).names == ("n", "ill")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1"] * 100 + ["2.5"], "double"),
        ([""] * 100 + ["7"], "int64"),
        (["true"] * 100 + ["maybe"], "string"),
        (["2020-01-01"] * 100 + ["2020-01-01 10:00:00"], "timestamp[s]"),
        (["1"] * 100 + ["1,5"], "string"),
        (["0.5"] * 100 + ["x"], "string"),
        ([""] * 100, "null"),
    ],
)
def test_csv_types_are_those_of_all_cells(
    cells: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "CSV_BYTES", 64)
    (tmp_path / "t.csv").write_text("k,c\n" + "".join(f'{i},"{c}"\n' for i, c in enumerate(cells)))
    file = open_table(tmp_path / "t.csv", ["c"])
    assert (str(file.schema.field("c").type), file.rows) == (kind, len(cells))
    assert file.read().num_rows == len(cells)


@pytest.mark.parametrize(
    "cells", [["9223372036854775808"], ["1", "0.5", "9007199254740993"], ["1e300", "-" + "9" * 40]]
)
def test_csv_does_not_round_integers(cells: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("c\n" + "\n".join(cells) + "\n")
    with pytest.raises(DataError, match=r"column `c` .* has integers of more than 64 bits"):
        open_table(tmp_path / "t.csv")


def test_csv_columns_taken_as_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,c\n007,1\n123456789012345678901,2\n")
    file = open_table(tmp_path / "t.csv", text=["id"])
    assert file.read().to_pydict() == {"id": ["007", "123456789012345678901"], "c": [1, 2]}


def test_csv_keeps_large_fractions(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("c\n1e300\n9007199254740993.0\n12\n")
    assert open_table(tmp_path / "t.csv").read()["c"].to_pylist() == [1e300, 9007199254740992.0, 12.0]


def test_errors_of_readers_show_no_cell(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\ncanary\n")
    with pytest.raises(InputError, match=r"Row #3: Expected 2 columns, got 1\.$"):
        open_table(tmp_path / "t.csv").read()
