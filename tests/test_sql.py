"""SQL over several parties' tables: rows equal DuckDB's, on the machine and in the clear; errors name what is wrong."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.runtime.errors import CancelledError, DataError, InputError, VisibilityError
from spuvm.sql import Database, connect, dbapi, memory, scanning
from spuvm.sql.in_the_clear import evaluate
from spuvm.sql.plan import Group, nodes

CUSTOMERS = {
    "id": [1, 2, 3, 4, 5],
    "name": ["Ada Lovelace of London", "Bob", None, "Eve of the long name, senior", "Zoe"],
    "city": ["Ulm", "Bonn", "Ulm", None, "Rome"],
}
ORDERS = {
    "order_id": [10, 11, 12, 13, 14, 15, 16],
    "customer": [1, 1, 2, 3, 9, None, 4],
    "price": [Decimal(x) for x in ("10.50", "20.25", "5.00", "7.75", "100.00", "1.00", "-3.10")],
    "day": [dt.date(2024, 1, d) for d in (1, 2, 3, 4, 5, 6, 7)],
    "pieces": [1, None, 3, 4, 5, 6, None],
}
TABLES: dict[str, dict[str, Any]] = {"alice": {"customers": CUSTOMERS}, "bob": {"orders": ORDERS}}


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def duck(named: dict[str, Any]) -> Any:
    return sql_queries.oracle({n: t if isinstance(t, pyarrow.Table) else pyarrow.table(t) for n, t in named.items()})


ON_THE_MACHINE = [
    # joins, groups, order, text by code and as words, NULLs
    "select name, city, sum(price) total, count(*) n, count(pieces) c, avg(price) a from customers join orders on "
    "id = customer "
    "group by name, city having count(*) < 5 order by total desc, name limit 3",
    # subqueries of both kinds, an outer join, case, division
    "select order_id, coalesce(city, 'nowhere'), price / pieces, case when price > 8 then 'high' else city end "
    "from orders left join customers on id = customer "
    "where price > (select min(price) from orders) and customer not in (select id from customers where city = 'Bonn')",
    # windows
    "select order_id, rank() over (partition by customer order by price desc), "
    "sum(pieces) over (partition by customer order by day) from orders",
]


@pytest.mark.parametrize("sql", ON_THE_MACHINE)
def test_the_machine_gives_duckdbs_rows(sql: str) -> None:
    db, want = connect(TABLES), duck({"customers": CUSTOMERS, "orders": ORDERS}).execute(sql).fetchall()
    result = db.sql(sql, to="carol")
    assert sql_queries.rows(result.rows()) == sql_queries.rows(want)
    if "order by total" in sql:
        assert [tuple(map(sql_queries.simple, r)) for r in result.rows()] == [
            tuple(map(sql_queries.simple, r)) for r in want
        ]
    assert result.reveals[0].startswith("to carol: up to ")


@pytest.mark.parametrize("seed", range(2))
def test_random_queries_are_duckdbs(seed: int) -> None:
    named = sql_queries.tables(seed)
    con = sql_queries.oracle(named)
    db = connect({"alice": {"t": named["t"]}, "bob": {"u": named["u"], "v": named["v"]}})
    for number in range(20 * seed, 20 * seed + 6):
        sql = sql_queries.Queries(number).query()
        want, got = con.execute(sql).fetchall(), evaluate(db, sql, "carol")
        assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(want)), sql


def test_rows_of_one_table_at_several_owners() -> None:
    """Its text is carried as words: the owners' codes differ."""
    named = sql_queries.tables(7)
    t: Any = named["t"]
    db = connect(
        {"alice": {"t": t.slice(0, 4), "v": named["v"]}, "bob": {"t": t.slice(4, 3)}, "carol": {"t": t.slice(7)}}
    )
    con = sql_queries.oracle(named)
    for sql in (
        "select s, sum(a), count(*), max(p), min(d) from t group by s",
        "select v.n, t.b from t join v on t.a = v.k where t.b > 0 and t.s like '%e%'",
        "select distinct s, n from t, v where s = n",
    ):
        assert sql_queries.rows(evaluate(db, sql, "carol")) == sql_queries.rows(con.execute(sql).fetchall()), sql


