"""Random queries, compared with DuckDB's answers.

    python benchmarks/sql_fuzz.py [--queries 300] [--seed 0] [--machine 30] [--setting owners|spread|shares]
    python benchmarks/sql_fuzz.py --network --queries 10 ...        # three processes over TLS, all on the machine

Three small tables with NULLs, decimals, dates, short and long text; new cells for every 25 queries. `owners`: two have
them whole; `spread`: each table's rows are at both; `shares`: nobody owns them (patterns are refused, then).
Every query's plan is evaluated in the clear; one in so many that `--machine` are runs on the parties' machine as well.
`--joins` is that of `connect`: `psi` has owners' keys looked up wherever they can be. What is rounded (averages,
quotients, shares of ranks) is compared to 2e-4. A query that is refused counts as refused: its error is shown once.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import sql_queries

import spuvm as spu
from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.errors import InputError
from spuvm.sql import matching
from spuvm.sql.in_the_clear import evaluate

PARTIES = ("alice", "bob", "carol")
EACH = 25  # queries of the same cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", type=int, default=0, help="how many run on the machine too")
    parser.add_argument("--setting", choices=("owners", "spread", "shares"), default="owners")
    parser.add_argument("--joins", choices=matching.JOINS, default="auto")
    parser.add_argument("--network", action="store_true", help="three processes over TLS")
    parser.add_argument("--as", dest="party", help="run as this party of --config")
    parser.add_argument("--config")
    options = parser.parse_args()
    if options.network:
        return networked(options)
    if options.party:
        options.machine = options.queries
        spu.init(party=options.party, config=options.config)
    else:
        spu.init(parties=PARTIES, address="local")
    wrong, refused, ran = 0, Counter[str](), 0
    every = options.queries // options.machine if options.machine else 0
    db: Any = None
    for number in range(options.seed, options.seed + options.queries):
        if db is None or number % EACH == 0:
            named = sql_queries.tables(number // EACH)
            oracle = sql_queries.oracle(named)
            db = connected(named, options.setting, options.joins)
        sql = sql_queries.Queries(number).query()
        want = sql_queries.rows(oracle.execute(sql).fetchall())
        try:
            for on_machine in (False, True)[bool(options.party) : 1 + (every > 0 and number % every == 0)]:
                result = db.sql(sql, to="carol") if on_machine else None
                ran += 1
                if result is not None and result.values is None:  # another party has the rows
                    continue
                got = sql_queries.rows(evaluate(db, sql, "carol") if result is None else result.rows())
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


def networked(options: argparse.Namespace) -> None:
    """The same at three processes, of which carol compares."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_run_folder(Path(folder) / "keys", spu.Config(parties=PARTIES), timeout=300)
        same = [f"--{n}={getattr(options, n)}" for n in ("queries", "seed", "setting", "joins")]
        line = [sys.executable, __file__, *same, f"--config={config}"]
        outcomes = run_parties({p: [*line, f"--as={p}"] for p in PARTIES}, timeout=3600, check=False)
    print(outcomes["carol"].stdout.strip())
    for party, outcome in outcomes.items():
        if outcome.status:
            sys.exit(f"{party} ended with {outcome.status}: {outcome.stderr.strip()[-2000:]}")


def connected(named: dict[str, Any], setting: str, joins: str) -> Any:
    if setting == "spread":
        halves = {"alice": slice(0, 4), "bob": slice(4, None)}
        return spu.sql.connect(
            {owner: {n: _part(n, t, half) for n, t in named.items()} for owner, half in halves.items()}, joins=joins
        )
    db = spu.sql.connect({"alice": {"t": named["t"]}, "bob": {"u": named["u"], "v": named["v"]}}, joins=joins)
    if setting == "owners":
        return db
    return spu.sql.connect({}, shares={n: db.share(f"select * from {n}") for n in named})


def _part(name: str, table: Any, rows: slice) -> Any:
    source = table.take(list(range(table.num_rows)[rows]))
    return {"source": source, "key": "k"} if name == "v" else source


if __name__ == "__main__":
    main()
