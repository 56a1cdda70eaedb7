"""Mistakes in TOML files, with their place: in, an error that names a key; out, the same with the file and the line.

`tomllib` keeps no lines, so the key that the message names is looked up in the text: among the lines of the tables that
the message names, or among all. A line is said only where one alone can be meant.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spuvm.runtime.errors import ConfigError, InputError

HEADER = re.compile(r"\s*\[(\[?)\s*([^\[\]]+?)\s*\]")
KEY = re.compile(r"\s*([A-Za-z0-9_.-]+|\"[^\"]*\"|'[^']*')\s*=")
NAMED = re.compile(r"`([^`]+)`")
SECTION = re.compile(r"\[([A-Za-z0-9_.-]+)\]|\b(rule|grant) (\d+)\b|\bnode `([^`]+)`")
LONGEST = 600  # characters of a message


@contextmanager
def located(path: str | Path) -> Iterator[None]:
    """Errors on purpose that the block raises about a file name it, and the line if that is clear."""
    try:
        yield
    except (ConfigError, InputError) as error:
        message = _short(str(error))
        line = None
        with suppress(OSError, UnicodeDecodeError):
            line = line_of(Path(path).read_text(), message)
        where = str(path) if line is None else f"line {line}" if str(path) in message else f"{path}, line {line}"
        if where in message:
            raise type(error)(message) from None
        raise type(error)(f"{message.rstrip('.')} ({where}).") from None


def line_of(text: str, message: str) -> int | None:
    """The line that a message means, from 1; None if it names no key, or if several lines have it."""
    lines = list(_keys(text))
    tables = {table for found in SECTION.finditer(message) if (table := _table(found)) is not None}
    inner = [entry for entry in lines if any(f".{t}." in f".{entry[1]}." for t in tables)]
    for name in NAMED.findall(message):
        for candidates in (inner, lines) if not tables else (inner,):
            found = [number for number, _, key in candidates if key == name or key.endswith(f".{name}")]
            if len(found) == 1:
                return found[0]
    heads = [number for number, _, key in inner if not key]
    return heads[0] if len(heads) == 1 else None


def _keys(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, table and key of each line that has one; the key of a table's own line is empty.

    The second table of `[[allow]]` is `allow.2`.
    """
    table, count = "", dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            table = header[2].replace('"', "")
            if header[1]:
                count[table] = count.get(table, 0) + 1
                table = f"{table}.{count[table]}"
            yield number, table, ""
        elif key := KEY.match(line):
            yield number, table, key[1].strip("\"'")


def _table(found: re.Match[str]) -> str | None:
    if found[2]:
        return f"{'allow' if found[2] == 'rule' else 'grant'}.{found[3]}"
    return found[1] or found[4]


def _short(message: str) -> str:
    """Printable, and no longer than somebody reads: a file may hold anything."""
    plain = "".join(c if c.isprintable() else "?" for c in message)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST // 2]} ... {plain[-LONGEST // 4 :]}"


def is_file(path: Path) -> bool:
    """`Path.is_file`, also of names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
