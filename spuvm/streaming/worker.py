"""A worker of one party, which runs some of the blocks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.text import parse
from spuvm.runtime.errors import LinkError
from spuvm.runtime.link.certificates import free_ports
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Link
from spuvm.runtime.link.parties import Address, Cluster
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.machine.session import Session
from spuvm.streaming.folder import Folder
from spuvm.streaming.job import Job, Runner
from spuvm.streaming.kept_rows import Kept
from spuvm.streaming.owner import OwnWork
from spuvm.streaming.sealed import read_sealed, write_whole
from spuvm.streaming.sources import Source
from spuvm.vm import VM

ANY = "0.0.0.0"
POLL = 0.05


def work(folder: Path, number: int) -> None:
    """Run the blocks that the folder has for this worker."""
    body = read_sealed(folder / f"worker-{number}.json")
    job = _job(body)
    config = next(iter(job.programs.values())).config
    link = _link(folder, number, body) if "cluster" in body else None
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


def _link(folder: Path, number: int, body: Mapping[str, Any]) -> Link:
    """A session of the workers of this number: say where this one listens, and hear where the others do."""
    cluster, me = load_cluster(body["cluster"]), str(body["party"])
    if cluster.session is not None or any(p.address is None for p in cluster.parties):
        cluster = replace(cluster, session=f"{cluster.meeting}.w{number}")
    entry = cluster.parties[cluster.rank(me)]
    listen, at = entry.listen, None
    if isinstance(listen, Path):
        listen = listen.with_name(str(cluster.session))
    elif listen is not None and entry.address is not None:
        host, here = entry.address.host, listen.host
        if body["engine"] == "ray":
            import ray

            host, here = ray.util.get_node_ip_address(), ANY  # type: ignore[no-untyped-call]
        listen = Address(here, free_ports(1, here)[0])
        at = [host, listen.port]
    write_whole(folder / f"worker-{number}-at.json", json.dumps(at).encode())
    peers = _awaited(folder / f"worker-{number}-peers.json", float(body["timeout"]))
    return connect(_moved(cluster, peers, me, listen), me, float(body["timeout"]))


def _awaited(path: Path, timeout: float) -> Any:
    deadline = time.monotonic() + max(timeout, 120.0)
    while time.monotonic() < deadline:
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(POLL)
    raise LinkError(f"the other parties' workers did not start in time: {path.name} is missing.")


def _moved(cluster: Cluster, peers: Mapping[str, Any], me: str, listen: Address | Path | None) -> Cluster:
    """The cluster with the addresses that the workers have; None: the party's own."""
    parties = []
    for party in cluster.parties:
        at = peers[party.name]
        address = party.address if at is None else Address(*at)
        parties.append(replace(party, address=address, listen=listen if party.name == me else address))
    return replace(cluster, parties=tuple(parties))
