"""What an owner's scan gives to the machine: arrays of the public bound, filled up with zeros. Runs at the owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from spuvm.data.formats.table_file import pyarrow_module
from spuvm.runtime.errors import DataError
from spuvm.sql.plan import Scan
from spuvm.sql.sources import Store, duckdb
from spuvm.sql.types import FLOAT, Type, words_of


def scanned(store: Store, scan: Scan, wanted: Mapping[str, tuple[Type, bool]], spelled: set[str]) -> Any:
    """The rows of a scan, filled up to its bound: a tree of arrays as `inputs` describes it.

    Args:
        wanted: by field, its type, and whether it may be NULL.
        spelled: dictionaries whose words are needed.

    Raises:
        DataError: for values outside of what was announced.
    """
    bound = scan.bound
    try:
        table = store.db.sql(scan.sql()).to_arrow_table()
    except duckdb().Error as error:
        kind = type(error).__name__  # what it says may quote cells
        raise DataError(
            f"{store.party}'s part of the query failed with {kind}: "
            "some cell is not such as its casts and functions take. "
            "Use TRY_CAST, or leave such rows out in a subquery."
        ) from None
    rows = table.num_rows
    if rows > bound:
        raise DataError(f"a table of {store.party} has more rows than it had: connect again.")
    words, valid, dictionaries = {}, {}, {}
    for name, (type_, nullable) in wanted.items():
        column = table[name].combine_chunks()
        if scan.guarded and "(" in scan.items[name]:
            column = _held(column, type_)
        missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        if missing.any() and not nullable:
            raise DataError(f"`{name.partition('#')[0]}` of {store.party} has NULLs, which it had not: connect again.")
        values = _encoded(column, type_, missing, f"`{name.partition('#')[0]}` of {store.party}")
        if type_.dictionary is not None:
            codes, spelling = _coded(column, type_, bound)
            values = [codes]
            if type_.dictionary in spelled:
                dictionaries[type_.dictionary] = [spelling[:, k].copy() for k in range(spelling.shape[1])]
        words[name] = [_filled(v, bound) for v in values]
        if nullable:
            valid[name] = _filled(~missing, bound)
    there = np.arange(bound) < rows if scan.filtered else None
    return {"words": words, "valid": valid, "there": there, "dictionaries": dictionaries}


def inputs(wanted: Mapping[str, tuple[Type, bool]], bound: int, filtered: bool, spelled: set[str]) -> Any:
    """Shapes and dtypes of what `scanned` gives, which follow from the plan."""

    def array(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((bound,), np.dtype(dtype))

    dtypes = {"bool": np.bool_, "float": np.float64}
    words = {n: [array(dtypes.get(t.kind, np.int64)) for _ in range(t.parts)] for n, (t, _) in wanted.items()}
    valid = {n: array(np.bool_) for n, (_, nullable) in wanted.items() if nullable}
    known = {t.dictionary: t.words for t, _ in wanted.values() if t.dictionary in spelled}
    return {
        "words": words,
        "valid": valid,
        "there": array(np.bool_) if filtered else None,
        "dictionaries": {d: [array(np.int64)] * n for d, n in known.items()},
    }


def _held(column: Any, type_: Type) -> Any:
    """The column without the cells that the machine does not hold: they are NULL."""
    if _fits(column, type_):
        return column
    arrow, _ = pyarrow_module("types")
    cells = [cell if _fits(column[i : i + 1], type_) else None for i, cell in enumerate(column.to_pylist())]
    return arrow.array(cells, column.type)


def _fits(column: Any, type_: Type) -> bool:
    try:
        if type_.kind == "text":
            words_of(column.to_pylist(), type_.words)
        else:
            _encoded(column, type_, np.zeros(len(column), bool), "")
    except DataError:
        return False
    return True


def _filled(x: np.ndarray, bound: int) -> np.ndarray:
    return np.concatenate([x, np.zeros(bound - len(x), x.dtype)])


def _encoded(column: Any, type_: Type, missing: np.ndarray, where: str) -> list[np.ndarray]:
    """The cells as the machine's arrays; missing ones are zero."""
    arrow, compute = pyarrow_module("compute")
    if type_.kind == "text":
        if type_.dictionary is not None:
            return []
        spelling = words_of(column.to_pylist(), type_.words)
        return [spelling[:, k].copy() for k in range(type_.words)]
    if type_.kind == "bool":
        return [compute.fill_null(column.cast(arrow.bool_()), False).to_numpy(zero_copy_only=False)]
    if type_.kind == "float":
        out = compute.fill_null(column.cast(arrow.float64()), 0.0).to_numpy(zero_copy_only=False)
        if not (np.abs(out) < FLOAT).all():
            raise DataError(
                f"{where} has numbers that are NaN, infinite or beyond 2^40: the machine's doubles end there."
            )
        return [out]
    numbers = _integers(column, type_)
    lo, hi = min(type_.lo, 0), max(type_.hi, 0)
    if len(numbers) and not (lo <= int(numbers.min()) and int(numbers.max()) <= hi):
        raise DataError(f"{where} has values beyond {lo:,} to {hi:,}, the range that was announced for it.")
    return [numbers]


def _integers(column: Any, type_: Type) -> np.ndarray:
    arrow, compute = pyarrow_module("compute")
    if type_.kind == "date":
        column = column.cast(arrow.date32()).cast(arrow.int32())
    elif type_.kind == "timestamp":
        column = column.cast(arrow.timestamp("us", column.type.tz), safe=False).cast(arrow.int64())
    elif type_.kind == "decimal":
        cells = compute.fill_null(column.cast(arrow.decimal128(38, type_.scale)), 0)
        raw = np.frombuffer(cells.buffers()[1], np.int64).reshape(-1, 2)[cells.offset : cells.offset + len(cells)]
        if not (raw[:, 1] == raw[:, 0] >> 63).all():
            raise DataError("a decimal needs more than 63 bits.")
        return raw[:, 0].copy()
    try:
        column = column.cast(arrow.int64())
    except arrow.ArrowException:
        raise DataError("an integer needs more than 63 bits.") from None
    return np.asarray(compute.fill_null(column, 0).to_numpy(zero_copy_only=False), np.int64)


def _coded(column: Any, type_: Type, bound: int) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each text among all of the scan, and their words, filled up to the bound."""
    arrow, compute = pyarrow_module("compute")
    column = column.cast(arrow.large_string())
    known = sorted((v for v in column.unique().to_pylist() if v is not None), key=str.encode)
    codes = compute.fill_null(compute.index_in(column, value_set=arrow.array(known, arrow.large_string())), 0)
    spelling = np.zeros((bound, type_.words), np.int64)
    if known:
        spelling[: len(known)] = words_of(known, type_.words)
    return codes.to_numpy(zero_copy_only=False).astype(np.int64), spelling
