"""Three services on this machine and jobs of all kinds, while parties are killed, restarted, paused and cut off.

    python benchmarks/soak.py --jobs 1000 --parallel 8 --every 20

Every job must end right, or with a reason, at every party; none may be lost or run twice; the parties' records must be
whole, and agree. Exit status 1 if not. Memory and open files of the services are printed each minute.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.compiler.compile import compile_function
from spuvm.policy import record
from spuvm.runtime.config import Config
from spuvm.runtime.link.certificates import free_ports, make_authority
from spuvm.service import identity, jobs, settings
from spuvm.service.states import ENDED
from spuvm.service.store import Store
from spuvm.shaping import Line, Slow

PARTIES = ("alice", "bob", "carol")
ERROR = r"(?m)^\S+ \S+ ERROR .*(?:\n(?!\d{4}-).*){0,40}"  # of the service, not of a job
HEADERS = {"alice": "x,u,z", "bob": "v,y,w", "carol": "p,q,r"}
ROWS = 60
SIZES = 60.0  # seconds until memory and open files are printed again
PATIENCE = 300.0  # seconds for the last jobs
WIDTH = 1e10  # bits a second: what is between services is there to be cut
SQL = "select sum(x) as total from left_table join right_table on left_table.id = right_table.id"
TASKS = {
    "psi": '[job]\nkind = "psi"\nparties = ["alice", "bob", "carol"]\nto = ["alice"]\n'
    'key = { alice = ["id"], bob = ["id"] }\n',
    "sql": '[job]\nkind = "sql"\nparties = ["alice", "bob", "carol"]\nto = ["carol"]\n'
    f'query = "{SQL}"\ntables = {{ left_table = "alice", right_table = "bob" }}\n'
    'key = { left_table = ["id"], right_table = ["id"] }\n',
    "sgb": 'label = "z"\nkey = "id"\n[model]\nn_estimators = 1\nmax_depth = 1\nmax_bin = 4\n'
    '[data]\nmatch = "inner"\nparties = ["alice", "bob"]\n[job]\nkind = "sgb"\n'
    'parties = ["alice", "bob", "carol"]\ncommand = "train"\nmodel = "m"\ntables = ["alice", "bob"]\n',
    "stream": '# /// spuvm\n# kind = "stream"\n# parties = ["alice", "bob", "carol"]\n# function = "added"\n'
    '# to = ["carol"]\n# inputs = { x = "alice", y = "bob" }\n# ///\n\n\n'
    'def added(x, y):\n    return {"sum": x + y}\n',
    "script": '# /// spuvm\n# kind = "script"\n# parties = ["alice", "bob", "carol"]\n# to = ["bob"]\n'
    '# inputs = { x = "alice" }\n# ///\nimport sys\nfrom pathlib import Path\n\n'
    "import numpy as np\n\nimport spuvm as spu\n\n"
    "me, config, results, *data = sys.argv[1:]\nfiles = dict(d.split('=', 1) for d in data)\n"
    "spu.init(party=me, config=config)\n\n\ndef load():\n"
    "    return np.genfromtxt(files['x'], delimiter=',', names=True)['x']\n\n\n"
    "mean = spu.SPU(spu.utils.testing.cluster_def(['alice', 'bob', 'carol']))(lambda x: x.mean())\n"
    "found = mean(spu.PYU('alice')(load)()).to(spu.PYU('bob'))\n"
    "spu.PYU('bob')(lambda v: np.save(Path(results) / 'mean.npy', v))(found)\nspu.shutdown()\n",
}
KINDS = ("program", *TASKS)


def total(x: Any, y: Any) -> Any:
    import jax.numpy as jnp

    import spuvm as spu

    return spu.reveal(jnp.mean(x) + jnp.mean(y), to="alice")


class Three:
    """Three services, each a process with a folder of its own."""

    def __init__(self, folder: Path, parallel: int, restarts: int = 3) -> None:
        self.folder = folder
        self.models = 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ways: dict[frozenset[str], list[Slow]] = {}  # between the services, by pair: `between`
        column = np.zeros(ROWS, np.float32)
        config = Config("aby3", 64, 18, PARTIES)
        self.texts = {"program": compile_function(total, (column, column), [0, 1], config).text, **TASKS}
        make_authority(folder / "ca")
        ports = free_ports(6)
        hashes = ", ".join(f'"{jobs.read(text).hash}"' for text in self.texts.values() if jobs.read(text).code)
        self.tables = {p: self._table(i) for i, p in enumerate(PARTIES)}
        for i, party in enumerate(PARTIES):
            home = folder / party
            key = identity.new_key(home, party)
            identity.write(home / f"{party}.crt", identity.sign(folder / "ca", identity.request(key, party)))
            header, form = f"id,{HEADERS[party]}", ["%d", "%.4f", "%.4f", "%d"]
            np.savetxt(home / "t.csv", self.tables[party], form, ",", header=header, comments="")
            (home / "policy.toml").write_text(
                f'[[allow]]\nfrom = ["alice", "bob", "carol"]\nprograms = ["any", {hashes}]\ndata = {{ t = ["*"] }}\n'
                'receivers = ["alice", "bob", "carol"]\nper_day = 100000\napproval = "automatic"\n'
            )
            services = "\n".join(f'{p} = "127.0.0.1:{ports[j]}"' for j, p in enumerate(PARTIES))
            (home / "service.toml").write_text(
                f'party = "{party}"\nlisten = "127.0.0.1:{ports[i]}"\npage = "127.0.0.1:{ports[3 + i]}"\n'
                f'state = "state"\npolicy = "policy.toml"\nca = "../ca/ca.crt"\ncertificate = "{party}.crt"\n'
                f'key = "{party}.key"\n[services]\n{services}\n[data]\nt = "t.csv"\n'
                f"[limits]\nparallel = {parallel}\nopen_jobs = 100000\nsilence_seconds = 30\n"
                f"restarts = {restarts}\n"
            )
            state = home / "state"
            state.mkdir()
            self.settings = {p: settings.load(folder / p / "service.toml") for p in PARTIES[: i + 1]}
        self.tokens = {
            p: Store(folder / p / "state" / "service.sqlite").add_user("tester", ["submit", "approve", "operate"], 30)
            for p in PARTIES
        }

    @staticmethod
    def _table(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, ROWS)).round(4)
        return np.stack([np.arange(ROWS) + 10 * seed, x, y, rng.integers(0, 2, ROWS)], axis=1)

    def start(self, party: str) -> None:
        argv = [sys.executable, "-m", "spuvm", "serve", str(self.folder / party / "service.toml")]
        with open(self.folder / party / "service.log", "ab") as log:
            self.processes[party] = subprocess.Popen(argv, stdout=log, stderr=log)

    def wait_until_up(self, party: str, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.ask(party, "/health")
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"{party} does not answer: {(self.folder / party / 'service.log').read_text()[-2000:]}")

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def ask(self, party: str, path: str, body: Any = None) -> Any:
        url = f"http://{self.settings[party].page}{path}"
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.tokens[party]}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def submit(self, kind: str, by: str) -> str:
        owners = jobs.read(self.texts[kind]).owners
        named = kind in ("program", "stream")
        inputs = {
            n: {"party": p, "data": "t", "columns": [n] if named else [], "number": None} for n, p in owners.items()
        }
        self.models += kind == "sgb"
        text = self.texts[kind].replace('model = "m"', f'model = "m{self.models}"')
        return str(self.ask(by, "/api/jobs", {"program": text, "inputs": inputs})["id"])

    def right(self, kind: str, id: str) -> bool:
        """Whether a job that is done gave what it must."""
        place = {p: self.folder / p / "state" / "jobs" / id / "results" for p in PARTIES}
        a, b = self.tables["alice"], self.tables["bob"]
        both = a[np.isin(a[:, 0], b[:, 0])]
        if kind == "sgb":
            parts = [list((self.folder / p / "state" / "models").glob("*/model.share")) for p in PARTIES]
            return all(0 < len(found) <= self.models for found in parts)
        if kind in ("program", "script"):
            want = a[:, 1].mean() + (b[:, 2].mean() if kind == "program" else 0)
            found = np.load(place["alice"] / "out.npy" if kind == "program" else place["bob"] / "mean.npy")
            return bool(abs(found - want) < 1e-3)
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(place["alice" if kind == "psi" else "carol"] / "rows.parquet")
        got = np.stack([np.asarray(c, float) for c in table.columns], axis=1)
        want = {"psi": both, "sql": both[:, 1:2].sum(0, keepdims=True), "stream": (a[:, 1] + b[:, 2])[:, None]}[kind]
        return got.shape == want.shape and bool(
            np.abs(got[got[:, 0].argsort()] - want[want[:, 0].argsort()]).max() < 1e-3
        )


@contextmanager
def between(three: Three) -> Iterator[dict[frozenset[str], list[Slow]]]:
    """Ways between the services, by pair, while the block runs: all that parties say to each other goes over them."""
    ways: dict[frozenset[str], list[Slow]] = {frozenset(p): [] for p in (PARTIES[:2], PARTIES[1:], PARTIES[::2])}
    with ExitStack() as stack:
        for me in PARTIES:
            path = three.folder / me / "service.toml"
            text = path.read_text()
            for peer in PARTIES:
                if peer == me:
                    continue
                at = three.settings[peer].listen
                assert at is not None
                way = Slow(at.port, Line(WIDTH), Line(WIDTH), 0.0)
                stack.callback(way.close)
                ways[frozenset((me, peer))].append(way)
                text = re.sub(rf'(?m)^{peer} = "127.*"$', f'{peer} = "127.0.0.1:{way.port}"', text)
            path.write_text(text)
        three.settings = {p: settings.load(three.folder / p / "service.toml") for p in PARTIES}
        three.ways = ways
        yield ways


Fault = Callable[[Three, str], None]


def kill(three: Three, party: str) -> None:
    three.processes[party].kill()
    three.processes[party].wait()
    time.sleep(random.uniform(0, 3))
    three.start(party)


def restart(three: Three, party: str) -> None:
    three.processes[party].terminate()
    three.processes[party].wait()
    three.start(party)


def pause(three: Three, party: str) -> None:
    three.processes[party].send_signal(signal.SIGSTOP)
    time.sleep(random.uniform(1, 6))
    three.processes[party].send_signal(signal.SIGCONT)


def kill_a_job(three: Three, party: str) -> None:
    """A process of a job alone: the service stays."""
    found = [job for template in _children(three.processes[party].pid) for job in _children(template)]
    if found:
        os.kill(random.choice(found), signal.SIGKILL)


def kill_all_jobs(three: Three, party: str) -> None:
    """The process that jobs are copies of, and they with it."""
    for template in _children(three.processes[party].pid):
        os.kill(template, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def cut(three: Three, party: str) -> None:
    """End all connections of a party once."""
    for pair, ways in three.ways.items():
        if party in pair:
            for way in ways:
                way.cut()


def cut_off(three: Three, party: str) -> None:
    """None of its connections holds, for a while."""
    end = time.monotonic() + random.uniform(1, 8)
    while time.monotonic() < end:
        cut(three, party)
        time.sleep(0.1)


ENDING: tuple[Fault, ...] = (kill, restart)
FAULTS: tuple[Fault, ...] = (*ENDING, pause, kill_a_job, kill_all_jobs, cut, cut_off)


def size(pid: int) -> tuple[int, int]:
    """MiB in memory, and open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir(f"/proc/{pid}/fd"))


