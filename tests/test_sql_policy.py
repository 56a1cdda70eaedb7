"""What owners allow: every rule against every use of a column; groups of k units; templates; the tripwire; liars."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import sql_queries

import spuvm as spu
from spuvm.cli import run
from spuvm.runtime.errors import InputError, PolicyError
from spuvm.sql import Database, connect, verdicts
from spuvm.sql.in_the_clear import evaluate
from spuvm.sql.policy import RULES

PATIENTS = {"id": [1, 2, 3, 4, 5, 6], "ward": [1, 1, 1, 2, 2, 3], "age": [30, 41, 52, 63, 74, 85]}
BILLS = {"patient": [1, 1, 2, 3, 4, 5, 6, 6, 6], "amount": [10, 20, 30, 40, 50, 60, 70, 80, 90]}
TABLES: dict[str, dict[str, Any]] = {"alice": {"patients": {"source": PATIENTS, "key": "id"}}, "bob": {"bills": BILLS}}
FREE = {"patient": "plaintext", "amount": "plaintext"}


@pytest.fixture(autouse=True, scope="module")
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def alice(**columns: Any) -> dict[str, Any]:
    """A policy of alice's for her table; bob allows everything."""
    return {"alice": {"patients": {"columns": columns}}, "bob": {"bills": {"columns": FREE}}}


# use -> (a query that uses `age` so and no other column of alice's but the free `id` and `ward`)
USES = {
    "join": "select sum(amount) from patients join bills on age = patient",
    "join shown": "select amount from patients join bills on age = patient",
    "filter": "select ward from patients where age > 50",
    "filter of groups": "select count(*) from patients where age > 50",
    "order": "select ward from patients order by age",
    "value": "select age from patients",
    "compared": "select age > 50 from patients",
    "group": "select age, count(*) from patients group by age",
    "count": "select ward, count(age) from patients group by ward",
    "aggregate": "select ward, avg(age) from patients group by ward",
    "extreme": "select ward, max(age) from patients group by ward",
}
CASES = [(rule, use) for rule in RULES for use in USES]


@cache
def with_rule(rule: str) -> Database:
    return connect(TABLES, alice(id="plaintext", ward="plaintext", age=rule))


@pytest.mark.parametrize(("rule", "use"), CASES)
def test_rules_against_uses(rule: str, use: str) -> None:
    """Refused at explain and at run, by alice, who says what would be allowed; or allowed."""
    db = with_rule(rule)
    explained = db.explain(USES[use], "carol", cost=False)
    needed = {"order": {"order", "value", "group"}}.get(use, {use})
    assert explained.allowed == bool(needed & RULES[rule][0])
    if explained.allowed:
        with db._agreed(explained.plan, "carol"):  # what a run asks of the parties before it computes
            return
    assert [r.owner for r in explained.refusals] == ["alice"] * len(explained.refusals)
    with pytest.raises(PolicyError, match=rf"alice: `patients.age` is {rule} for carol.*Allowed would be"):
        db.sql(USES[use], "carol")


def test_allowed_queries_give_duckdbs_rows() -> None:
    """Whatever the rule; rules change how owners compute, not what."""
    con, done = sql_queries.oracle({"patients": pyarrow.table(PATIENTS), "bills": pyarrow.table(BILLS)}), set()
    for rule, use in CASES:
        db = with_rule(rule)
        plan = db.plan(USES[use], "carol")
        if (plan.text, use) not in done and db.explain(USES[use], "carol", cost=False).allowed:
            done.add((plan.text, use))
            got, want = evaluate(db, USES[use], "carol"), con.execute(USES[use]).fetchall()
            assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(want)), use
    assert {use for _, use in done} == set(USES)
    both = "select ward, avg(age), count(*) from patients join bills on id = patient where age > 35 group by ward"
    got = with_rule("after_aggregate").sql(both, to="carol").rows()
    assert sql_queries.close(sql_queries.rows(got), sql_queries.rows(con.execute(both).fetchall()))


