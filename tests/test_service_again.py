"""A job whose party dies goes on after it is back: a script's loop at its last state, with the same result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from services import entries, folder, run, services, until

from spuvm.service import jobs
from spuvm.service.again import interrupted
from spuvm.service.jobs import Source

__all__ = ["folder"]
STEPS = 8
SCRIPT = f"""
# /// spuvm
# kind = "script"
# parties = ["alice", "bob"]
# to = ["alice"]
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
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob"], {{"protocol": "REF2K", "field": "FM64"}}))


def load():
    return np.genfromtxt(files["x"], delimiter=",", names=True)["x"].astype(np.float32)


x = spu.PYU("alice")(load)()
secret = x.to(dev)
loop = spu.resumable(dev(lambda v: v * 0)(secret), {STEPS}, every=1, folder="kept", inputs=[x])
for step in loop:
    loop.state = dev(lambda s, v: s + v)(loop.state, secret)
    print("step", step, flush=True)
    while step == {STEPS // 2} and not Path("go").exists():  # until the test has seen it here
        time.sleep(0.05)
found = loop.state.to(spu.PYU("alice"))
spu.PYU("alice")(lambda v: np.save(Path(results) / "sum.npy", v))(found)
spu.shutdown()
"""


def test_a_script_that_lost_its_peers_says_so() -> None:
    """By its exit status, so that a service runs it again; one that failed by itself has Python's."""
    for error, status in (("PeerLostError", 3), ("InputError", 1)):
        script = f"import spuvm\nspuvm.init\nfrom spuvm.runtime.errors import {error}\nraise {error}('bob is gone')"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, interrupted(done.returncode)) == (status, status == 3)
        assert "bob is gone" in done.stderr


def test_a_script_goes_on_after_its_party_was_restarted(folder: Path) -> None:
    """Bob's service ends in the midst of a loop; when it is back, both go on at the last state."""
    for party in ("alice", "bob"):
        (folder / party / "policy.toml").write_text(
            f'[[allow]]\nfrom = ["alice"]\nprograms = ["{jobs.read(SCRIPT).hash}"]\ndata = {{ table = ["*"] }}\n'
            'receivers = ["alice"]\napproval = "automatic"\n'
        )

    def printed(id: str, party: str) -> str:
        path = folder / party / "state" / "jobs" / id / "output.txt"
        return path.read_text() if path.exists() else ""

    async def scenario() -> None:
        async with services(folder, "alice") as first:
            alice = first["alice"]
            async with services(folder, "bob"):
                id = alice.submit("ann", SCRIPT, {"x": Source("alice", "table", ("x",))}).id
                await until(lambda: all(f"step {STEPS // 2}" in printed(id, p) for p in ("alice", "bob")))
            for party in ("alice", "bob"):
                (folder / party / "state" / "jobs" / id / "go").touch()
            async with services(folder, "bob") as again:
                await until(lambda: alice.store.job(id).over and again["bob"].store.job(id).over)
            row = alice.store.job(id)
            assert (row.state, row.attempt) == ("done", 1), (row.reason, printed(id, "alice"))
            found.append(id)

    found: list[str] = []
    run(scenario())
    (id,) = found
    for party in ("alice", "bob"):
        steps = [int(line.split()[1]) for line in printed(id, party).splitlines() if line.startswith("step")]
        assert steps[: STEPS // 2 + 1] == list(range(STEPS // 2 + 1))
        assert steps[STEPS // 2 + 1 :] in (list(range(STEPS // 2, STEPS)), list(range(STEPS // 2 + 1, STEPS)))
    x = np.genfromtxt(folder / "alice" / "table.csv", delimiter=",", names=True)["x"]
    got = np.load(folder / "alice" / "state" / "jobs" / id / "results" / "sum.npy")
    assert np.allclose(got, STEPS * x, atol=1e-3)
    events = [e.event for e in entries(folder, "bob") if e.body.get("job") == id]
    assert events == ["asked", "decided", "started", "interrupted", "started", "ended"]
