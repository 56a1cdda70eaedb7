"""Tables that nobody owns: queries give and read them, joins with shared output are such tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.runtime.errors import InputError, PolicyError
from spuvm.sql import connect
from spuvm.sql.in_the_clear import evaluate

TABLES = sql_queries.tables(3)
OWNED: dict[str, dict[str, Any]] = {"alice": {"t": TABLES["t"]}, "bob": {"u": TABLES["u"]}}


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def in_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


def test_a_query_of_shares_gives_duckdbs_rows() -> None:
    """NULLs, decimals, dates, short and long text; a join of shares with shares and with an owner's table."""
    db = connect(OWNED)
    shares = {"st": db.share("select * from t"), "su": db.share("select x, sum(q) q, count(*) n from u group by x")}
    assert shares["su"].keys == (frozenset({"x"}),)  # so that it is looked up, whatever its rows
    both = connect({"alice": {"t": TABLES["t"]}}, shares=shares)
    oracle = sql_queries.oracle(TABLES)
    oracle.execute("create table st as select * from t")
    oracle.execute("create table su as select x, sum(q) q, count(*) n from u group by x")
    for sql in (
        "select a, b, p, d, s from st where p > 1 and s = 'red' or d > date '2024-02-01'",
        "select s, sum(p * b), count(d), min(d) from st group by s",
        "select st.a, su.q, su.n, t.p from st left join su on st.a = su.x join (select max(a) m, max(p) p from t) t "
        "on st.a <= t.m",
    ):
        assert in_order(both.sql(sql, "carol").rows()) == in_order(oracle.execute(sql).fetchall()), sql


def test_expressions_are_listed_when_a_table_is_shared() -> None:
    """What only an owner can compute is found in a query that says the same, of whatever alias; nothing else is."""
    listed = ["s like '%e%'", "substring(s from 1 for 1)"]
    rows = connect(OWNED).share("select a, s from t where a is not null", expressions=listed)
    assert rows.names == ("a", "s") and "SUBSTRING" in repr(rows)
    assert rows.there is not None and rows.there.type.visibility == "secret"  # though one owner had it all
    assert {w.type.visibility for c in rows.columns for w in c.words} == {"secret"}
    db, oracle = connect({}, shares={"st": rows}), sql_queries.oracle(TABLES)
    sql = (
        "select substring(z.s from 1 for 1) c, count(*) filter (where z.S not like '%e%') from {} z "
        "where a is not null group by c"
    )
    got = evaluate(db, sql.format("st"), "carol")
    assert in_order(got) == in_order(oracle.execute(sql.format("t")).fetchall())
    assert [c for c, _ in db.plan("select * from st", "carol").root.items.items()] == ["0:a", "1:s"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="patterns are matched by the owner"):
        db.plan("select a from st where s like '%E%'", "carol")
    for wrong in ("1 + 1", "a, s", "(select max(a) from t)", "max(a)"):
        with pytest.raises(InputError, match="one expression of columns"):
            connect(OWNED).share("select * from t", expressions=[wrong])
    with pytest.raises(InputError, match="plain SELECT"):
        connect(OWNED).share("select distinct a from t", expressions=["a + 1"])


def test_a_join_with_shared_output_is_a_table() -> None:
    ids = np.arange(6)
    alice = pyarrow.table(
        {"id": ids, "age": [30, 40, 50, 60, 70, 80], "city": ["Ulm", "Bonn", "Ulm", "Köln", "Ulm", "x"]}
    )
    days = [dt.date(2024, 1, d) for d in (1, 2, 3, 4)]
    bob = pyarrow.table({"id": [1, 2, 4, 9], "paid": [10.5, 20.25, 1.0, 7.0], "day": days})
    table = spu.psi.join({"alice": alice, "bob": bob}, key="id", how="inner", output="shared")
    db = connect({}, shares={"j": {"source": table, "types": {"day": "DATE"}, "ranges": {"age": (0, 120)}}})
    got = db.sql("select city, sum(age), sum(paid), max(day) from j group by city", "alice").rows()
    assert sorted(got) == [("Bonn", 40, 10.5, days[0]), ("Ulm", 120, 21.25, days[2])]
    assert "shares: SELECT" in str(db.explain("select sum(age) from j", to="bob", cost=False))


def test_owners_rules_hold_for_what_becomes_shares() -> None:
    policy = {"alice": {"t": {"columns": {"a": "after_aggregate", "b": {"carol": "plaintext"}}}}}
    db = connect({"alice": {"t": TABLES["t"]}}, policy=policy)
    assert len(db.share("select sum(a) from t")) == 1
    with pytest.raises(PolicyError, match=r"`t\.b` is never for \*"):
        db.share("select b from t")


def test_shares_are_arguments_of_jitted_functions() -> None:
    db = connect(OWNED)
    rows = db.share("select y from u where y is not null")
    total = db.device(lambda y, valid: (y * valid).sum())(**rows.arguments())
    assert spu.reveal(total) == sum(y for y in TABLES["u"]["y"].to_pylist() if y is not None)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"s": 3}, "shares `s` are a `int`"),
        ({"s": {"source": 3, "keys": "a"}}, r"`keys` \(did you mean `key`"),
        ({"t": None}, "shares `t` are a `NoneType`"),
    ],
)
def test_what_is_no_table_of_shares(shares: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect({}, shares=shares)


def test_columns_that_are_not_there() -> None:
    rows = connect(OWNED).share("select y, q from u")
    for settings in ({"key": "z"}, {"ranges": {"z": (0, 1)}}):
        with pytest.raises(InputError, match="no column `z`"):
            connect({}, shares={"s": {"source": rows, **settings}})
    with pytest.raises(InputError, match="lowest, highest"):
        connect({}, shares={"s": {"source": rows, "ranges": {"y": (3, 1)}}})
    with pytest.raises(InputError, match="the name of another table"):
        connect({"alice": {"s": {"a": [1]}}}, shares={"s": rows})
    assert connect({}, shares={"s": rows}).sql("select max(q) from s", "bob").rows() == [(Decimal("123.45"),)]
