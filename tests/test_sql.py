"""SQL over several parties' tables: results equal DuckDB's, policies refuse, errors name what is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pytest

import spuvm as spu
from spuvm.sql import Database, connect

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
TABLES = {"alice": {"customers": CUSTOMERS}, "bob": {"orders": ORDERS}}
THREE = ("alice", "bob", "carol")


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    spu.init(parties=THREE, address="local")
    yield
    spu.shutdown()


@pytest.fixture(scope="module")
def oracle() -> Any:
    import pyarrow

    con = duckdb.connect()
    for name, columns in (("customers", CUSTOMERS), ("orders", ORDERS)):
        con.register("t", pyarrow.table(columns))
        con.execute(f"create table {name} as select * from t")
    return con


def simple(value: Any) -> Any:
    return round(float(value), 5) if isinstance(value, float | Decimal) else value


def same(db: Database, oracle: Any, sql: str, ordered: bool = False, **options: Any) -> None:
    """The rows are DuckDB's; as multisets unless the query orders them."""
    got = [tuple(map(simple, row)) for row in db.sql(sql, to="carol", **options).rows()]
    want = [tuple(map(simple, row)) for row in oracle.execute(sql).fetchall()]
    assert (got if ordered else sorted(got, key=repr)) == (want if ordered else sorted(want, key=repr)), sql


QUERIES = [
    "select city, sum(price) total, count(*), count(pieces), max(price), min(pieces), avg(price) "
    "from customers join orders on id = customer group by city",
    "select name, price, day from customers c left join orders o on c.id = o.customer and o.price > 6",
    "select c.name, o.order_id from customers c full join orders o on c.id = o.customer",
    "select order_id from orders where customer not in (select id from customers where city = 'Ulm')",
    "select id from customers c where exists (select 1 from orders o where o.customer = c.id and o.pieces <> c.id)",
    "select id, (select sum(price) from orders where customer = id) s, (select count(*) from orders where customer "
    "= id) "
    "from customers",
    "select city, count(distinct customer), median(price), bool_or(pieces > 3) from customers, orders "
    "where id = customer group by city having count(*) > 1 or city is null",
    "select order_id, row_number() over (partition by customer order by price desc) r, "
    "sum(price) over (partition by customer order by day) s, lag(price) over (order by day) l from orders",
    "select id from customers union select customer from orders",
    "select customer from orders except select id from customers",
    "select case when price > 8 then 'high' when pieces is null then 'unknown' else city end kind, count(*) "
    "from orders left join customers on customer = id group by 1",
    "select coalesce(city, 'nowhere'), nullif(pieces, 3), price / pieces, pieces * 2 + id "
    "from orders join customers on customer = id",
]


def test_results_are_duckdbs(oracle: Any) -> None:
    db = connect(TABLES)
    for sql in QUERIES:
        same(db, oracle, sql)


def test_order_limit_and_parameters(oracle: Any) -> None:
    db = connect(TABLES)
    same(
        db,
        oracle,
        "select name, price from customers join orders on id = customer order by price desc limit 2 offset 1",
        True,
    )
    found = db.sql("select order_id from orders where price > ? order by 1", to="bob", parameters=[10])
    assert found.rows() == [(10,), (11,), (14,)]
