"""TPC-H: all 22 queries, compared with DuckDB's rows, with what each costs.

    python benchmarks/tpch.py --scale 0.01 [--setting owners|spread|shares] [--queries 1,6] [--clear] [--write]

Data come from `tpchgen-cli` (works offline). Settings: `owners`: alice has lineitem and part, bob orders and customer,
carol the rest; `spread`: every table's rows are spread over the three; `shares`: all tables are shares that nobody
owns, with the patterns that the queries match listed when they were shared. carol gets the answers.

Seconds are processor time of this process, which runs all parties: of a first run with whatever is compiled on disk,
and of a second. Below scale 0.01 the generator repeats keys of partsupp; of those the first row is kept. `--clear`
evaluates the plans without the protocol. `--write` puts the figures into docs/sql.md, beside those of other settings.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from tpch_queries import QUERIES

import spuvm as spu
from spuvm.runtime.errors import InputError
from spuvm.sql.in_the_clear import evaluate

OWNERS = {
    "alice": ("lineitem", "part"),
    "bob": ("orders", "customer"),
    "carol": ("supplier", "partsupp", "nation", "region"),
}
KEYS = {
    "part": ["p_partkey"],
    "orders": ["o_orderkey"],
    "customer": ["c_custkey"],
    "supplier": ["s_suppkey"],
    "partsupp": ["ps_partkey", "ps_suppkey"],
    "nation": ["n_nationkey"],
    "region": ["r_regionkey"],
}
LISTED = {
    "part": [
        "p_type like '%BRASS'",
        "p_type like 'PROMO%'",
        "p_type like 'MEDIUM POLISHED%'",
        "p_name like '%green%'",
        "p_name like 'forest%'",
    ],
    "orders": ["o_comment like '%special%requests%'"],
    "supplier": ["s_comment like '%Customer%Complaints%'"],
    "customer": ["substring(c_phone from 1 for 2)"],
}
VALUES = {  # of text that all parties may know; TPC-H lists them
    "lineitem": {
        "l_returnflag": ["A", "N", "R"],
        "l_linestatus": ["F", "O"],
        "l_shipmode": ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"],
    },
    "orders": {
        "o_orderpriority": ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"],
    },
}
SETTINGS = ("owners", "spread", "shares")
JOIN_ROWS = 100_000
HERE = Path(__file__).parent
RECORD, PAGE = HERE / "records" / "tpch.json", HERE.parent / "docs" / "sql.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="0.01")
    parser.add_argument("--setting", choices=SETTINGS, default="owners")
    parser.add_argument("--queries", default=",".join(map(str, QUERIES)))
    parser.add_argument("--clear", action="store_true", help="the plans' plain meaning, without the protocol")
    parser.add_argument("--once", action="store_true", help="no second run")
    parser.add_argument("--write", action="store_true", help="keep the figures, and put them into docs/sql.md")
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.scale)
        began = seconds()
        db, oracle = connected(Path(folder), options.setting)
        print(f"{options.setting}, scale {options.scale}: connected in {seconds() - began:.1f} s", flush=True)
        print(" q  rows  equal   rounds       MB  first s  second s")
        for number in map(int, options.queries.split(",")):
            try:
                found = measured(db, oracle, number, options.clear, options.once)
            except InputError as error:  # more bits than the machine's integers have
                print(f"{number:2}  refused: {error}", flush=True)
                continue
            wrong += [] if found["equal"] else [number]
            print(line(number, found), flush=True)
            if options.write and not options.clear:
                write(options.setting, options.scale, number, found)
    if wrong:
        sys.exit(f"differ from DuckDB: {', '.join(map(str, wrong))}")


def make(folder: Path, scale: str) -> None:
    """The tables as Parquet files."""
    tool = shutil.which("tpchgen-cli", path=f"{Path(sys.executable).parent}:{Path(duckdb.__file__).parents[4]}/bin")
    command = [tool or "tpchgen-cli", "parquet", "-s", scale, "--output-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def connected(folder: Path, setting: str) -> tuple[Any, Any]:
    oracle = duckdb.connect()
    for t in (t for named in OWNERS.values() for t in named):
        oracle.execute(f"create table {t} as select * from '{folder / t}.parquet'")
    oracle.execute(
        "delete from partsupp p using partsupp q where p.ps_partkey = q.ps_partkey and p.ps_suppkey = "
        "q.ps_suppkey and p.rowid > q.rowid"
    )
    whole = {owner: {t: _source(oracle, t) for t in named} for owner, named in OWNERS.items()}
    if setting == "owners":
        return spu.sql.connect(whole), oracle
    if setting == "spread":
        return spu.sql.connect(
            {
                owner: {t: _source(oracle, t, f"where rowid % 3 = {i}") for named in OWNERS.values() for t in named}
                for i, owner in enumerate(OWNERS)
            }
        ), oracle
    first = spu.sql.connect(whole)
    shares = {
        t: first.share(f"select * from {t}", expressions=LISTED.get(t, ())) for named in OWNERS.values() for t in named
    }
    return spu.sql.connect({}, shares=shares), oracle


def _source(oracle: Any, table: str, where: str = "") -> dict[str, Any]:
    source: dict[str, Any] = {"source": oracle.sql(f"select * from {table} {where}").to_arrow_table()}
    source |= {"values": VALUES[table]} if table in VALUES else {}
    return {**source, "key": KEYS[table]} if table in KEYS else source


def measured(db: Any, oracle: Any, number: int, clear: bool, once: bool) -> dict[str, Any]:
    """Of one query: rows, whether they are DuckDB's, rounds, bytes of all parties, processor seconds."""
    sql = QUERIES[number]
    want = oracle.execute(sql).fetchall()
    before, out = seconds(), dict[str, Any](rounds=0, bytes=0, first=0.0, second=None)
    if clear:
        got = evaluate(db, sql, "carol", join_rows=JOIN_ROWS)
    else:
        got = db.sql(sql, to="carol", join_rows=JOIN_ROWS).rows()
    out["first"] = seconds() - before
    if not clear:
        before = seconds()
        if not once:
            db.sql(sql, to="carol", join_rows=JOIN_ROWS)
            out["second"] = seconds() - before
        price = db.explain(sql, "carol", join_rows=JOIN_ROWS).cost
        out |= {"rounds": price.rounds, "bytes": int(price.bytes_sent.sum())}
    equal = same(got, want) or same(sorted(got, key=repr), sorted(want, key=repr))
    return {"rows": len(got), "equal": equal, **out}