@pytest.mark.parametrize(
    ("sql", "forbidden"),
    [
        ("select sum(amount) from bills, patients where patient = id and ward = 1", None),
        ("select age + 0 from patients", "age"),
        ("select sum(x) from (select max(age) x from patients group by ward) t", "age"),
        ("select ward from patients where exists (select 1 from bills where patient = age)", "age"),
        ("select sum(case when age > 50 then 1 else 0 end) from patients", None),
        ("select case when age > 50 then ward else 0 end from patients", "age"),
        ("with a as (select age y, ward from patients) select ward, sum(y) from a group by ward", None),
        ("with a as (select age y, ward from patients) select y from a", "age"),
        ("select ward, sum(age) over (partition by ward) from patients", "age"),
        ("select ward, row_number() over (order by age) from patients", "age"),
        ("select ward from patients union select age from patients", "age"),
        ("select amount from bills where amount > (select avg(age) from patients)", None),
        ("select amount from bills where amount > (select min(age) from patients)", "age"),
        ("select greatest(age, 3) from patients", "age"),
        ("select p.* from patients p", "age"),
        ("select count(*) from patients where age is not null", None),
        ("select name from (select ward as name, age from patients) t where age > 3", "age"),
        ("select ward, sum(age) from patients group by rollup(ward)", None),
        ("select any_value(age) from patients", "age"),
        ("select ward, avg(age) over (order by id rows between current row and current row) from patients", "age"),
        ("select ward, nth_value(age, 2) over (order by id) from patients", "age"),
        ("select ntile(2) over (order by age) from patients", "age"),
        ("select distinct on (ward) ward, age from patients order by ward, id", "age"),
        ("select age > all (select amount from bills) from patients", "age"),
        ("select ward w, age a from patients where a > 3", "age"),
        ("select amount, sqrt(abs(age)) from bills left join patients on patient = id", "age"),
        ("select amount, sin(age) from bills left join patients on patient = id", "age"),
        # What is not shown tells, too, by the rows that there are and their order.
        ("select count(*) from patients group by age", "age"),
        ("select ward, count(*) from patients group by rollup(ward, age)", "age"),
        ("select count(*) c from patients group by age > 50", "age"),
        ("select (select count(*) from (select ward from patients group by ward, age) t) from bills", None),
        ("select max(c) from (select age, count(*) c from patients group by age) t", None),
        ("select ward from patients order by age > 50", "age"),
        ("select ward, row_number() over (order by age > 50) from patients", "age"),
        ("select ward from patients group by ward order by avg(age)", None),
        ("select ward from patients group by ward order by max(age)", "age"),
    ],
)
def test_values_are_followed_through_the_plan(sql: str, forbidden: str | None) -> None:
    """`age` is for aggregates only."""
    db = with_rule("after_aggregate")
    found = db.explain(sql, "carol", cost=False).refusals
    assert {r.reason.split("`")[1] for r in found} == ({f"patients.{forbidden}"} if forbidden else set()), found


@pytest.mark.parametrize(
    ("sql", "allowed"),
    [
        ("select sum(amount) from (select distinct age from patients) t join bills on age = patient", True),
        ("select sum(amount) from bills where patient in (select age from patients)", True),
        ("select sum(amount) from bills where patient in (select age from patients group by age)", True),
        ("select count(*) from (select distinct age from patients) t", False),
        ("select max(c) from (select age, count(*) c from patients group by age) t", False),
        ("select sum(amount) from bills where patient in (select count(*) from patients group by age)", False),
    ],
)
def test_keys_of_joins_are_not_counted(sql: str, allowed: bool) -> None:
    assert with_rule("join_key").explain(sql, "carol", cost=False).allowed == allowed


KEYS = "select sum(amount) from patients p"
ONCE = "(select age, max(id) i from patients group by age) p"