def test_a_join_of_repeated_keys_needs_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the bound holds is revealed; if it does not, nothing else is."""
    monkeypatch.setattr("spuvm.sql.joins.PAIRS", 50)
    many = {"k": [1] * 17 + [2] * 3, "x": list(range(20))}
    few = {"j": [2, 2, 1, 3], "y": list(range(4))}
    db = connect({"alice": {"a": many}, "bob": {"b": few}})
    sql = "select count(*), sum(x + y) from a join b on k = j"
    with pytest.raises(InputError, match=r"join_rows"):
        db.plan(sql, "carol")
    con = duck({"a": many, "b": few})
    got = evaluate(db, sql, "carol", join_rows=23)
    assert got == [tuple(map(int, con.execute(sql).fetchall()[0]))]
    with pytest.raises(InputError, match=r"more rows than `join_rows`"):
        evaluate(db, sql, "carol", join_rows=22)


def test_empty_and_single_rows() -> None:
    empty = pyarrow.table({"k": pyarrow.array([], pyarrow.int64()), "z": pyarrow.array([], pyarrow.string())})
    db = connect({"alice": {"e": empty}, "bob": {"one": {"k": [1], "w": ["x"]}}})
    con = duck({"e": empty, "one": {"k": [1], "w": ["x"]}})
    for sql in (
        "select count(*), sum(k), max(z) from e",
        "select one.k, z from one left join e on one.k = e.k",
        "select k, count(*) from e group by k",
        "select w, sum(k) over () from one where k not in (select k from e)",
        "select count(distinct z), median(k) from e",
        "select k from one limit 0",
    ):
        assert sql_queries.rows(evaluate(db, sql, "carol")) == sql_queries.rows(con.execute(sql).fetchall()), sql


def test_rounding_and_columns_that_are_left_out() -> None:
    for sql in (
        "select round(price, 1), round(price * order_id, 1), round(-price * order_id, 0) from orders join customers "
        "on id = customer",
        "select * exclude (day, PRICE), o.* exclude (day) from orders o where pieces > 3",
        "select order_id from orders order by order_id fetch first 2 rows only",
        "with w as (select order_id, pieces from orders) select b from w as t(a, b) where a > 11",
    ):
        want = duck({"customers": CUSTOMERS, "orders": ORDERS}).execute(sql).fetchall()
        assert sql_queries.rows(evaluate(connect(TABLES), sql, "carol")) == sql_queries.rows(want), sql


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * exclude (dya) from orders", "leaves out `dya`, which is not there"),
        ("select * replace (1 as day) from orders", "name the columns instead"),
        ("select day from orders using sample 3", r"\(SAMPLE\) is not supported"),
        ("select day from orders tablesample 10%", r"\(SAMPLE\) is not supported"),
        (
            "select string_agg(name, ',') from customers group by city",
            "this aggregate is not supported: how long it is depends on the rows",
        ),
        ("select sum(price > 3) from orders", r"counted by count_if\(\.\.\.\)"),
        ("(select day from orders) order by day limit 1", r"\(ORDER\) is not supported"),
        ("select * from (select day from orders) t tablesample 10%", r"\(SAMPLE\) is not supported"),
        ("select day from orders union by name select day from orders", r"\(BY NAME\) is not supported"),
        ("select day from orders limit 10%", "must be a whole number of rows"),
        ("select a from orders o(a)", "name columns in a subquery"),
        ("select count(distinct day) over () from orders", "DISTINCT is not supported over a window"),
        ("select (select price from orders where customer = id limit 1) from customers", "would be of all its rows"),
        ("select name from customers where exists (select 1 from orders where customer = id offset 3)", "OFFSET"),
    ],
)
def test_nothing_is_passed_over(sql: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect(TABLES).plan(sql, "carol")


def test_parameters_are_taken_in_the_order_of_the_text() -> None:
    """`?`, `$1` and `:name`; a `?` inside of text is none."""
    db, want = connect(TABLES), [(12,)]
    sql = "select order_id from orders where price > {} and pieces >= {} and day < {} and '?' <> {}"
    values = [Decimal("1.0"), 3, dt.date(2024, 1, 4), "x"]
    assert evaluate(db, sql.format(*"????"), "carol", parameters=values) == want
    assert evaluate(db, sql.format("$4", "$3", "$2", "$1"), "carol", parameters=values[::-1]) == want
    named = dict(zip("abcd", values))
    assert evaluate(db, sql.format(*(f":{n}" for n in named)), "carol", parameters=named) == want
    for parts, given, message in (
        ("????", values[:3], "parameter `4` has no value"),
        ("????", [*values, 1], "parameter `5` is not in the query"),
        (["$0", "$1", "$2", "$3"], values, "parameter `0` has no value"),
        (["?", "?", "?", "$4"], values, r"both `\?` and `\$`"),
    ):
        with pytest.raises(InputError, match=message):
            db.plan(sql.format(*parts), "carol", parameters=given)


def test_sums_are_exact() -> None:
    """Beyond what a double holds."""
    big = [Decimal("90071992547.40993"), Decimal("0.00001"), Decimal("-7.5")]
    db = connect({"alice": {"t": {"x": big}}, "bob": {"u": {"y": [3, 1, 2]}}})
    assert evaluate(db, "select sum(x), sum(x * y) from t, u where y = 3", "bob") == [(sum(big), sum(big) * 3)]


def test_sums_that_could_leave_the_ring_are_refused() -> None:
    db = connect({"alice": {"t": {"x": [2**61, 1, 1]}}})
    with pytest.raises(InputError, match=r"bits, the machine's integers have 62"):
        db.plan("select sum(x) from t", "alice")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same table in all formats."""
    folder = tmp_path_factory.mktemp("sources")
    con = duck({"orders": ORDERS})
    con.execute(f"copy orders to '{folder}/o.parquet'")
    con.execute(f"copy orders to '{folder}/o.csv'")
    con.execute(f"attach '{folder}/o.duckdb' as f; create table f.orders as select * from orders; detach f")
    import sqlite3

    with sqlite3.connect(folder / "o.db") as db:
        db.execute(
            "create table orders (order_id integer primary key, customer integer, price decimal(9,2), day date, "
            "pieces integer)"
        )
        rows = con.execute("select order_id, customer, price::double, day::varchar, pieces from orders").fetchall()
        db.executemany("insert into orders values (?, ?, ?, ?, ?)", rows)
    return folder


