"""Keys as words: one canonical form for each value, whatever file, type width or compression it came in.

A kind of key is what all parties must agree on: `int` (any width), `bool`, `date`, `time` (without a zone), `instant`
(with one), `decimal`, `text`. Within a kind equal values have equal words and different values different ones:

    int, bool, date     128-bit two's complement
    time, instant       the same, of nanoseconds since 1970
    decimal             its shortest text: 1.50 is 1.5, and -0 is 0
    text                NFC, as UTF-8; blanks and letters' case count

Numbers of floating point are no keys: their text and binary forms do not round alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.data.part import pyarrow
from spuvm.runtime.errors import DataError, InputError

KINDS = ("int", "bool", "date", "time", "instant", "decimal", "text")
GUESSABLE = ("int", "bool", "date", "time", "instant", "decimal")  # whoever can compute tags can try all values
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, eq=False)
class Keys:
    """A table's key columns in canonical form.

    Attributes:
        columns: of each, `Fixed` or `Text`.
        present: bool[rows]: false where any key column is missing; such a row matches nothing.
    """

    columns: tuple[Fixed | Text, ...]
    present: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.present)


@dataclass(frozen=True, eq=False)
class Fixed:
    """uint64[rows, 2]: low and high word of a value of 128 bits."""

    words: np.ndarray


@dataclass(frozen=True, eq=False)
class Text:
    """Texts end to end: `data` uint8[bytes + 16], text i at `starts[i]`, of `lengths[i]` bytes, both int64[rows]."""

    data: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def kind_of(type_: Any, where: str) -> str:
    """The kind of an arrow type. InputError for one that makes no key."""
    arrow, _ = pyarrow()
    t = arrow.types
    if t.is_dictionary(type_):
        return kind_of(type_.value_type, where)
    for kind, tests in {
        "int": (t.is_integer,),
        "bool": (t.is_boolean,),
        "date": (t.is_date,),
        "decimal": (t.is_decimal,),
        "text": (t.is_string, t.is_large_string, t.is_string_view),
    }.items():
        if any(test(type_) for test in tests):
            return kind
    if t.is_timestamp(type_):
        return "time" if type_.tz is None else "instant"
    if t.is_floating(type_):
        raise InputError(
            f"{where} holds {type_}: floats make no keys, as their texts round. Say what it is: "
            "types={...: 'decimal'} (or 'int', 'text'), and it is read as that."
        )
    held = f"{type_}, as text does that is not UTF-8" if t.is_binary(type_) or t.is_large_binary(type_) else type_
    raise InputError(f"{where} holds {held}: keys are integers, decimals, text, dates, timestamps or bools.")


def as_kind(column: Any, kind: str, where: str) -> Any:
    """The column converted to a declared kind. DataError if a value is none; InputError for another kind."""
    arrow, _ = pyarrow()
    if kind not in KINDS:
        raise InputError(f"`types` says {kind!r} of {where}: a key is one of {', '.join(KINDS)}.")
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    target = {
        "int": arrow.int64(),
        "bool": arrow.bool_(),
        "date": arrow.date32(),
        "time": arrow.timestamp("us"),
        "instant": arrow.timestamp("us", "UTC"),
        "decimal": arrow.decimal128(38, 9),
        "text": arrow.large_string(),
    }[kind]
    if not arrow.types.is_floating(column.type) and kind_of(column.type, where) == kind:
        return column
    try:
        return column.cast(target)
    except (arrow.ArrowException, ValueError):
        raise DataError(
            f"{where} has a value that is no {kind}: `types` declares it so. Correct it, or the type."
        ) from None


NORMAL = ("trim", "lower", "spaces", "digits")


def normal(column: Any, steps: Sequence[str], where: str) -> Any:
    """Text as it is compared: without blanks at its ends, in lower case, with single blanks, or its digits alone.

    InputError for anything but text, and for unknown steps.
    """
    _, compute = pyarrow()
    if not steps:
        return column
    if kind_of(column.type, where) != "text":
        raise InputError(f"{where} is no text: `normalize` is for text.")
    column = _whole(column)
    for step in steps:
        if step not in NORMAL:
            raise InputError(f"`normalize` says {step!r} of {where}: it takes {', '.join(NORMAL)}.")
        column = {
            "trim": compute.utf8_trim_whitespace,
            "lower": compute.utf8_lower,
            "spaces": lambda x: compute.replace_substring_regex(x, r"\s+", " "),
            "digits": lambda x: compute.replace_substring_regex(x, "[^0-9]", ""),
        }[step](column)
    return column


def canonical(columns: Sequence[Any], where: str) -> Keys:
    """Key columns (arrow, ChunkedArray or Array, of one length) in canonical form.

    Raises:
        DataError: for text that is not UTF-8, and times finer than nanoseconds or out of their range.
    """
    present: np.ndarray | None = None
    out: list[Fixed | Text] = []
    for column in columns:
        column = _whole(column)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        present = valid if present is None else present & valid
        out.append(_FORMS[kind_of(column.type, where)](column, where))
    assert present is not None
    return Keys(tuple(out), present)


def of_numbers(numbers: np.ndarray) -> Keys:
    """Integers [rows] as keys."""
    return Keys((_fixed(numbers),), np.ones(len(numbers), bool))


def _whole(column: Any) -> Any:
    arrow, _ = pyarrow()
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column, arrow.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, arrow.ChunkedArray):
            column = arrow.concat_arrays(column.chunks) if column.num_chunks else arrow.array([], column.type)
    return column


def _fixed(values: np.ndarray) -> Fixed:
    words = np.empty((len(values), 2), np.uint64)
    words[:, 0] = values.astype(np.uint64) if values.dtype.kind == "u" else values.astype(np.int64).view(np.uint64)
    words[:, 1] = 0 if values.dtype.kind == "u" else (values.astype(np.int64) >> 63).view(np.uint64)
    return Fixed(words)


def _numbers(column: Any) -> np.ndarray:
    _, compute = pyarrow()
    filled: np.ndarray = compute.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return filled


def _of_int(column: Any, where: str) -> Fixed:
    return _fixed(_numbers(column))


def _of_bool(column: Any, where: str) -> Fixed:
    arrow, _ = pyarrow()
    return _fixed(_numbers(column.cast(arrow.int64())))


def _of_date(column: Any, where: str) -> Fixed:
    arrow, _ = pyarrow()
    return _fixed(_numbers(column.cast(arrow.date32()).cast(arrow.int32()).cast(arrow.int64())))


def _of_time(column: Any, where: str) -> Fixed:
    """Nanoseconds as a 128-bit product, so that every unit's whole range has a form."""
    arrow, _ = pyarrow()
    ticks = _numbers(column.cast(arrow.int64()))
    factor = 10**9 // PER_SECOND[column.type.unit]
    high, low = ticks >> 32, ticks & 0xFFFFFFFF  # ticks = high 2^32 + low, and factor < 2^30
    low_part = low * factor
    middle = high * factor + (low_part >> 32)
    words = np.empty((len(ticks), 2), np.uint64)
    words[:, 0] = ((middle & 0xFFFFFFFF).astype(np.uint64) << np.uint64(32)) | (low_part & 0xFFFFFFFF).astype(np.uint64)
    words[:, 1] = (middle >> 32).view(np.uint64)
    return Fixed(words)


