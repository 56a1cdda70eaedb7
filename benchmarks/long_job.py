"""A long job of three services, connections cut and parties restarted meanwhile: the result of an undisturbed run.

    python benchmarks/long_job.py                                     # 3 minutes, 20 cuts, each party restarted once
    python benchmarks/long_job.py --seconds 1800 --cuts 50 --restarts 3

The job is a script whose loop keeps its state as shares (`spu.resumable`). A cut ends all connections between two
parties at once, of the services and of the job; a restart kills a service, and with it its part of the job. Exit status
1 if the job does not end well at all parties, its result differs, or the parties' records do not agree.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from soak import PARTIES, Three, between, kill

from spuvm.policy import record
from spuvm.service import identity, jobs
from spuvm.service.states import ENDED
from spuvm.shaping import Slow

STEPS = 60
SCRIPT = f"""
# /// spuvm
# kind = "script"
# parties = ["alice", "bob", "carol"]
# to = ["bob"]
# inputs = {{ x = "alice" }}
# ///
import sys
import time
from pathlib import Path

import numpy as np

import spuvm as spu

me, config, results, *data = sys.argv[1:]
files = dict(d.split("=", 1) for d in data)
spu.init(party=me, config=config)
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))


def load():
    return np.genfromtxt(files["x"], delimiter=",", names=True)["x"].astype(np.float32)


x = spu.PYU("alice")(load)()
secret = x.to(dev)
loop = spu.resumable(dev(lambda v: v * 0)(secret), {STEPS}, every=2, folder="kept", inputs=[x])
for step in loop:
    loop.state = dev(lambda s, v: 0.9 * s + v)(loop.state, secret)
    print("step", step, flush=True)
    time.sleep(PAUSE)
found = loop.state.to(spu.PYU("bob"))
spu.PYU("bob")(lambda v: np.save(Path(results) / "sum.npy", v))(found)
spu.shutdown()
"""


def states(three: Three, id: str) -> dict[str, tuple[str, str]]:
    """By party that answers, the state of a job there, and the reason for it."""
    found = {}
    for party in PARTIES:
        with suppress(OSError):
            found[party] = {j["id"]: (j["state"], j["reason"]) for j in three.ask(party, "/api/jobs")}.get(id, ("", ""))
    return found


def submit(three: Three, pause: float) -> str:
    """The job, which pauses so long after each step, allowed by all; its number."""
    text = SCRIPT.replace("PAUSE", repr(pause))
    for party in PARTIES:
        path = three.folder / party / "policy.toml"
        path.write_text(path.read_text().replace('["any"', f'["any", "{jobs.read(text).hash}"'))
    x: dict[str, Any] = {"party": "alice", "data": "t", "columns": [], "number": None}
    return str(three.ask("alice", "/api/jobs", {"program": text, "inputs": {"x": x}})["id"])


def result(three: Three, id: str, seconds: float, disturb: Any = None) -> np.ndarray:
    """Of a job, while it is disturbed. AssertionError if it does not end well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = states(three, id)
        if len(now) == len(PARTIES) and all(s in ENDED for s, _ in now.values()):
            assert {s for s, _ in now.values()} == {"done"}, f"{now}{said(three, id)}"
            return np.asarray(np.load(three.folder / "bob" / "state" / "jobs" / id / "results" / "sum.npy"))
        if disturb is not None:
            disturb()
        time.sleep(0.3)
    raise AssertionError(f"it did not end in {seconds:g} s: {states(three, id)}")


def said(three: Three, id: str) -> str:
    """What the parties' processes printed last."""
    paths = {p: three.folder / p / "state" / "jobs" / id / "output.txt" for p in PARTIES}
    return "".join(f"\n--- {p}\n{path.read_text()[-3000:]}" for p, path in paths.items() if path.exists())


class Trouble:
    """Cuts and restarts at random moments of a job, spread over its time."""

    def __init__(self, three: Three, ways: dict[frozenset[str], list[Slow]], given: argparse.Namespace) -> None:
        self.three, self.ways = three, ways
        start, length = time.monotonic() + 5, 0.9 * given.seconds
        cuts = [(start + length * (i + random.random()) / given.cuts, "") for i in range(given.cuts)]
        again = [p for _ in range(given.restarts) for p in PARTIES]
        ends = [(start + length * (i + 0.5) / len(again), p) for i, p in enumerate(again)]
        self.due = sorted(cuts + ends)
        self.cuts = self.restarts = 0

    def __call__(self) -> None:
        while self.due and time.monotonic() > self.due[0][0]:
            _, party = self.due.pop(0)
            if party:
                print(f"  {party} is killed, and started again", flush=True)
                kill(self.three, party)
                self.three.wait_until_up(party)
                self.restarts += 1
            else:
                pair = random.choice(sorted(self.ways, key=sorted))
                print(f"  {sum(w.cut() for w in self.ways[pair])} connections of {' and '.join(sorted(pair))} are cut")
                self.cuts += 1


def ran(folder: Path, given: argparse.Namespace) -> tuple[list[str], str]:
    """Two jobs, the second of them disturbed; what is wrong, and in words how the second went."""
    three = Three(folder, parallel=2, restarts=1000)
    with between(three) as ways:
        try:
            for party in PARTIES:
                three.start(party)
            for party in PARTIES:
                three.wait_until_up(party)
            begun = time.monotonic()
            want = result(three, submit(three, 0.0), 600.0)
            print(f"undisturbed, without a pause: {time.monotonic() - begun:.0f} s")
            begun = time.monotonic()
            id, trouble = submit(three, given.seconds / STEPS), Trouble(three, ways, given)
            got = result(three, id, 20 * given.seconds + 600.0, trouble)
            print(f"{trouble.cuts} cuts, {trouble.restarts} restarts: {time.monotonic() - begun:.0f} s")
        finally:
            three.stop()
    text = (three.folder / "bob" / "state" / "jobs" / id / "output.txt").read_text()
    steps = [int(n) for n in re.findall(r"(?m)^step (\d+)$", text)]
    exact = three.tables["alice"][:, 1] * (1 - 0.9**STEPS) / 0.1
    wrong = [f"{len(trouble.due)} cuts or restarts came too late"] if trouble.due else []
    wrong += ["another result"] if np.abs(got - want).max() > 1e-3 or np.abs(got - exact).max() > 5e-3 else []
    wrong += ["steps are missing"] if set(steps) != set(range(STEPS)) else []
    wrong += record.disagreements({p: entries(three, p) for p in PARTIES})
    return wrong, f"bob did {len(steps)} steps of {STEPS}; largest difference {np.abs(got - want).max():.1e}"


def entries(three: Three, party: str) -> list[Any]:
    """A party's record, its signatures verified."""
    key = identity.read(three.folder / party / f"{party}.crt").public_key()
    return list(record.verified(three.folder / party / "state" / "record.jsonl", key))  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="How long the job takes at least.")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=1, help="Of each party.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory(prefix="spuvm-long-") as name:
        wrong, how = ran(Path(name), given)
    print(how)
    print("\n".join(wrong) or "all right")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
