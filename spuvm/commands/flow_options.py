"""What the commands of flows have in common: tables, parameters, and how results are shown."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as RichTable

from spuvm.commands.terminal import console
from spuvm.flow import Flow, Run
from spuvm.flow.kinds import Report
from spuvm.policy import fields
from spuvm.runtime.errors import ConfigError, InputError

TABLE = re.compile(r"([\w.-]+)=(.+?)(?:@([\w.-]+))?")


def assigned(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no TOML is a text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"`--set` must be NAME=VALUE, got {text!r:.60}.")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value


def changed(found: Flow, changes: Sequence[str]) -> Flow:
    """The flow with other parameters."""
    return found.set(**dict(map(assigned, changes))) if changes else found


def catalog_of(texts: Sequence[str], file: Path | None, me: str | None = None) -> dict[str, dict[str, Any]]:
    """By party, its tables by name."""
    out: dict[str, dict[str, Any]] = {}
    if file is not None:
        for party, entries in fields.load(file).items():
            if not isinstance(entries, dict) or not all(isinstance(v, str) for v in entries.values()):
                raise ConfigError(f"{file}: [{party}] must be a table of paths by name.")
            out[party] = {k: str(Path(file).parent / v) for k, v in entries.items()}
    for text in texts:
        match = TABLE.fullmatch(text)
        owner = (match[3] or me) if match is not None else None
        if match is None or not owner:
            raise InputError(f"`--table` is {text!r}: write it like 'loans=loans.parquet@alice'.")
        out.setdefault(owner, {})[match[1]] = match[2]
    return out


def outcome(made: Run) -> None:
    """What a run gave: numbers and reports."""
    console().print(repr(made))
    for name, edge in made.flow.outputs.items():
        kind = next(p.kind.name for p in made.flow.nodes[edge[0]].component.outputs if p.name == edge[1])
        if kind not in ("report", "number"):
            console().print(f"{name}: a {kind}")
            continue
        value = made.value(edge)
        if not isinstance(value, Report):
            console().print(f"{name} = {value:.6g}")
            continue
        for key, number in value.numbers.items():
            console().print(f"{name}.{key} = {number:.6g}")
        for key, (heads, rows) in value.tables.items():
            shown = [tuple(f"{c:.6g}" if isinstance(c, float) else str(c) for c in row) for row in rows]
            console().print(f"{name}: {key}")
            console().print(rich_table(tuple(map(str, heads)), shown))


def rich_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    """A plain table."""
    out = RichTable(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        out.add_row(*row)
    return out
