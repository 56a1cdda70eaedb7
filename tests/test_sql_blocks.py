"""Groups of few known values, without a sort; tables that come in blocks; tables of shares on disk."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow
import pytest

import spuvm as spu
from spuvm.runtime.errors import InputError
from spuvm.sql import blocks, connect, load_rows, memory
from spuvm.sql.in_the_clear import evaluate
from spuvm.sql.plan import Group, nodes

PARTIES = ("alice", "bob", "carol")
ROWS = 50
VALUES = {"s": ["A", "N", "R"]}
QUERIES = (
    "select s, count(*), sum(p), avg(p), count(p), sum(x), sum(p) filter (where b) from t group by s",
    "select b, s, count(*) n, bool_and(f > 2), sum(p * f) from t where d < date '1970-01-05' group by b, s "
    "having count(*) > 1 order by n desc, b, s",
    "select sum(p * f), count(*), avg(x), stddev(x) from t where p > 2.00",
    "select count(*), sum(f) from t where p > 1000",
    "select extract(month from d) m, count(*) from t where f > 100 group by m",
)


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


@pytest.fixture
def table() -> Any:
    rng = np.random.default_rng(18)
    days = [dt.date(1969, 12, 20) + dt.timedelta(int(i)) for i in rng.integers(0, 30, ROWS)]
    prices = [None if c % 7 == 0 else Decimal(int(c)).scaleb(-2) for c in rng.integers(0, 1000, ROWS)]
    return pyarrow.table(
        {
            "s": pyarrow.array([[None, "A", "N", "R"][i] for i in rng.integers(0, 4, ROWS)]),
            "f": pyarrow.array(rng.integers(0, 5, ROWS)),
            "b": pyarrow.array(rng.integers(0, 2, ROWS).astype(bool)),
            "p": pyarrow.array(prices, pyarrow.decimal128(9, 2)),
            "x": pyarrow.array(rng.normal(size=ROWS)),
            "d": pyarrow.array(days),
        }
    )


def rounded(rows: Any) -> list[Any]:
    """In one order, what fixed point rounds to three digits."""
    cells = [tuple(round(float(c), 3) if isinstance(c, float | Decimal) else c for c in row) for row in rows]
    return sorted(cells, key=repr)


def answers(table: Any, sql: str) -> list[Any]:
    with duckdb.connect() as oracle:
        oracle.register("t", table)
        return rounded(oracle.execute(sql).fetchall())


def test_groups_of_known_values_are_duckdbs_whole_and_in_blocks(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NULL keys and cells, groups that have no row, no rows at all; of shares, and of three owners' rows."""
    shared = connect({"alice": {"t": {"source": table, "values": VALUES}}}).share("select * from t")
    assert shared["s"].values == ("A", "N", "R"), "what is known of an owner's column is known of its shares"
    whole = connect({}, shares={"t": shared})
    parts = [table.slice(0, 20), table.slice(20, 29), table.slice(49)]
    spread = connect({p: {"t": {"source": part, "values": VALUES}} for p, part in zip(PARTIES, parts)})
    monkeypatch.setattr(blocks, "ROWS", 16)
    for sql in QUERIES:
        want = answers(table, sql)
        assert rounded(evaluate(whole, sql, "carol")) == want, sql
        assert rounded(whole.sql(sql, "carol").rows()) == want, sql
        assert rounded(spread.sql(sql, "carol").rows()) == want, sql
    said = str(whole.explain(QUERIES[0], "carol"))
    assert "a total for each of 4 combinations" in said
    assert "whether `values` of shares hold" in said
    monkeypatch.setattr(blocks, "ROWS", 1 << 20)
    assert rounded(whole.sql(QUERIES[0], "carol").rows()) == answers(table, QUERIES[0])