@pytest.mark.parametrize(
    ("sql", "allowed"),
    [
        (f"{KEYS} join bills on age = patient", True),
        (f"{KEYS} join (select cast(patient as bigint) as x, amount from bills) t on age = x", True),
        (f"{KEYS}, bills where age in (select patient from bills) and ward = patient", True),
        (f"{KEYS} join bills on age = patient where amount > 3", True),
        (f"{KEYS} join bills on age = patient where patient = 41", False),
        ("select patient, count(*) from patients join bills on age = patient group by patient", False),
        ("select patient, count(*) from bills where patient in (select age from patients) group by patient", False),
        ("select amount, count(*) from patients join bills on age = patient group by amount", True),
        (f"{KEYS} join (values (41, 1)) v(x, amount) on age = x", False),
        (f"{KEYS} join (select 41 as x, amount from bills limit 1) v on age = x", False),
        (f"{KEYS} join (select patient + 0 as x, amount from bills) v on age = x", False),
        (f"{KEYS} join (select row_number() over (order by amount) x, amount from bills) v on age = x", False),
        (f"{KEYS}, bills where age in (select count(*) from bills) and ward = patient", False),
        (f"{KEYS} left join (select distinct patient, 1 as amount from bills) b on ward = patient and age = 41", False),
        (f"{KEYS} join bills on age - 40 = patient", False),
        (f"{KEYS} join bills on age = cast(cast(patient as boolean) as bigint)", False),
        (f"{KEYS} join bills on age = patient join patients q on patient = q.id where q.id = 41", False),
        (f"{KEYS} join bills on age = patient join patients q on patient = q.id where amount = 41", True),
        (
            "select sum(patient), count(patient), count(distinct patient) from patients join bills on age = patient",
            True,
        ),
        ("select sum(patient + 0) from patients join bills on age = patient", False),
        ("select count_if(patient = 41) from patients join bills on age = patient", False),
        ("select count(*) filter (where patient = 41) from patients join bills on age = patient", False),
        ("select patient = 41, count(*) from patients join bills on age = patient group by 1", False),
        ("select min(patient) from patients join bills on age = patient", False),
        (
            "select sum(n) from (select amount n from patients join bills on age = patient order by patient limit 1)",
            False,
        ),
        (f"select patient, count(*) from bills left join {ONCE} on age = patient group by patient", True),
        (f"select patient, count(i) from bills left join {ONCE} on age = patient group by patient", False),
        (f"select amount, count(i) from bills left join {ONCE} on age = patient group by amount", True),
    ],
)
def test_a_key_beside_what_the_query_sets_is_filtered_by(sql: str, allowed: bool) -> None:
    """Else a query could ask for one key after another."""
    assert with_rule("join_key").explain(sql, "carol", cost=False).allowed == allowed


@pytest.mark.parametrize(
    "hidden",
    [
        "concat(ward, columns('age'))",
        "concat(ward, columns(*))",
        "list_sum(array(select ward from patients))",
        "ward + #3",
        "ward + (select sum(age) from patients)",
        "coalesce(ward, #3)",
    ],
)
def test_functions_read_no_column_that_they_do_not_name(hidden: str) -> None:
    """Else an owner's DuckDB would give what its rules have not seen."""
    with pytest.raises((InputError, PolicyError)):
        with_rule("never").sql(f"select {hidden} from patients", "carol")


def test_rules_by_receiver_and_columns_without_a_rule() -> None:
    db = connect(TABLES, alice(id={"bob": "plaintext", "*": "never"}))
    assert db.explain("select id from patients", "bob", cost=False).allowed
    assert not db.explain("select id from patients", "carol", cost=False).allowed
    assert not db.explain("select ward from patients", "bob", cost=False).allowed  # no rule: never
    assert db.explain("select ward from patients", "alice", cost=False).allowed  # her own
    assert db.explain("select sum(amount) from bills", "carol", cost=False).allowed
    assert connect(TABLES).explain("select * from patients", "carol", cost=False).allowed  # no policy at all


