"""Tables on disk as arrays and back: CSV, Parquet, and .npy with or without named columns.

What is read is checked here, so that an error names the file and the column: text, empty cells,
NaN, numbers that the wanted dtype cannot hold. What is written appears under its name whole or
not at all, and never replaces a file that the caller did not allow it to.
"""

from __future__ import annotations

import csv as python_csv
import difflib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.runtime.errors import DataError, EncodingError, InputError

FORMATS = (".csv", ".parquet", ".npy")
INSTALL = "install them with `pip install 'spuvm[cli]'`"


@dataclass(frozen=True)
class Table:
    """What was read of one file.

    `columns` are arrays [rows] of floats, integers or bools, with their `names`; of a plain .npy
    file it is the one array, of any shape, and there are no names. Messages call the first row
    `first`, and advise `cure` for integers that a dtype does not hold.
    """

    path: Path
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    first: int = 1
    cure: str = "Give the argument a dtype that holds them."

    @property
    def rows(self) -> int | None:
        """Of a scalar, None."""
        first = self.columns[0]
        return first.shape[0] if first.ndim else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array: [rows] of one column, [rows, columns] of several."""
        if len(self.columns) == 1:
            return self.columns[0].shape
        return (self.columns[0].shape[0], len(self.columns))

    def dtype(self, x64: bool = False) -> np.dtype:
        """What the numbers are by themselves: bool, int32 or float32, with `x64` int64 or float64.

        Raises InputError for integers that need 64 bits when `x64` is off.
        """
        kinds = {c.dtype.kind for c in self.columns}
        if kinds == {"b"}:
            return np.dtype(np.bool_)
        if "f" in kinds:
            return np.dtype(np.float64 if x64 else np.float32)
        dtype = np.dtype(np.int64 if x64 else np.int32)
        for column, where in self._named():
            _check_range(column, dtype, where, "Use x64 (`--x64`), or give the argument a float dtype.")
        return dtype

    def array(self, dtype: Any, shape: Sequence[int] | None = None, name: str = "input") -> np.ndarray:
        """The numbers as one contiguous array of `dtype`, exactly or (floats) rounded.

        Args:
            shape: what the program takes; one column fits [rows] and [rows, 1], one cell also [].
            name: the argument, for the messages.

        Raises:
            InputError: if the shape, or a number, does not fit.
            EncodingError: for NaN and infinity.
        """
        want = tuple(self.shape if shape is None else shape)
        if not self._fits(want):
            raise InputError(f"`{name}`: {self._described()}, the program takes {_shape_text(want)}.")
        dtype = np.dtype(dtype)
        out = np.empty((*self.columns[0].shape, len(self.columns)), dtype)
        for j, (column, where) in enumerate(self._named()):
            out[..., j] = _converted(column, dtype, where, self.first, self.cure)
        return out.reshape(want)

    def _fits(self, want: tuple[int, ...]) -> bool:
        have = self.shape
        squeezed = [s[:-1] if self.names and s[-1:] == (1,) else s for s in (have, want)]
        return squeezed[0] == squeezed[1] or (bool(self.names) and have == (1,) and want == ())

    def _described(self) -> str:
        if not self.names:
            return f"{self.path} holds {_shape_text(self.shape)}"
        names = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"{self.path} has {self.rows} rows and {len(self.names)} columns ({names})"

    def _named(self) -> Iterator[tuple[np.ndarray, str]]:
        for i, column in enumerate(self.columns):
            yield column, f"column `{self.names[i]}` of {self.path}" if self.names else f"{self.path}"


def read(path: str | Path, columns: Sequence[str] = ()) -> Table:
    """Read a file's columns, in the order asked for; all if none are named; all but `x` for `-x`.

    Raises:
        InputError: for a file that cannot be read, missing columns, text, and empty cells.
    """
    path = Path(path)
    table: Table = _opened(path, _READERS)(path, tuple(columns))
    if table.rows == 0:
        raise InputError(f"{path} holds no numbers.")
    return table


def read_arrow(path: str | Path, columns: Sequence[str] = ()) -> Any:
    """Read a file's columns as a `pyarrow.Table`, in which cells may be missing (empty text is, too), or text.

    Raises:
        InputError: for a file that cannot be read, and for missing columns.
    """
    path = Path(path)
    return _opened(path, _ARROW_READERS)(path, tuple(columns))


# Readers ---------------------------------------------------------------------------------------------


def _opened(path: Path, readers: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The reader for a file that is there, with its errors as ours."""
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: the name must end in one of {', '.join(FORMATS)}.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file{_nearest(path.name, _siblings(path))}.")

    def read(path: Path, columns: tuple[str, ...]) -> Any:
        try:
            return reader(path, columns)
        except OSError as error:  # pyarrow raises it for damaged files, too
            raise InputError(f"{path} cannot be read: {_first_line(error)}.") from None

    return read


