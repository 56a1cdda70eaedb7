"""Joins of made tables: three processes over TLS, from Parquet to Parquet.

    python benchmarks/joining.py 1000000 [--how shared|oblivious|files] [--data FOLDER] [--record FILE]

Half of each table's keys, 64-bit integers, are in the other. `files` is `spuvm psi run` in helper mode, with output at
both owners; `shared` and `oblivious` join to shares, one column of each owner. The clock runs from the moment when all
parties are connected until all have finished; processor time and memory are those of all three processes. The result
is checked against what is known of the tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
BLOCK = 1 << 20
MULTIPLIER = 0x9E3779B97F4A7C15  # odd: i -> i * MULTIPLIER mod 2^64 gives each number its own key


def make(folder: Path, rows: int) -> dict[str, Path]:
    """Keys of numbers 0 to rows - 1, and of rows / 2 to 3 rows / 2 - 1 from the last to the first, with a column."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {p: folder / f"{p}-{rows}.parquet" for p in PARTIES[:2]}
    for party, path in paths.items():
        if path.exists():
            continue
        value = "x" if party == "alice" else "y"
        schema = pa.schema([("id", pa.int64()), *([(value, pa.float32())] if rows <= 10**8 else [])])
        with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
            for start in range(0, rows, BLOCK):
                numbers = np.arange(start, min(start + BLOCK, rows), dtype=np.uint64)
                if party == "bob":
                    numbers = np.uint64(rows // 2 + rows - 1) - numbers
                columns = [(numbers * np.uint64(MULTIPLIER)).view(np.int64)]
                if len(schema) > 1:
                    columns.append((numbers % np.uint64(1000)).astype(np.float32))
                writer.write_table(pa.table(dict(zip(schema.names, columns)), schema))
    return paths


def party(me: str, config: str, how: str, rows: int, folder: Path) -> dict[str, Any]:
    """Be one party; what it measured."""
    paths = {p: str(folder / f"{p}-{rows}.parquet") for p in PARTIES[:2]}
    spu.init(party=me, config=config)
    began, cpu = time.perf_counter(), time.process_time()
    said: dict[str, Any] = {}
    if how == "files":
        from spuvm.psi.bulk.run import Asked, intersect_files
        from spuvm.psi.places import here

        asked = Asked(PARTIES[:2], "carol", dict.fromkeys(PARTIES[:2], ("id",)), {}, PARTIES[:2])
        outputs = {p: folder / f"{p}-{rows}-matched.parquet" for p in PARTIES[:2]}
        show = me == "alice" and rows > 10**7
        written = intersect_files(here(), asked, paths, outputs, {}, True, show)
        said["matched"] = written[me].value if me in written else None
    else:
        mode = "helper" if how == "shared" else "oblivious"
        table = spu.psi.join(paths, key="id", how="inner", mode=mode, missing=False, drop="id")
        table.valid.block_until_ready()
        said["seconds"] = time.perf_counter() - began
        said["matched"] = int(spu.reveal(table.valid).sum())
        said["sum"] = float((spu.reveal(table.columns["x"]) * spu.reveal(table.valid)).sum())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said.setdefault("seconds", time.perf_counter() - began)
    said |= {"cpu_seconds": time.process_time() - cpu, "peak_bytes": usage.ru_maxrss * 1024}
    spu.shutdown()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("--how", choices=("files", "shared", "oblivious"), default="files")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "spuvm-joining")
    parser.add_argument("--record", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("--party", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.party:
        print(json.dumps(party(args.party[0], args.party[1], args.how, args.rows, args.data)))
        return
    make(args.data, args.rows)
    with tempfile.TemporaryDirectory(prefix="spuvm-") as name:
        config = make_run_folder(name, spu.Config(parties=PARTIES), timeout=600)
        line = [sys.executable, __file__, str(args.rows), "--how", args.how, "--data", str(args.data), "--party"]
        found = run_parties({p: [*line, p, str(config)] for p in PARTIES}, on_line=_progress)
    said = {p: json.loads(o.stdout) for p, o in found.items()}
    figures = {
        "how": args.how,
        "rows": args.rows,
        "seconds": max(s["seconds"] for s in said.values()),
        "cpu_seconds": sum(s["cpu_seconds"] for s in said.values()),
        "peak_bytes": sum(s["peak_bytes"] for s in said.values()),
        "right": all(s["matched"] in (None, args.rows - args.rows // 2) for s in said.values()),
    }
    print(json.dumps(figures))
    if args.record:
        with args.record.open("a") as file:
            file.write(json.dumps(figures) + "\n")
    assert figures["right"], said


def _progress(party: str, stream: str, line: str) -> None:
    if stream == "stderr":
        print(f"{party}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
