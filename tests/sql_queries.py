"""Random queries over three small tables, and DuckDB's answers to them."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow

TEXTS = ["red", "green", "blue", "a text that is much longer than two words", "a text that is much longer", ""]


def tables(seed: int) -> dict[str, dict[str, Any]]:
    """The same shapes and types for all seeds: t and u have NULLs, v has a key."""
    r = random.Random(seed)

    def some(values: list[Any], rows: int, nulls: float = 0.2) -> list[Any]:
        return [None if r.random() < nulls else r.choice(values) for _ in range(rows)]

    prices = [Decimal(n) / 100 for n in (-350, 0, 125, 999, 1000, 12345)]
    days = [dt.date(2024, 1, 30) + dt.timedelta(days=n) for n in (0, 1, 2, 29, 31, 366)]
    return {
        "t": pyarrow.table(
            {
                "a": pyarrow.array(some([1, 2, 3, 4, -5], 11), pyarrow.int32()),
                "b": pyarrow.array(some([0, 1, 2, 7], 11), pyarrow.int64()),
                "p": pyarrow.array(some(prices, 11), pyarrow.decimal128(9, 2)),
                "d": pyarrow.array(some(days, 11), pyarrow.date32()),
                "s": pyarrow.array(some(TEXTS, 11), pyarrow.string()),
            }
        ),
        "u": pyarrow.table(
            {
                "x": pyarrow.array(some([1, 2, 3, 9], 7), pyarrow.int32()),
                "y": pyarrow.array(some([0, 1, 2, 5], 7), pyarrow.int64()),
                "q": pyarrow.array(some(prices, 7), pyarrow.decimal128(9, 2)),
                "w": pyarrow.array(some(TEXTS, 7), pyarrow.string()),
            }
        ),
        "v": pyarrow.table({"k": pyarrow.array(list(range(5)), pyarrow.int32()), "n": some(TEXTS, 5, 0.0)}),
    }


def oracle(named: dict[str, Any]) -> Any:
    con = duckdb.connect()
    for name, table in named.items():
        con.register("incoming", table)
        con.execute(f"create table {name} as select * from incoming")
        con.unregister("incoming")
    return con


class Queries:
    """A generator of queries. What DuckDB may answer in several ways (which of equal rows comes first, any value of a
    group) is not asked."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)

    def one(self, *choices: str) -> str:
        return self.r.choice(choices)

    def query(self) -> str:
        common = [self.plain, self.grouped, self.joined, self.window, self.union, self.outer]
        make = self.r.choice(
            [*common, *common, self.limited, self.nested, self.common_table, self.self_join, self.chain]
        )
        return make()

    # Pieces -----------------------------------------------------------------------------------------------------

    def number(self, alias: str) -> str:
        columns = {"t": ["a", "b", "p"], "u": ["x", "y", "q"], "v": ["k"]}[alias]
        c = f"{alias}.{self.r.choice(columns)}"
        plain = self.one(c, c, f"{c} + 1", f"2 * {c}", f"-{c}", f"coalesce({c}, 3)", f"abs({c})", f"nullif({c}, 2)")
        if alias == "t" and self.r.random() < 0.25:
            return self.dated()
        if alias != "v" and self.r.random() < 0.15:
            other = self.r.choice({"t": ["t.a", "t.b"], "u": ["u.x", "u.y"]}[alias])
            return self.one(
                f"{c} / 4",
                f"{other} // 2",
                f"{other} % 3",
                f"cast({c} as integer)",
                f"cast({other} as decimal(9, 3))",
                f"least({c}, {other})",
                f"round({c}, 1)",
                f"case {other} when 1 then 10 when 2 then {c} end",
            )
        return plain

    def dated(self) -> str:
        part = self.one("year", "month", "day", "quarter")
        return self.one(
            f"extract({part} from t.d)",
            f"{part}(t.d)",
            "t.d - date '2024-01-15'",
            "date_diff('day', date '2023-12-31', t.d)",
        )

    def text(self, alias: str) -> str:
        return {"t": "t.s", "u": "u.w", "v": "v.n"}[alias]

    def test(self, *aliases: str) -> str:
        a, b = self.r.choice(aliases), self.r.choice(aliases)
        return self.one(
            f"{self.number(a)} {self.one('<', '>', '=', '<>', '<=')} {self.number(b)}",
            f"{self.number(a)} between 0 and 3",
            f"{self.text(a)} = {self.text(b)}",
            f"{self.text(a)} {self.one('<', '>=')} 'blue'",
            f"{self.number(a)} is {self.one('', 'not ')}null",
            f"({self.number(a)} > 1 or {self.text(b)} like '%r%')",
            f"not ({self.number(a)} in (1, 2, 7))",
            f"{self.text(a)} {self.one('in', 'not in')} ('red', 'a text that is much longer', '')",
            f"{self.text(a)} {self.one('', 'not ')}like '{self.one('%e%', 'a text%', '_e_')}'",
            self.day_test() if a == "t" else f"{self.number(a)} is not distinct from {self.number(a)}",
            self.subquery(a),
            self.subquery(a),
        )

    def subquery(self, alias: str) -> str:
        tie = {"t": "t.a", "u": "u.y", "v": "v.k"}[alias]
        return self.one(
            f"{self.number(alias)} in (select x from u {self.one('', 'where y > 0')})",
            f"{self.number(alias)} not in (select y from u where y is not null)",
            f"exists (select 1 from u as z where z.x = {tie})",
            f"{self.number(alias)} > (select min(y) from u)",
            f"{self.number(alias)} <= (select sum(z.y) from u as z where z.x = {tie})",
            f"{self.number(alias)} not in (select y from u)",
            f"not exists (select 1 from u as z where z.x = {tie} and z.y > 0)",
            f"exists (select 1 from u as z where z.x = {tie} and z.q {self.one('<', '>', '<>')} {self.number(alias)})",
            f"{self.text(alias)} in (select w from u)",
            f"(select count(*) from u as z where z.y = {tie}) {self.one('=', '>', '<')} 1",
            f"{self.number(alias)} < (select avg(z.k) from v as z where z.n in (select w from u))",
        )

    def day_test(self) -> str:
        return self.one(
            "t.d > date '2024-02-01'",
            "t.d between date '2024-01-31' and date '2024-03-01'",
            "t.d + interval 1 month >= date '2024-02-29'",
            "t.d is null",
            "t.d = (select max(d) from t as z where z.a = t.a)",
        )

    def where(self, *aliases: str) -> str:
        count = self.r.randrange(3)
        return " where " + " and ".join(self.test(*aliases) for _ in range(count)) if count else ""

    def value(self, *aliases: str) -> str:
        a = self.r.choice(aliases)
        return self.one(
            self.number(a),
            self.text(a),
            f"case when {self.test(a)} then {self.number(a)} else 0 end",
            f"greatest({self.number(a)}, {self.number(a)})",
            f"case when {self.test(a)} then {self.text(a)} when {self.test(a)} then 'low' end",
            f"coalesce({self.text(a)}, 'none')",
            "t.d" if a == "t" else self.number(a),
        )

    def aggregate(self, *aliases: str) -> str:
        n = self.number(self.r.choice(aliases))
        return self.one(
            "count(*)",
            f"count({n})",
            f"sum({n})",
            f"min({n})",
            f"max({n})",
            f"avg({n})",
            f"count(distinct {n})",
            f"sum({n}) filter (where {self.number(self.r.choice(aliases))} > 1)",
            f"max({self.text(self.r.choice(aliases))})",
            f"median({n})",
            f"sum(distinct {n})",
            f"count(*) filter (where {self.test(self.r.choice(aliases))})",
            f"bool_and({n} > 0)",
            f"bool_or({n} > 2)",
            f"count(distinct {self.text(self.r.choice(aliases))})",
            f"min({self.text(self.r.choice(aliases))})",
            "max(t.d)" if "t" in aliases else "count(*)",
            f"sum({n}) / count(*)",
            f"sum(case when {self.test(self.r.choice(aliases))} then {n} else 0 end)",
        )

    # Queries ------------------------------------------------------------------------------------------------------

    def source(self) -> tuple[str, tuple[str, ...]]:
        return self.r.choice(
            [
                ("t", ("t",)),
                ("t join v on t.a = v.k", ("t", "v")),
                ("t join u on t.a = u.x", ("t", "u")),
                ("t join u on t.a = u.x and t.b = u.y", ("t", "u")),
                ("t cross join v", ("t", "v")),
                ("u, v, t where_join", ("t", "u", "v")),
            ]
        )

    def _from(self) -> tuple[str, tuple[str, ...], str]:
        text, aliases = self.source()
        if text.endswith("where_join"):
            return "u, v, t", aliases, " where u.x = v.k and t.b = v.k"
        return text, aliases, ""

    def plain(self) -> str:
        source, aliases, join = self._from()
        where = self.where(*aliases)
        where = where.replace(" where ", " and ", 1) if join else where
        values = ", ".join(f"{self.value(*aliases)} as c{i}" for i in range(self.r.randint(1, 3)))
        return f"select {self.one('', '', 'distinct ')}{values} from {source}{join}{where}"

    def grouped(self) -> str:
        source, aliases, join = self._from()
        where = self.where(*aliases)
        where = where.replace(" where ", " and ", 1) if join else where
        keys = [self.value(*aliases) for _ in range(self.r.randrange(3))]
        calls = [self.aggregate(*aliases) for _ in range(self.r.randint(1, 3))]
        shown = ", ".join(f"{e} as c{i}" for i, e in enumerate([*keys, *calls]))
        group = f" group by {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        n = self.number(self.r.choice(aliases))
        total = self.one("count(*)", f"sum({n})", f"min({n})", f"avg({n})", f"count(distinct {n})")
        having = f" having {total} {self.one('>', '<>')} 1" if keys and self.r.random() < 0.3 else ""
        return f"select {shown} from {source}{join}{where}{group}{having}"

    def joined(self) -> str:
        inner = f"select t.a as g, {self.aggregate('t')} as m, count(*) as c from t{self.where('t')} group by t.a"
        return f"select u.y, z.m, z.c + u.x from u {self.one('', 'left ')}join ({inner}) as z on u.x = z.g"

    def outer(self) -> str:
        kind = self.one("left", "right", "full")
        extra = f" and {self.number('u')} > 0" if kind == "left" and self.r.random() < 0.5 else ""
        right, key = self.r.choice([("u", "u.x"), ("v", "v.k")])
        on = f"t.a = {key}{extra if right == 'u' else ''}"
        return f"select t.b, t.s, {self.number(right)} as n, {self.text(right)} as w from t {kind} join {right} on {on}"

    def window(self) -> str:
        part = self.one("", "partition by t.a ", "partition by t.s ")
        total = "t.a, t.b, t.p, t.d, t.s"
        ordered = f"over ({part}order by {self.one('t.b', 't.p desc', 't.d nulls first, t.b', 't.s')})"
        single = f"over ({part}order by t.b, {total})"
        call = self.one(
            f"rank() {ordered}",
            f"dense_rank() {ordered}",
            f"sum({self.number('t')}) {ordered}",
            f"count({self.number('t')}) {ordered}",
            f"min({self.number('t')}) {ordered}",
            f"max({self.number('t')}) over ({part.strip()})",
            f"avg({self.number('t')}) over ({part.strip()})",
            f"lag(t.b, {self.one('1', '2')}) {single}",
            f"lead(t.p) {single}",
            f"first_value(t.b) {single}",
            f"last_value(t.p) {single}",
            f"row_number() {single}",
            f"percent_rank() {ordered}",
            f"sum(t.b) over ({part}order by t.d, {total} rows between unbounded preceding and current row)",
            f"avg(t.p) over ({part}order by t.b)",
            f"count(*) over ({part.strip()})",
        )
        if self.r.random() < 0.2:
            return f"select t.a, t.b, t.s from t{self.where('t')} qualify row_number() {single} <= 2"
        return f"select t.a, t.b, {call} as r from t{self.where('t')}"

    def union(self) -> str:
        left, right = (
            f"select {self.number('t')}, t.s from t{self.where('t')}",
            f"select {self.number('u')}, u.w from u",
        )
        return f"{left} {self.one('union', 'union all', 'intersect', 'except')} {right}"

    def limited(self) -> str:
        """Ordered by all columns, so that the first rows are the same."""
        ways = [self.one("", " desc") + self.one("", " nulls first") for _ in range(3)]
        order = ", ".join(f"{i + 1}{way}" for i, way in enumerate(ways))
        values = f"{self.number('t')} as c0, {self.text('t')} as c1, t.d as c2"
        end = f"limit {self.r.randint(1, 6)}" + self.one("", f" offset {self.r.randint(1, 3)}")
        return f"select {values} from t{self.where('t')} order by {order} {end}"

    def nested(self) -> str:
        inner = f"select t.s as s, t.b as b, {self.aggregate('t')} as m from t{self.where('t')} group by t.s, t.b"
        return f"select z.s, count(*) as c, sum(z.b) as y from ({inner}) as z where z.b > 0 or z.s is null group by z.s"

    def common_table(self) -> str:
        inner = f"select u.x as x, u.w as w, {self.number('u')} as n from u{self.where('u')}"
        return (
            f"with z as ({inner}) select a.n, b.w, t.b from z as a join t on a.x = t.a left join v as c on c.k = a.n, "
            + ("(select max(w) as w from z) as b")
        )

    def self_join(self) -> str:
        test = self.one("one.p < two.p", "one.s = two.s", "one.d <= two.d", "one.p <> two.p")
        return f"select one.b, two.s, count(*) as c from t one join t two on one.a = two.b where {test} group by 1, 2"

    def chain(self) -> str:
        kinds = [self.one("left", "inner"), self.one("left", "inner")]
        return (
            f"select t.a, v.n, z.y from t {kinds[0]} join v on t.b = v.k {kinds[1]} join "
            f"(select x, max(y) as y from u group by x) as z on z.x = v.k{self.where('t')}"
        )


def simple(value: Any) -> Any:
    return round(float(value), 4) + 0.0 if isinstance(value, float | Decimal) else value


def rows(values: Any) -> list[tuple[Any, ...]]:
    """Comparable rows: numbers rounded, in one order."""
    return sorted((tuple(map(simple, row)) for row in values), key=repr)


def close(got: list[tuple[Any, ...]], want: list[tuple[Any, ...]]) -> bool:
    """Equal, but for averages and quotients, which are rounded."""

    def same(x: Any, y: Any) -> bool:
        return bool(x == y or (isinstance(x, float) and isinstance(y, float) and abs(x - y) <= 2e-4))

    return len(got) == len(want) and all(same(x, y) for g, w in zip(got, want) for x, y in zip(g, w))