def test_texts_that_no_cell_can_be_are_no_group() -> None:
    """A declared text may be longer than all that occur, from which the column's width follows."""
    source = {"s": ["open", "paid", "open"], "n": [1, 2, 4]}
    db = connect({"alice": {"t": {"source": source, "values": {"s": ["paid", "open", "open", "cancelled by us", ""]}}}})
    assert "a total for each of 3 combinations" in str(db.plan("select s, sum(n) from t group by s", "bob").text)
    assert rounded(evaluate(db, "select s, sum(n) from t group by s", "bob")) == [("open", 5.0), ("paid", 2.0)]


def test_units_in_several_blocks_and_at_several_owners_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROWS", 2)
    mine = {"u": [1, 2, 1, 1, 3], "s": ["A", "A", "N", "N", "A"], "n": [1, 1, 1, 1, 1]}
    tables: dict[str, dict[str, Any]] = {
        "alice": {"t": {"source": mine, "values": {"s": ["A", "N", "R"]}}},
        "bob": {"t": {"source": {"u": [1, 9], "s": ["N", "A"], "n": [1, 1]}, "values": {"s": ["A", "N", "R"]}}},
    }
    sql = "select s, count(*) from t group by s"
    columns = dict.fromkeys("usn", "plaintext")
    for unit, want in ((None, [("A", 4), ("N", 3)]), ("u", [("A", 4)])):
        terms: dict[str, Any] = {"columns": columns, **({"unit": unit} if unit else {})}
        policy = {"alice": {"k": 2, "t": terms}, "bob": {"t": {"columns": columns}}}
        db = connect(tables, policy)
        assert sorted(db.sql(sql, "carol").rows()) == want, unit