def line(number: int, f: dict[str, Any]) -> str:
    return (
        f"{number:2}  {f['rows']:4}  {'yes' if f['equal'] else 'NO':>5}  {f['rounds']:7,}  {f['bytes'] / 1e6:7,.1f}  "
        f"{f['first']:7.1f}  {_seconds(f):>8}"
    )


def _seconds(found: dict[str, Any]) -> str:
    return "-" if found["second"] is None else f"{found['second']:.1f}"


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


# What is kept -----------------------------------------------------------------------------------------------------


def write(setting: str, scale: str, number: int, found: dict[str, Any]) -> None:
    """The figures in the record, and the table in the documentation."""
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    kept.setdefault(scale, {}).setdefault(setting, {})[str(number)] = found
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    text, start, end = PAGE.read_text(), "<!-- tpch -->\n", "<!-- end of tpch -->"
    rows = "\n".join(page(kept))
    PAGE.write_text(text[: text.index(start) + len(start)] + rows + "\n" + text[text.index(end) :])


def page(kept: dict[str, Any]) -> list[str]:
    out = []
    for scale, settings in sorted(kept.items(), key=lambda pair: float(pair[0])):
        names = [s for s in SETTINGS if s in settings]
        out += [
            f"Scale {scale}; rounds, MB of all parties together, processor seconds of a second run, if any:",
            "",
        ]
        out.append("| query |" + "".join(f" {s}: rounds | MB | s |" for s in names))
        out.append("|---|" + "---:|" * 3 * len(names))
        for number in sorted({int(n) for s in names for n in settings[s]}):
            cells = [_cells(settings[s].get(str(number))) for s in names]
            out.append(f"| {number} |" + "".join(cells))
        out.append("")
    return out[:-1]


def _cells(found: dict[str, Any] | None) -> str:
    if found is None:
        return " | | |"
    differs = "" if found["equal"] else " (DIFFERS)"
    return f" {found['rounds']:,}{differs} | {found['bytes'] / 1e6:,.1f} | {_seconds(found)} |"


if __name__ == "__main__":
    main()
