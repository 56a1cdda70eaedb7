"""TPC-H: all 22 queries over tables at three owners, compared with DuckDB's rows.

    python benchmarks/tpch.py --scale 0.01 [--queries 1,6] [--clear]

Data come from `tpchgen-cli` (works offline). alice has lineitem and part, bob orders and customer, carol the rest and
the answers. Seconds are processor time of this process, which runs all parties: of a first run with whatever is
compiled on disk, and of a second.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from tpch_queries import QUERIES

import spuvm as spu
from spuvm.sql.in_the_clear import evaluate

OWNERS = {
    "alice": ("lineitem", "part"),
    "bob": ("orders", "customer"),
    "carol": ("supplier", "partsupp", "nation", "region"),
}
KEYS = {"partsupp": ["ps_partkey", "ps_suppkey"]}
JOIN_ROWS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="0.01")
    parser.add_argument("--queries", default=",".join(map(str, QUERIES)))
    parser.add_argument("--clear", action="store_true", help="the plans' plain meaning, without the protocol")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tpchgen-cli", "parquet", "-s", options.scale, "--output-dir", folder], check=True)
        print(" q  rows  equal  rounds     MB  first s  second s")
        db, oracle = connected(Path(folder))
        for number in map(int, options.queries.split(",")):
            print(line(db, oracle, number, options.clear), flush=True)


def connected(folder: Path) -> tuple[Any, Any]:
    tables = {
        owner: {t: {"source": folder / f"{t}.parquet", **({"key": KEYS[t]} if t in KEYS else {})} for t in named}
        for owner, named in OWNERS.items()
    }
    oracle = duckdb.connect()
    for named in OWNERS.values():
        for t in named:
            oracle.execute(f"create table {t} as select * from '{folder / t}.parquet'")
    return spu.sql.connect(tables), oracle


def line(db: Any, oracle: Any, number: int, clear: bool) -> str:
    sql = QUERIES[number]
    want = oracle.execute(sql).fetchall()
    before = seconds()
    if clear:
        got, cost, second = evaluate(db, sql, "carol", join_rows=JOIN_ROWS), "      -      -", "-"
    else:
        got = db.sql(sql, to="carol", join_rows=JOIN_ROWS).rows()
    first = seconds() - before
    if not clear:
        before = seconds()
        db.sql(sql, to="carol", join_rows=JOIN_ROWS)
        second = f"{seconds() - before:.1f}"
        price = db.compile(sql, "carol", join_rows=JOIN_ROWS).cost
        cost = f"{price.rounds:7,} {price.bytes_sent.sum() / 1e6:6,.0f}"
    equal = "yes" if same(got, want) or same(sorted(got, key=repr), sorted(want, key=repr)) else "NO"
    return f"{number:2}  {len(got):4}  {equal:>5} {cost}  {first:7.1f}  {second:>8}"


def same(got: list[Any], want: list[Any]) -> bool:
    return len(got) == len(want) and all(equal(x, y) for g, w in zip(got, want) for x, y in zip(g, w))


def equal(x: Any, y: Any) -> bool:
    """Decimals exactly; what one side rounds (averages, quotients) to a unit of the sixth digit."""
    if isinstance(y, float) and x is not None:
        return abs(float(x) - y) <= 1.1e-6 * max(1.0, abs(y))
    return bool(x == y)


def seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