@pytest.mark.parametrize("source", ["o.parquet", "o.csv", "duckdb:///o.duckdb", "sqlite:///o.db", "frame", "arrow"])
def test_sources(source: str, files: Path) -> None:
    given: Any = {"frame": pyarrow.table(ORDERS).to_pandas(), "arrow": pyarrow.table(ORDERS)}.get(source)
    if given is None:
        scheme, _, name = source.rpartition("///")
        given = f"{scheme}///{files / name}" if scheme else files / name
    db = connect({"bob": {"orders": given}})
    sql = "select sum(price), count(pieces), max(day) from orders where day < date '2024-01-06' and pieces is not null"
    ((total, count, day),) = evaluate(db, sql, "carol")
    assert (float(total), count, str(day)[:10]) == (123.25, 4, "2024-01-05")


# Errors -----------------------------------------------------------------------------------------------------------

WRONG = {
    "selec id from orders": "not a query|not SQL",
    "select from where": "not SQL",
    "select 1; select 2": "2 statements",
    "select id from orderz": "there is no table `orderz` .did you mean `orders`.",
    "select idd from customers": "there is no column `idd` .did you mean `id`.",
    "select c.name from customers d": "there is no table `c` here",
    "select id from customers a, customers b": "column `id` is in `a` and `b`",
    "select name from customers where city > 3 and id = 'x' or city = day": "do not compare",
    "select 1 from customers, orders where name = price": "text.* and decimal.*do not compare",
    "select 1 from customers, orders where id + name > price": "takes numbers|do not compare|No function matches",
    "select count(*), city from customers": "neither in GROUP BY nor in an aggregate",
    "select id from customers where sum(id) > 1": "an aggregate cannot be used here",
    "select sum(city) from customers": "it takes numbers",
    "select max(name) from customers, orders where max(price) > 1": "cannot be used here",
    "select regexp_matches(coalesce(name, 'x') || price, 'a') from customers, orders": "no such function|One table",
    "select id from customers where id in (select order_id, customer from orders)": "must give one",
    "select id from customers where id = (select customer from orders)": "several rows",
    "select id from customers union select order_id, price from orders": "must have the same number",
    "with recursive r as (select 1) select * from r": "RECURSIVE is not supported",
    "select id from customers order by 3": "there are 1 columns",
    "select id from customers where id = ?": "parameter without a value|has no value",
    "select string_agg(name, ',') over (order by id) from customers": "over a window is not supported",
    "select id from customers where id": "must be true or false",
    "select stddev(id * 100000) from customers": "their squares leave fixed point",
}