def _read_csv(path: Path, columns: tuple[str, ...]) -> Table:
    return _from_arrow(path, _arrow_csv(path, columns))


def _arrow_csv(path: Path, columns: tuple[str, ...], empty_text_is_missing: bool = False) -> Any:
    arrow, csv = pyarrow_module("csv")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(python_csv.reader(file), [])
        check_header(path, header)
        names = select(path, header, columns)
        options = csv.ConvertOptions(include_columns=list(names), strings_can_be_null=empty_text_is_missing)
        # One thread: only then do the reader's errors give a row.
        return csv.read_csv(path, csv.ReadOptions(use_threads=False), convert_options=options)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        message = re.sub(r"(got \d+):.*", r"\1", _first_line(error))  # after it come the row's values
        raise InputError(f"{path} cannot be read as CSV: {message}.") from None


def _read_parquet(path: Path, columns: tuple[str, ...]) -> Table:
    return _from_arrow(path, _arrow_parquet(path, columns))


def _arrow_parquet(path: Path, columns: tuple[str, ...]) -> Any:
    arrow, parquet = pyarrow_module("parquet")
    try:
        with parquet.ParquetFile(path) as file:
            names = select(path, file.schema_arrow.names, columns)
            return file.read(columns=list(names)).select(list(names))
    except arrow.ArrowException as error:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(error)}.") from None


def _read_npy(path: Path, columns: tuple[str, ...]) -> Table:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array of numbers: {_first_line(error)}.") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays: save the one that is needed with `numpy.save`.")
    if array.dtype.names is None:
        if columns:
            raise InputError(f"{path} has no named columns: leave out `:{','.join(columns)}`.")
        _check_kind(array.dtype, str(path))
        return Table(path, (), (array,))
    if array.ndim != 1:
        raise InputError(f"{path}: an array of named columns must have one dimension, not {array.ndim}.")
    names = select(path, array.dtype.names, columns)
    for name in names:
        _check_kind(array.dtype[name], f"column `{name}` of {path}")
    return Table(path, names, tuple(np.ascontiguousarray(array[name]) for name in names))


def _arrow_npy(path: Path, columns: tuple[str, ...]) -> Any:
    arrow, _ = pyarrow_module("types")
    table = _read_npy(path, columns)
    if not table.names:
        raise InputError(f"{path} has no named columns: save a structured array, or use Parquet.")
    return arrow.table(dict(zip(table.names, table.columns)))


_READERS = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}
_ARROW_READERS: dict[str, Callable[..., Any]] = {
    ".csv": partial(_arrow_csv, empty_text_is_missing=True),
    ".parquet": _arrow_parquet,
    ".npy": _arrow_npy,
}


def _from_arrow(path: Path, table: Any) -> Table:
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.")
    names = tuple(table.column_names)
    return Table(path, names, tuple(column_array(table[name], f"column `{name}` of {path}") for name in names))


