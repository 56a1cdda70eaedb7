"""TPC-H of tables that nobody owns, by three processes over TLS: seconds, bytes, and memory of a query.

    python benchmarks/tpch_network.py --scale 1 --queries 6,1 [--twice] [--write]

Each party's process reads its tables (as in `tpch.py`), of which the columns that the queries read become shares; then
the queries run. Seconds are of the wall clock from the query's text to carol's rows, everything included (planning,
compiling or what the cache has of it): of the first run and, with `--twice`, of a second. carol compares her rows with
DuckDB's. Memory is the most that a party's process had so far, sharing included. `--write` puts the figures into
docs/sql.md.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from tpch import JOIN_ROWS, KEYS, LISTED, OWNERS, PAGE, VALUES, make, same, seconds
from tpch_queries import QUERIES

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

PARTIES = tuple(OWNERS)
RECORD = Path(__file__).parent / "records" / "tpch_network.json"
START, END = "<!-- tpch over TLS -->\n", "<!-- end of tpch over TLS -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--queries", default="6,1")
    parser.add_argument("--twice", action="store_true", help="a second run of each")
    parser.add_argument("--write", action="store_true", help="keep the figures, and put them into docs/sql.md")
    parser.add_argument("--as", dest="party", help="run as this party of --config")
    parser.add_argument("--config")
    parser.add_argument("--folder", help="with the tables")
    options = parser.parse_args()
    if options.party:
        return run(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        make(path, options.scale)
        narrowed(path, columns_of(options.queries))
        config = str(make_run_folder(path / "run", spu.Config(parties=PARTIES), timeout=600))
        line = [sys.executable, __file__, *sys.argv[1:], "--config", config, "--folder", folder]
        outcomes = run_parties({p: [*line, "--as", p] for p in PARTIES}, timeout=4 * 3600)
    parts = {p: json.loads(o.stdout.splitlines()[-1]) for p, o in outcomes.items()}
    for number, found in parts["carol"].items():
        each = [parts[p][number] for p in PARTIES]
        total = {key: sum(part[key] for part in each) for key in ("sent", "processor")}
        found |= {**total, "memory": max(part["memory"] for part in each)}
        print(number, json.dumps(found))
        if options.write:
            write(options.scale, number, found)
    if not all(found["equal"] for found in parts["carol"].values()):
        sys.exit("differs from DuckDB")


def columns_of(queries: str) -> dict[str, list[str]]:
    """By table, the columns that the queries read, and its key."""
    text = " ".join(QUERIES[int(n)] for n in queries.split(","))
    described = {t: f"{'ps' if t == 'partsupp' else t[0]}_" for named in OWNERS.values() for t in named}
    found = {}
    for table, prefix in described.items():
        if re.search(rf"\b{table}\b", text):
            words = dict.fromkeys([*KEYS.get(table, ()), *re.findall(rf"\b{prefix}\w+", text)])
            found[table] = list(words)
    return found


def narrowed(folder: Path, columns: dict[str, list[str]]) -> None:
    """The tables with these columns alone; the others go."""
    for table in (t for named in OWNERS.values() for t in named):
        file, narrow = folder / f"{table}.parquet", folder / "narrow.tmp"
        if table in columns:
            with duckdb.connect() as db:
                db.execute(f"copy (select {', '.join(columns[table])} from '{file}') to '{narrow}' (format parquet)")
            narrow.replace(file)
        else:
            file.unlink()


def run(options: Any) -> None:
    me, folder = options.party, Path(options.folder)
    spu.init(party=me, config=options.config)
    tables: dict[str, dict[str, Any]] = {}
    for owner, named in OWNERS.items():
        here = {t: str(folder / f"{t}.parquet") for t in named if (folder / f"{t}.parquet").exists()}
        described = {t: _described(t, path) for t, path in here.items()}
        tables[owner] = described if owner == me else dict.fromkeys(described)
    first = spu.sql.connect(tables)
    names = [t for named in tables.values() for t in named]
    listed = {t: [e for e in LISTED.get(t, ()) if any(_said(e, QUERIES[int(n)]) for n in options.queries.split(","))]
              for t in names}  # fmt: skip
    shares = {t: first.share(f"select * from {t}", expressions=listed[t]) for t in names}
    del first
    db = spu.sql.connect({}, shares=shares)
    out = {n: measured(db, me, int(n), folder, options.twice) for n in options.queries.split(",")}
    print(json.dumps(out), flush=True)


def _said(expression: str, query: str) -> bool:
    return expression.lower() in re.sub(r"\s+", " ", query.lower())


def _described(table: str, path: str) -> dict[str, Any]:
    key = {"key": KEYS[table]} if table in KEYS else {}
    with duckdb.connect() as db:
        columns = [name for name, *_ in db.execute(f"describe select * from '{path}'").fetchall()]
    return {"source": path, **key, "values": {c: v for c, v in VALUES.get(table, {}).items() if c in columns}}


def measured(db: Any, me: str, number: int, folder: Path, twice: bool) -> dict[str, Any]:
    sql, link = QUERIES[number], db.device.vm.session.link
    runs = []
    for _ in range(1 + twice):
        link.settle()
        before, used, started = sum(link.counters.bytes_sent.values()), seconds(), time.perf_counter()
        result = db.sql(sql, to="carol", join_rows=JOIN_ROWS)
        equal = me != "carol" or _equal(result.rows(), sql, folder)
        runs.append((result.seconds, time.perf_counter() - started))
        link.settle()
        sent, processor = sum(link.counters.bytes_sent.values()) - before, seconds() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "equal": equal,
        "first": runs[0][0],
        "second": runs[-1][0] if twice else None,
        "sent": sent,
        "processor": processor,
        "memory": memory,
    }


def _equal(got: list[Any], sql: str, folder: Path) -> bool:
    with duckdb.connect() as oracle:
        for file in folder.glob("*.parquet"):
            oracle.execute(f"create view {file.stem} as select * from '{file}'")
        want = oracle.execute(sql).fetchall()
    return same(got, want) or same(sorted(got, key=repr), sorted(want, key=repr))


def write(scale: str, number: str, found: dict[str, Any]) -> None:
    """The figures in the record, and the table in the documentation."""
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kept.setdefault(scale, {})[number] = found
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    rows = ["| scale | query | first s | second s | GB sent by all | processor s of all | GB of memory, at most |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|")
    for size, queries in sorted(kept.items(), key=lambda pair: float(pair[0])):
        for n, f in sorted(queries.items(), key=lambda pair: int(pair[0])):
            differs = "" if f["equal"] else " (DIFFERS)"
            second = "-" if f["second"] is None else f"{f['second']:.1f}"
            rows.append(
                f"| {size} | {n}{differs} | {f['first']:.1f} | {second} | {f['sent'] / 1e9:.2f} | "
                f"{f['processor']:.0f} | {f['memory'] / 1e9:.1f} |"
            )
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START) + len(START)] + "\n".join(rows) + "\n" + text[text.index(END) :])


if __name__ == "__main__":
    main()
