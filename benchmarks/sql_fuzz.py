"""Random queries, compared with DuckDB's answers.

    python benchmarks/sql_fuzz.py [--queries 300] [--seed 0] [--machine 30] [--setting owners|spread|shares]

Three small tables with NULLs, decimals, dates, short and long text; new cells for every 25 queries. `owners`: two have
them whole; `spread`: each table's rows are at both; `shares`: nobody owns them (patterns are refused, then).
Every query's plan is evaluated in the clear; one in so many that `--machine` are runs on the parties' machine as well.
What is rounded (averages, quotients, shares of ranks) is compared to 2e-4. A query that is refused counts as refused:
its error is shown once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import sql_queries

import spuvm as spu
from spuvm.runtime.errors import InputError
from spuvm.sql.in_the_clear import evaluate

EACH = 25  # queries of the same cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", type=int, default=0, help="how many run on the machine too")
    parser.add_argument("--setting", choices=("owners", "spread", "shares"), default="owners")
    options = parser.parse_args()
    spu.init(parties=("alice", "bob", "carol"), address="local")
    wrong, refused, ran = 0, Counter[str](), 0
    every = options.queries // options.machine if options.machine else 0
    db: Any = None
    for number in range(options.seed, options.seed + options.queries):
        if db is None or number % EACH == 0:
            named = sql_queries.tables(number // EACH)
            oracle = sql_queries.oracle(named)
            db = connected(named, options.setting)
        sql = sql_queries.Queries(number).query()
        want = sql_queries.rows(oracle.execute(sql).fetchall())
        try:
            for on_machine in (False, True)[: 1 + (every > 0 and number % every == 0)]:
                found = db.sql(sql, to="carol").rows() if on_machine else evaluate(db, sql, "carol")
                got = sql_queries.rows(found)
                ran += 1
                if not sql_queries.close(got, want):
                    wrong += 1
                    print(f"DIFFERS, query {number}: {sql}\n  want {want}\n  got  {got}", flush=True)
        except InputError as error:
            reason = re.sub(r"`[^`]*`|#\d+", "...", str(error))[:110]
            if not refused[reason]:
                print(f"refused, query {number}: {sql}\n  {error}", flush=True)
            refused[reason] += 1
        except Exception as error:
            wrong += 1
            print(f"FAILED, query {number}: {sql}\n  {type(error).__name__}: {error}", flush=True)
    print(f"{options.queries} queries, {ran} runs, {refused.total()} refused, {wrong} wrong")
    sys.exit(bool(wrong))


def connected(named: dict[str, Any], setting: str) -> Any:
    if setting == "spread":
        halves = {"alice": slice(0, 4), "bob": slice(4, None)}
        return spu.sql.connect(
            {owner: {n: _part(n, t, half) for n, t in named.items()} for owner, half in halves.items()}
        )
    db = spu.sql.connect({"alice": {"t": named["t"]}, "bob": {"u": named["u"], "v": named["v"]}})
    if setting == "owners":
        return db
    return spu.sql.connect({}, shares={n: db.share(f"select * from {n}") for n in named})


def _part(name: str, table: Any, rows: slice) -> Any:
    source = table.take(range(table.num_rows)[rows])
    return {"source": source, "key": "k"} if name == "v" else source


if __name__ == "__main__":
    main()
