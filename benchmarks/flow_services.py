"""A credit flow through three live services, which are killed at its nodes: the same report, and no work twice.

    python benchmarks/flow_services.py                 # a kill at each node, parties in turn
    python benchmarks/flow_services.py --all           # each party at each node: three times as long

Read, match, split, bin, boost, evaluate, score card. An undisturbed run; one with kills, of the same flow without what
was kept; a second one, all cached; one with another tree depth, which runs only what follows; a changed text under the
hash that was approved, and an expired rule, refused by every party. Exit status 1 if anything is not so.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from soak import PARTIES, Three, kill

from spuvm.flow.checkpoints import Checkpoints
from spuvm.service import jobs
from spuvm.service.states import ENDED

FLOW = """
[job]
kind = "flow"
parties = ["alice", "bob", "carol"]
tables = { loans = "alice", bills = "bob", labels = "carol" }

[flow]
name = "credit"
parties = ["alice", "bob", "carol"]
nodes.loans = { component = "read", party = "alice", table = "loans" }
nodes.bills = { component = "read", party = "bob", table = "bills" }
nodes.labels = { component = "read", party = "carol", table = "labels" }
nodes.rows = { component = "match", tables = ["loans", "bills", "labels"], key = "id" }
nodes.parts = { component = "split", data = "rows", test_size = 0.3 }
nodes.bins = { component = "bin", data = "parts.train", label = "z", n_bins = 3 }
nodes.held_out = { component = "transform", model = "bins.model", data = "parts.test" }
nodes.boost = { component = "sgb", data = "bins.data", label = "z", n_estimators = 2, max_depth = 1, max_bin = 4 }
nodes.quality = { component = "evaluate", model = "boost", data = "held_out", label = "z" }
nodes.card = { component = "score_card", data = "parts.train", label = "z", n_bins = 2 }
nodes.points = { component = "score_card_table", model = "card" }
"""
NODES = ("loans", "bills", "labels", "rows", "parts", "bins", "held_out", "boost", "quality", "card", "points")
BEFORE: dict[str, tuple[str, ...]] = {
    "loans": (), "bills": (), "labels": (), "rows": ("loans", "bills", "labels"), "parts": ("rows",),
    "bins": ("parts",), "held_out": ("bins",), "boost": ("bins",), "quality": ("boost", "held_out"),
    "card": ("parts",), "points": ("card",),
}  # fmt: skip
AFTER = {"boost", "quality"}  # what follows from the depth of trees
INPUTS: dict[str, dict[str, Any]] = {
    name: {"party": party, "data": "t", "columns": [], "number": None}
    for name, party in zip(("loans", "bills", "labels"), PARTIES)
}


class Services(Three):
    """Three services that run the flow."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, parallel=2, restarts=100)
        for i, party in enumerate(PARTIES):  # rows that all have
            self.tables[party][:, 0] -= 10 * i
            header = {"alice": "id,x,u,z", "bob": "id,v,y,w", "carol": "id,p,q,r"}[party]
            policy = folder / party / "policy.toml"
            policy.write_text(policy.read_text().replace('receivers = ["alice",', 'receivers = ["all", "alice",'))
            service = folder / party / "service.toml"
            text = service.read_text()  # a peer that was killed is not awaited for long: it comes back for a new run
            service.write_text(text.replace("silence_seconds = 30", "silence_seconds = 30\ngrace_seconds = 3"))
            path = folder / party / "t.csv"
            path.write_text("\n".join([header, *(f"{a:g},{b},{c},{d:g}" for a, b, c, d in self.tables[party])]) + "\n")

    def kept(self, party: str) -> Path:
        return self.folder / party / "state" / "models" / "flows"

    def events(self, party: str) -> list[dict[str, Any]]:
        """All that a party's runs said of nodes, the last run last."""
        paths = sorted(self.kept(party).rglob("runs/*.jsonl"), key=lambda p: p.stat().st_mtime_ns)
        lines = [line for p in paths for line in p.read_text().splitlines()]
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # a line that a kill cut short
                continue
        return found

    def last_states(self, party: str) -> dict[str, str]:
        events = self.events(party)
        first = max(i for i, e in enumerate(events) if "text" in e)
        return {e["node"]: e["state"] for e in events[first:] if "node" in e}

    def report(self, party: str) -> dict[str, Any]:
        """What the evaluation and the score card gave."""
        keys = {e["node"]: e["key"] for e in self.events(party) if "node" in e}
        (nodes,) = list(self.kept(party).rglob("nodes"))
        return {n: Checkpoints(nodes).known(keys[n])["outputs"] for n in ("quality", "points")}

    def begun(self, party: str) -> set[str]:
        """The nodes that have begun at a party, as far as its disk shows: those before them are done."""
        done = {e["node"] for e in self.events(party) if e.get("state") in ("done", "cached")}
        return {n for n in NODES if all(m in done for m in BEFORE[n])}


