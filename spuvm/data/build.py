"""Frames from the parties' tables: everything is checked here, before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spuvm.context import agree
from spuvm.data.frame import Frame
from spuvm.data.matching import matched
from spuvm.data.part import PUBLIC, Part, Request, load
from spuvm.data.same_keys import differing
from spuvm.data.schema import NUMBERS, Column, Schema, nearest
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.runtime.errors import InputError, PublicError

Names = str | Sequence[str]
Categories = Mapping[str, str | Sequence[str]]


def vertical(
    sources: Mapping[str, Any],
    key: Names,
    *,
    columns: Sequence[str] | None = None,
    drop: Names = (),
    categories: Categories | None = None,
    missing: bool | Sequence[str] = True,
    match: str | None = None,
    **matching: Any,
) -> Frame:
    """A frame of which each party holds some columns of the same rows, in the same order.

    All parties learn the schema and, for each party, whether its rows are the first party's: one bit.
    With `match="inner"` tables may have different rows: those whose key all owners have are found first, brought into
    one order, and each owner learns which of its rows they are, and all parties how many.

    Args:
        sources: by party: a path (.parquet, .csv, .npy), a pandas frame, an arrow table, arrays by column
            name, or an object of the party's PYU. In a networked run each party's is used at that party
            alone; the others may give None.
        key: the column or columns, at every party, by which rows are matched: integers, text or dates. A
            party may bring nothing else.
        columns: to use; all if not given.
        drop: columns to leave out.
        categories: of columns whose categories all may know: a list of them in order, or "public" for
            those that occur. Of all other text columns they stay with the owner, sorted by name.
        missing: whether cells may be missing; or the names of the columns where they may.
        match: None: all bring the same rows, in the same order; "inner": rows are matched (`spuvm.psi`).
        matching: `types`, `duplicates`, `mode`, `helper` of `spuvm.psi.intersect`.

    Raises:
        InputError: for a table that cannot be read or has no rows; a key that is missing, incomplete or
            repeated; other rows, or another order; a column at two parties or at none; values that are
            neither numbers nor text, infinite, or missing where that is not allowed. Every party stops.
        PeerMismatchError: if the parties' scripts ask for different things.
    """
    request = _request(key, columns, drop, categories, missing)
    if not request.key:
        raise InputError("`key` is empty: name the column that says which row is whose, at every party.")
    if match is not None:
        sources = matched(sources, request.key, match, matching)
    elif matching:
        raise InputError(f"`{next(iter(matching))}` belongs to `match='inner'`: give that, too.")
    parts, said = _loaded("vertical frame", sources, request)
    counts = {p: s["rows"] for p, s in said.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{p} {n:,}" for p, n in counts.items())
        raise PublicError(f"the parties have different numbers of rows ({shown}): bring the same rows.")
    found = [_column(p, c, request) for p, s in said.items() for c in s["columns"]]
    _no_name_twice(found)
    schema = _schema(found, counts, max(counts.values()), request)
    _dropped(said, request)
    others = differing({p: PYU(p)(Part.digest)(parts[p]) for p in parts})
    if others:
        raise PublicError(
            f"the keys ({', '.join(request.key)}) of {' and '.join(others)} are not those of {next(iter(parts))}, or "
            "in another order: keep the rows that all parties have, sorted by key."
        )
    return Frame("vertical", schema, request.key, parts)


def horizontal(
    sources: Mapping[str, Any],
    key: Names = (),
    *,
    columns: Sequence[str] | None = None,
    drop: Names = (),
    categories: Categories | None = None,
    missing: bool | Sequence[str] = True,
) -> Frame:
    """A frame of which each party holds some rows, with the same columns.

    Args:
        sources, columns, drop, missing: as of `vertical`.
        key: columns that are no features; unique within a party. They need not be there.
        categories: needed for every text column, as all parties must code it alike: the list, or
            "public": then all learn which categories occur at whom.

    Raises:
        InputError, PeerMismatchError: as `vertical`; and for columns that not all parties have, or have
            with different types.
    """
    request = _request(key, columns, drop, categories, missing)
    parts, said = _loaded("horizontal frame", sources, request)
    first, *_ = said
    found = []
    for name, *_ in said[first]["columns"]:
        found.append(_common(name, {p: dict(_by_name(s)) for p, s in said.items()}, request))
    _same_columns(said)
    counts = {p: s["rows"] for p, s in said.items()}
    schema = _schema(found, counts, sum(counts.values()), request)
    _dropped(said, request)
    for column in schema.columns:
        if column.categories is not None:
            parts = {p: _recoded(p, parts[p], column) for p in parts}
    return Frame("horizontal", schema, request.key, parts)


# What is asked ----------------------------------------------------------------------------------------------


def _request(key: Names, columns: Any, drop: Names, categories: Any, missing: Any) -> Request:
    key, drop = _names("key", key), _names("drop", drop)
    columns = None if columns is None else _names("columns", columns)
    missing = missing if isinstance(missing, bool) else _names("missing", missing)
    for name, stated in (categories or {}).items():
        if isinstance(stated, str) and stated != PUBLIC:
            raise InputError(f"`categories` of `{name}` must be a list, or '{PUBLIC}', got {stated!r}.")
        if not isinstance(stated, str) and len(set(map(str, stated))) < len(stated):
            raise InputError(f"`categories` of `{name}` has one twice.")
    known = {n: s if isinstance(s, str) else [str(c) for c in s] for n, s in (categories or {}).items()}
    return Request(key, columns, drop, known, missing)


def _names(what: str, value: Names) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(n, str) for n in names):
        raise InputError(f"`{what}` must be names of columns, got {value!r}.")
    return names


def _loaded(what: str, sources: Mapping[str, Any], request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every party's part, and what it announces."""
    if not isinstance(sources, Mapping) or not sources:
        raise InputError("`sources` must map parties to their tables: {'alice': 'alice.parquet', 'bob': ...}.")
    devices = [PYU(party) for party in sources]
    asked = [what, list(sources), request.key, request.columns, request.drop, request.categories, request.missing]
    agree(what, json.dumps(asked).encode())
    parts = {d.party: _read(d, sources[d.party], request) for d in devices}
    said = {d.party: _announced(d, parts[d.party], request) for d in devices}
    return parts, said


