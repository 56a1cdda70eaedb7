"""Faults at random moments: a run ends right, or with one named error at every party, within the limit.

    python benchmarks/faults.py --runs 300 [--seed 0] [--jobs program,script]

Each run is three processes over TLS whose connections pass a proxy. At a random moment one party is killed, ended,
paused for longer or shorter than the limit, or loses its connections, or a byte on its way to it is changed; or its
disk is full when it writes its result. A run is wrong if a value is wrong, a party says nothing or something unnamed,
takes longer than the limits allow, or leaves a process or a file behind. The command prints a table and ends with the
number of wrong runs.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import spuvm as spu
from spuvm.network import Outcome, party_command, run_parties
from spuvm.runtime.link.certificates import free_ports, make_cluster

PARTIES = ("alice", "bob", "carol")
LIMIT = 10.0  # seconds of any wait
PATIENCE = 90.0  # of a whole run: start-up included
FAULTS = ("none", "kill", "end", "pause", "pause shortly", "cut", "corrupt", "full disk")
NO_ROOM = "/proc/result.npy"  # a folder that takes no files, and says so only then

PROGRAM = """
import jax.numpy as jnp
import spuvm as spu
from jax import lax

def program(x, y):
    total = lax.fori_loop(0, 400, lambda _, t: jnp.where(t > y, x, t + x * y * 0.01), x)
    return spu.reveal(total, to="carol")
"""

SCRIPT = """
import os, sys
import jax.numpy as jnp
import numpy as np
import spuvm as spu
from jax import lax

me, config, output = sys.argv[1:4]
spu.init(party=me, config=config)
alice, bob, carol = map(spu.PYU, ("alice", "bob", "carol"))
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
x, y = alice(lambda: np.float32([1, 2, 3]))(), bob(lambda: np.float32([9, 8, 7]))()
step = dev(lambda t, x, y: jnp.where(t > y, x, t + x * y * 0.01))
t = dev(lambda x: x)(x)
print("connected", flush=True)
for _ in range(60):
    t = step(t, x, y)
