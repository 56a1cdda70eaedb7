"""Scripts that are not the same at every party: an error at all, and no value from the first difference on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spuvm.runtime.link.certificates import make_cluster

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
LIMIT = 120.0  # of any wait
WAYS = (
    "none", "order", "swapped", "skipped", "twice", "other input", "other constant", "another receiver", "more calls",
    "another PYU object", "fewer calls", "moved elsewhere", "public shown", "local only", "another protocol",
    "to one alone",
)  # fmt: skip

# Bob's script is the odd one. Processes are shared by all ways; each way has a session of its own.
SCRIPT = """
import json, sys, time
import numpy as np
import spuvm as spu

me, config, ways = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
PARTIES = ["alice", "bob", "carol"]
add, subtract, more, triple, four = (
    lambda a, b: a + b, lambda a, b: a - b, lambda a: a + 1, lambda a: a * 3, lambda a: a * 4)
times = lambda a, k: a * k
shown = lambda a: spu.reveal(a + 1)

def script(way, show):
    odd = me == "bob"
    alice, bob, carol = map(spu.PYU, PARTIES)
    settings = {"protocol": "REF2K"} if way == "another protocol" else {}
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES, runtime_config=settings))
    x, x2, y = alice(lambda: np.float32(5))(), alice(lambda: np.float32(50))(), bob(lambda: np.float32(7))()
    s, t = x.to(dev), y.to(dev)
    total, difference = dev(add)(s, t), dev(subtract)(s, t)
    show(spu.reveal(total))
    if way == "order" and odd:
        show(spu.reveal(difference)), show(spu.reveal(total))
    elif way == "order":
        show(spu.reveal(total)), show(spu.reveal(difference))
    elif way == "swapped":
        show(spu.reveal(dev(subtract)(t, s) if odd else dev(subtract)(s, t)))
    elif way in ("skipped", "twice"):
        for _ in range(1 if not odd else 2 if way == "twice" else 0):
            dev(more)(s)
        show(spu.reveal(total))
    elif way == "other input":
        show(spu.reveal(dev(times)(s, np.float32(2 if odd else 3))))
    elif way == "other constant":
        show(spu.reveal(dev(four if odd else triple)(s)))
    elif way == "another receiver":
        z = difference.to(carol if odd else alice)
        for p in (alice, carol):
            if z.device == p:
                p(show)(z)
    elif way == "more calls":
        if odd:
            show(spu.reveal(difference))
    elif way == "fewer calls":
        if not odd:
            show(spu.reveal(difference))
    elif way == "another PYU object":
        show(spu.reveal(dev(add)(x2 if odd else x, y)))
    elif way == "moved elsewhere":
        z = x.to(carol if odd else bob)
        z.device(show)(z)
    elif way == "public shown":
        a, b = dev(shown)(s), dev(shown)(t)
        spu.reveal(b if odd else a)
    elif way == "to one alone":
        link, sent = dev.vm.session.link, alice(lambda: np.arange(10_000.0))()
        before = link.counters.bytes_received.get(0, 0)
        there = sent.to(bob)
        bob(lambda v: show(v[-1]))(there)
        show(link.counters.bytes_received.get(0, 0) - before)
    elif way == "local only":
        z = dev(four if odd else triple)(x)
        alice(show)(z.to(alice))

for way in ways:
    printed, start, error = [], time.monotonic(), None
    try:
        spu.init(party=me, config=config)
        script(way, lambda v: printed.append(float(v)))
        spu.shutdown()
    except spu.errors.SpuError as e:
        error = f"{type(e).__name__}: {e}"
        spu.shutdown()
        time.sleep(1.5)  # peers may still be telling each other
    print(json.dumps([way, printed, error, time.monotonic() - start]), flush=True)
