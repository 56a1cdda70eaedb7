"""The types of SQL values, and how the machine holds them: as int64, bool or float64 arrays [rows].

Integers, decimals (the number times 10^scale), dates (days since 1970) and timestamps (microseconds) are integers of
the ring: exact. Each type has a public range, from which widths of sort keys follow, and the promise that no sum
overflows. Text is words of 7 bytes each, most significant byte first, padded by zeros: words compare as the text's
bytes do. Text of more than `SHORT` words that one owner holds travels as a code, its rank in the owner's dictionary.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from spuvm.runtime.errors import DataError, InputError

WORD = 7  # bytes of text in a word
SHORT = 2  # words of text that are carried as they are
LIMIT = (1 << 62) - 1  # of integers
FLOAT = 2.0**40
NUMBERS = ("int", "decimal")
EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class Type:
    """Of a column or an expression.

    Attributes:
        kind: "bool", "int", "decimal", "date", "timestamp", "float", "text" or "null".
        lo, hi: the range of the integers that stand for it; of text by code, of the codes.
        scale: of a decimal, digits behind the point.
        words: of text, how many.
        dictionary: of text by code, the name of the dictionary.
    """

    kind: str
    lo: int = 0
    hi: int = 0
    scale: int = 0
    words: int = 1
    dictionary: str | None = None

    @property
    def is_number(self) -> bool:
        return self.kind in NUMBERS

    @property
    def is_integer(self) -> bool:
        """Whether the machine holds it as one integer."""
        return self.kind in ("int", "decimal", "date", "timestamp") or self.dictionary is not None

    @property
    def size(self) -> int:
        """The largest magnitude."""
        return max(abs(self.lo), abs(self.hi))

    @property
    def parts(self) -> int:
        """How many arrays hold it."""
        return self.words if self.kind == "text" and self.dictionary is None else 1

    def within(self, lo: int, hi: int) -> Type:
        return replace(self, lo=int(lo), hi=int(hi))

    def __str__(self) -> str:
        if self.kind == "decimal":
            return f"decimal({self.scale})"
        if self.kind == "text":
            return f"text[{WORD * self.words}]" + (" by code" if self.dictionary else "")
        return self.kind


BOOL = Type("bool", 0, 1)
NULL = Type("null")
FLOATING = Type("float")
DATE = Type("date", -(1 << 22), 1 << 22)
TIMESTAMP = Type("timestamp", -LIMIT, LIMIT)


def integer(lo: int, hi: int) -> Type:
    return checked(Type("int", lo, hi))


def decimal(scale: int, lo: int, hi: int) -> Type:
    return checked(Type("decimal", lo, hi, scale))


def text(length: int) -> Type:
    """Of at most so many bytes."""
    return Type("text", words=max(1, math.ceil(length / WORD)))


def checked(type_: Type, what: str = "a result") -> Type:
    """Refuse integers that could leave the ring's range unnoticed."""
    if type_.size > LIMIT:
        raise InputError(
            f"{what} of type {type_} can need {type_.size.bit_length()} bits, the machine's integers have 62: cast "
            f"to fewer "
            "digits or to double first, or let the owner state the range of its columns (`statistics` in the policy)."
        )
    return type_


# DuckDB's types ---------------------------------------------------------------------------------------------

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 62, "UTINYINT": 9, "USMALLINT": 17, "UINTEGER": 33}
WIDE = {"HUGEINT", "UBIGINT", "UHUGEINT"}
DEFAULT_TEXT = 32  # bytes, where no owner says more


def from_duckdb(name: str, where: str) -> Type:
    """A column's type by its name in DuckDB.

    Raises:
        InputError: for lists, structs and other types that the machine does not hold.
    """
    name = name.upper()
    if name in INTEGERS:
        top = (1 << (INTEGERS[name] - (INTEGERS[name] != 62))) - 1
        return Type("int", -top - (top != LIMIT), top)
    if name in WIDE:
        return Type("int", -LIMIT, LIMIT)
    if match := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", name):
        top = min(10 ** int(match[1]) - 1, LIMIT)
        return Type("decimal", -top, top, int(match[2]))
    if name in ("FLOAT", "DOUBLE", "REAL"):
        return FLOATING
    if name == "BOOLEAN":
        return BOOL
    if name == "DATE":
        return DATE
    if name.startswith("TIMESTAMP"):
        return TIMESTAMP
    if name == "VARCHAR" or name.startswith("ENUM"):
        return text(DEFAULT_TEXT)
    if name in ('"NULL"', "NULL"):
        return NULL
    raise InputError(
        f"{where} has type {name}, which SQL here does not take: cast it to numbers, text, dates or booleans at "
        f"its owner."
    )


# Values -------------------------------------------------------------------------------------------------------


def raw(value: Any, type_: Type) -> Any:
    """A Python value as the number that the machine holds; of text, its words."""
    if type_.kind == "decimal":
        return int(Decimal(str(value)).scaleb(type_.scale).to_integral_value())
    if type_.kind == "date":
        return (value - EPOCH).days
    if type_.kind == "timestamp":
        plain = value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)
        return round((plain - dt.datetime(1970, 1, 1)) / dt.timedelta(microseconds=1))
    if type_.kind == "text":
        return words_of([value], type_.words)[0]
    return value


def words_of(values: Any, count: int) -> np.ndarray:
    """Texts as int64[len(values), count]; None as zeros.

    Raises:
        DataError: for texts that are longer, or hold the character NUL, which stands for the end.
    """
    encoded = [b"" if v is None else str(v).encode() for v in values]
    size = WORD * count
    if any(len(v) > size for v in encoded):
        raise DataError(f"text is longer than the {size} bytes that were announced for it.")
    if any(b"\0" in v for v in encoded):
        raise DataError("text holds the character NUL, which SQL here does not take: remove it.")
    flat = np.frombuffer(b"".join(v.ljust(size, b"\0") for v in encoded), np.uint8).reshape(-1, count, WORD)
    weights = np.int64(256) ** np.arange(WORD - 1, -1, -1, dtype=np.int64)
    return np.asarray((flat.astype(np.int64) * weights).sum(-1))


def text_of(words: np.ndarray) -> list[str]:
    """The inverse of `words_of`."""
    rows, count = words.shape
    shifts = np.arange(8 * (WORD - 1), -1, -8, dtype=np.int64)
    flat = ((words[:, :, None] >> shifts) & 255).astype(np.uint8).reshape(rows, count * WORD)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in flat]