def test_noise_and_bounds_below_the_groups_are_of_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise would be drawn for each block anew, and whether bounds hold is not told by blocks."""
    rows = connect({"alice": {"t": {"f": [1, 2, 3], "p": [1, 2, 3]}}}).share("select f, p from t")
    tables: dict[str, dict[str, Any]] = {
        "bob": {"n": {"source": {"id": [1, 1, 2], "x": [1, 2, 3]}}},
        "alice": {"m": {"id": [1, 1, 2]}},
    }
    db = connect(tables, shares={"t": rows})
    monkeypatch.setattr(blocks, "ROWS", 2)
    sql = "select sum(p * c) from t join ({}) g on f = g.id"
    plain = "select id, count(*) c from n group by id"
    pairs = "select n.id, count(*) c from n join m on n.id = m.id group by n.id"
    assert blocks.streamed(db.plan(sql.format(plain), "carol").root, joins=True) is not None
    assert blocks.streamed(db.plan(sql.format(pairs), "carol", join_rows=3).root, joins=True) is None
    noisy = db.plan(sql.format(plain), "carol")
    next(n for n in nodes(noisy.root) if isinstance(n, Group) and n.keys).noise = "noise"
    assert blocks.streamed(noisy.root, joins=True) is None


def test_totals_of_owners_rows_are_all_that_is_shared(table: Any) -> None:
    parts = [table.slice(0, 20), table.slice(20)]
    spread = connect({p: {"t": {"source": part, "values": VALUES}} for p, part in zip(PARTIES, parts)})
    larger = connect(
        {p: {"t": {"source": pyarrow.concat_tables([part] * 9), "values": VALUES}} for p, part in zip(PARTIES, parts)}
    )
    sent = [int(db.explain(QUERIES[0], "carol").cost.bytes_sent.sum()) for db in (spread, larger)]
    assert sent[1] < 1.2 * sent[0], "of nine times the rows, as many totals"


def test_a_join_comes_in_blocks_where_the_whole_does_not_fit(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"id": [0, 1, 2, 3], "name": ["zero", "one", "two", "three"]}
    rows = connect({"alice": {"t": table}}).share("select f, p from t")
    db = connect({"bob": {"n": {"source": names, "key": "id"}}}, shares={"t": rows})
    sql = "select sum(p) from t join n on f = id where name like '%o%'"
    monkeypatch.setattr(blocks, "ROWS", 10)
    whole = memory.needed(db.plan(sql, "carol").root, db.device.vm, "carol")
    monkeypatch.setattr(memory, "limit", lambda: whole - 1)
    with duckdb.connect() as oracle:
        oracle.register("t", table)
        want = oracle.execute("select sum(p) from t where f in (0, 1, 2)").fetchall()
    assert db.sql(sql, "carol").rows() == want
    assert db.explain(sql, "carol").memory < whole
    with pytest.raises(InputError, match=r"needs about .* of memory here"):
        db.sql("select f, p from t join n on f = id order by p", "carol")


def test_values_that_do_not_hold_are_told(table: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`s` has others than the 2 that are listed"):
        connect({"alice": {"t": {"source": table, "values": {"s": ["A", "N"]}}}})
    with duckdb.connect(str(tmp_path / "c.duckdb")) as there:
        there.execute("create table t (s varchar collate nocase); insert into t values ('a'), ('A')")
    with pytest.raises(InputError, match="`s` has others than the 1 that are listed"):  # nobody would count it
        connect({"alice": {"t": {"source": f"duckdb:///{tmp_path}/c.duckdb", "values": {"s": ["A"]}}}})
    with pytest.raises(InputError, match="`f` is no text"):
        connect({"alice": {"t": {"source": table, "values": {"f": ["1"]}}}})
    with pytest.raises(InputError, match="did you mean `s`"):
        connect({"alice": {"t": {"source": table, "values": {"S": ["A"]}}}})
    with pytest.raises(InputError, match=r"has `keys` .did you mean"):
        connect({"alice": {"t": {"source": table, "keys": "f"}}})
    rows = connect({"alice": {"t": table}}).share("select s, f from t where s is not null")
    db = connect({}, shares={"t": {"source": rows, "values": {"s": ["A", "N"]}}})
    with pytest.raises(InputError, match="other texts than its `values` list"):  # nobody sees which
        db.sql("select s, count(*) from t group by s", "carol")
    assert len(db.sql("select s, count(distinct f) from t group by s", "carol")) == 3, "a sort asks for no values"


def test_shares_on_disk_are_the_same_table(table: Any, tmp_path: Path) -> None:
    folders = {p: tmp_path / p for p in PARTIES}
    for folder in folders.values():
        folder.mkdir()
    rows = connect({"alice": {"t": table}}).share("select s, p, d, f from t where f > 1", expressions=["s like 'A%'"])
    rows.save(folders)
    again = load_rows(folders)
    assert (again.names, again.rows, again.listed, again.keys) == (rows.names, rows.rows, rows.listed, rows.keys)
    sql = "select s, sum(p), min(d) from t where s like 'A%' or f = 3 group by s"
    want = answers(table, sql.replace("where", "where f > 1 and (").replace(" group", ") group"))
    assert rounded(evaluate(connect({}, shares={"t": again}), sql, "carol")) == want
    spu.save_shares({"x": rows["f"].words[0]}, folders, "plain")
    with pytest.raises(InputError, match="holds other shares than a table's"):
        load_rows(folders, name="plain")


def test_secrets_by_column_are_a_table() -> None:
    device = spu.SPU(spu.utils.testing.cluster_def(list(PARTIES)))
    made = {"k": device.share(spu.PYU("alice")(np.arange)(6)), "v": device.share(spu.PYU("bob")(np.ones)(6, np.int64))}
    db = connect({}, shares={"t": {"source": made, "ranges": {"k": (0, 5), "v": (0, 9)}}}, device=device)
    assert evaluate(db, "select sum(v), max(k) from t where k > 2", "carol") == [(3, 5)]
    with pytest.raises(InputError, match="must have one length"):
        connect({}, shares={"t": {**made, "w": device.share(spu.PYU("bob")(np.ones)(5))}}, device=device)
