"""A worker of one party, which runs some of the blocks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.text import parse
from spuvm.runtime.errors import LinkError, SpuError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Link
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.link.workers import listening, moved
from spuvm.runtime.machine.session import Session
from spuvm.streaming.folder import Folder
from spuvm.streaming.job import Job, Runner
from spuvm.streaming.kept_rows import Kept
from spuvm.streaming.owner import OwnWork
from spuvm.streaming.sealed import read_sealed, write_whole
from spuvm.streaming.sources import Source
from spuvm.vm import VM

POLL = 0.05


def as_process(work: Callable[[Path, int], None]) -> int:
    """What `python -m MODULE FOLDER NUMBER` does for a kind of workers; its exit status."""
    try:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    return 0


def work(folder: Path, number: int) -> None:
    """Run the blocks that the folder has for this worker."""
    body = read_sealed(folder / f"worker-{number}.json")
    job = _job(body)
    config = next(iter(job.programs.values())).config
    link = met(folder, number, body) if "cluster" in body else None
    try:
        vm = VM(Session(config, None if link is None else link.rank, link))
        run = Folder.open(folder)
        if run is None:
            raise LinkError(f"{folder} holds no run.")
        Runner(job, vm, run, f"w{number}").run(body["todo"], lambda rows: print(rows, flush=True))
        if link is not None:
            link.agree("end of the worker", b"")
    except BaseException as error:
        if link is not None:
            link.abort(error)
        raise
    finally:
        if link is not None:
            link.close()


def _job(body: Mapping[str, Any]) -> Job:
    parts = [{n: Source(path, tuple(columns), party) for n, (path, columns, party) in p.items()} for p in body["parts"]]
    programs = {tuple(counts): Program(parse(text)) for counts, text in body["programs"]}
    own = {(part, count): OwnWork.from_json(work) for (part, count), work in body["own"]}
    kept = Kept.from_json(body["kept"])
    return Job(
        parts, body["rows"], body["rows_per_block"], programs, body["in_order"], body["gives"], own=own, kept=kept
    )


def met(folder: Path, number: int, body: Mapping[str, Any]) -> Link:
    """A session of the workers of this number: say where this one listens, and hear where the others do."""
    host = None
    if body["engine"] == "ray":
        import ray

        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    me = str(body["party"])
    cluster, listen, at = listening(load_cluster(body["cluster"]), me, number, host)
    write_whole(folder / f"worker-{number}-at.json", json.dumps(at).encode())
    peers = _awaited(folder / f"worker-{number}-peers.json", float(body["timeout"]))
    return connect(moved(cluster, peers, me, listen), me, float(body["timeout"]))


def _awaited(path: Path, timeout: float) -> Any:
    deadline = time.monotonic() + max(timeout, 120.0)
    while time.monotonic() < deadline:
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(POLL)
    raise LinkError(f"the other parties' workers did not start in time: {path.name} is missing.")