def units(k: int, unit: str | None = None) -> dict[str, Any]:
    columns = {"id": "plaintext", "ward": "after_group_by", "age": "after_aggregate"}
    table: dict[str, Any] = {"columns": columns} | ({"unit": unit} if unit else {})
    return {"alice": {"k": k, "patients": table}, "bob": {"bills": {"columns": FREE}}}


def test_groups_of_fewer_units_are_left_out() -> None:
    """Joins repeat rows, but not units; what is summed over groups has none of those left out."""
    db = connect(TABLES, units(2))
    assert sorted(evaluate(db, "select ward, sum(age) from patients group by ward", "carol")) == [(1, 123), (2, 137)]
    joined = "select ward, sum(amount) from patients join bills on id = patient group by ward"
    assert sorted(evaluate(db, joined, "carol")) == [(1, 100), (2, 110)]  # ward 3: three bills, one patient
    assert evaluate(db, f"select sum(s) from ({joined.replace('sum(amount)', 'sum(amount) s')}) t", "carol") == [(210,)]
    assert evaluate(db, "select sum(age) from patients where age > 80", "carol") == []
    assert sorted(evaluate(db, "select distinct ward from patients", "carol")) == [(1,), (2,)]
    assert len(evaluate(db, "select ward, sum(age) from patients group by ward", "alice")) == 3  # her own rows


def test_units_are_those_of_the_owners_column() -> None:
    db = connect(TABLES, units(2, "ward"))
    assert evaluate(db, "select count(*) from patients", "carol") == [(6,)]
    assert evaluate(db, "select ward, count(*) from patients group by ward", "carol") == []


def test_aggregates_that_pass_over_rows_are_of_k_units_too() -> None:
    """FILTER, CASE and NULLs; what chooses rows otherwise is refused."""
    columns = {"id": "plaintext", "ward": "plaintext", "age": "after_aggregate", "grade": "after_aggregate"}
    patients = {**PATIENTS, "grade": [1, None, None, None, None, 5]}
    tables: dict[str, Any] = {"alice": {"patients": {"source": patients, "key": "id"}}, "bob": {"bills": BILLS}}
    db = connect(tables, {"alice": {"k": 3, "patients": {"columns": columns}}, "bob": {"bills": {"columns": FREE}}})
    for sql, want in (
        ("select sum(age) from patients", [(345,)]),
        ("select sum(age) filter (where ward = 1) from patients", [(123,)]),
        ("select sum(age) filter (where ward = 2) from patients", []),
        ("select avg(case when ward = 2 then age end) from patients", []),
        ("select count(*) filter (where ward = 2) from patients", []),
        ("select count_if(ward = 2), sum(age) from patients", []),
        ("select count_if(ward = 1), count_if(id > 2) from patients", [(3, 4)]),
        ("select sum(grade), sum(age) from patients", []),
        ("select sum(amount) filter (where patient = 6) from bills join patients on id = patient", []),
    ):
        assert evaluate(db, sql, "carol") == want, sql
    for chooses in (
        "case when ward = 2 then age else 0 end",
        "age * cast(ward = 2 as integer)",
        "coalesce(nullif(ward, 1), age)",
        "case when ward = 1 then age when id = 4 then age end",
        "age * greatest(0, 1 - abs(id - 4))",
        "age * round(id * 0.0909)",
        "age * cast(id * 0.0909 as integer)",
        "age * cast(cast(id - 4 as boolean) as integer)",
        "age / (1 + 1000000 * (id - 4) * (id - 4))",
    ):
        found = db.explain(f"select sum({chooses}) from patients", "carol", cost=False).refusals
        assert any("fewer than k units" in r.reason for r in found), chooses


NESTED = "exists (select 1 from bills y where y.patient = x.patient and y.patient in"