carol(lambda v: np.save(output, v))(t.to(carol))
spu.shutdown()
"""


X, Y = np.array([1, 2, 3], np.float32), np.array([9, 8, 7], np.float32)


def truth(trips: int) -> np.ndarray:
    """Of both jobs; no sum comes near its threshold, where truncation could decide."""
    t = X
    for _ in range(trips):
        t = np.where(t > Y, X, t + X * Y * 0.01)
    return t


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
    said: str = ""  # the first error

    def go(self, program: Path) -> str:
        """What became of it: "right", "error", "kept", or what is wrong."""
        listen, ports = free_ports(3), free_ports(3)
        config = make_cluster(self.folder / "keys", PARTIES, ports=ports, timeout_seconds=LIMIT)
        text = config.read_text()
        for outer, inner in zip(ports, listen):
            line = f'address = "127.0.0.1:{outer}"\n'
            text = text.replace(line, f'{line}listen = "127.0.0.1:{inner}"\n')
        config.write_text(text)
        self.proxies = {p: Proxy(outer, inner) for p, outer, inner in zip(PARTIES, ports, listen)}
        room = self.folder / "room"
        room.mkdir()
        start = time.monotonic()
        try:
            done = run_parties(
                self._commands(config, program), timeout=PATIENCE, grace=PATIENCE, check=False, cwd=room,
                on_line=self._heard, on_start=self.pids.update,
            )  # fmt: skip
        except spu.errors.SpuError as error:
            return f"hangs: {error}"
        finally:
            for timer in self.timers:
                timer.cancel()
            for proxy in self.proxies.values():
                proxy.close()
        return self._judged(done, time.monotonic() - start)

    @property
    def output(self) -> Path:
        return Path(NO_ROOM) if self.fault == "full disk" else self.folder / "room" / "result.npy"

    def _commands(self, config: Path, program: Path) -> dict[str, list[str]]:
        if self.job == "script":
            (self.folder / "script.py").write_text(SCRIPT)
            script = [sys.executable, str(self.folder / "script.py")]
            return {p: [*script, p, str(config), str(self.output)] for p in PARTIES}
        inputs = {"alice": ["--input", f"x={program.parent}/x.npy"], "bob": ["--input", f"y={program.parent}/y.npy"]}
        common = [str(program), "--config", str(config)]
        rest = {"carol": ["--output", str(self.output)]}
        return {p: party_command(*common, "--as", p, *inputs.get(p, []), *rest.get(p, [])) for p in PARTIES}

    def _heard(self, party: str, stream: str, line: str) -> None:
        if party == self.who and line.startswith("connected"):
            self.timers.append(threading.Timer(self.after, self._strike))
            self.timers[-1].start()

    def _strike(self) -> None:
        with suppress(ProcessLookupError):
            self._struck(self.pids[self.who])

    def _struck(self, pid: int) -> None:
        match self.fault:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case "end":
                os.kill(pid, signal.SIGTERM)
            case "pause" | "pause shortly":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(2.5 * LIMIT if self.fault == "pause" else LIMIT / 6)
                os.kill(pid, signal.SIGCONT)
            case "cut":
                self.proxies[self.who].cut()
            case "corrupt":
                self.proxies[self.who].flip()

    def _judged(self, done: Mapping[str, Outcome], seconds: float) -> str:
        spared = [p for p in PARTIES if not (self.fault in ("kill", "end") and p == self.who)]
        failed = [p for p in PARTIES if done[p].failed]
        self.said = next((x for p in failed for x in done[p].stderr.splitlines() if "rror: " in x), "")
        for p in spared:
            unnamed = "mistake inside spuvm" in done[p].stderr
            if p in failed and (unnamed or not re.search(r"^error: |Error: ", done[p].stderr, re.M)):
                return f"{p} says nothing that has a name: {done[p].stderr[-300:]!r}"
        if left := [p for p in self.pids if _alive(self.pids[p])]:
            return f"{', '.join(left)} is still there"
        files = sorted(p.name for p in (self.folder / "room").iterdir())
        kept = [f for f in files if f.startswith("spuvm-results-")]
        if [f for f in files if f not in (*kept, "result.npy")]:
            return f"it leaves {files}"
        if kept:
            with np.load(self.folder / "room" / kept[0]) as file:
                return "kept" if self._right(file["x0"]) else "kept, and wrong"
        if self.output.exists() and not self._right(np.load(self.output)):
            return "a wrong result"
        if not failed:
            return "right" if self.output.exists() else "no result, and no error"
        return "error"

    def _right(self, got: np.ndarray) -> bool:
        return bool(np.allclose(got, truth(60 if self.job == "script" else 400), atol=0.01))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def compiled(folder: Path) -> Path:
    """The program and its inputs, in the folder."""
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    (folder / "p.py").write_text(PROGRAM)
    from spuvm import cli

    arguments = ["--arg", "f32[3]@alice", "--arg", "f32[3]@bob", "-o", str(folder / "p.spux")]
    assert cli.run(["compile", f"{folder}/p.py:program", *arguments]) == 0
    return folder / "p.spux"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="program,script")
    parser.add_argument("--longest", type=float, default=4.0, help="seconds after connecting, at most")
    args = parser.parse_args(argv)
    rng, counts, wrong = random.Random(args.seed), Counter[tuple[str, str]](), 0
    with ExitStack() as stack:
        programs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = compiled(programs)
        for number in range(args.runs):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            run = Run(
                folder, rng.choice(args.jobs.split(",")), rng.choice(FAULTS), rng.choice(PARTIES),
                rng.uniform(0, args.longest),
            )  # fmt: skip
            ended = run.go(program)
            fine = ended in ("right", "kept") or (ended == "error" and run.fault != "none")
            wrong += not fine
            counts[run.fault, ended if fine else "WRONG"] += 1
            print(f"{number}: {run.job}, {run.fault} of {run.who} after {run.after:.1f} s: {ended}", flush=True)
            if ended != "right":
                print(f"    {run.said[:200]}", flush=True)
    print(f"\n| fault | right | error at all | kept aside | wrong |\n|{'---|' * 5}")
    for fault in FAULTS:
        print(f"| {fault} | {' | '.join(str(counts[fault, e]) for e in ('right', 'error', 'kept', 'WRONG'))} |")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
