"""Joins of made tables: three processes over TLS, from Parquet to Parquet.

    python benchmarks/joining.py 1000000 [--how shared|oblivious|files] [--data FOLDER] [--record FILE]
    python benchmarks/joining.py 20000 --how ecdh        # of two parties alone: its share of the library's own speed

Half of each table's keys, 64-bit integers, are in the other. `files` is `spuvm psi run` in helper mode, with output at
both owners; `shared` and `oblivious` join to shares, one column of each owner. The clock runs from the moment when all
parties are connected until all have finished; processor time and memory are those of all three processes. The result
is checked against what is known of the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
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
        from spuvm.psi.bulk.exchange import Asked
        from spuvm.psi.bulk.run import intersect_files
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
    parser.add_argument("--how", choices=("files", "shared", "oblivious", "ecdh"), default="files")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "spuvm-joining")
    parser.add_argument("--kills", type=int, help="kill a party so often, go on, and compare the files byte for byte")
    parser.add_argument("--record", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("--party", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.party:
        print(json.dumps(party(args.party[0], args.party[1], args.how, args.rows, args.data)))
        return
    if args.how == "ecdh":
        print(json.dumps(by_curve(args.rows)))
        return
    make(args.data, args.rows)
    if args.kills:
        killed(args)
        return
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


def by_curve(rows: int) -> dict[str, Any]:
    """A count by ECDH, both parties in this process, beside its four multiplications and two hashings to the group of
    each row by the library alone, in one loop; processor seconds."""
    from spuvm.psi.curve import library, random_scalar

    scalar, lib = random_scalar(), library()
    hashes = [hashlib.sha512(b"%d" % i).digest() for i in range(rows)]
    began = time.process_time()
    points = [lib.crypto_core_ristretto255_from_hash(h) for h in hashes]
    hashing = time.process_time() - began
    for point in points:
        lib.crypto_scalarmult_ristretto255(scalar, point)
    multiplying = time.process_time() - began - hashing
    spu.init(parties=("alice", "bob"), address="local")
    spu.psi.count({"alice": {"id": [1]}, "bob": {"id": [1]}}, key="id", mode="ecdh")  # what is imported once
    files = {"alice": {"id": np.arange(rows)}, "bob": {"id": np.arange(rows) + rows // 2}}
    began = time.process_time()
    found = spu.psi.count(files, key="id", mode="ecdh")
    seconds = time.process_time() - began
    return {
        "how": "ecdh",
        "rows": rows,
        "multiplications_per_second": round(rows / multiplying),
        "cpu_seconds": seconds,
        "share_of_library": (4 * multiplying + 2 * hashing) / seconds,
        "right": found == rows - rows // 2,
    }


def killed(args: argparse.Namespace) -> None:
    """`spuvm psi run` once to its end; then again, killed at a random party at random moments, to the same files."""
    owners = PARTIES[:2]
    outputs = {p: args.data / f"{p}-{args.rows}-killed.parquet" for p in owners}
    digests = []
    rng = np.random.default_rng(args.rows)
    with tempfile.TemporaryDirectory(prefix="spuvm-") as name:
        config = make_run_folder(name, spu.Config(parties=PARTIES), timeout=300)
        common = ["--config", str(config), "--mode", "helper", "--bucket-rows", str(max(1, args.rows // 50)), "--quiet"]
        own = {p: [f"ids={args.data}/{p}-{args.rows}.parquet:id", "--output", str(outputs[p])] for p in owners}
        line = [sys.executable, "-m", "spuvm", "psi", "run"]
        commands = {p: [*line, *own.get(p, []), "--as", p, *common] for p in PARTIES}
        for kills in (0, args.kills):
            for path in outputs.values():
                path.unlink(missing_ok=True)
            sent, finished = 0, [0]
            while True:
                running = {p: subprocess.Popen(c, stderr=subprocess.DEVNULL) for p, c in commands.items()}
                if sent < kills:
                    wanted = finished[-1] + int(rng.integers(1, 5))
                    while _buckets(outputs) < wanted and all(p.poll() is None for p in running.values()):
                        time.sleep(0.01)
                    running[PARTIES[int(rng.integers(3))]].kill()
                    sent += 1
                ended = [p.wait() for p in running.values()]
                if not any(ended):
                    break
                finished.append(_buckets(outputs))
            digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in outputs.values()])
            print(json.dumps({"rows": args.rows, "kills": sent, "buckets at each": finished[1:], "files": digests[-1]}))
    assert digests[0] == digests[1], "the files differ"
    print("the same byte for byte")


def _buckets(outputs: dict[str, Path]) -> int:
    """Buckets that both owners have finished."""
    return min(len(list(Path(f"{p}.run").glob("bits-*"))) for p in outputs.values())


def _progress(party: str, stream: str, line: str) -> None:
    if stream == "stderr":
        print(f"{party}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