def soak(folder: Path, given: argparse.Namespace) -> list[str]:
    """Run it; what was wrong."""
    three = Three(folder, given.parallel)
    with between(three):
        return _soak(three, given)


def _soak(three: Three, given: argparse.Namespace) -> list[str]:
    try:
        for party in PARTIES:
            three.start(party)
        for party in PARTIES:
            three.wait_until_up(party)
        submitted: dict[str, str] = {}
        ended: set[str] = set()
        begun, in_vain = time.monotonic(), 0  # faults since a job ended
        fault_at, sizes_at, last = begun + given.every, begun + SIZES, begun + given.seconds
        while time.monotonic() < last + PATIENCE:
            now = time.monotonic()
            count = given.jobs if now < last else len(submitted)
            more = _ended(three, [i for i in submitted if i not in ended])
            ended |= more
            in_vain = 0 if more else in_vain
            if len(ended) == len(submitted) >= count:
                break
            for _ in range(min(count - len(submitted), given.parallel - (len(submitted) - len(ended)))):
                kind, by = given.kinds[len(submitted) % len(given.kinds)], random.choice(PARTIES)
                with suppress(OSError):  # that party is away just now
                    submitted[three.submit(kind, by)] = kind
            if given.every and now > fault_at:
                fault = random.choice(FAULTS)
                party = random.choice([p for p in PARTIES if p != given.spare or fault not in ENDING])
                print(f"{now - begun:6.0f} s  {fault.__name__} {party}", flush=True)
                fault(three, party)
                in_vain += 1
                fault_at = time.monotonic() + given.every * in_vain  # rarer where nothing gets on
            if now > sizes_at:
                sizes_at = now + SIZES
                told = ", ".join(f"{p} {size(three.processes[p].pid)}" for p in PARTIES)
                print(
                    f"{now - begun:6.0f} s  {len(ended)} of {len(submitted)} jobs have ended; MiB, files: {told}",
                    flush=True,
                )
            time.sleep(0.5)
        for party in PARTIES:
            three.wait_until_up(party)
        return _wrong(three, submitted)
    finally:
        three.stop()