def test_what_exists_is_of_k_units_too() -> None:
    """Else a table of one key would ask for one unit after another."""
    patients = {"id": [1, 2, 3, 4, 5, 6], "age": [10, 20, 30, 40, 50, 60], "ward": [1, 1, 1, 2, 2, 2]}
    bills = {"patient": [1, 1, 2, 3, 4, 9], "amount": [1, 2, 3, 4, 5, 6]}
    columns = {"id": "join_key", "age": "after_aggregate", "ward": "after_group_by"}
    policy = {
        "alice": {"k": 3, "patients": {"columns": columns}},
        "bob": {"bills": {"columns": {"patient": "plaintext", "amount": "plaintext"}}},
    }
    db = connect({"alice": {"patients": patients}, "bob": {"bills": bills}}, policy)
    for sql, want in (
        ("select count(*) from bills where patient in (select id from patients)", [(5,)]),
        ("select count(*) from bills where patient in (select id from patients where age > 25)", []),
        (
            "select sum(amount) from bills where exists (select 1 from patients where id = patient and age < 35)",
            [(10,)],
        ),
        ("select sum(amount) from bills where exists (select 1 from patients where id = patient and age = 10)", []),
        ("select count(*) from bills where patient not in (select id from patients where age > 25)", []),
        ("select count(*), count_if(patient in (select id from patients where age < 15)) from bills", []),
        (f"select count(*) from bills x where {NESTED} (select id from patients where age < 35))", [(4,)]),
        (f"select count(*) from bills x where {NESTED} (select id from patients where age < 15))", []),
        (
            "with c as (select * from patients) select count(*) from c, (select sum(age) s from c where age > 55) "
            "where s > 50",
            [],
        ),
    ):
        assert evaluate(db, sql, "carol") == want, sql
    for sql, words in (
        (
            "select count(*) from bills where exists (select 1 from patients where age > 55)",
            "nothing ties to the query",
        ),
        ("select ward, sum(age) from patients group by rollup(ward)", "aggregated in several ways"),
        (
            "select sum(age) from patients union select avg(age) from patients where ward = 1",
            "aggregated in several ways",
        ),
        (
            "with c as (select * from patients) select count(*) from c a join c b on a.id = b.id where b.age > 55",
            "WITH is used several times",
        ),
        (
            "select count(*) from (select 1 from bills where patient in (select id from patients where age > 55) "
            "union all select 1 from bills)",
            "IN stands in a part of a UNION",
        ),
    ):
        (refusal,) = db.explain(sql, "carol", cost=False).refusals
        assert refusal.owner == "alice" and words in refusal.reason, sql


@pytest.mark.parametrize(
    ("test", "allowed"),
    [
        ("patient in (select id from patients)", True),
        ("(patient in (select id from patients)) is true or amount > 4", True),
        ("not exists (select 1 from patients where id = patient)", True),
        ("patient in (select id from patients) or (patient in (select id from patients)) is null", False),
        ("patient not in (select id from patients) or amount > 4", False),
        ("coalesce(patient in (select id from patients), true)", False),
        ("(select count(*) from patients) > 1 and (patient in (select id from patients)) is not null", False),
    ],
)
def test_whether_in_is_null_tells_of_a_null(test: str, allowed: bool) -> None:
    """One unit without a key would change every row that finds none."""
    tables: dict[str, dict[str, Any]] = {
        "alice": {"patients": {"id": [1, 2, 2, None]}},
        "bob": {"bills": {"patient": [1, 2, 3], "amount": [1, 4, 5]}},
    }
    policy: dict[str, Any] = {
        "alice": {"k": 2, "patients": {"columns": {"id": "join_key"}}},
        "bob": {"bills": {"columns": {"patient": "plaintext", "amount": "plaintext"}}},
    }
    found = connect(tables, policy).explain(f"select count(*) from bills where {test}", "carol", cost=False)
    assert any("whether there is a NULL" in r.reason for r in found.refusals) == (not allowed)
    assert found.allowed == allowed


