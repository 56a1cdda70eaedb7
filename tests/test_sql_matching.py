"""Joins of owners' own keys in a query: rows are DuckDB's; chosen by cost; messages follow from sizes alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import jax
import numpy as np
import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.objects import Marked
from spuvm.runtime.errors import InputError
from spuvm.sql import connect, matching, selecting
from spuvm.sql.columns import Vec
from spuvm.sql.lookups import lookup
from spuvm.sql.plan import Lookup, nodes
from spuvm.sql.relation import Rows
from spuvm.sql.types import Type

LONG = "a name that is longer than two words, "
PEOPLE = {
    "id": [7, 3, 5, 9, None, 11],
    "name": [f"{LONG}Zoë", f"{LONG}Ada", None, "Bob", "Eve", f"{LONG}ada"],
    "born": [dt.date(1970, 1, 1), dt.date(1969, 12, 31), None, dt.date(2000, 2, 29), dt.date(1900, 3, 1), None],
    "rate": [Decimal("1.50"), Decimal("-2.25"), None, Decimal("0.00"), Decimal("7.75"), Decimal("9.99")],
    "weight": [-61.5, 70.25, None, 0.0, 1e6, 3.125],
    "member": [True, False, None, True, False, True],
}
VISITS = {
    "who": [3, 7, 7, None, 8, 11],
    "called": [f"{LONG}Ada", f"{LONG}Zoe", None, "Bob", "bob", f"{LONG}ada"],
    "on": [dt.datetime(1969, 12, 31), dt.datetime(1970, 1, 1, 1), None, dt.datetime(2000, 2, 29), None, None],
    "paid": [Decimal("1.5"), Decimal("9.990"), Decimal("0.0"), None, Decimal("2.250"), Decimal("-2.250")],
    "mark": [1, 2, 3, 4, 5, 6],
}
QUERIES = [
    "select mark, name, born, rate, weight, member from visits join people on who = id",
    "select mark, coalesce(weight, -1.0), rate, not member from visits left join people on who = id and rate > 1",
    "select mark, rate from visits join people on called = name where mark > 1",
    "select mark, id from visits join people on paid = rate and mark < 6",
    'select mark, name from visits join people on "on" = born',
    "select mark from visits where who in (select id from people where member)",
    "select mark, who not in (select id from people where id is not null) from visits",
    "select name from people p where not exists (select 1 from visits where who = p.id)",
    "select name, sum(mark), count(*) from people full join visits on id = who group by name",
]


@pytest.fixture(autouse=True, scope="module")
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def tables() -> dict[str, Any]:
    people = {"source": pyarrow.table(PEOPLE), "key": "id"}
    return {"alice": {"people": people}, "bob": {"visits": pyarrow.table(VISITS)}}


@pytest.mark.parametrize("sql", QUERIES)
def test_rows_are_duckdbs(sql: str) -> None:
    db = connect(tables(), joins="psi")
    con = sql_queries.oracle({"people": pyarrow.table(PEOPLE), "visits": pyarrow.table(VISITS)})
    assert "obliviously (match 1)" in db.plan(sql, "carol").text
    got = db.sql(sql, to="carol").rows()
    assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(con.execute(sql).fetchall()))


def test_what_keys_decide_and_what_not() -> None:
    """Only two owners' own columns, in the order of one's rows; never another protocol's, nor if asked for sorts."""
    sql = "select count(*) from visits join people on who = id"
    assert "match 1" not in connect(tables(), joins="sort").plan(sql, "carol").text
    other = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"], {"protocol": "SEMI2K"}))
    assert "match 1" not in connect(tables(), joins="psi", device=other).plan(sql, "carol").text
    db = connect(tables(), joins="psi")
    for secret in (
        "select count(*) from visits join people on mark * who = id",  # pushed: still an owner's
        "select count(*) from (select who w from visits union all select mark from visits) v join people on w = id",
        "select count(*) from (select max(mark) m, who from visits group by who) v join people on m = id",
    ):
        plan = db.plan(secret, "carol")
        assert ("match 1" in plan.text) == ("mark * who" in secret), plan.text
    with pytest.raises(InputError, match=r"`joins` must be one of auto, sort, psi, got 'hash'"):
        connect(tables(), joins="hash")


