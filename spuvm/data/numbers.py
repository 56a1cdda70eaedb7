"""The cells of columns as numbers of a wanted dtype: exactly, or refused with the first row that does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.data.formats.table_file import is_number, pyarrow_module
from spuvm.runtime.errors import DataError, EncodingError

EXACT = 1 << 53  # integers beyond it are not exact as float64


def column_array(column: Any, where: str, first_row: int = 1, missing: bool = False) -> np.ndarray:
    """The numbers of a pyarrow ChunkedArray; InputError for text and empty cells, naming `where` and the row.

    With `missing`, empty cells are NaN.
    """
    arrow, types = pyarrow_module("types")
    if missing and column.null_count and (types.is_boolean(column.type) or types.is_null(column.type)):
        column = column.cast(arrow.int8()).cast(arrow.float64())
    if column.null_count and not missing:
        first = np.flatnonzero(column.is_null().to_numpy())[0] + first_row
        raise DataError(
            f"{where} has {column.null_count} of {len(column)} cells empty or NaN (the first in row {first}): "
            "fill them or leave their rows out, at all parties."
        )
    if types.is_decimal(column.type):
        _, compute = pyarrow_module("compute")
        if compute.any(compute.greater(compute.abs(column), EXACT)).as_py():
            raise DataError(f"{where} has decimals beyond 2^53, which floats would round: rescale them.")
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
        if not is_number(cell.as_py()):
            return f" (first in row {row})"
    return ""


def converted(column: np.ndarray, dtype: np.dtype, where: str, first: int, cure: str) -> np.ndarray:
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
    check_range(column, dtype, where, cure)
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


def check_range(column: np.ndarray, dtype: np.dtype, where: str, cure: str) -> None:
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if column.size and not (low <= int(column.min()) and int(column.max()) <= high):
        raise DataError(f"{where} has integers that {dtype} cannot hold ({low:,} to {high:,}). {cure}")


def _row(where: np.ndarray, first: int) -> int:
    return int(np.argwhere(where)[0][0]) + first if where.ndim else first