@pytest.mark.parametrize("sql", WRONG)
def test_wrong_queries_say_what_is_wrong(sql: str) -> None:
    with pytest.raises(InputError) as error:
        connect(TABLES).plan(sql, "carol")
    assert re.search(WRONG[sql], str(error.value)), str(error.value)


def test_wrong_sources_say_what_is_wrong(tmp_path: Path) -> None:
    for tables, message in (
        ({"alice": {"t": "missing.parquet"}}, r"no file missing.parquet"),
        ({"alice": {"t": "t.xlsx"}}, r"must end in"),
        ({"alice": {"t": None}}, r"is None"),
        ({"alice": {"t": {"source": {"k": [1, 1]}, "key": "k"}}}, r"not unique"),
        ({"alice": {"t": {"x": [[1], [2]]}}}, r"has type INTEGER\[\]|has type BIGINT\[\]"),
        ({"alice": {"t": {"x": [1]}}, "bob": {"t": {"y": [1]}}}, r"other columns at bob"),
        ("t", r"must map owners"),
    ):
        with pytest.raises(InputError, match=message):
            connect(tables)  # type: ignore[arg-type]


def test_values_that_the_machine_does_not_hold() -> None:
    db = connect({"alice": {"t": {"x": [float("nan"), 1.0], "s": ["a\0b", "c"]}}})
    with pytest.raises(DataError, match="NaN"):
        evaluate(db, "select sum(x) from t", "bob")
    with pytest.raises(InputError, match="NUL"):
        evaluate(db, "select max(s) from t", "bob")


GROUPS = {
    "select id, name, city, count(*) from customers join orders on id = customer group by id, name, city": 1,
    "select customer, c.name, city, count(*) from orders left join customers c on id = customer group by 1, 2, 3": 1,
    "select name, city, count(*) from customers join orders on id = customer group by 1, 2": 2,
    "select pieces, customer, pieces + 1 as more, 7 as k, count(*) from orders group by 1, 2, 3, 4": 3,
}


@pytest.mark.parametrize("sql", GROUPS)
def test_groups_are_sorted_by_what_the_rest_follows_from(sql: str) -> None:
    db = connect(TABLES)
    upper = [n for n in nodes(db.plan(sql, "carol").root) if isinstance(n, Group)][-1]
    assert len(upper.by) == GROUPS[sql]
    want = duck({"customers": CUSTOMERS, "orders": ORDERS}).execute(sql).fetchall()
    assert sql_queries.rows(evaluate(db, sql, "carol")) == sql_queries.rows(want)


