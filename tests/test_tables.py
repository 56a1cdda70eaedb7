"""Tables: what is read of each format, what is refused with which words, and that nothing is half written."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from spuvm.data import tables, targets
from spuvm.runtime.errors import EncodingError, InputError

SAVED = BytesIO()
np.save(SAVED, np.arange(10.0))
WHOLE = SAVED.getvalue()
COLUMNS = {"id": [7, 8, 9], "age": [1.5, -2.0, 3.25], "ill": [True, False, True]}


def save_csv(path: Path, columns: dict[str, Any]) -> None:
    pc.write_csv(pa.table(columns), path)


def save_parquet(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def save_npy(path: Path, columns: dict[str, Any]) -> None:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    out = np.empty(len(next(iter(arrays.values()))), [(name, a.dtype) for name, a in arrays.items()])
    for name, a in arrays.items():
        out[name] = a
    np.save(path, out)


SAVERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "t.csv": save_csv,
    "t.parquet": save_parquet,
    "t.npy": save_npy,
}


@pytest.fixture(params=SAVERS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write columns as a file of each format."""

    def save(columns: dict[str, Any]) -> Path:
        path: Path = tmp_path / request.param
        SAVERS[request.param](path, columns)
        return path

    return save


# Reading ----------------------------------------------------------------------------------------------


def test_columns_come_in_the_order_asked_for(saved: Callable[..., Path]) -> None:
    table = tables.read(saved(COLUMNS), ["age", "id"])
    assert table.names == ("age", "id")
    assert (table.rows, table.shape) == (3, (3, 2))
    assert table.dtype() == np.float32
    np.testing.assert_array_equal(table.array(np.float32), [[1.5, 7], [-2, 8], [3.25, 9]])


def test_all_columns_and_all_but_one(saved: Callable[..., Path]) -> None:
    path = saved(COLUMNS)
    assert tables.read(path).names == ("id", "age", "ill")
    assert tables.read(path, ["-id"]).names == ("age", "ill")


@pytest.mark.parametrize(("column", "dtype"), [("id", np.int32), ("age", np.float32), ("ill", np.bool_)])
def test_the_natural_dtype(saved: Callable[..., Path], column: str, dtype: Any) -> None:
    table = tables.read(saved(COLUMNS), [column])
    assert table.shape == (3,)
    assert table.dtype() == dtype
    np.testing.assert_array_equal(table.array(table.dtype()), np.asarray(COLUMNS[column], dtype))


def test_one_column_fits_a_vector_and_a_matrix_of_one_column(saved: Callable[..., Path]) -> None:
    table = tables.read(saved(COLUMNS), ["age"])
    assert table.array(np.float32, (3,)).shape == (3,)
    assert table.array(np.float32, (3, 1)).shape == (3, 1)
    assert tables.read(saved({"rate": [0.5]})).array(np.float32, ()) == 0.5


def test_another_number_of_rows_or_columns_is_refused(saved: Callable[..., Path]) -> None:
    table = tables.read(saved(COLUMNS), ["age", "id"])
    with pytest.raises(InputError, match=r"`x`: .* has 3 rows and 2 columns \(age, id\), .* takes shape \[4, 2\]"):
        table.array(np.float32, (4, 2), "x")
    with pytest.raises(InputError, match="takes shape"):
        table.array(np.float32, (6,))


def test_a_missing_column_is_named_with_the_nearest(saved: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"no column `agee` \(did you mean `age`\?\): it has id, age, ill\."):
        tables.read(saved(COLUMNS), ["agee"])
    with pytest.raises(InputError, match="no column `Id`"):
        tables.read(saved(COLUMNS), ["-Id"])


def test_choosing_and_leaving_out_at_once_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="not both"):
        tables.read(saved(COLUMNS), ["age", "-id"])
    with pytest.raises(InputError, match="no column is left"):
        tables.read(saved({"id": [1]}), ["-id"])


