"""Checked reading of TOML tables: every error names the file, the key, what was given and what is expected."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import ConfigError

REQUIRED = object()


@dataclass(frozen=True)
class Field:
    """One key of a table: `check` gives the value or raises ValueError with what is expected."""

    check: Callable[[Any], Any]
    default: Any = REQUIRED


def load(path: Path) -> dict[str, Any]:
    """A TOML file as a dict."""
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def read(table: Any, fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The values of all fields; unknown and missing keys are errors."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {table!r:.100}.")
    for key in table:
        if key not in fields:
            near = get_close_matches(key, fields, 1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            raise ConfigError(f"{where}: unknown key `{key}`{hint}: it takes {', '.join(fields)}.")
    out = {}
    for key, field in fields.items():
        if key not in table:
            if field.default is REQUIRED:
                raise ConfigError(f"{where} lacks `{key}`.")
            out[key] = field.default
            continue
        try:
            out[key] = field.check(table[key])
        except ValueError as error:
            raise ConfigError(f"{where}: `{key}` must be {error}, got {table[key]!r:.100}.") from None
    return out


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a text")
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v and v.isprintable() for v in value):
        raise ValueError("a list of texts, such as ['alice']")
    return tuple(value)


def whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e8:
        raise ValueError("a positive number of seconds")
    return float(value)


def days(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ValueError("a positive number of days")
    return float(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def day(value: Any) -> date:
    if type(value) is not date:
        raise ValueError("a date, such as 2027-01-31 without quotes")
    return value


def one_of(*names: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return str(value)

    return check


def _entry(check: Callable[[Any], Any], key: str, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"a table in which `{key:.60}` is {error}") from None


def table_of(check: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("a table")
        return {str(k): _entry(check, str(k), v) for k, v in value.items()}

    return checked