def _sizes(rows: int, among: int, columns: int) -> dict[str, Any]:
    table = {"id": np.arange(among), **{f"x{i}": np.arange(among) for i in range(columns)}}
    return {"alice": {"a": {"k": np.arange(rows) % 7}}, "bob": {"b": table}}


def test_the_cheaper_way_is_taken_and_explained() -> None:
    few, many = "select k, x0 from a join b on k = id", "select * from a join b on k = id"
    db = connect(_sizes(2000, 1000, 40))
    assert "match 1" in str(db.explain(few, "carol", cost=False))
    assert "by sorting both sides: about" in str(db.explain(few, "carol", cost=False))
    wide = connect(_sizes(20_000, 100, 40)).explain(many, "carol", cost=False)
    assert "match 1" not in str(wide)
    assert not wide.joins


def _arrays(found: Any) -> Any:
    return found[0], [v.words for v in found[1].values()]


@pytest.mark.parametrize(("rows", "among", "columns"), [(1000, 1000, 1), (3000, 300, 4)])
def test_estimates_are_near_what_programs_cost(rows: int, among: int, columns: int) -> None:
    db = connect(_sizes(rows, among, columns), joins="psi")
    shown = ", ".join(f"sum(x{i})" for i in range(columns))
    plan = db.plan(f"select {shown} from a join b on k = id", "carol")
    (node,) = (n for n in nodes(plan.root) if isinstance(n, Lookup))
    sides = matching.sides_of(node)
    assert sides is not None
    config = db.device.vm.config
    with jax.enable_x64(True):
        given = jax.tree.map(Marked, *selecting.inputs(sides, db.members))
        run = db.device(lambda x: _arrays(selecting.found_of(sides, x, None, config.fxp_fraction_bits))).compile
        cost = matching.with_selections(run(given).cost, plan.root)
    rounds, sent = matching.by_keys(sides, db.members)
    assert cost.rounds == rounds
    assert abs(int(cost.bytes_sent.sum()) / sent - 1) < 0.05

    key = Type("int", 0, (1 << 20) - 1)

    def by_sort(a: Any, b: Any, x: Any) -> Any:
        probe, table = Rows({"k": Vec(key, (a,))}, None, rows), {"id": Vec(key, (b,))}
        table |= {f"x{i}": Vec(key, (c,)) for i, c in enumerate(x)}
        found = lookup(probe, Rows(table, None, among), [("k", "id")], [f"x{i}" for i in range(columns)])
        return found.matched, [v.value for v in found.columns]

    def numbers(n: int) -> Any:
        return jax.ShapeDtypeStruct((n,), np.dtype(np.int64))

    with jax.enable_x64(True):
        run = db.device(by_sort).compile
        program = run(
            Marked(numbers(rows), "alice"), Marked(numbers(among), "bob"), [Marked(numbers(among), "bob")] * columns
        )
    ways = matching.by_sorting(node)
    assert abs(program.cost.rounds / ways[0] - 1) < 0.3
    assert abs(int(program.cost.bytes_sent.sum()) / ways[1] - 1) < 0.3


def test_messages_follow_from_sizes_alone() -> None:
    """Whatever matches, the selection and the program send the same bytes; keys of a filter stay with their owner."""
    sql = "select count(*) from a join b on k = id where x0 > 2"
    prices = []
    for shift in (0, 10_000):
        tables_ = _sizes(40, 30, 1)
        tables_["alice"]["a"]["k"] = np.arange(40) + shift
        db = connect(tables_, joins="psi")
        prices.append(db.explain(sql, "carol").cost.bytes_sent.tolist())
        assert db.sql(sql, "carol").rows() == [(0 if shift else 27,)]
    assert prices[0] == prices[1]
