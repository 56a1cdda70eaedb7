"""NumPy's .npy: one array, of numbers [rows] or [rows, columns] without names, or of named columns [rows]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from spuvm.data.formats.table_file import TableFile, first_line, pyarrow_module, select
from spuvm.runtime.errors import InputError

NUMBERS = "fiub"  # kinds of dtypes


def open_npy(path: Path, columns: tuple[str, ...], text: frozenset[str] = frozenset()) -> TableFile:
    """See `spuvm.data.files.open_table`; columns without names are called "0", "1", ..."""
    arrow, _ = pyarrow_module("types")
    array = load(path)
    if array.dtype.names is None:
        if columns or array.ndim not in (1, 2):
            raise InputError(f"{path}: a .npy file must be one array [rows] or [rows, columns], without names.")
        matrix = array.reshape(array.shape[0], -1)
        found = {str(j): matrix[:, j] for j in range(matrix.shape[1])}
    else:
        found = named_columns(path, array, columns)
    types = {n: arrow.from_numpy_dtype(a.dtype.newbyteorder("=")) for n, a in found.items()}
    schema = arrow.schema(list(types.items()))

    def batches(row: int, size: int) -> tuple[int, Iterator[Any]]:
        return row, (_batch(found, schema, start, start + size) for start in range(row, len(array), size))

    return TableFile(path, "an array", schema, len(array), batches, named=array.dtype.names is not None)


def load(path: Path) -> np.ndarray:
    """The array, mapped into memory. InputError for what is none, or not of numbers."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}.") from None
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an array of numbers: {_fault(path, error)}.") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays: save the one that is needed with `numpy.save`.")
    if array.dtype.names is None:
        _check_kind(array.dtype, str(path))
    return array


def _fault(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            return "it is no .npy file, which `numpy.save` writes"
    if "object" in str(error).lower():
        return "it holds objects, convert them first"
    return "it ends before its array does, or is damaged; copy it again, whole"


def named_columns(path: Path, array: np.ndarray, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns asked for of an array that has names."""
    if array.ndim != 1:
        raise InputError(f"{path}: an array of named columns must have one dimension, not {array.ndim}.")
    names = select(path, array.dtype.names or (), columns)
    for name in names:
        _check_kind(array.dtype[name], f"column `{name}` of {path}")
    return {name: array[name] for name in names}


def _check_kind(dtype: np.dtype, where: str) -> None:
    if dtype.kind not in NUMBERS:
        raise InputError(f"{where} holds `{dtype}`, not floats, integers or bools: convert it first.")


def _batch(columns: dict[str, np.ndarray], schema: Any, start: int, stop: int) -> Any:
    arrow, _ = pyarrow_module("types")
    native = [np.ascontiguousarray(a[start:stop], a.dtype.newbyteorder("=")) for a in columns.values()]
    return arrow.record_batch([arrow.array(a) for a in native], schema=schema)


@contextmanager
def npy_writer(path: Path, schema: Any) -> Iterator[NpyWriter]:
    """What takes batches of numbers by `write`: an array of named columns."""
    with path.open("wb") as file:
        writer = NpyWriter(file, np.dtype([(f.name, f.type.to_pandas_dtype()) for f in schema]))
        yield writer
        writer.finish()


class NpyWriter:
    """Rows one after another; the header, which leaves room for their number, is written again in the end."""

    def __init__(self, file: IO[bytes], dtype: np.dtype) -> None:
        self._file, self._dtype, self._rows = file, dtype, 0
        self._header()

    def write(self, batch: Any) -> None:
        """Append a batch or a table."""
        rows = np.empty(batch.num_rows, self._dtype)
        for name in self._dtype.names or ():
            rows[name] = batch[name].to_numpy(zero_copy_only=False) if batch.num_rows else 0
        self._file.write(rows.tobytes())
        self._rows += len(rows)

    def finish(self) -> None:
        """Say how many rows there are."""
        self._file.seek(0)
        self._header()

    def _header(self) -> None:
        described = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._rows,)}
        np.lib.format.write_array_header_1_0(self._file, described)
