"""What SQL says in several ways, and what rows look like at edges: rows equal DuckDB's, in the three settings."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal

import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.runtime.errors import DataError, InputError
from spuvm.sql import Database, connect
from spuvm.sql.in_the_clear import evaluate

D, T = dt.date, dt.datetime
STAFF = pyarrow.table(
    {
        "id": pyarrow.array([1, 2, 3, 4, 5, 6], pyarrow.int32()),
        "name": ["Ann", "Bob", "Zoë", None, "100%_x", "Ann"],
        "dept": pyarrow.array([10, 20, 10, None, 30, 99], pyarrow.int64()),
        "hired": [D(2020, 2, 29), D(1969, 12, 31), D(2024, 12, 31), None, D(1900, 3, 1), D(2023, 1, 31)],
        "seen": [T(2024, 2, 29, 23, 59, 59), None, T(1969, 7, 20, 20, 17, 40), T(1970, 1, 1), None, T(2024, 3, 1, 1)],
        "ok": [True, False, None, True, None, False],
    }
)
SALES = pyarrow.table(
    {
        "sid": list(range(9)),
        "id": pyarrow.array([1, 1, 2, 3, 3, None, 5, 9, 2], pyarrow.int32()),
        "did": pyarrow.array([10, 20, 20, 10, None, 10, 30, 20, 10], pyarrow.int64()),
        "amt": [Decimal(x) if x else None for x in ("1.10", "2.20", "2.20", "", "-5.00", "99.00", "3.33", "7.77", "")],
        "qty": pyarrow.array([1, 2, 2, 0, None, 5, 7, 1, -4], pyarrow.int16()),
        "day": [D(2024, 1, 31), D(2024, 2, 29), None, D(2024, 3, 31), *[D(2023, 12, 31)] * 2, *[D(2022, 7, 4)] * 3],
        "tag": ["a", "b", "A", None, "", "a b", "ab", "%", "ünï"],
    }
)
DEPTS = pyarrow.table({"did": [10, 20, 30, 40], "city": ["Ulm", "Bonn", "Ulm", "Ulm"]})
NONE = pyarrow.table({"k": pyarrow.array([], pyarrow.int64())})
NAMED = {"staff": STAFF, "sales": SALES, "depts": DEPTS, "none": NONE}
DUCK = sql_queries.oracle(NAMED)


@pytest.fixture(scope="module")
def owners() -> Iterator[Database]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield connect({"alice": {"staff": STAFF, "none": NONE}, "bob": {"sales": SALES, "depts": DEPTS}})
    spu.shutdown()


def same(db: Database, sql: str, machine: bool = False) -> None:
    got = db.sql(sql, to="carol").rows() if machine else evaluate(db, sql, "carol")
    want = DUCK.execute(sql).fetchall()
    assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(want)), (sql, want, got)


WORDS = [
    # names of what is selected, wherever no column has them
    "select id i, i + 1 j, row_number() over (partition by dept order by id desc) rn from staff where i > 1 "
    "qualify rn = 1",
    "select id a, dept a from staff where a > 10",
    "select upper(name) u, count(*) c from staff group by u having c > 1 or u like 'B%' order by length(u), -c",
    # windows with a name, over some rows, in tiles
    "select sid, sum(amt) over w, count(*) over (w rows between 1 preceding and 1 following) from sales "
    "window w as (partition by did order by sid)",
    "select sid, count(amt) over (partition by did order by sid rows between 1 following and 2 following), "
    "sum(amt) over (order by sid rows between 3 preceding and 1 preceding), "
    "sum(qty) over (order by sid rows 1 preceding), "
    "avg(qty) over (partition by did order by sid rows between current row and unbounded following), "
    "sum(qty) over (partition by did order by sid rows between 99 preceding and 99 following) from sales",
    "select sid, ntile(2) over (partition by did order by sid), ntile(4) over (order by sid), ntile(20) over (order by "
    "sid), cume_dist() over (partition by did order by qty), nth_value(tag, 2) over (partition by did order by qty), "
    "lag(qty, 1, -1) over (order by sid), lead(tag, 2, 'none') over (order by sid) from sales where sid <> 4",
    # half joins, keys that two sides share
    "select s.name from staff s semi join sales x on s.id = x.id and x.amt > 1",
    "select s.name from staff s anti join sales x on s.id = x.id",
    "select id, name, amt, s.id, x.id from staff s right join sales x using (id)",
    "select id, did, name, amt, city from staff full join sales using (id) left join depts using (did)",
    "select * from staff natural join sales",
    "select * from staff s join sales x using (id) join sales y on y.sid = x.sid",
    # all and any, rows of several values
    "select id, dept > all (select did from sales), dept >= any (select did from sales), "
    "dept < all (select k from none), dept < any (select k from none), dept = any (select did from sales), "
    "dept <> all (select did from sales) from staff",
    "select sid from sales s where amt >= all (select x.amt from sales x where x.did = s.did)",
    "select id from staff where (dept, id) in (select did, id from sales) or (dept, id) in ((30, 5), (null, 4), "
    "(10, 4))",
    # the first of each, groups of groups
    "select distinct on (did) did d, -amt as amt from sales order by d, amt nulls first, sid limit 3",
    "select did, id, sum(amt) s, grouping(did, id) g from sales group by cube(did, id) having count(*) > 1 "
    "order by g, s",
    "select year(day) y, city, count(*) from sales join depts using (did) group by grouping sets ((y), (y, city), ())",
    "select k, count(*) from none group by rollup(k)",
    # functions that an owner has, of rows that an outer join may lack, and of keys
    "select sid, upper(city), city not like 'U%', length(city) from sales left join depts using (did) where "
    "substring(city, 1, 1) = 'U' or city is null",
    # of a row that is not there, constants and what is computed of NULL are NULL
    "select did, one, count(*), min(sid) from sales left join (select id, 1 as one from staff) t using (id) group by "
    "did, one",
    "select dept, zero, count(*) from sales s left join (select id, dept, coalesce(dept, 0) zero from staff) t "
    "on s.id = t.id group by dept, zero",
    "select city, lower(city), count(*) from depts group by city having city like 'U%'",
    "select any_value(name) from staff where id = 2",
    "select any_value(ok) from staff where id = 1",
    "select percentile_cont(0.25) within group (order by qty desc), quantile_cont(qty, 0.25), "
    "percentile_cont(0.5) within group (order by qty) filter (where did = 10) from sales",
    # in aggregates keys are what the rows have; windows of a subquery are its own
    "select did, count(*) filter (where did = 10), sum(qty) filter (where did > 10) from sales group by rollup(did)",
    "select did, count(*) c from (select did, row_number() over (partition by did order by sid) n from sales) t "
    "where n < 3 group by cube(did)",
    "select distinct on (did) did % 20 as did, max(sid) from sales group by sales.did order by did, 2",
    # a name of what is selected here goes before a column of the query around
    "select id from staff where id in (select id as name from sales where name > 1)",
    # what aggregates give of no rows
    "select id, (select count(*) * 2 + 1 from sales x where x.id = s.id), "
    "(select coalesce(sum(qty), -1) from sales x where x.id = s.id), "
    "(select count(*) from sales x where x.id = s.id having count(*) > 1), "
    "(select count(*) from sales x where x.id = s.id group by x.id), "
    "(select case when count(*) = 0 then 7 else max(qty) end from sales x where x.id = s.id), "
    "(select coalesce(max(tag), 'none') from sales x where x.id = s.id) from staff s",
]


@pytest.mark.parametrize("sql", WORDS)
def test_words_that_are_rewritten(owners: Database, sql: str) -> None:
    same(owners, sql)


ABOUT_BOTH = "from staff s join sales x on s.id = x.id"
DATES = [
    f"select greatest(x.day, s.hired) + interval 1 month, least(x.day, s.hired) - interval 13 month, s.hired < x.day - "
    f"interval 2 week, interval 1 day + greatest(s.seen, x.day), s.seen is distinct from x.day {ABOUT_BOTH}",
    f"select date_trunc('month', greatest(x.day, s.hired)), date_trunc('year', least(x.day, s.hired)), "
    f"date_trunc('quarter', least(x.day, s.hired)), date_trunc('week', least(x.day, s.hired)) {ABOUT_BOTH}",
    f"select dayofweek(least(x.day, s.hired)), isodow(least(x.day, s.hired)), dayofyear(least(x.day, s.hired)), "
    f"hour(least(x.day, s.seen)), minute(least(x.day, s.seen)), second(least(x.day, s.seen)) {ABOUT_BOTH}",
    f"select date_diff('day', s.hired, x.day), date_diff('month', s.hired, x.day), date_diff('year', s.seen, x.day), "
    f"date_diff('quarter', s.hired, x.day), sign(x.qty - s.id), floor(-x.amt * s.id), ceil(x.amt * s.id), "
    f"pow(x.qty - s.id, 2) {ABOUT_BOTH}",
]


@pytest.mark.parametrize("sql", DATES)
def test_functions_of_what_several_hold(owners: Database, sql: str) -> None:
    same(owners, sql)


def test_rows_at_several_owners_and_of_nobody(owners: Database) -> None:
    halves = {"alice": (0, 4), "bob": (4, None)}
    spread = connect({p: {n: t.slice(*h) for n, t in NAMED.items()} for p, h in halves.items()})
    nobodys = connect({}, shares={n: owners.share(f"select * from {n}") for n in ("staff", "sales")})
    for word in ("window w as", "right join", "distinct on (did) did d"):
        (sql,) = (w for w in WORDS if word in w)
        same(spread, sql)
        same(nobodys, sql)
    same(
        nobodys, "select date_trunc('month', seen), dayofyear(hired), hired + interval 1 month, sign(id - 3) from staff"
    )


def test_the_machine_gives_them_too(owners: Database) -> None:
    """Frames and tiles, in one program."""
    over = "over (partition by did order by sid"
    sql = f"select sid, sum(qty) {over} rows between 2 preceding and 1 following), ntile(2) {over}) from sales"
    same(owners, sql, machine=True)


BOTH = "x.qty + s.id"  # of two owners: the machine computes with it
DAY = "greatest(x.day, s.hired)"
FRAMES = ["", *(f"rows {r}" for r in ("unbounded preceding", "1 preceding", "2 preceding", "current row"))]
FRAMES += [f"rows between {r}" for r in ("1 preceding and 1 following", "1 preceding and unbounded following")]
FRAMES += ["rows between unbounded preceding and unbounded following"]
RANKS: tuple[str, ...] = (
    "row_number()",
    "rank()",
    "dense_rank()",
    "percent_rank()",
    "cume_dist()",
    "ntile(2)",
    "ntile(3)",
)
MOVED: tuple[str, ...] = (
    "lag(qty)",
    "lag(qty, 2)",
    "lag(qty, -1)",
    "lag(qty, 1, 0)",
    "lag(qty, 1, 1)",
    "lead(qty)",
    "first_value(qty)",
)
MOVED += ("last_value(qty)", "nth_value(qty, 2)", "nth_value(qty, 3)", "min(qty)", "max(qty)", "count(qty)", "count(*)")
CALLS = [f"{f}(qty)" for f in ("sum", "avg", "min", "max", "count", "stddev", "stddev_pop", "variance", "var_pop")]
CALLS += [
    "count(*)",
    "median(qty)",
    "count(distinct qty)",
    "sum(distinct qty)",
    "count_if(qty > 1)",
    "bool_or(qty > 1)",
]
CALLS += [
    "bool_and(qty > 1)",
    "quantile_cont(qty, 0.25)",
    "quantile_cont(qty, 0.75)",
    "sum(qty) filter (where sid > 1)",
]
SETS: tuple[str, ...] = (
    "rollup(did, id)",
    "rollup(id, did)",
    "cube(did, id)",
    "grouping sets ((did), (id))",
    "did, id",
    "did, rollup(id)",
)
SIGNS: tuple[str, ...] = ("<", "<=", ">", ">=", "=", "<>")
ENDS: tuple[str, ...] = (
    "sid",
    "sid desc",
    "sid nulls first",
    "sid desc nulls first",
    "did",
    "sid, did",
    "sid limit 2",
    "sid limit 3",
)
ENDS += ("sid offset 2", "sid offset 3", "sid limit 2 offset 1")
SCALARS = [f"{BOTH} {sign} 3" for sign in (*SIGNS, "+", "-", "*", "/", "//", "%", "is distinct from")]
SCALARS += [f"{BOTH} > 3.0", f"{BOTH} > 4", f"coalesce({BOTH}, 3)", f"nullif({BOTH}, 3)", f"cast({BOTH} as double)"]
SCALARS += [f"cast({BOTH} as decimal(9, {n}))" for n in (1, 2)] + [f"round({BOTH} / 7, {n})" for n in (0, 1)]
SCALARS += [f"{f}({BOTH})" for f in ("abs", "sign", "floor", "ceil", "sqrt", "ln", "exp")] + [f"pow({BOTH}, 3)"]
SCALARS += [f"{f}({BOTH}, x.sid)" for f in ("greatest", "least")] + [f"{BOTH} is null", f"{BOTH} is not null"]
SCALARS += [f"{DAY} {sign} interval {n} {u}" for sign in "+-" for n in (1, 2) for u in ("day", "month", "year")]
SCALARS += [f"date_trunc('{u}', {DAY})" for u in ("day", "week", "month", "quarter", "year")]
SCALARS += [f"{u}({DAY})" for u in ("year", "quarter", "month", "day", "dayofweek", "isodow", "dayofyear")]
SCALARS += [f"date_diff('{u}', s.hired, x.day)" for u in ("day", "month", "quarter", "year")]
ON = "sales x on s.id = x.id"
DIFFERENT = {
    "frames": [f"select sum(qty) over (partition by did order by sid {f}) as v from sales" for f in FRAMES],
    "orders": [f"select sum(qty) over (order by {k}) as v from sales" for k in ENDS[:6]],
    "windows": [f"select {f} over (partition by did order by sid) as v from sales" for f in (*RANKS, *MOVED)],
    "calls": [f"select {f} as v from sales" for f in CALLS],
    "sets": [f"select count(*) as v from sales group by {s}" for s in SETS],
    "firsts": [f"select distinct on ({k}) sid as v from sales order by sid" for k in ("did", "id", "did, id")],
    "all and any": [
        f"select id {o} {a} (select did from sales) as v from staff" for o in SIGNS[:4] for a in ("all", "any")
    ],
    "ends": [f"select sid, did from sales order by {e}" for e in ENDS],
    "scalars": [f"select {e} as v from staff s join {ON}" for e in SCALARS],
    "joins": [
        *(f"select s.id as v from staff s {kind} join {ON}" for kind in ("", "left", "right", "full", "semi", "anti")),
        "select s.id as v from staff s join sales x on s.id = x.sid",
        "select s.id as v from staff s join sales x on s.dept = x.did",
        "select s.id as v from staff s where id in (select id from sales)",
        "select s.id as v from staff s where id not in (select id from sales)",
    ],
    "of no rows": [
        f"select (select {v} from sales x where x.id = s.id) as v from staff s"
        for v in ("count(*)", "sum(qty)", "coalesce(sum(qty), 0)", "coalesce(sum(qty), 1)", "count(*) + 1")
    ],
    "unions": [
        f"select id as v from staff {u} select id from sales" for u in ("union", "union all", "intersect", "except")
    ],
}


@pytest.mark.parametrize("family", DIFFERENT)
def test_plans_that_differ_have_texts_that_differ(owners: Database, family: str) -> None:
    """A connection keeps programs by the plan's text, and parties compare it. Columns have one name in all queries of
    a family, for the text has it."""
    texts: dict[str, str] = {}
    for sql in DIFFERENT[family]:
        plan = owners.plan(sql, "carol", join_rows=99)
        before = texts.setdefault(re.sub(r"#\d+", "#", plan.text), sql)
        assert before == sql, plan.text


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select id, row_number() over (order by id) rn from staff where rn = 1", "`rn` in WHERE is .* use QUALIFY"),
        ("select id from staff where row_number() over (order by id) = 1", "use QUALIFY"),
        ("select dept, count(*) c from staff where c > 1 group by dept", "use HAVING"),
        ("select sum(id) over w from staff", "there is no window `w`"),
        ("select id from staff where (dept, id) not in (select did, id from sales)", "write EXISTS or NOT EXISTS"),
        ("select dept, rank() over (order by count(*)) from staff group by rollup(dept)", "windows of a subquery"),
        ("select ntile(0) over (order by id) from staff", "1 or more"),
        ("select x.sid from staff s semi join depts d on s.dept = d.did right join sales x on s.id = x.id", "subquery"),
        (
            "select did, grouping(sales.did) from sales group by rollup(did)",
            "it takes keys, written as in GROUP BY: did",
        ),
        ("select id from staff s where id in (select count(*) from sales x where x.id = s.id)", r"x = \(SELECT"),
        ("select quantile(qty, 0.5) from sales", "quantile_cont"),
        ("select median(distinct qty) from sales", "use a subquery"),
        ("select min(qty, 3) from sales", "min takes one argument"),
        ("select concat(did, uuid()), count(*) from sales group by did", "did"),
        ("select lag(id, id) over (order by id) from staff", "a constant"),
        ("select did, count(*) from sales group by rollup(1)", "is no column: write its name"),
        ("select staff.id from staff natural join none", "no column in common"),
        ("select id from staff where hired < current_date", "another value at each party"),
        ("select id from staff where seen < now()", "another value at each party"),
        (f"select pow(x.qty, s.id) {ABOUT_BOTH}", "powers are 0.5, 1, 2 and 3"),
    ],
)
def test_what_is_refused_says_what_to_write(owners: Database, sql: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        owners.plan(sql, "carol")


@pytest.mark.parametrize(
    "sql",
    [
        "select cast(name as integer) from staff",
        "select cast(name as date) from staff",
        "select cast(amt * 1000000 as tinyint) from sales",
        "select strptime(name, '%Y') from staff",
    ],
)
def test_errors_of_an_owner_show_no_cell(owners: Database, sql: str) -> None:
    with pytest.raises(DataError, match=r"part of the query failed with \w+: some cell") as raised:
        evaluate(owners, sql, "carol")
    cells = {str(v) for t in (STAFF, SALES) for c in t.columns for v in c.to_pylist() if len(str(v)) > 2}
    assert not [v for v in cells if v in str(raised.value)]