def column_array(column: Any, where: str, first_row: int = 1) -> np.ndarray:
    """The numbers of a pyarrow ChunkedArray; InputError for text and empty cells, naming `where` and the row."""
    arrow, types = pyarrow_module("types")
    if column.null_count:
        first = np.flatnonzero(column.is_null().to_numpy())[0] + first_row
        raise DataError(
            f"{where} has {column.null_count} of {len(column)} cells empty or NaN (the first in row {first}): "
            "fill them or leave their rows out, at all parties."
        )
    if types.is_decimal(column.type):
        column = column.cast(arrow.float64())
    if not (types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)):
        text = types.is_string(column.type) or types.is_large_string(column.type)
        raise DataError(
            f"{where} holds {'text' + _first_text(column, first_row) if text else column.type}, not numbers: name the "
            "columns to use, as in `data.csv:age,bmi`, or leave this one out, as in `data.csv:-id`."
        )
    return np.ascontiguousarray(column.to_numpy())


def _first_text(column: Any, first_row: int) -> str:
    for row, cell in enumerate(column, first_row):
        if not _is_number(cell.as_py()):
            return f" (first in row {row})"
    return ""


def _check_kind(dtype: np.dtype, where: str) -> None:
    if dtype.kind not in "fiub":
        raise InputError(f"{where} holds `{dtype}`, not floats, integers or bools: convert it first.")


def check_header(path: Path, header: Sequence[str]) -> None:
    """Refuse the first line of a CSV file if it has numbers instead of names."""
    if header and all(_is_number(name) for name in header):
        raise InputError(f"{path}: its first line holds numbers: put the names of the columns there.")


