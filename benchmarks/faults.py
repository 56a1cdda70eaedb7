"""Faults at random moments: a run ends right, or with one named error at every party, within the limit.

    python benchmarks/faults.py --runs 300 [--seed 0] [--jobs program,script,demo,stream,boosting] [--record FILE]
    python benchmarks/faults.py --table FILE ...

Each run is three processes over TLS whose connections pass a proxy. At a random moment one party is killed, ended (also
when the result is just there), paused for longer or shorter than the limit, or loses its connections (for good, or to
take them up again), or a byte on its way to it is changed; or its disk is full from then on; or there is no room where
its result goes. A run is wrong if a value is wrong, a party says nothing or something unnamed, ends later than the
limits allow, or leaves a process or a file behind; or if an interrupted stream, run again, does not end right. The
command prints a table and ends with the number of wrong runs. `--record` adds a line for each run to a file, of which
`--table` makes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fault_jobs import JOBS, PARTIES, prepare, truth

import spuvm as spu
from spuvm.network import Outcome, run_parties
from spuvm.runtime.link.certificates import free_ports, make_cluster

LIMIT = 10.0  # seconds of any wait
SLACK = 12.0  # beyond it, for what a busy machine takes to end
PATIENCE = 120.0  # of a whole run: start-up included
STACK = 3000  # characters of what a party that does not end says last
GRACE = 6.0  # seconds that a lost connection may be taken up again, where it may
LATE = "end when the result is there"
FAULTS = (
    "none", "kill", "end", LATE, "pause", "pause shortly", "cut", "cut, taken up", "corrupt", "full disk", "no room",
)  # fmt: skip
FELT_LATER = ("full disk", "no room")  # when something is written: time counts from the first party that ends
FINE = ("right", "error", "kept", "resumed")


class Proxy:
    """Passes on what comes to an address; cuts all connections, or changes a byte, when told."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self._socks: list[socket.socket] = []
        self._flip = threading.Event()
        self._run(self._accept)

    def cut(self) -> None:
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def flip(self) -> None:
        self._flip.set()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        for sock in self._socks:
            sock.close()

    def _run(self, work: Callable[..., None], *args: object) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                outer, _ = self._listener.accept()
                self._run(self._connect, outer)

    def _connect(self, outer: socket.socket) -> None:
        try:
            inner = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            return outer.close()
        inner.settimeout(None)
        self._socks += [outer, inner]
        self._run(self._pass, outer, inner)
        self._run(self._pass, inner, outer)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self._flip.is_set() and len(data) > 100:
                    self._flip.clear()
                    data = data[:50] + bytes([data[50] ^ 1]) + data[51:]
                target.sendall(data)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Run:
    """One run in a folder of its own; `fault` happens to `who` so many seconds after it connected."""

    folder: Path
    job: str
    fault: str
    who: str
    after: float
    pids: dict[str, int] = field(default_factory=dict)
    timers: list[threading.Timer] = field(default_factory=list)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    struck: float | None = None
    said: str = ""  # the first error
    cluster: str = ""  # its file, as it was made
    hangs: bool = False

    @property
    def output(self) -> Path:
        return (Path("/proc") if self.fault == "no room" else self.folder / "room") / JOBS[self.job].output

    def go(self, inputs: Path) -> str:
        """What became of it: "right", "error", "kept", "resumed", or what is wrong."""
        (self.folder / "room").mkdir()
        ended = self._once(inputs)
        if ended != "error" or not JOBS[self.job].resumes or self.fault == "no room":
            return ended
        self.fault = "none"
        again = self._once(inputs)
        return "resumed" if again == "right" else f"run again: {again}"

    def _once(self, inputs: Path) -> str:
        config = self._cluster()
        start, stands = time.monotonic(), threading.Timer(PATIENCE, self._ask_where_they_stand)

        def started(pids: Mapping[str, int]) -> None:
            self.pids.update(pids)
            stands.start()

        try:
            commands = {p: JOBS[self.job].command(p, config, inputs, self.output) for p in PARTIES}
            done = run_parties(
                commands, timeout=PATIENCE + SLACK, grace=PATIENCE, check=False, cwd=self.folder / "room",
                on_line=self._heard, on_start=started, env={"PYTHONFAULTHANDLER": "1"},
            )  # fmt: skip
        except spu.errors.SpuError as error:
            return f"hangs: {error}"
        finally:
            for timer in (stands, *self.timers):
                timer.cancel()
            for proxy in self.proxies.values():
                proxy.close()
        if self.hangs:
            return "; ".join(["hangs", *(f"{p}: {o.stderr[-STACK:]!r}" for p, o in done.items())])
        return self._judged(done, start, inputs)

    def _ask_where_they_stand(self) -> None:
        """End who has not ended; each prints where its threads are."""
        self.hangs = True
        for pid in self.pids.values():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGABRT)

    def _cluster(self) -> Path:
        """Its file: the same keys when it is run again, at other ports."""
        listen, ports = free_ports(3), free_ports(3)
        config = self.folder / "keys" / "cluster.toml"
        if not self.cluster:
            config = make_cluster(self.folder / "keys", PARTIES, ports=ports, timeout_seconds=LIMIT)
            self.cluster = config.read_text()
        text = f"grace_seconds = {GRACE}\n" if self.fault == "cut, taken up" else ""
        text += self.cluster
        for party, outer, inner in zip(PARTIES, ports, listen):
            lines = rf'[parties.{party}]\naddress = "127.0.0.1:{outer}"\nlisten = "127.0.0.1:{inner}"\n'
            text = re.sub(rf'\[parties.{party}\]\naddress = ".*"\n', lines, text)
        config.write_text(text)
        self.proxies = {p: Proxy(outer, inner) for p, outer, inner in zip(PARTIES, ports, listen)}
        return config

    def _heard(self, party: str, stream: str, line: str) -> None:
        if party == self.who and line.startswith(("connected", "opened")) and not self.timers:
            late = self.fault == LATE
            self.timers.append(threading.Timer(0 if late else self.after, self._wait if late else self._strike))
            self.timers[-1].start()

    def _wait(self) -> None:
        """Strike when the result is there, and at most 0.1 s later."""
        end = time.monotonic() + PATIENCE
        while not self.output.exists() and time.monotonic() < end and _alive(self.pids[self.who]):
            time.sleep(0.0005)
        time.sleep(self.after % 0.1)
        self._strike()

    def _strike(self) -> None:
        self.struck = time.monotonic()
        with suppress(ProcessLookupError, PermissionError):
            self._hit(self.pids[self.who])

    def _hit(self, pid: int) -> None:
        match self.fault:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case fault if fault in ("end", LATE):
                os.kill(pid, signal.SIGTERM)
            case "pause" | "pause shortly":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(LIMIT + 6 if self.fault == "pause" else LIMIT / 6)
                os.kill(pid, signal.SIGCONT)
            case "cut" | "cut, taken up":
                self.proxies[self.who].cut()
            case "corrupt":
                self.proxies[self.who].flip()
            case "full disk":  # no file grows any more
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))

    def _judged(self, done: Mapping[str, Outcome], start: float, inputs: Path) -> str:
        spared = [p for p in PARTIES if not (self.fault in ("kill", "end", LATE) and p == self.who)]
        failed = [p for p in PARTIES if done[p].failed]
        self.said = (
            self.said or next((x for p in failed for x in done[p].stderr.splitlines() if "rror: " in x), "").strip()
        )
        since = min((done[p].seconds for p in failed), default=0.0) if self.fault in FELT_LATER else None
        for p in spared:
            if done[p].status < 0 or (p in failed and not self._named(p, done[p].stderr)):
                return f"{p} says nothing that has a name: {done[p].stderr[-600:]!r}"
            late = 0.0 if self.struck is None else start + done[p].seconds - self.struck
            late = late if since is None else done[p].seconds - since
            if p in failed and late > LIMIT + SLACK and not (self.fault == "pause" and p == self.who):
                return f"{p} ended {late:.1f} s after the fault"
        if left := [p for p in self.pids if _alive(self.pids[p])]:
            return f"{', '.join(left)} is still there"
        return self._result(failed, inputs)

    def _named(self, party: str, stderr: str) -> bool:
        """Errors of spuvm; where a disk is full, a script's own function may say so, too."""
        own = r"|\w*Error: " if self.fault in ("full disk", "no room") and party == self.who else ""
        named = re.search(rf"^(error: |spuvm\.[\w.]+Error: {own})", stderr, re.M)
        return named is not None and "mistake inside spuvm" not in stderr

    def _result(self, failed: Sequence[str], inputs: Path) -> str:
        files = {p.name for p in (self.folder / "room").iterdir()}
        kept = [f for f in files if f.startswith("spuvm-results-")]
        usual = {self.output.name, *kept, *([f"{self.output.name}.run"] if JOBS[self.job].resumes and failed else [])}
        if files - usual:
            return f"it leaves {sorted(files - usual)}"
        if kept:
            with np.load(self.folder / "room" / kept[0]) as file:
                return "kept" if truth(file["x0"], 400) else "kept, and wrong"
        try:
            right = JOBS[self.job].judge(inputs, self.output)
        except (spu.errors.SpuError, EOFError, ValueError) as error:  # a part of a model, or of a script's own file
            right = None
            if not failed:
                return f"its result cannot be read: {error}"
        if right is False:
            return "a wrong result"
        if not failed:
            return "right" if right else "no result, and no error"
        return "error"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def table(records: Sequence[Mapping[str, str]]) -> str:
    """By fault: how the runs of each job ended; last, how many there were and how many ended wrong."""
    jobs = [j for j in JOBS if any(r["job"] == j for r in records)]
    counts = Counter((r["fault"], r["job"], r["ended"] if r["ended"] in FINE else "WRONG") for r in records)
    lines = [f"| fault | {' | '.join(jobs)} | runs | wrong |", f"|{'---|' * (len(jobs) + 1)}--:|--:|"]
    for fault in FAULTS:
        cells = []
        for job in jobs:
            ended = [(e, counts[fault, job, e]) for e in (*FINE, "WRONG")]
            cells.append(", ".join(f"{n} {e}" for e, n in ended if n) or "-")
        mine = [r for r in records if r["fault"] == fault]
        wrong = sum(r["ended"] not in FINE for r in mine)
        lines.append(f"| {fault} | {' | '.join(cells)} | {len(mine)} | {wrong} |")
    return "\n".join(lines)


