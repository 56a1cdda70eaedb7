"""Components that make frames of several parties' tables: match, align, stack, split, choose columns."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

import spuvm as spu
from spuvm.devices import PYU
from spuvm.flow.components import component
from spuvm.flow.kinds import Number, PartyTable, Rows
from spuvm.ml.common.rules import SEED, between
from spuvm.runtime.errors import InputError

Names = tuple[str, ...]


class Split(NamedTuple):
    """Rows for training and for tests."""

    train: Rows
    test: Rows


def _sources(tables: tuple[Any, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for table in tables:
        if table.device.party in out:
            raise InputError(f"{table.device.party} brings two tables: join them first (`sql`), or leave one out.")
        out[table.device.party] = table
    return out


@component
def match(
    *tables: PartyTable,
    key: Annotated[Names, "the column or columns by which rows are matched, at every party"],
    mode: Annotated[
        Literal["", "helper", "oblivious", "ecdh"], "how keys are compared; '' chooses by the parties"
    ] = "",
    duplicates: Annotated[Literal["refuse", "first"], "what becomes of a key in several rows"] = "refuse",
    categories: Annotated[dict[str, tuple[str, ...]], "of text columns whose categories all may know"] = {},  # noqa: B006
) -> Rows:
    """Columns of the rows that all owners have. Owners learn which of theirs these are, and all parties how many."""
    more = {"mode": mode} if mode else {}
    made = _sources(tables)
    return spu.data.vertical(made, key, match="inner", duplicates=duplicates, categories=categories or None, **more)


@component
def align(
    *tables: PartyTable,
    key: Annotated[Names, "the column or columns that say which row is whose"],
    categories: Annotated[dict[str, tuple[str, ...]], "of text columns whose categories all may know"] = {},  # noqa: B006
) -> Rows:
    """Columns of rows that all owners have in one order already; else it refuses, and all learn which party differs."""
    return spu.data.vertical(_sources(tables), key, categories=categories or None)


@component
def stack(
    *tables: PartyTable,
    key: Annotated[Names, "columns that are no features"] = (),
    categories: Annotated[dict[str, tuple[str, ...]], "of text columns: all parties must code them alike"] = {},  # noqa: B006
) -> Rows:
    """Rows of several parties with the same columns."""
    return spu.data.horizontal(_sources(tables), key, categories=categories or None)


@component
def split(
    data: Rows,
    *,
    test_size: Annotated[float, between(0, 1), "the share of rows for the test"] = 0.25,
    seed: Annotated[int, SEED, "public: all know which rows"] = 0,
) -> Split:
    """Rows for training and for a test, drawn by a public seed."""
    from spuvm.ml.composition.splits import train_test_split

    if hasattr(data, "split"):
        return Split(*data.split(test_size, seed))
    train, test = train_test_split(data, test_size=test_size, random_state=seed)
    return Split(train, test)


@component
def sample(
    data: Rows,
    *,
    share: Annotated[float, between(0, 1), "of the rows"],
    seed: Annotated[int, SEED, "public: all know which rows"] = 0,
) -> Rows:
    """Some of the rows, drawn by a public seed."""
    count = max(1, round(share * data.rows))
    return data.take(np.sort(np.random.RandomState(seed).permutation(data.rows)[:count]))


@component
def select(data: Rows, *, columns: Annotated[Names, "to keep, in this order"]) -> Rows:
    """Some columns of a frame."""
    return data[list(columns)]


@component
def drop(data: Rows, *, columns: Annotated[Names, "to leave out"]) -> Rows:
    """All columns of a frame but some."""
    return data.drop(*columns)


@component
def binary(
    data: Rows,
    *,
    column: Annotated[str, "a column of two texts"],
    positive: Annotated[str, "the text that counts as true"],
) -> Rows:
    """A column of two texts as true and false; its holder checks that there are two."""
    return data.binary(column, positive=positive)


@component
def at_party(data: Rows, *, party: Annotated[str, "whose columns"]) -> PartyTable:
    """A party's own columns of a frame, with the key, as its table again."""
    names = data.columns_of(party)
    return PYU(party)(lambda part: _table(part, names))(data.parts[party])


def _table(part: Any, names: Names) -> Any:
    from spuvm.data.part import pyarrow

    arrow, _ = pyarrow()
    columns = {n: part.keys[n] for n in part.keys.column_names}
    for n in names:
        known = part.categories.get(n)
        cells = part.columns[n]
        text = None if known is None else [None if c != c else known[int(c)] for c in cells]
        columns[n] = arrow.array(cells if text is None else text, from_pandas=True)
    return arrow.table(columns)


@component
def count_rows(data: Rows) -> Number:
    """How many rows a frame has, which all know."""
    return int(data.rows)