def select(path: Path, header: Sequence[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    """The names to read: those asked for, all if none are, all but `x` for `-x`. InputError for any other."""
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"{path} has two columns `{min(twice)}`: give them different names.")
    dropped = [c[1:] for c in columns if c.startswith("-") and c not in header]
    for name in [*dropped, *(c for c in columns if c[1:] not in dropped)]:
        if name not in header:
            raise missing_column(path, name, header)
    if not dropped:
        return columns or tuple(header)
    if len(dropped) < len(columns):
        raise InputError(f"{path}: name the columns to use, or with `-` those to leave out, not both.")
    left = tuple(name for name in header if name not in dropped)
    if not left:
        raise InputError(f"{path}: no column is left.")
    return left


def missing_column(path: Path, name: str, header: Sequence[str]) -> InputError:
    """The error for a column that the file does not have."""
    shown = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
    return InputError(f"{path} has no column `{name}`{_nearest(name, header)}: it has {shown}.")


# Numbers ----------------------------------------------------------------------------------------------


def _converted(column: np.ndarray, dtype: np.dtype, where: str, first: int, cure: str) -> np.ndarray:
    """The column in `dtype`, checked."""
    if column.dtype.kind == "f":
        bad = ~np.isfinite(column)
        if bad.any():
            raise EncodingError(
                f"{where} has {int(bad.sum())} of {column.size} numbers NaN or infinite (the first in row "
                f"{_row(bad, first)}): fill them or leave their rows out, at all parties."
            )
    if dtype.kind not in "fiub":  # bfloat16 and others that NumPy has no kind for
        return column.astype(dtype)
    if dtype.kind == "f":
        return _as_float(column, dtype, where, first)
    if column.dtype.kind == "f":
        fractions = column != np.rint(column)
        if fractions.any():
            raise DataError(
                f"{where} has fractions (the first in row {_row(fractions, first)}), the argument is {dtype}: "
                "give it a float dtype."
            )
    _check_range(column, dtype, where, cure)
    return column.astype(dtype)


def _as_float(column: np.ndarray, dtype: np.dtype, where: str, first: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        out = column.astype(dtype)
    if column.dtype.kind in "iu":
        exact = 1 << (np.finfo(dtype).nmant + 1)
        large = (column > exact) | (column < -exact) if column.dtype.kind == "i" else column > exact
        if large.any():
            raise DataError(
                f"{where} has integers beyond {exact:,} (the first in row {_row(large, first)}), which {dtype} would "
                "round: give the argument an integer dtype, or float64."
            )
    lost = ~np.isfinite(out)
    if lost.any():
        raise EncodingError(
            f"{where} has numbers too large for {dtype} (the first in row {_row(lost, first)}): rescale them."
        )
    return out


def _check_range(column: np.ndarray, dtype: np.dtype, where: str, cure: str) -> None:
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if column.size and not (low <= int(column.min()) and int(column.max()) <= high):
        raise DataError(f"{where} has integers that {dtype} cannot hold ({low:,} to {high:,}). {cure}")


def _row(where: np.ndarray, first: int) -> int:
    return int(np.argwhere(where)[0][0]) + first if where.ndim else first


# Writing ------------------------------------------------------------------------------------------------


def check_target(path: str | Path, force: bool = False, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a file that could not be written at the end, before the work begins.

    Raises InputError if its folder is missing, its format unknown, or, without `force`, it exists.
    """
    path = Path(path)
    if formats and path.suffix.lower() not in formats:
        raise InputError(f"{path}: the name must end in one of {', '.join(formats)}.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder.")
    if path.exists() and not force:
        raise InputError(f"{path} is there already: give another name, or `--force` to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent.absolute()} cannot be written to.")


def write(path: str | Path, values: Any, name: str = "out", columns: Sequence[str] = (), force: bool = False) -> None:
    """Write an array: of shape [rows] as one column, [rows, n] as n, [] as one cell; .npy takes any shape.

    Args:
        name: of the one column; of several: name0, name1, ...
        columns: their names instead.

    Raises:
        InputError: if the shape fits no table, the names not the shape, or see `check_target`.
    """
    path = Path(path)
    check_target(path, force)
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float32)  # bfloat16 and its like, which no format here knows
    if path.suffix.lower() == ".npy":
        if columns:
            raise InputError(f"{path}: an array is written without names: leave out `:{','.join(columns)}`.")
        with replacing(path, force) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return
    arrow, module = pyarrow_module(path.suffix.lower()[1:])
    names = column_names(array.shape, name, columns, path)
    matrix = array.reshape(array.shape[0] if array.ndim else 1, len(names))
    table = arrow.table({n: np.ascontiguousarray(matrix[:, j]) for j, n in enumerate(names)})
    save = module.write_csv if path.suffix.lower() == ".csv" else module.write_table
    with replacing(path, force) as temporary:
        save(table, temporary)


def column_names(shape: Sequence[int], name: str, columns: Sequence[str], path: Path) -> tuple[str, ...]:
    """The columns that a table of an array of this shape has.

    Raises InputError for three dimensions and more, and for another number of `columns`.
    """
    if len(shape) > 2:
        raise InputError(f"{path}: `{name}` has {len(shape)} dimensions, a table has two: write it to a .npy file.")
    count = shape[1] if len(shape) == 2 else 1
    if columns and len(columns) != count:
        raise InputError(f"{path}: `{name}` fills {count} of the {len(columns)} columns named: name {count}.")
    if columns:
        return tuple(columns)
    return (name,) if len(shape) < 2 or count == 1 else tuple(f"{name}{j}" for j in range(count))


@contextmanager
def replacing(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the body ends, and vanishes if it fails.

    Raises InputError if, without `force`, somebody else made the file meanwhile.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if not force:
            try:
                os.link(temporary, path)  # unlike rename, it fails if the name is taken
                return
            except FileExistsError:
                raise InputError(f"{path} has appeared meanwhile: give another name, or `--force`.") from None
            except OSError:  # a file system without links
                check_target(path, formats=())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


# Words --------------------------------------------------------------------------------------------------


def pyarrow_module(module: str) -> tuple[Any, Any]:
    """pyarrow and one of its modules."""
    import importlib

    try:
        return importlib.import_module("pyarrow"), importlib.import_module(f"pyarrow.{module}")
    except ImportError:
        raise InputError(f"CSV and Parquet files need packages that are missing: {INSTALL}.") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, 1) or [k for k in known if k.lower() == name.lower()][:1]
    return f" (did you mean `{found[0]}`?)" if found else ""


def _siblings(path: Path) -> list[str]:
    with suppress(OSError):
        return [p.name for p in path.parent.iterdir() if p.suffix.lower() in FORMATS]
    return []


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _shape_text(shape: Sequence[int]) -> str:
    return f"shape [{', '.join(map(str, shape))}]"


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().partition("\n")[0].rstrip(".") or type(error).__name__