def _read(device: PYU, source: Any, request: Request) -> PYUObject:
    if isinstance(source, PYUObject):
        return device(lambda table: load(table, device.party, request))(source)
    return device(lambda: load(source, device.party, request))()


def _announced(device: PYU, part: PYUObject, request: Request) -> Any:
    """Text travels as its bytes."""

    def say(part: Part) -> np.ndarray:
        return np.frombuffer(json.dumps(part.announced(request)).encode(), np.uint8)

    return json.loads(np.asarray(fetch(device(say)(part))).tobytes())


# Schemas ----------------------------------------------------------------------------------------------------


def _column(party: str | None, said: Sequence[Any], request: Request) -> Column:
    name, type_, categories = said
    return Column(name, party, type_, request.allows_missing(name), None if categories is None else tuple(categories))


def _no_name_twice(columns: Sequence[Column]) -> None:
    owner: dict[str, Any] = {}
    for column in columns:
        if column.name in owner:
            raise PublicError(
                f"{owner[column.name]} and {column.party} both have a column `{column.name}`: rename one, "
                f"or leave it out in both tables."
            )
        owner[column.name] = column.party


def _schema(found: Sequence[Column], counts: Mapping[str, int], rows: int, request: Request) -> Schema:
    schema = Schema(tuple(found), rows, dict(counts))
    missing = () if isinstance(request.missing, bool) else request.missing
    for what, names in (
        ("columns", request.columns or ()),
        ("categories", request.categories or ()),
        ("missing", missing),
    ):
        for name in names:
            if name not in schema.names:
                raise PublicError(f"`{what}` names `{name}`, which no party has{nearest(name, schema.names)}.")
    if not found:
        raise PublicError("no party has a column besides the key: nothing is left to compute with.")
    return schema if request.columns is None else schema.select(request.columns)


def _dropped(said: Mapping[str, Any], request: Request) -> None:
    """That what is left out was somewhere: a slip of the pen must not let a column in."""
    there = {name for s in said.values() for name in s["dropped"]}
    for name in request.drop:
        if name not in there:
            raise PublicError(f"`drop` names `{name}`, which no party has: leave it out of `drop`.")


def _by_name(said: Any) -> list[tuple[str, Any]]:
    return [(c[0], c) for c in said["columns"]]


def _same_columns(said: Mapping[str, Any]) -> None:
    first, *others = said
    names = [n for n, _ in _by_name(said[first])]
    for party in others:
        more = [n for n, _ in _by_name(said[party]) if n not in names]
        if more:
            raise PublicError(f"{party} has a column `{more[0]}`, {first} has not: every party must bring the same.")


def _common(name: str, said: Mapping[str, Mapping[str, Any]], request: Request) -> Column:
    """A column of a horizontal frame: one type, and one list of categories."""
    types = {}
    for party, columns in said.items():
        if name not in columns:
            raise PublicError(f"{party} has no column `{name}`: every party must bring the same columns.")
        types[party] = columns[name][1]
    kinds = set(types.values())
    if kinds == set(NUMBERS):
        kinds = {"float"}
    if len(kinds) > 1:
        shown = ", ".join(f"{p} {t}" for p, t in types.items())
        raise PublicError(f"column `{name}` has different types ({shown}): convert it.")
    if kinds == {"category"} and request.stated(name) is None:
        raise PublicError(
            f"column `{name}` is text: all parties must code it alike. Give `categories={{'{name}': [...]}}`, or "
            f"'{PUBLIC}' if all may know which there are."
        )
    stated = request.stated(name)
    union = None
    if stated is not None:
        union = sorted({c for s in said.values() for c in s[name][2]}) if isinstance(stated, str) else list(stated)
    return _column(None, (name, kinds.pop(), union), request)


def _recoded(party: str, part: PYUObject, column: Column) -> PYUObject:
    known = column.categories or ()
    return PYU(party)(lambda p: replace(p.recoded(column.name, known, "`categories`")))(part)