FIRST = "(select first_value(age) over (order by id) f from patients)"
WEIGHTS = "(values (1, 0), (2, 0), (3, 0), (4, 1), (5, 0), (6, 0)) v(x, w)"


@pytest.mark.parametrize(
    ("sql", "allowed"),
    [
        (f"select avg(f) from {FIRST}", False),
        (f"select count(*) from {FIRST} where f > 50", False),
        ("select avg(s) from (select sum(age) over (partition by id) s from patients)", False),
        (f"select sum(age * w) from patients join {WEIGHTS} on id = x", False),
        (f"select sum(age * c) from patients join (select x, max(w) c from {WEIGHTS} group by x) on id = x", False),
        ("select avg(age - l) from (select age, lag(age) over (order by id) l from patients)", True),
        (
            "select avg(l) from (select lag(case id when 4 then age else 0 end) over (order by id) l from patients)",
            False,
        ),
        ("select sum(age) from (select age, row_number() over (order by id) r from patients) where r < 5", True),
        (
            "select sum(age / 2), avg(cast(age as double) * 1.5 / 100), avg(age * k.c) from patients, (select 2 c) k",
            True,
        ),
        ("select sum(amount) filter (where ward = 2) from bills join patients on id = patient", True),
        ("select avg(amount * age) filter (where amount > age) from bills join patients on id = patient", True),
    ],
)
def test_no_row_is_chosen_in_a_group_of_k_units(sql: str, allowed: bool) -> None:
    """By windows, weights that the query writes, rounding; what only computes with columns is of all of them."""
    columns = {"id": "plaintext", "ward": "plaintext", "age": "after_aggregate"}
    db = connect(TABLES, {"alice": {"k": 3, "patients": {"columns": columns}}, "bob": {"bills": {"columns": FREE}}})
    assert db.explain(sql, "carol", cost=False).allowed == allowed


def test_stated_bounds_tell_of_no_fewer_than_k_rows() -> None:
    """Whether rows fit is shown to all, and a query could ask for one bound after another."""
    patients = {**PATIENTS, "ward": [1, 1, 1, 2, 2, 2]}
    bills = {"ward": [1, 1, 2, 2], "amount": [10, 20, 30, 40]}
    tables: dict[str, Any] = {"alice": {"patients": patients}, "bob": {"bills": bills}}
    policy = {"k": 3, "patients": {"columns": {"ward": "join_key", "age": "after_aggregate"}}}
    db = connect(tables, {"alice": policy, "bob": {"bills": {"columns": {"ward": "plaintext", "amount": "plaintext"}}}})
    sql = "select sum(amount) from patients p join bills b on p.ward = b.ward where age > 50"
    for bound, allowed in ((2, False), (3, True), (20, True)):
        assert db.explain(sql, "carol", join_rows=bound, cost=False).allowed == allowed
    assert db.explain(sql, "alice", join_rows=2, cost=False).allowed  # her own


ERRORS = [
    "sum(case when age = 63 then cast('x' || ward as integer) else 0 end)",
    "sum((age - 62) * 2000000000 * (age - 62))",
    "max(cast(age * 3 as tinyint))",
    "sum(case when age = 63 then 1e300 * ward else 1 end)",
    "count(*) filter (where cast(case when age = 63 then 'x' else '1' end as integer) > 0)",
    "max(length(repeat('abcdefgh', case when age = 63 then 1000 else 1 end)))",
    "max(repeat('abcdefgh', case when age = 63 then 1000 else 1 end))",
    "sum(ward // (age - 63))",
]


@pytest.mark.parametrize("aggregate", ERRORS)
def test_errors_tell_nothing_of_the_cells_of_an_owner_with_rules(aggregate: str) -> None:
    """A query that fails for one age and not for another would be an answer. What fails is NULL."""
    for age in (63, 64):
        patients = {**PATIENTS, "age": [30, 41, 52, age, 74, 85]}
        tables: dict[str, Any] = {"alice": {"patients": patients}, "bob": {"bills": BILLS}}
        db = connect(tables, alice(id="plaintext", ward="plaintext", age="after_aggregate"))
        assert len(evaluate(db, f"select {aggregate} from patients", "carol")) == 1


