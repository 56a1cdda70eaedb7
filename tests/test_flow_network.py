"""A flow as three processes over TLS: refused by all, killed and resumed, the same report; nothing is the master."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from flows import PARTIES

from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.config import Config

pytestmark = pytest.mark.usefixtures("preloaded")

SCRIPT = Path(__file__).parent / "flow_party.py"


def parties(folder: Path, *arguments: str) -> dict[str, list[Any]]:
    """What each party said of each attempt."""
    cluster = make_run_folder(folder / "keys", Config(parties=PARTIES), timeout=240)
    commands = {p: [sys.executable, str(SCRIPT), p, str(cluster), str(folder / "state"), *arguments] for p in PARTIES}
    ended = run_parties(commands, timeout=400)
    return {p: [json.loads(line) for line in o.stdout.splitlines()] for p, o in ended.items()}


def test_all_parties_refuse_and_agree_and_search(tmp_path: Path) -> None:
    """A changed flow, an expired grant, a run, another; two trials at once, of which what they share is done once."""
    said = parties(tmp_path, "refused", "-", "-")
    changed, expired, done, again, searched = ([said[p][i] for p in PARTIES] for i in range(5))
    assert searched[0] == searched[1] == searched[2] == {"scores": [11.0, 16.0], "match": ["cached"] * 4 + ["done"]}
    assert all("flow" in x["says"] and x["error"] in ("PeerMismatchError", "PeerAbortedError") for x in changed)
    assert {x["error"] for x in expired} == {"NotGranted"} and len({x["says"] for x in expired}) == 1
    assert "node `bills` of flow `joint` stops: the grant of bob ended on" in expired[0]["says"]
    assert done[0] == done[1] == done[2] and set(again[0]["states"].values()) == {"cached"}
    assert again[0]["found"] == done[0]["found"] and again[0]["rows"] == 22
    for p in PARTIES:  # no table, and no label's key, is where it does not belong
        files = {f.suffix for f in (tmp_path / "state" / p).rglob("*") if f.is_file() and "nodes" in f.parts}
        assert (".arrow" in files) == (p != "carol")


def test_a_party_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Bob dies as `scale` begins, and is started again; the others wait for him and go on."""
    cluster = make_run_folder(tmp_path / "keys", Config(parties=PARTIES), timeout=240)
    common = [str(cluster), str(tmp_path / "state")]
    commands = {p: [sys.executable, str(SCRIPT), p, *common, "killed", "bob", "scale"] for p in PARTIES}
    killed, again = shlex.join(commands["bob"]), shlex.join([*commands["bob"][:5], "resume", "-", "-"])
    ended = run_parties({**commands, "bob": ["sh", "-c", f"{killed} || {again}"]}, timeout=400)
    said = {p: json.loads(o.stdout) for p, o in ended.items()}
    assert said["alice"] == said["bob"] == said["carol"]
    states = said["bob"]["states"]
    assert [states[n] for n in ("match", "scale", "correlation")] == ["cached", "done", "done"]
    assert said["alice"]["rows"] == 22