def run(three: Services, text: str, kills: list[tuple[str, str]], seconds: float = 600.0) -> str:
    """Run a flow; at each node of `kills` that begins, kill that party's service, and start it again. Its number."""
    id = str(three.ask("alice", "/api/jobs", {"program": text, "inputs": INPUTS})["id"])
    end, left, since = time.monotonic() + seconds, list(kills), 0.0
    while time.monotonic() < end:
        states = {}
        for party in PARTIES:
            try:
                states[party] = {j["id"]: j for j in three.ask(party, "/api/jobs")}.get(id, {"state": "", "reason": ""})
            except OSError:
                states[party] = {"state": "", "reason": ""}
        if all(s["state"] in ENDED for s in states.values()):
            wrong = {p: (s["state"], s["reason"]) for p, s in states.items() if s["state"] != "done"}
            if wrong or left:
                said = (three.folder / "alice" / "state" / "jobs" / id / "output.txt").read_text()[-2000:]
                raise AssertionError(f"{wrong}, not killed: {left}; {said}")
            return id
        for party, node in left[:1]:
            if time.monotonic() > since and states[party]["state"] == "running" and node in three.begun(party):
                print(f"  {party} is killed at {node}", flush=True)
                kill(three, party)
                three.wait_until_up(party)
                left.pop(0)
                since = time.monotonic() + 0.5
        time.sleep(0.05)
    raise TimeoutError(f"it did not end: {states}")


def close(a: Any, b: Any) -> bool:
    """Numbers within 0.001, all else equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return abs(a - b) < 1e-3 if isinstance(a, float) else bool(a == b)


def decided(three: Services, text: str, changed: Mapping[str, Callable[[str], str]]) -> list[str]:
    """How a flow ends at each party, while the policies of some are changed."""
    before = {party: (three.folder / party / "policy.toml").read_text() for party in changed}
    for party, change in changed.items():
        (three.folder / party / "policy.toml").write_text(change(before[party]))
    id = str(three.ask("alice", "/api/jobs", {"program": text, "inputs": INPUTS})["id"])
    for _ in range(600):
        states = [{j["id"]: j["state"] for j in three.ask(p, "/api/jobs")}.get(id, "") for p in PARTIES]
        if all(s in ENDED for s in states):
            break
        time.sleep(0.1)
    for party, policy in before.items():
        (three.folder / party / "policy.toml").write_text(policy)
    return states


def approved_alone(policy: str) -> str:
    """The policy, of this very flow and nothing else."""
    return re.sub("programs = .*", f'programs = ["{jobs.read(FLOW).hash}"]', policy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="Each party at each node.")
    parser.add_argument("--nodes", default=",".join(NODES), help="At which nodes somebody is killed; '': nowhere.")
    given = parser.parse_args()
    nodes = [node for node in given.nodes.split(",") if node]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="spuvm-flow-") as name:
        three = Services(Path(name))
        try:
            for party in PARTIES:
                three.start(party)
            for party in PARTIES:
                three.wait_until_up(party)
            start = time.monotonic()
            run(three, FLOW, [])
            reports = {p: three.report(p) for p in PARTIES}
            print(f"undisturbed: {time.monotonic() - start:.1f} s, {len(NODES)} nodes")
            if any(reports[p] != reports["alice"] for p in PARTIES):
                wrong.append("the parties have different reports")
            for turn in range((len(PARTIES) if given.all else 1) if nodes else 0):
                for party in PARTIES:
                    shutil.rmtree(three.kept(party))
                start = time.monotonic()
                run(three, FLOW, [(PARTIES[(i + turn) % 3], n) for i, n in enumerate(nodes)])
                print(f"killed at {len(nodes)} nodes: {time.monotonic() - start:.1f} s")
                wrong += [f"{p} has another report" for p in PARTIES if not close(three.report(p), reports["alice"])]
            start = time.monotonic()
            run(three, FLOW, [])
            again = {p: three.last_states(p) for p in PARTIES}
            print(f"again: {time.monotonic() - start:.1f} s, {again['alice']}")
            if any(set(s.values()) - {"not needed"} != {"cached"} for s in again.values()):
                wrong.append(f"the second run was not all cached: {again}")
            run(three, FLOW.replace("max_depth = 1", "max_depth = 2"), [])
            for party in PARTIES:
                ran = {n for n, s in three.last_states(party).items() if s == "done"}
                print(f"deeper trees: {party} ran {sorted(ran)}")
                if ran != AFTER:
                    wrong.append(f"a deeper tree ran {ran} at {party}, not {AFTER}")
            expired = {"bob": lambda policy: policy + "until = 2020-01-01\n"}
            pinned = dict.fromkeys(PARTIES, approved_alone)
            other = FLOW.replace("test_size = 0.3", "test_size = 0.2")
            for what, text, policies, want in (
                ("an expired rule of bob", FLOW, expired, "refused"),
                ("a flow other than the approved one", other, pinned, "refused"),
                ("the approved flow", FLOW, pinned, "done"),
            ):
                states = decided(three, text, policies)
                print(f"{what}: {states}")
                if states != [want] * 3:
                    wrong.append(f"{what} was not {want} at all: {states}")
        finally:
            three.stop()
    print("\n".join(wrong) or "all right")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