def _ended(three: Three, ids: list[str]) -> set[str]:
    """Which of these have ended at all parties, as far as they answer now."""
    out = set(ids)
    for party in PARTIES:
        try:
            newest = {j["id"]: j["state"] for j in three.ask(party, "/api/jobs?limit=50")}
            for id in out - newest.keys():
                newest.update({j["id"]: j["state"] for j in three.ask(party, f"/api/jobs?begins={id}")})
        except OSError:
            return set()
        out = {id for id in out if newest.get(id) in ENDED}
    return out


def _states(three: Three) -> dict[str, dict[str, tuple[str, str]]]:
    out: dict[str, dict[str, tuple[str, str]]] = {}
    for party in PARTIES:
        try:
            out[party] = {j["id"]: (j["state"], j["reason"]) for j in three.ask(party, "/api/jobs?limit=100000")}
        except OSError:
            out[party] = {}
    return out


def _wrong(three: Three, submitted: dict[str, str]) -> list[str]:
    states, found, tally = _states(three), [], Counter[tuple[str, str]]()
    for id, kind in submitted.items():
        said = {p: states[p].get(id, ("lost", "")) for p in PARTIES}
        ends = {s for s, _ in said.values()}
        tally[kind, " ".join(sorted(ends))] += 1
        if not ends <= set(ENDED):
            found.append(f"{kind} {id}: {said}")
        elif ends == {"done"} and not three.right(kind, id):
            found.append(f"{kind} {id}: a wrong result")
        elif any(s != "done" and not why for s, why in said.values()):
            found.append(f"{kind} {id}: ended without a reason: {said}")
    records, reruns = {}, 0
    for party in PARTIES:
        key = identity.read(three.folder / party / f"{party}.crt").public_key()
        path = three.folder / party / "state" / "record.jsonl"
        records[party] = list(record.verified(path, key))  # type: ignore[arg-type]
        starts = Counter(e.body["job"] for e in records[party] if e.event == "started")
        again = Counter(e.body["job"] for e in records[party] if e.event == "interrupted")
        found += [f"{party} ran {id} {n} times" for id, n in starts.items() if n > 1 + again[id]]
        reruns += sum(again.values())
        if wrong := re.findall(ERROR, (three.folder / party / "service.log").read_text()):
            found.append(f"{party}: {len(wrong)} errors in its log, the first\n{wrong[0]}")
    found += [w for w in record.disagreements(records) if "no record of it" not in w]  # killed before it wrote
    for (kind, how), n in sorted(tally.items()):
        print(f"{kind:8} {how:20} {n:5}")
    print(f"{reruns} times a party's part was interrupted, and ran again")
    return found


def arguments(*line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--every", type=float, default=20.0, help="Seconds between faults; 0: none.")
    parser.add_argument("--kinds", type=lambda k: k.split(","), default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=4 * 3600.0, help="After which no job is asked for any more.")
    parser.add_argument("--spare", choices=PARTIES, help="Whose service is never ended: its memory can be compared.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="A folder for all files, kept.")
    return parser.parse_args(line)


def main() -> int:
    given = arguments(*sys.argv[1:])
    random.seed(given.seed)
    with tempfile.TemporaryDirectory(prefix="spuvm-soak-") as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        wrong = soak(folder, given)
    for line in wrong:
        print(line)
    print("all right" if not wrong else f"{len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