def test_a_query_is_analyzed_relation_by_relation() -> None:
    db = connect(TABLES)
    sql = "select id % 3 as k, sum(price) s from orders join customers on customer = id group by k order by s limit 2"
    found = db.analyze(sql, "carol", link="1ms,1Gbit")
    assert found.result.rows() == db.sql(sql, "carol").rows()
    assert [s.what.split()[-1 if s.what == "show" else 1] for s in found.steps] == [
        "select", "scan", "scan", "lookup", "group", "sort", "project", "show"
    ]  # fmt: skip
    group = found.steps[3]
    assert group.rows == 7 and group.rounds > 10 and group.sent > 0 and group.counted is None and group.seconds > 0
    assert group.network == pytest.approx(group.rounds * 1e-3, rel=0.1)
    assert f"{sum(s.rounds for s in found.steps):,} rounds" in str(found)


def test_a_cancelled_query_shows_nothing_and_the_next_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = dbapi.Connection(connect(TABLES), "carol")
    cursor, sql = connection.cursor(), "select sum(price) s from orders where customer < 4"
    connection.cancel()  # of nothing
    rows = cursor.execute(sql).fetchall()
    scanned = scanning.scanned

    def cancelled(*args: Any) -> Any:
        connection.cancel()
        return scanned(*args)

    with monkeypatch.context() as patch:
        patch.setattr(scanning, "scanned", cancelled)
        with pytest.raises(CancelledError, match="nothing of it was shown"):
            cursor.execute(sql)
    assert cursor.execute(sql).fetchall() == rows and rows[0][0] is not None


def test_what_memory_does_not_hold_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    db, sql = connect(TABLES), "select city, sum(price) from customers join orders on id = customer group by city"
    explained = db.explain(sql, "carol", cost=False)
    assert "memory here: about 0 MB" in str(explained) and explained.memory > 1000
    monkeypatch.setattr("spuvm.sql.memory.memory_bytes", lambda: explained.memory - 1)
    monkeypatch.setattr(scanning, "scanned", None)  # nothing is read
    with pytest.raises(InputError, match="Nothing was run"):
        db.sql(sql, to="carol")


def test_what_one_owner_has_takes_no_memory_of_others() -> None:
    db = connect(TABLES)
    vm = db.device.vm

    def asked(sql: str) -> list[int]:
        root, all_of = db.plan(sql, "carol").root, []
        for rank in (0, 1, 2):
            party: Any = SimpleNamespace(session=SimpleNamespace(party=rank), config=vm.config, protocol=vm.protocol)
            all_of.append(memory.needed(root, party, "carol"))
        return all_of

    alice, bob, carol = asked("select sum(price) from orders")
    assert alice == 0 < carol < bob  # carol has the sum
    joined = asked("select count(*) from customers join orders on id = customer")
    assert len(set(joined)) == 1 and joined[0] > bob


def test_results_are_at_one_party_alone() -> None:
    db = Database(*_parts(connect(TABLES)))
    cursor = dbapi.Connection(db, "carol").cursor().execute("select sum(price) s from orders")
    result = cursor.result
    assert result is not None and cursor.description == [("s", "decimal(2)", None, None, None, None, None)]
    assert (cursor.rowcount, cursor.fetchone(), cursor.fetchall()) == (1, (Decimal("141.40"),), [])
    assert result.rows() == [(Decimal("141.40"),)]
    assert result.arrow().column_names == ["s"]
    assert "141.40" in str(result)
    with pytest.raises(InputError, match="`to` must be one of"):
        db.sql("select sum(price) from orders", to="dora")
    from dataclasses import replace

    with pytest.raises(VisibilityError, match="at carol alone"):
        replace(result, values=None).rows()


def _parts(db: Database) -> tuple[Any, ...]:
    return db.stores, db.catalog, db.device, db.policies, db.shares