"""


@pytest.fixture(scope="module")
def ended(preloaded_module: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By way and party: what it printed, its error, and the seconds until then."""
    folder = tmp_path_factory.mktemp("diverging")
    config = make_cluster(folder, PARTIES, timeout_seconds=LIMIT)
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py")]
    parties = {
        p: subprocess.Popen([*command, p, str(config), json.dumps(WAYS)], stdout=-1, stderr=-1, text=True)
        for p in PARTIES
    }
    out: dict[str, dict[str, Any]] = {way: {} for way in WAYS}
    for party, process in parties.items():
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        for line in stdout.splitlines():
            way, *rest = json.loads(line)
            out[way][party] = rest
    return out


def test_equal_scripts_end_well(ended: dict[str, dict[str, Any]]) -> None:
    assert {p: rest[:2] for p, rest in ended["none"].items()} == {key: [[12.0], None] for key in PARTIES}


@pytest.mark.parametrize("way", [w for w in WAYS if w not in ("none", "another protocol", "to one alone")])
def test_nobody_goes_on(ended: dict[str, dict[str, Any]], way: str) -> None:
    for printed, error, seconds in ended[way].values():
        assert printed == [12.0]
        assert error is not None
        assert "Mismatch" in error, error
        assert seconds < LIMIT


def test_an_object_goes_to_its_receiver_alone(ended: dict[str, dict[str, Any]]) -> None:
    printed = {p: rest[0] for p, rest in ended["to one alone"].items()}
    assert printed["alice"] == [12.0, 0.0], ended["to one alone"]
    assert printed["bob"][:2] == [12.0, 9999.0]
    assert printed["bob"][2] > 80_000
    assert printed["carol"] == [12.0, 0.0]  # not even its size


def test_who_differs_in_what_is_said(ended: dict[str, dict[str, Any]]) -> None:
    for way, words in (("order", "`objects`"), ("other input", "`public arguments`"), ("other constant", "`program`")):
        for _, error, _ in ended[way].values():
            assert f"bob differs from alice and carol in {words}" in error
    assert "`end of the script`" in ended["more calls"]["alice"][1]


def test_a_protocol_that_the_operator_does_not_allow(ended: dict[str, dict[str, Any]]) -> None:
    errors = [error for _, error, _ in ended["another protocol"].values()]
    assert all(printed == [] for printed, *_ in ended["another protocol"].values())
    assert all(("asks for protocol ref2k" in e and "allows aby3" in e) or "stopped" in e for e in errors)
    assert any("asks for" in e for e in errors)


ENDS = """
import sys, time
import spuvm as spu
spu.init(party=sys.argv[1], config=sys.argv[2])
way = sys.argv[3]
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
x = spu.PYU("alice")(lambda: 1.0)().to(dev)
print(spu.reveal(x), flush=True)
if sys.argv[1] == "bob":
    if way == "exit":
        sys.exit()
    if way == "exception":
        raise ValueError("account 4711")
print(spu.reveal(x), flush=True)
"""


@pytest.mark.parametrize("way", ["none", "exit", "exception"])
def test_the_end_of_a_script_is_agreed_on(tmp_path: Path, way: str) -> None:
    config = make_cluster(tmp_path, PARTIES, timeout_seconds=LIMIT)
    (tmp_path / "ends.py").write_text(ENDS)
    command = [sys.executable, str(tmp_path / "ends.py")]
    processes = {p: subprocess.Popen([*command, p, str(config), way], stdout=-1, stderr=-1, text=True) for p in PARTIES}
    said = {p: process.communicate(timeout=300) for p, process in processes.items()}
    if way == "none":
        assert [p.returncode for p in processes.values()] == [0, 0, 0]
        return
    assert all(process.returncode != 0 for process in processes.values()), said
    assert all(out in ("", "1.0\n") for out, _ in said.values())  # an abort may overtake another's last message
    assert "4711" not in said["alice"][1] + said["carol"][1]
    words = ["end of the script"] if way == "exit" else ["bob stopped", "its script ended with an error of its own"]
    for party in ("alice", "carol"):
        assert all(w in said[party][1] for w in words)