def one(inputs: Path, job: str, fault: str, who: str, after: float) -> dict[str, str]:
    """A run in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), job, fault, "carol" if fault == "no room" else who, after)
        ended = run.go(inputs)
    if fault == "none" and ended != "right":
        ended = f"undisturbed, {ended}"
    return {"job": job, "fault": fault, "who": run.who, "after": f"{after:.2f}", "ended": ended, "said": run.said[:300]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--faults", default=";".join(FAULTS), help="with semicolons between them")
    parser.add_argument("--longest", type=float, default=4.0, help="seconds after connecting, at most")
    parser.add_argument("--together", type=int, default=1, help="runs at the same time")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--table", type=Path, nargs="*")
    args = parser.parse_args(argv)
    if args.table:
        records = [json.loads(line) for file in args.table for line in file.read_text().splitlines()]
        print(table(records))
        return sum(r["ended"] not in FINE for r in records)
    rng, records = random.Random(args.seed), []
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prepare(inputs, args.jobs.split(","))
        pairs = list(product(args.jobs.split(","), args.faults.split(";")))
        dealt = [p for _ in range(-(-args.runs // len(pairs))) for p in rng.sample(pairs, len(pairs))]
        chosen = [(*p, rng.choice(PARTIES), rng.uniform(0, args.longest)) for p in dealt[: args.runs]]
        with ThreadPoolExecutor(args.together) as pool:
            for number, record in enumerate(pool.map(lambda c: one(inputs, *c), chosen)):
                records.append(record)
                print(f"{number}: {', '.join(record.values())}", flush=True)
                if args.record is not None:
                    with args.record.open("a") as file:
                        file.write(json.dumps(record) + "\n")
    print(f"\n{table(records)}")
    return sum(r["ended"] not in FINE for r in records)


if __name__ == "__main__":
    sys.exit(main())