def test_templates() -> None:
    policy = alice(id="plaintext", ward="plaintext", age="plaintext")
    policy["alice"]["templates"] = ["SELECT ward, count(*) FROM patients WHERE age > ? GROUP BY ward"]
    db = connect(TABLES, policy)
    assert db.explain("select ward, count(*) from patients where age > 33 group by ward", "carol", cost=False).allowed
    refused = db.explain("select ward, count(*) from patients group by ward", "carol", cost=False).refusals
    assert "none of the 1 templates" in str(refused[0])
    assert db.explain("select sum(amount) from bills", "carol", cost=False).allowed  # bob has none


def test_the_tripwire(tmp_path: Path) -> None:
    """It remembers in another process, and says what it is."""
    policy = alice(id="plaintext", ward="plaintext", age="plaintext")
    policy["alice"]["tripwire"] = str(tmp_path / "queries.jsonl")
    query = "select sum(age) from patients where id < {} and ward = {}"
    ledger = verdicts.Ledger(connect(TABLES, policy).policies["alice"])
    ledger.answered(query.format(5, 1), "carol")
    again = verdicts.Ledger(connect(TABLES, policy).policies["alice"])
    assert not again.refusals(query.format(5, 1), "carol")  # the same
    assert not again.refusals(query.format(6, 2), "carol")
    assert "a tripwire" in str(again.refusals(query.format(6, 1), "carol")[0])
    with pytest.raises(PolicyError, match="differs in one constant"):
        connect(TABLES, policy).sql(query.format(6, 1), "carol")
    (tmp_path / "queries.jsonl").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        again.refusals(query.format(5, 1), "carol")


def test_an_owner_decides_for_itself() -> None:
    """A party whose own check says yes to everything changes nothing for alice."""
    db = connect(TABLES, alice(id="plaintext", ward="plaintext", age="never"))
    plan = db.plan("select age from patients", "carol")
    verdicts.enforce(plan.root, plan.sql, db.policies, "carol", ["bob"])
    with pytest.raises(PolicyError, match="alice"):
        verdicts.enforce(plan.root, plan.sql, db.policies, "carol", ["alice"])


WRONG: list[tuple[Any, str]] = [
    ({"alicia": {}}, r"\[alicia\], who owns no table .did you mean `alice`"),
    ({"alice": {"patiens": {}}}, r"table `patiens` .did you mean `patients`"),
    ({"alice": {"patients": {"columns": {"agee": "never"}}}}, r"names `agee` .* .did you mean `age`"),
    ({"alice": {"patients": {"columns": {"age": "nevr"}}}}, r"'nevr' .did you mean `never`"),
    ({"alice": {"patients": {"unit": "idd"}}}, r"names `idd`"),
    ({"alice": {"k": -1}}, r"`k` of alice must be"),
    ({"alice": {"kk": 3}}, r"settings are"),
    ("missing.toml", r"cannot be read"),
]


@pytest.mark.parametrize(("policy", "message"), WRONG)
def test_wrong_policies_say_what_is_wrong(policy: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect(TABLES, policy)


def test_a_file_that_is_there_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a query may have cost of a budget is not spent on rows that have no place."""
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    (tmp_path / "out.parquet").write_text("mine")
    monkeypatch.setattr("spuvm.sql.Database.sql", lambda *args, **more: pytest.fail("it was computed"))
    line = ["sql", "select sum(a) from t", "--table", f"t={tmp_path}/t.csv@alice", "--to", "bob"]
    assert run([*line, "--output", f"{tmp_path}/out.parquet"]) == 2
    assert "out.parquet is there already" in capsys.readouterr().err
    assert (tmp_path / "out.parquet").read_text() == "mine"
