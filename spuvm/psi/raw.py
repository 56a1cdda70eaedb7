"""Columns as words and back, exactly: what a party that may see joined rows gets of others' tables.

A cell is as many 64-bit words as the column's width says: numbers, dates and times one, decimals two or four, text its
length in bytes and then its bytes. The width is public; of text it is that of the longest one.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.data.part import pyarrow
from spuvm.psi.keys import kind_of
from spuvm.runtime.errors import InputError, PeerMismatchError

WORD = 8  # bytes
LONGEST = 1 << 17  # words of a text, 1 MiB: a peer may claim no more


@dataclass(frozen=True)
class RawColumn:
    """A column as all parties know it: its name, its arrow type (as a serialised schema), and words a cell."""

    name: str
    type_text: str
    words: int

    @property
    def type(self) -> Any:
        """The arrow type."""
        arrow, _ = pyarrow()
        return arrow.ipc.read_schema(arrow.py_buffer(base64.b64decode(self.type_text))).field(0).type


def is_raw(type_text: str, words: int) -> bool:
    """Whether `described` can have said so: one column of a type that travels, in as many words as it has."""
    arrow, _ = pyarrow()
    try:
        (field,) = arrow.ipc.read_schema(arrow.py_buffer(base64.b64decode(type_text, validate=True)))
    except (arrow.ArrowException, ValueError, OSError):
        return False
    least = _least_words(field.type)
    return least is not None and least <= words <= (LONGEST if _is_text(field.type) else least)


def is_kind(kind: str, type_text: str) -> bool:
    """Whether a key of this kind has this type."""
    try:
        return kind_of(RawColumn("", type_text, 1).type, "") == kind
    except InputError:
        return False


def described(name: str, column: Any, where: str) -> RawColumn:
    """How a column travels. InputError for nested types."""
    arrow, compute = pyarrow()
    type_ = plain_type(column.type)
    words = _least_words(type_)
    if words is None:
        raise InputError(f"{where} holds {type_}, which cannot be shown with joined rows: convert it, or leave it out.")
    if _is_text(type_):
        words += -(-(compute.max(compute.binary_length(column.cast(type_))).as_py() or 0) // WORD)
    if words > LONGEST:
        raise InputError(
            f"{where} holds a text of {WORD * LONGEST >> 20} MiB or more: cut it, or leave the column out."
        )
    schema = arrow.schema([arrow.field("x", type_)]).serialize().to_pybytes()
    return RawColumn(name, base64.b64encode(schema).decode(), words)


def _least_words(type_: Any) -> int | None:
    """Of a cell of a plain type; None if it does not travel. Text has further words."""
    arrow, _ = pyarrow()
    t = arrow.types
    if _is_text(type_) or t.is_boolean(type_):
        return 1
    if t.is_timestamp(type_) and type_.tz is not None:
        try:
            arrow.lib.string_to_tzinfo(type_.tz)
        except (KeyError, ValueError):  # a zone that nobody knows
            return None
    return -(-type_.bit_width // 64) if t.is_primitive(type_) or t.is_decimal(type_) else None


def plain_type(type_: Any) -> Any:
    """The type without dictionaries and views; text and bytes as those of large offsets."""
    arrow, _ = pyarrow()
    t = arrow.types
    if t.is_dictionary(type_):
        return plain_type(type_.value_type)
    if t.is_string(type_) or t.is_string_view(type_):
        return arrow.large_string()
    if t.is_binary(type_):
        return arrow.large_binary()
    return type_


def _is_text(type_: Any) -> bool:
    t = pyarrow()[0].types
    return bool(t.is_large_string(type_) or t.is_large_binary(type_))


def encoded(column: Any, raw: RawColumn) -> tuple[np.ndarray, np.ndarray]:
    """uint64[words, rows] and bool[rows]: the cells, 0 where missing, and whether they are there."""
    arrow, _ = pyarrow()
    column = column.cast(raw.type)
    if isinstance(column, arrow.ChunkedArray):
        column = arrow.concat_arrays(column.chunks) if column.num_chunks else arrow.array([], raw.type)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    out = np.zeros((raw.words, len(column)), np.uint64)
    if _is_text(raw.type):
        _encode_text(column, valid, out)
    elif arrow.types.is_boolean(raw.type):
        out[0] = column.fill_null(False).to_numpy(zero_copy_only=False)
    else:
        width = raw.type.bit_width // 8
        start = column.offset * width
        cells = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * width]
        bytes_ = np.zeros((len(column), raw.words * WORD), np.uint8)
        bytes_[:, :width] = cells.reshape(-1, width)
        out[:] = bytes_.view(np.uint64).T
        out[:, ~valid] = 0
    return out, valid


def _encode_text(column: Any, valid: np.ndarray, out: np.ndarray) -> None:
    _, offsets, data = column.buffers()
    at = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    lengths = np.where(valid, np.diff(at), 0)
    size = int(at[-1])
    bytes_ = np.zeros(size + WORD, np.uint8)
    if data is not None:
        bytes_[:size] = np.frombuffer(data, np.uint8)[:size]
    words = np.ndarray((size + 1,), "<u8", bytes_, strides=(1,))
    out[0] = lengths
    for i in range(len(out) - 1):
        left = np.clip(lengths - i * WORD, 0, WORD)
        out[1 + i] = words[np.where(left > 0, at[:-1] + i * WORD, 0)] & low_bytes(left)


def low_bytes(count: np.ndarray) -> np.ndarray:
    """Words whose lowest bytes, 0 to 8 of them, are set."""
    shift = (8 * (count % WORD)).astype(np.uint64)
    return np.where(count == WORD, ~np.uint64(0), (np.uint64(1) << shift) - np.uint64(1))


def decoded(words: np.ndarray, valid: np.ndarray, raw: RawColumn) -> Any:
    """The inverse of `encoded`: an arrow array. PeerMismatchError for words that no column gives."""
    try:
        if _is_text(raw.type) and (words[0][valid] > WORD * (len(words) - 1)).any():
            raise ValueError("longer than the column is wide")
        made = _decoded(words, valid, raw)
        made.validate(full=True)
    except ValueError:  # arrow's own is one, too
        raise PeerMismatchError(
            f"column `{raw.name}` of the joined rows is not of the form that its owner told: the owner runs another "
            "version, or does not do what it agreed to."
        ) from None
    return made


def _decoded(words: np.ndarray, valid: np.ndarray, raw: RawColumn) -> Any:
    arrow, _ = pyarrow()
    rows, type_ = words.shape[1], raw.type
    mask = arrow.array(valid).buffers()[1] if rows else None
    if _is_text(type_):
        lengths = np.where(valid, words[0], 0).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        bytes_ = np.ascontiguousarray(words[1:].T).view(np.uint8).reshape(rows, WORD * (len(words) - 1))
        data = bytes_[np.arange(bytes_.shape[1]) < lengths[:, None]] if rows else np.zeros(0, np.uint8)
        buffers = [mask, arrow.py_buffer(offsets), arrow.py_buffer(np.ascontiguousarray(data))]
        return arrow.Array.from_buffers(type_, rows, buffers)
    if arrow.types.is_boolean(type_):
        return arrow.array(words[0].astype(bool), mask=~valid)
    bytes_ = np.ascontiguousarray(words.T).view(np.uint8).reshape(rows, WORD * len(words))[:, : type_.bit_width // 8]
    return arrow.Array.from_buffers(type_, rows, [mask, arrow.py_buffer(np.ascontiguousarray(bytes_))])


def common(columns: Sequence[RawColumn]) -> RawColumn:
    """One form for key columns of several owners, of one kind: the wider type, and words for the longest."""
    arrow, _ = pyarrow()
    first = columns[0]
    types = list(dict.fromkeys(c.type for c in columns))
    if len(types) > 1:
        type_ = _widest(types)
        text = arrow.schema([arrow.field("x", type_)]).serialize().to_pybytes()
        words = max(max(c.words for c in columns), 1 if _is_text(type_) else -(-type_.bit_width // 64))
        return RawColumn(first.name, base64.b64encode(text).decode(), words)
    return RawColumn(first.name, first.type_text, max(c.words for c in columns))


def _widest(kinds: Sequence[Any]) -> Any:
    arrow, _ = pyarrow()
    t = arrow.types
    if all(t.is_unsigned_integer(x) for x in kinds):
        return arrow.uint64()
    if all(t.is_integer(x) for x in kinds):  # no integer holds both ends
        return arrow.decimal128(20, 0) if arrow.uint64() in kinds else arrow.int64()
    if all(t.is_date(x) for x in kinds):
        return arrow.date32()
    if all(t.is_timestamp(x) for x in kinds):
        return arrow.timestamp("us", kinds[0].tz)
    if all(t.is_decimal(x) for x in kinds):
        scale = max(x.scale for x in kinds)
        digits = max(x.precision - x.scale for x in kinds) + scale
        return arrow.decimal128(38, scale) if digits <= 38 else arrow.decimal256(76, scale)
    return arrow.large_string()
