"""Tables on disk as arrays of numbers and back: whole files of any of the formats.

What is read is checked here, so that an error names the file and the column: text, empty cells,
NaN, numbers that the wanted dtype cannot hold. What is written appears under its name whole or
not at all, and never replaces a file that the caller did not allow it to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.files import FORMATS, checked, open_table, table_writer
from spuvm.data.formats.npy import load, named_columns
from spuvm.data.formats.table_file import pyarrow_module
from spuvm.data.numbers import check_range, column_array, converted
from spuvm.data.targets import check_target, replacing
from spuvm.runtime.errors import InputError


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
        cure = "Give the argument a float dtype" + ("." if x64 else ", or use x64 (`--x64`).")
        for column, where in self._named():
            check_range(column, dtype, where, cure)
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
            out[..., j] = converted(column, dtype, where, self.first, self.cure)
        return out.reshape(want)

    def filled(self) -> Table:
        """The same with 0 for NaN."""
        return replace(self, columns=tuple(np.where(n, c, 0) for c, n in zip(self.columns, self.numbers().columns)))

    def numbers(self) -> Table:
        """Bools that say where there are numbers, not NaN."""
        return replace(self, columns=tuple(~np.isnan(np.asarray(c, np.float64)) for c in self.columns))

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


def read(path: str | Path, columns: Sequence[str] = (), missing: bool = False) -> Table:
    """Read a file's columns of numbers, in the order asked for; all if none are named; all but `x` for `-x`.

    With `missing`, empty cells are NaN.

    Raises:
        InputError: for a file that cannot be read, missing columns, text, and empty cells.
    """
    path = checked(path)
    if path.suffix.lower() == ".npy":  # needs no Arrow, and may have any shape
        return _of_array(path, tuple(columns))
    found = open_table(path, columns).read()
    if found.num_rows == 0:
        raise InputError(f"{path} has no rows.")
    names = tuple(found.column_names)
    arrays = (column_array(found[name], f"column `{name}` of {path}", missing=missing) for name in names)
    return Table(path, names, tuple(arrays))


def _of_array(path: Path, columns: tuple[str, ...]) -> Table:
    array = load(path)
    if array.dtype.names is None:
        if columns:
            raise InputError(f"{path} has no named columns: leave out `:{','.join(columns)}`.")
        table = Table(path, (), (array,))
    else:
        found = named_columns(path, array, columns)
        table = Table(path, tuple(found), tuple(np.ascontiguousarray(x) for x in found.values()))
    if table.rows == 0:
        raise InputError(f"{path} holds no numbers.")
    return table


def write(path: str | Path, values: Any, name: str = "out", columns: Sequence[str] = (), force: bool = False) -> None:
    """Write an array: of shape [rows] as one column, [rows, n] as n, [] as one cell; .npy takes any shape.

    Args:
        name: of the one column; of several: name0, name1, ...
        columns: their names instead.

    Raises:
        InputError: if the shape fits no table, the names not the shape, or see `check_target`.
    """
    path = Path(path)
    check_target(path, force, tuple(FORMATS))
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float32)  # bfloat16 and its like, which no format here knows
    if path.suffix.lower() == ".npy":
        if columns:
            raise InputError(f"{path}: an array is written without names: leave out `:{','.join(columns)}`.")
        with replacing(path, force) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return
    arrow, _ = pyarrow_module("types")
    names = column_names(array.shape, name, columns, path)
    matrix = array.reshape(array.shape[0] if array.ndim else 1, len(names))
    table = arrow.table({n: np.ascontiguousarray(matrix[:, j]) for j, n in enumerate(names)})
    with table_writer(path, table.schema, force) as writer:
        writer.write(table)


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


def _shape_text(shape: Sequence[int]) -> str:
    return f"shape [{', '.join(map(str, shape))}]"