def test_nan_is_refused_with_its_row(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.npy"):
        SAVERS[name](tmp_path / name, {"age": [1.0, np.nan, np.inf]})
        table = tables.read(tmp_path / name)
        with pytest.raises(EncodingError, match=r"column `age` .* has 2 of 3 numbers NaN .* in row 2"):
            table.array(np.float32)


def test_empty_cells_are_refused_with_their_row(tmp_path: Path) -> None:
    save_parquet(tmp_path / "t.parquet", {"age": [1.0, 2.0, None]})
    (tmp_path / "t.csv").write_text("age,x\n1,2\n3,4\n,5\n")
    (tmp_path / "nan.csv").write_text("age,x\n1,2\n3,4\nNaN,5\n")
    for name in ("t.parquet", "t.csv", "nan.csv"):
        with pytest.raises(InputError, match=r"column `age` .* has 1 of 3 cells empty or NaN \(the first in row 3\)"):
            tables.read(tmp_path / name)


def test_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    save_parquet(tmp_path / "t.parquet", {"name": ["1", "Smith"], "x": [1, 2]})
    (tmp_path / "t.csv").write_text("name,x\n1,1\nSmith,2\n")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(InputError, match=r"column `name` .* text \(first in row 2\).*-id") as caught:
            tables.read(tmp_path / name)
        assert "Smith" not in str(caught.value)
        assert tables.read(tmp_path / name, ["x"]).rows == 2
    np.save(tmp_path / "t.npy", np.array(["Smith"]))
    with pytest.raises(InputError, match="not floats, integers or bools"):
        tables.read(tmp_path / "t.npy")


def test_dates_are_refused(tmp_path: Path) -> None:
    save_parquet(tmp_path / "t.parquet", {"day": np.array(["2020-01-01"], "datetime64[D]")})
    with pytest.raises(InputError, match=r"column `day` .* holds date32"):
        tables.read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as CSV: Empty CSV file"),
        ("t.csv", b"a,b\n1,2\n3\n", r"Row #3: Expected 2 columns, got 1\.$"),
        ("t.csv", b"1,2\n3,4\n", "first line holds numbers"),
        ("t.csv", b"a,a\n3,4\n", "two columns `a`"),
        ("t.csv", b"a,b\n", "t.csv has no rows"),
        ("t.parquet", b"nonsense", "cannot be read as Parquet"),
        ("t.npy", b"nonsense", "cannot be read as an array of numbers: it is no .npy file"),
        ("t.npy", WHOLE[:-1], "it ends before its array does"),
        ("t.npy", WHOLE[:60], "it ends before its array does"),
        ("t.xlsx", b"", "must end in one of .csv, .parquet, .arrow, .feather, .npy"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        tables.read(tmp_path / name)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="it holds objects, convert them first"):
        tables.read(tmp_path / "t.npy")


def test_a_missing_file_names_a_near_one(tmp_path: Path) -> None:
    save_csv(tmp_path / "patients.csv", COLUMNS)
    with pytest.raises(InputError, match=r"no such file \(did you mean `patients.csv`\?\)"):
        tables.read(tmp_path / "patient.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    save_csv(tmp_path / "t.csv", COLUMNS)
    (tmp_path / "t.csv").chmod(0)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        tables.read(tmp_path / "t.csv")


def test_a_plain_array_keeps_its_shape(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.save(tmp_path / "t.npy", array)
    table = tables.read(tmp_path / "t.npy")
    np.testing.assert_array_equal(table.array(np.float32, (2, 3, 4)), array)
    with pytest.raises(InputError, match=r"`w`: .* holds shape \[2, 3, 4\], the program takes shape \[6, 4\]"):
        table.array(np.float32, (6, 4), "w")
    with pytest.raises(InputError, match="no named columns: leave out `:a`"):
        tables.read(tmp_path / "t.npy", ["a"])


# Numbers that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "dtype", "message"),
    [
        ([1.0, 1.5], np.int32, r"fractions \(the first in row 2\)"),
        ([1, 1 << 31], np.int32, "int32 cannot hold"),
        ([-1, 0], np.uint8, "uint8 cannot hold"),
        ([0, 2], np.bool_, r"bool cannot hold \(0 to 1\)"),
        ([0, (1 << 24) + 1], np.float32, r"integers beyond 16,777,216 \(the first in row 2\)"),
        ([1.0, 1e39], np.float32, r"too large for float32 \(the first in row 2\)"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, numbers: list[Any], dtype: Any, message: str) -> None:
    save_parquet(tmp_path / "t.parquet", {"x": numbers})
    with pytest.raises(InputError, match=message):
        tables.read(tmp_path / "t.parquet").array(dtype)


def test_numbers_that_fit(tmp_path: Path) -> None:
    save_parquet(tmp_path / "t.parquet", {"x": [0.0, 1.0], "n": np.array([0, 1 << 24])})
    x, n = (tables.read(tmp_path / "t.parquet", [c]) for c in "xn")
    assert x.array(np.int32).tolist() == [0, 1]
    assert x.array(np.bool_).tolist() == [False, True]
    assert n.array(np.float32).tolist() == [0, 1 << 24]


def test_large_integers_need_x64(tmp_path: Path) -> None:
    save_parquet(tmp_path / "t.parquet", {"x": [1 << 40]})
    table = tables.read(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="--x64"):
        table.dtype()
    assert table.dtype(x64=True) == np.int64


# Writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize(
    ("values", "names"), [(np.float32(0.1), ["y"]), ([0.1, 0.2], ["y"]), ([[1, 2], [3, 4]], ["y0", "y1"])]
)
def test_what_is_written_is_read_back(tmp_path: Path, name: str, values: Any, names: list[str]) -> None:
    array = np.asarray(values)
    tables.write(tmp_path / name, array, "y")
    table = tables.read(tmp_path / name)
    assert list(table.names) == names
    np.testing.assert_array_equal(table.array(array.dtype, array.shape), array)
    assert os.listdir(tmp_path) == [name]


def test_an_array_is_written_with_its_shape(tmp_path: Path) -> None:
    tables.write(tmp_path / "t.npy", np.ones((2, 3, 4), np.float32))
    assert np.load(tmp_path / "t.npy").shape == (2, 3, 4)
    with pytest.raises(InputError, match=r"3 dimensions, a table has two: write it to a \.npy"):
        tables.write(tmp_path / "t.csv", np.ones((2, 3, 4)))


def test_columns_can_be_named(tmp_path: Path) -> None:
    tables.write(tmp_path / "t.csv", np.ones((2, 2)), columns=["benign", "malignant"])
    assert tables.read(tmp_path / "t.csv").names == ("benign", "malignant")
    with pytest.raises(InputError, match="fills 2 of the 3 columns"):
        tables.write(tmp_path / "u.csv", np.ones((2, 2)), columns=["a", "b", "c"])


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"is there already.*--force"):
        tables.write(path, np.ones(2))
    assert path.read_text() == "precious"
    tables.write(path, np.ones(2), force=True)
    assert tables.read(path).rows == 2


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def half(force: bool) -> None:
        with targets.replacing(tmp_path / "t.csv", force) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half(force=False)
    assert os.listdir(tmp_path) == []
    (tmp_path / "t.csv").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        half(force=True)
    assert (tmp_path / "t.csv").read_text() == "before"
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    def write() -> None:
        with targets.replacing(path) as temporary:
            temporary.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(InputError, match="has appeared meanwhile"):
        write()
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["t.csv"]


def test_targets_are_checked_beforehand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        targets.check_target(tmp_path / "no" / "t.csv")
    with pytest.raises(InputError, match="must end in one of"):
        targets.check_target(tmp_path / "t.txt", formats=(".csv",))
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        targets.check_target(tmp_path / "d.csv", force=True)