def _of_decimal(column: Any, where: str) -> Text:
    arrow, compute = pyarrow()
    text = column.cast(arrow.string())
    fraction = compute.utf8_rtrim(compute.utf8_rtrim(text, "0"), ".")
    text = compute.if_else(compute.match_substring(text, "."), fraction, text)
    text = compute.if_else(compute.is_in(text, arrow.array(["-0", ""])), "0", text)
    return _of_text(text, where)


def _of_text(column: Any, where: str) -> Text:
    arrow, compute = pyarrow()
    column = column.cast(arrow.large_string())
    try:
        column.validate(full=True)
    except arrow.ArrowException:
        raise DataError(f"{where} has text that is not UTF-8: convert the file.") from None
    if not _is_ascii(column):
        column = compute.utf8_normalize(column, "NFC")
    return _spans(compute.fill_null(column, ""))


def _is_ascii(column: Any) -> bool:
    _, _, data = column.buffers()
    return data is None or not (np.frombuffer(data, np.uint8) & 0x80).any()


def _spans(column: Any) -> Text:
    _, offsets, data = column.buffers()
    at = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    size = int(at[-1]) if len(at) else 0
    padded = np.zeros(size + 16, np.uint8)
    if data is not None:
        padded[:size] = np.frombuffer(data, np.uint8)[:size]
    return Text(padded, at[:-1].astype(np.int64), np.diff(at))


_FORMS: dict[str, Any] = {
    "int": _of_int,
    "bool": _of_bool,
    "date": _of_date,
    "time": _of_time,
    "instant": _of_time,
    "decimal": _of_decimal,
    "text": _of_text,
}


def look_alikes(column: Any) -> dict[str, int]:
    """For a note to the owner alone: how many texts have blanks at an end, or are not in NFC."""
    arrow, compute = pyarrow()
    column = _whole(column)
    if not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
        return {}
    found = {"blanks at an end": compute.sum(compute.not_equal(column, compute.utf8_trim_whitespace(column))).as_py()}
    if not _is_ascii(column.cast(arrow.large_string())):
        found["composed characters"] = compute.sum(
            compute.not_equal(column, compute.utf8_normalize(column, "NFC"))
        ).as_py()
    return {what: n for what, n in found.items() if n}
