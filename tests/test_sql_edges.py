"""SQL at its edges: rows that the query writes, frames by key, far dates, functions of several rows, long queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.runtime.errors import DataError, InputError
from spuvm.sql import Database, connect, scope
from spuvm.sql.in_the_clear import evaluate

D = dt.date
ODD = pyarrow.table(
    {
        "id": pyarrow.array(range(8), pyarrow.int32()),
        "g": pyarrow.array([1, 1, None, 2, 2, 2, None, 3], pyarrow.int16()),
        "b": [True, False, None, None, None, None, False, True],
        "n": pyarrow.array([2**52, -(2**52), 0, None, 1, -1, 7, 7], pyarrow.int64()),
        "d": [D(1, 1, 1), D(9999, 12, 31), D(1970, 1, 1), None, D(2000, 2, 29), D(1900, 2, 28), D(2000, 3, 1), None],
        "f": [0.0, -0.0, 1.5, None, -1.5, 2.5, 0.25, 1e6],
        "p": [Decimal(x) if x else None for x in ("0.00", "-0.01", "9999.99", "", "0.01", "1.00", "1.00", "2.50")],
        "select": ["a", "", None, "É", "ab%", "a'b", "日本語", "a text that is longer than two words"],
    }
)
OTHER = pyarrow.table({"id": [0, 1, 2, 3, 5, 5, None, 99], "v": [10, -10, None, 0, 5, 5, 1, None]})
EMPTY = pyarrow.table({"x": pyarrow.array([], pyarrow.int64())})
DUCK = sql_queries.oracle({"odd": ODD, "other": OTHER, "empty": EMPTY})


@pytest.fixture(scope="module")
def db() -> Iterator[Database]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield connect({"alice": {"odd": ODD}, "bob": {"other": OTHER, "empty": EMPTY}})
    spu.shutdown()


KEY = "over (order by id range between"
QUERIES = [
    # what the query writes
    "select o.id, x.t from odd o left join (values (1, 'a'), (3, null), (7, 'É')) x(a, t) on o.id = x.a",
    "select o.id, x.b from odd o join (values ('É', 1.5), ('a text that is longer than two words', 2)) x(s, b) on "
    'o."select" = x.s',
    "select x.a from (values (1), (2), (99), (null)) x(a) where x.a not in (select id from other where id is not null)",
    "select col0, count(*) from (values (date '1970-01-01'), (date '2000-03-01')), odd where d >= col0 group by all",
    "select null as a union select g from odd",
    "select id from odd where id in (values (1), (2))",
    "select id + k.c, (select 5) as five from odd, (select 2 as c) k",
    # frames by key
    f"select id, sum(v) {KEY} 1 preceding and 1 following), count(*) {KEY} 2 preceding and 1 preceding) from other",
    "select id, sum(v) over (order by id desc range between 1 preceding and 2 following), "
    "count(v) over (order by id desc nulls last range 2 preceding) from other",
    f"select id, sum(v) {KEY} current row and unbounded following), avg(v) {KEY} current row and current row), "
    f"count(*) {KEY} 3 following and 1 following) from other",
    "select g, sum(id) over (partition by g order by id range between unbounded preceding and 3 following), "
    "sum(id) over (partition by g order by id range between 3 following and unbounded following) from odd",
    "select id, count(*) over (order by d range between interval 400 days preceding and interval 3 days following), "
    "count(*) over (order by d desc range between interval 1 month preceding and current row) from odd "
    "where d between date '1800-01-01' and date '2100-01-01' or d is null",
    "select id, sum(id) over (order by p range between 1 preceding and 2.5 following), "
    "count(*) over (order by p desc nulls first range between 0.01 preceding and 0.01 following), "
    "count(*) over (order by f range between 1 preceding and 1.5 following) from odd",
    "select id, count(*) over (order by n range between 4611686018427387000 preceding and 1 following) from odd",
    # text that owners compute
    'select o.id, x.v from odd o join other x on upper(o."select") = chr(65 + cast(x.id as int))',
    "select o.id, upper(o.\"select\") < 'a' || x.id, case when x.v > 0 then upper(o.\"select\") else 'a' || x.id end "
    "from odd o join other x on o.id = x.id",
    # least and greatest values around a row
    "select id, min(v) over (order by id rows between 1 preceding and 2 following), "
    "max(v) over (order by id rows between 3 preceding and 1 preceding) from other",
    "select id, max(n) over (partition by g order by id rows between 1 following and unbounded following), "
    "min(d) over (partition by g order by id rows between unbounded preceding and 1 following) from odd",
    'select id, min("select") over (order by id rows between 2 following and 3 following), '
    "max(b) over (partition by g order by id rows between 1 preceding and 900 following) from odd",
    # NULL is like NULL between two sides
    "select o.id, o.g, x.id, x.v from odd o left join other x on o.g is not distinct from x.id",
    "select a.id, b.id from odd a left join odd b on a.d is not distinct from b.d",
    "select a.id, b.id from other a join other b on a.v + 0 is not distinct from b.v",
    "select o.id, x.id from odd o full join other x on o.g is not distinct from x.id and o.id = x.v",
    "select o.id, k.g, k.n from other o right join (select g, count(*) n from odd group by g) k "
    "on o.id is not distinct from k.g",
    "select o.id, k.n from other o join (select g, count(*) n from odd group by g) k on o.id is not distinct from k.g",
    "select o.id, x.v from odd o join (select v, chr(98 + cast(v as int)) || 'b%' as t from other) x "
    'on upper(o."select") = upper(x.t)',
    'select o.id, upper(o."select") < lower(x.t), case when x.v > 0 then upper(o."select") else x.t end '
    "from odd o join (select id, v, 'a' || id as t from other where v is not null) x on o.id = x.id",
    # owners' functions of columns of subqueries
    "with t as (select id, \"select\" as s, g from odd where g > 0) select id, s || '!' from t where s like 'a%'",
    'with t as (select id, upper("select") as s from odd) select a.id, b.id from t a join t b on lower(a.s) = b.s '
    "where length(a.s) < 9 or left(b.s, 1) = 'A'",
    'select x.v, t.s || t.s, reverse(t.s) from other x left join (select id, "select" as s from odd) t on x.id = t.id '
    "and t.s like '%b%'",
    'select left(s, 1), count(*) from (select "select" as s from odd order by id limit 5) group by 1',
    "select k, count(*) from (select upper(\"select\") as k, g from odd) where starts_with(k, 'A') group by k",
    # collations
    "select id from odd where \"select\" collate nocase = 'AB%'",
    'select a.id, b.id from odd a join odd b on a."select" collate nocase.noaccent = lower(b."select")',
    # lists
    f"select id from odd where n in ({', '.join(map(str, range(2000)))}, null) or d in ('2000-02-29', '1970-01-01')",
    "select o.id, o.id + x.v in (0, 10, 20, null), x.v not in (5, 5, 0) from odd o join other x on o.id = x.id",
    "select o.id from odd o join other x on o.id = x.id where p + x.v not in (1.5, 9.999, 2) and o.id in (1, x.id)",
    "select o.id from odd o join other x on o.id = x.id where 2 in (o.id + x.v, 3, 1) or 5 in (1, o.id + x.v, 5)",
    # counts of conditions that are all NULL, far dates
    "select id, count(*) over (order by f range between 1e300 preceding and current row) from odd",
    "select g, count_if(b), count_if(b) filter (where id > 2) from odd group by g",
    "select count_if(x > 0), (select count_if(b) from odd where id = 77) from (select max(x) as x from empty)",
    "select id, (select count_if(v > 0) from other x where x.id = o.id) from odd o",
    "select min(d), max(d), max(year(d)) from odd",
    "select id from odd where null",
    "select g, count(*), max(case when null then 1 when g > 1 then 2 end) from odd group by g having null or g > 1",
    "select o.d, x.id, o.d < date '9999-12-31' from odd o join other x on o.id = x.id",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_rows_are_duckdbs(db: Database, sql: str) -> None:
    got, want = evaluate(db, sql, "carol"), DUCK.execute(sql).fetchall()
    assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(want)), (want, got)


def test_the_machine_gives_them_too(db: Database) -> None:
    inner = "select id, b, sum(n) over (order by id range between 1 preceding and 0 following) as n from odd"
    written = "(values (1, 'one'), (4, 'four'), (5, null)) x(id, w)"
    sql = f"select x.w, count_if(o.b), max(n) from ({inner}) o join {written} on o.id = x.id group by x.w"
    got, want = db.sql(sql, to="carol").rows(), DUCK.execute(sql).fetchall()
    assert sql_queries.rows(got) == sql_queries.rows(want)


def test_constants_of_a_list_are_compared_at_once(db: Database) -> None:
    def rounds(count: int) -> int:
        numbers = ", ".join(map(str, range(count)))
        sql = f"select count(*) from odd o join other x on o.id = x.id where o.id + x.v in ({numbers})"
        return int(db.explain(sql, "carol").cost.rounds)

    assert rounds(300) <= rounds(3) + 10


def test_a_constant_with_zeros_at_its_end_takes_no_bits(db: Database) -> None:
    sql = "select 10.0000000000000 * sum(o.p * x.v) from odd o join other x on o.id = x.id"
    assert evaluate(db, sql, "carol") == DUCK.execute(sql).fetchall()


def test_plans_that_differ_have_texts_that_differ(db: Database) -> None:
    """Programs are kept by the text."""
    spans = ["1 preceding and 1 following", "2 preceding and 1 following", "1 preceding and 0 following"]
    days = [f"interval {n} {u} preceding and current row" for n in (1, 2) for u in ("day", "month")]
    queries = [f"select sum(v) {KEY} {s}) as v from other" for s in spans]
    queries += [f"select count(id) over (order by d range between {s}) as v from odd" for s in days]
    queries += [f"select o.id as v from odd o join (values {x}) x(a) on o.id = a" for x in ("(1)", "(2)", "(1), (2)")]
    texts = {db.plan(sql, "carol").text for sql in queries}
    assert len(texts) == len(queries)


def test_distances_of_doubles_end_where_they_do(db: Database) -> None:
    found = db.plan("select count(*) over (order by f range 1e300 preceding) from odd", "carol").text
    assert "keys -2199023255552.0 to 0.0" in found


def nested(levels: int) -> str:
    return f"nullif({nested(levels - 1)}, {levels})" if levels else "id"


DOUBLED = ", ".join(f"a{i - 1} + a{i - 1} as a{i}" for i in range(1, 40))
REFUSED = {
    "select * from (values (1, 2), (3)) t, odd": "rows of different lengths",
    "select t.a from (values (1)) t(a, b), odd": "2 names for VALUES of 1 columns",
    "select a from (values (id)) t(a), odd": "write constants",
    "values (1)": "reads no table of any party",
    "select *": "without FROM",
    'select sum(id) over (order by "select" range 1 preceding) from odd': "a distance needs one key",
    "select sum(id) over (order by id, g range 1 preceding) from odd": "a distance needs one key",
    "select sum(id) over (order by d range interval 5 hours preceding) from odd": "a whole number of days",
    f"select max(v) {KEY} 1 preceding and 1 following) from other": "sum, count and avg take it",
    "select sum(id) over (order by id groups 1 preceding) from odd": "use ROWS or RANGE",
    'select max("select" collate nocase) from odd': "write what is meant, lower",
    'select id from odd order by "select" collate de': "there are the collations NOCASE",
    'select distinct "select" collate nocase from odd': "write what is meant, lower",
    "select id from odd where id in (1, 2, unnest([]))": "is no function of one row",
    f"select sum(v) {KEY} 9223372036854775000 preceding and 1 following) from other": "more than 62 bits",
    "select sum(id) over (order by d range interval 300000 years preceding) from odd": "more than 140,000 years",
    "select mad(id) from odd": "is no function of one row",
    "select g, product(g) from odd group by g": "is no function of one row",
    "select count_star() from odd": "is no function of one row",
    "select unnest([1, 2]), id from odd": "is no function of one row",
    "select string_agg(\"select\", ',') from odd": "put them together where they arrive",
    "select mode(g) from odd": r"QUALIFY row_number\(\)",
    "select corr(id, g) from odd": "in sums of DECIMAL",
    f"select id as a0, {DOUBLED} from odd": "stand for each other too often",
    f"select {nested(18)} from odd": "parts|nested too deeply",
    f"select {'+'.join(['id'] * 3000)} from odd": "nested too deeply",
    f"select id from odd where {' or '.join(['id = 1'] * 20_000)}": "20,000 constants and commas; 50,000 are the most",
    f"select id from odd where {'b' * 1_000_001}": "1,000,000 are the most",
    f"select {' union all select '.join(['id from odd'] * 200)}": "nested too deeply",
    'select 1 from odd group by cube(id, g, b, n, d, f, p, "select")': "64 at most",
}


@pytest.mark.parametrize("sql", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_says_why(db: Database, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "PARTS", 5_000)  # ten times more take ten times longer to be found too many
    with pytest.raises(InputError, match=REFUSED[sql]):
        db.plan(sql, "carol")


def test_days_beyond_what_python_has_are_told(db: Database) -> None:
    with pytest.raises(DataError, match="before year 1 or after 9999"):
        evaluate(db, "select d + interval 1 year from odd", "carol")
